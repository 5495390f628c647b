"""Checks whether calls have an order that respects real time and that a model allows.

The search is that of Wing and Gong, "Testing and verifying concurrent objects" (Journal of Parallel and
Distributed Computing 17, 1993, pages 164 to 182, section 4): take a call that no other call must precede,
check whether the model allows its answer, continue with the rest, and put the call back if the rest has no
order. The search stops at the first order. Its speed comes from Lowe, "Testing for linearizability"
(Concurrency and Computation: Practice and Experience 29(4), 2017, section 3): pairs of the set of calls taken
and the state reached are memorized, and no pair is entered twice. If the model divides the calls into parts,
each part is checked by itself (Horn and Kroening, "Faster linearizability checking via P-compositionality",
FORTE 2015, section 3).

Four additions, none of which changes an answer:

- A call that leaves every state unchanged, and whose answer the present state allows, is taken at once and
  never put back: any order of the rest that has it later can have it here.
- Pending calls with equal operations are interchangeable, so they are taken in the order of their beginnings.
- A place is abandoned if the model excludes that a remaining call can still have its answer.
- A pair is not entered either if it was reached with fewer pending calls: these may all be omitted.

Rules of the search:

1. ``_after`` and ``_before`` link the remaining calls, in the order of their beginnings.
2. Only calls that returned must be taken. The search succeeds when none of them is left.
3. A frame has the place that its calls lead to, and the next calls that were not tried yet.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar

from latchstore.stress.history import Operation
from latchstore.stress.models import REFUSED, UNKNOWN, Model
from latchstore.stress.reached import Reached, alike
from latchstore.stress.verdict import VALID, Answer, Explanation, Verdict

#: Steps of a model after which the answer is "unknown".
BUDGET = 1_000_000

#: The maximum length of an order whose states are shown.
_SHOWN = 100

#: Steps of search before the next part is searched and the clock is read: at first, and at most.
_FIRST_TURN, _LONGEST_TURN = 500, 8_000

Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Call(Generic[Asked]):
    """One call of one thread.

    Attributes
    ----------
    thread : hashable
        The thread or process; the search ignores it.
    operation : object
        The called operation with its arguments, the argument of the model's `step`. Pending calls with equal
        operations count as interchangeable.
    answer : object
        The result, or a value for an exception; `UNKNOWN` if it is not known.
    begin : int or float
        Time of the call, on any clock.
    end : int or float or None
        Time of the return, on the same clock; None if it is *pending*: it may have taken effect at any time
        since the call, or never.
    """

    thread: Hashable
    operation: Asked
    answer: Any
    begin: float
    end: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a search.

    Attributes
    ----------
    steps : int
        Number of model steps.
    explained, calls : int
        Number of calls in the longest order of the part that is searched, and of its calls.
    parts : int
        Number of parts without an answer.
    """

    steps: int
    explained: int
    calls: int
    parts: int


@dataclass(frozen=True)
class Linearization(Generic[Asked]):
    """The result of a search.

    Attributes
    ----------
    answer : str
        ``"valid"``: there is an order. ``"invalid"``: there is none. ``"unknown"``: a limit was reached.
    order : tuple of Call
        An order that explains all calls that returned, with the pending ones that it needs. If the answer is
        not ``"valid"``: of the orders that the model allowed, the one with the most calls that returned.
    state : object
        The state after that order.
    refused : tuple of Call
        Calls that could be next in real time, but which the model refuses in that state or which lead to no
        longer order. The first is the one that cannot wait: it returned first, or the model has an outlook
        and excludes its answer from there on.
    steps : int
        Number of model steps.
    """

    answer: Answer
    order: tuple[Call[Asked], ...]
    state: Any
    refused: tuple[Call[Asked], ...]
    steps: int


def linearize(
    calls: Iterable[Call[Asked]],
    model: Model[Any, Asked, Any],
    *,
    steps: int | None = None,
    seconds: float | None = None,
) -> Linearization[Asked]:
    """Search for an order of calls that a model allows and that agrees with their order in real time.

    Parameters
    ----------
    calls : iterable of Call
        In any order, without those that had no effect for certain.
    model : Model
        Its states may be of any type: hashable ones are found by hash, others compared by ``==``. Its parts
        are ignored, see `linearize_parts`.
    steps : int, optional
        Maximum number of model steps; None: no limit.
    seconds : float, optional
        Time limit, checked every few thousand steps; None: no limit.

    Returns
    -------
    linearization : Linearization
    """
    return next(found for _, found in _searched({None: calls}, model, steps, seconds))


def linearize_parts(
    calls: Iterable[Call[Asked]],
    model: Model[Any, Asked, Any],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[Hashable, Linearization[Asked]]]:
    """Search for an order of each part that the model names; all calls have one if and only if each part has.

    Parameters
    ----------
    calls, model, steps, seconds
        As for `linearize`; the limits are for all parts together.
    progress : callable, optional
        Called every few thousand steps.

    Yields
    ------
    part : hashable
        The result of the model's `part`; None if it has no parts.
    linearization : Linearization
    """
    part_of = _part_of(model)
    parts: dict[Hashable, list[Call[Asked]]] = {}
    for call in calls:
        parts.setdefault(part_of(call.operation), []).append(call)
    return _searched(parts, model, steps, seconds, progress)


def _part_of(model: Model[Any, Asked, Any]) -> Callable[[Asked], Hashable]:
    """Return the function that names the part of an operation; all are one part if the model has none."""
    return _optional(model, "part") or (lambda operation: None)


def _optional(model: Model[Any, Any, Any], name: str) -> Any:
    """Return a method that a model need not have, or None.

    ``isinstance(model, HasParts)`` takes as long as the search of a short history.
    """
    return getattr(model, name, None)


def _searched(
    parts: Mapping[Hashable, Iterable[Call[Asked]]],
    model: Model[Any, Asked, Any],
    steps: int | None,
    seconds: float | None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[Hashable, Linearization[Asked]]]:
    """Search all parts in turn, a little longer each time: a part without an order may be found soon."""
    deadline = None if seconds is None else time.monotonic() + seconds
    searches = {part: _Search(calls, model) for part, calls in parts.items()}
    left = inf if steps is None else steps
    turn, every = _FIRST_TURN, 0
    while searches:
        for part, search in list(searches.items()):
            before = search.steps
            found = search.run(min(turn, left))
            taken = search.steps - before
            left, every = left - taken, every + taken
            if progress is not None:
                progress(Progress(every, search.explained, search.size, len(searches)))
            late = deadline is not None and time.monotonic() > deadline
            if found or left <= 0 or late:
                del searches[part]
                yield part, search.result(found or "unknown")
        turn = min(2 * turn, _LONGEST_TURN)


def check_linearizable(
    operations: Iterable[Operation],
    model: Model[Any, Any, Any],
    budget: int | None = BUDGET,
    seconds: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Verdict:
    """Check operations, such as those on one key, against a model.

    Parameters
    ----------
    operations : iterable of Operation
        Failed ones are ignored. The model's `step` gets the `Invocation` of each.
    model : Model
        If it names parts, each is checked by itself.
    budget : int, optional
        Maximum number of steps; None: no limit.
    seconds : float, optional
        Time limit; None: no limit.
    progress : callable, optional
        Called every few thousand steps.
    """
    recorded: dict[int, Operation] = {}
    calls: list[Call[Any]] = []
    for operation in operations:
        if operation.outcome != "fail":
            call = call_of(operation)
            recorded[id(call)] = operation
            calls.append(call)
    verdict = VALID
    for part, found in linearize_parts(calls, model, steps=budget, seconds=seconds, progress=progress):
        if found.answer == "invalid":
            part_of = _part_of(model)
            members = (each for each in calls if part_of(each.operation) == part)
            return _explained(found, members, recorded, model)
        if found.answer == "unknown":
            at = f", at {recorded[id(found.refused[0])]}" if found.refused else ""
            verdict = Verdict("unknown", f"no answer after {found.steps:,} steps{at}")
    return verdict


def call_of(operation: Operation) -> Call[Any]:
    """Return the call for an operation of a history; an "info" operation is pending."""
    if operation.outcome == "ok":
        end = operation.end
        return Call(operation.thread, operation.invocation, operation.result, operation.begin, end)
    return Call(operation.thread, operation.invocation, UNKNOWN, operation.begin, None)


def _explained(
    found: Linearization[Any],
    calls: Iterable[Call[Any]],
    recorded: dict[int, Operation],
    model: Model[Any, Any, Any],
) -> Verdict:
    """Return a verdict with the longest order, and the call that does not fit."""
    stuck = recorded[id(found.refused[0])]
    taken = {id(call) for call in found.order}
    # Operations in the order were explained; they are listed only if they ran at the same time.
    near = sorted(calls, key=lambda call: id(call) in taken)
    around = [
        other
        for other in (recorded[id(call)] for call in near)
        if other is not stuck and not other.precedes(stuck) and not stuck.precedes(other)
    ]
    beside = f"; at the same time: {'; '.join(map(str, around[:8]))}" if around else ""
    reason = f"no order of these operations explains {stuck}{beside}"
    order = tuple(recorded[id(call)] for call in found.order)
    # A reader does not look at the states of very many calls; long histories are reduced first.
    states = states_of(found.order, model) if len(order) <= _SHOWN else ()
    expects = _optional(model, "expected")
    expected = "" if expects is None else repr(expects(found.state, stuck.invocation))
    explanation = Explanation(order, states, stuck, expected, stuck.answer)
    return Verdict("invalid", reason, (stuck, *around), explanation=explanation)


def states_of(order: Iterable[Call[Any]], model: Model[Any, Any, Any]) -> tuple[str, ...]:
    """Return the model's state at the beginning and after each call of an order, as text."""
    states = [model.initial]
    for call in order:
        states.append(model.step(states[-1], call.operation, call.answer))
    return tuple(map(reprlib.repr, states))


# -- the search ---------------------------------------------------------------------------------------------


class _Frame:
    """A place of the search, and the next calls."""

    __slots__ = ("ahead", "done", "moves", "state", "taken", "used")

    def __init__(self, taken: int, done: int, ahead: int, used: int, state: Any, moves: list[int]) -> None:
        # The call that led here; -1 at the beginning.
        self.taken = taken
        # The number of calls taken without a gap, in the order of beginnings; a bit set of those beyond.
        self.done = done
        self.ahead = ahead
        # A bit set of the pending calls taken.
        self.used = used
        self.state = state
        # The next calls, in reverse order.
        self.moves = moves


class _Search(Generic[Asked]):
    """One search. In `_calls` those that returned come first, each kind in the order of beginnings."""

    def __init__(
        self,
        calls: Iterable[Call[Asked]],
        model: Model[Any, Asked, Any],
    ) -> None:
        ordered = sorted(calls, key=lambda call: call.begin)
        certain = [call for call in ordered if call.end is not None]
        reads = _optional(model, "is_read")
        pending = [
            call
            for call in ordered
            if call.end is None and (reads is None or not reads(call.operation, call.answer))
        ]
        self._calls = [*certain, *pending]
        self._count = count = len(certain)
        self._begins = [call.begin for call in self._calls]
        self._ends = [inf if call.end is None else call.end for call in certain]
        self._operations = [call.operation for call in self._calls]
        self._answered = [call.answer for call in self._calls]
        self._reads = [reads is not None and reads(call.operation, call.answer) for call in certain]
        self._alike = alike([(call.operation, call.answer) for call in pending], count)
        # Rule 1. The number `count` stands for both ends of the list.
        self._after = [*range(1, count + 1), 0]
        self._before = [count, *range(count)]
        self._initial = model.initial
        self._step = model.step
        self._may_answer = _optional(model, "may_answer")
        self.steps = 0
        self._reached = Reached()
        self._stack = [_Frame(-1, 0, 0, 0, model.initial, self._moves(0))]
        # The order with the most returned calls, its state, the calls that could not follow; their number.
        self._longest: list[int] = []
        self._longest_state = model.initial
        self._stuck: list[int] = []
        self._most = -1
        # The number of its calls with which the present order begins as well.
        self._agree = 0

    @property
    def size(self) -> int:
        """The number of calls that returned."""
        return self._count

    @property
    def explained(self) -> int:
        """The number of calls that returned, in the longest order so far."""
        frame = self._stack[-1]
        return max(self._most, frame.done + frame.ahead.bit_count())

    def run(self, steps: float) -> Answer | None:
        """Search for a number of steps; return None if there is no answer yet."""
        stack, step, count = self._stack, self._step, self._count
        operations, answers, enter = self._operations, self._answered, self._reached.enter
        last = self.steps + steps
        while self._after[count] != count:
            frame = stack[-1]
            moves = frame.moves
            if not moves:
                self._note_longest()
                if len(stack) == 1:
                    return "invalid"
                stack.pop()
                self._put_back(frame.taken)
                if len(stack) <= self._agree:
                    self._agree = len(stack) - 1
                continue
            if self.steps >= last:
                return None
            move = moves.pop()
            self.steps += 1
            try:
                state = step(frame.state, operations[move], answers[move])
            except Exception as error:
                error.add_note(f"state {frame.state!r}, {operations[move]}, answer {answers[move]!r}")
                raise
            if state is REFUSED:
                continue
            done, ahead, used = frame.done, frame.ahead, frame.used
            if move < count:
                ahead |= 1 << move - done
                while ahead & 1:
                    done += 1
                    ahead >>= 1
                if self._reads[move]:
                    moves.clear()  # nothing else needs to be tried here
            else:
                used |= 1 << move - count
            if enter(done, ahead, used, state):
                self._take(move)
                following = self._moves(used)
                if self._hopeless(state, following):
                    following = []
                stack.append(_Frame(move, done, ahead, used, state, following))
        return "valid"

    def _moves(self, used: int) -> list[int]:
        """Return the calls that may be next: no other remaining call must precede them."""
        after, begins, ends, reads, count = self._after, self._begins, self._ends, self._reads, self._count
        first_end: float = inf
        changing: list[int] = []
        reading: list[int] = []
        position = after[count]
        while position != count and begins[position] <= first_end:
            (reading if reads[position] else changing).append(position)
            if ends[position] < first_end:
                first_end = ends[position]
            position = after[position]
        pending = []
        for members, bits in self._alike:
            taken = (used & bits).bit_count()
            if taken < len(members) and begins[members[taken]] <= first_end:
                pending.append(members[taken])
        # The call that returned first usually took effect first.
        changing.sort(key=ends.__getitem__, reverse=True)
        return [*pending, *changing, *reading]

    def _hopeless(self, state: Any, moves: Iterable[int]) -> bool:
        """Return whether one of the calls cannot have its answer any more, whatever comes before it."""
        may_answer = self._may_answer
        return may_answer is not None and not all(
            may_answer(state, self._operations[each], self._answered[each])
            for each in moves
            if each < self._count
        )

    def _take(self, move: int) -> None:
        """Remove a call from the list of remaining calls."""
        if move < self._count:
            after, before = self._after[move], self._before[move]
            self._after[before], self._before[after] = after, before

    def _put_back(self, move: int) -> None:
        """Undo the latest `_take` that is not undone."""
        if move < self._count:
            self._after[self._before[move]] = self._before[self._after[move]] = move

    def _note_longest(self) -> None:
        """Record the present order, if it is longer than those before."""
        frame = self._stack[-1]
        size = frame.done + frame.ahead.bit_count()
        if size <= self._most:
            return
        self._most = size
        # Only the part that has changed is copied: orders are long, and grow by a few calls each time.
        self._longest[self._agree :] = [each.taken for each in self._stack[self._agree + 1 :]]
        self._agree = len(self._longest)
        self._longest_state = frame.state
        self._stuck = [each for each in self._moves(frame.used) if each < self._count]
        self._stuck.sort(key=lambda each: (not self._hopeless(frame.state, [each]), self._ends[each]))

    def result(self, answer: Answer) -> Linearization[Asked]:
        """Return the result, with an order: the longest one if none is complete."""
        if answer == "valid":
            self._longest = [each.taken for each in self._stack[1:]]
            self._longest_state, self._stuck = self._stack[-1].state, []
        elif answer == "unknown":
            self._note_longest()
        taken, state, refused = self._longest, self._longest_state, self._stuck
        return Linearization(
            answer,
            tuple(self._calls[each] for each in taken),
            state,
            tuple(self._calls[each] for each in refused),
            self.steps,
        )
