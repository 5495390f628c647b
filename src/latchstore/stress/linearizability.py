"""Whether calls have an order that keeps to real time and is one that a model allows.

The search is that of Wing and Gong, "Testing and verifying concurrent objects" (Journal of Parallel and
Distributed Computing 17, 1993, pages 164 to 182, section 4): take a call that no other call must precede,
see whether the model allows its answer, go on with the rest, and put it back if the rest has no order. The
search stops at the first order that it finds. What makes it fast enough is from Lowe, "Testing for
linearizability" (Concurrency and Computation: Practice and Experience 29(4), 2017, section 3): pairs of the
set of calls that were taken and the state that they led to are memorized, and a pair that was reached before
is not entered again. Calls are divided into parts that are checked one by one (Horn and Kroening, "Faster
linearizability checking via P-compositionality", FORTE 2015, section 3), if the model names the part of each.

Some things are added, none of which changes an answer:

- A call that leaves every state as it is, and whose answer the state at hand allows, is taken at once and
  never put back: any order of the rest that has it later can have it here.
- Pending calls that ask for the same are interchangeable, so they are taken in the order of their beginnings.
- A place is left at once if the model knows that a call which is still to be taken cannot have its answer.
- A pair is not entered either if it was reached with fewer pending calls: these may all be left out.

Rules of the search:

1. ``_after`` and ``_before`` link the calls that are still to be taken, in the order of their beginnings.
2. Only calls that return must be taken. The search has succeeded when none of them is left.
3. A frame holds the place that its calls have led to, and the calls that may follow and were not tried yet.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar

from latchstore.stress.history import Operation
from latchstore.stress.models import REFUSED, UNKNOWN, HasOutlook, HasParts, HasReads, Model
from latchstore.stress.verdict import VALID, Answer, Explanation, Verdict

#: Steps of a model that a search may take before its answer is "unknown".
BUDGET = 1_000_000

#: Calls of an order whose states are shown.
_SHOWN = 100

#: How many steps a part is searched before it is another one's turn, and the clock is looked at.
_FIRST_TURN, _LONGEST_TURN = 500, 8_000

Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Call(Generic[Asked]):
    """One call of one thread.

    Attributes
    ----------
    thread : hashable
        The thread or process. The search does not look at it.
    operation : object
        What was called, with its arguments: what the model's `step` takes. Pending calls whose operations
        are equal count as interchangeable.
    answer : object
        What was returned, or what the caller makes of an exception; `UNKNOWN` if nobody knows.
    begin : int or float
        When it was called, on any clock.
    end : int or float or None
        When it returned, on the same clock; None if it is *pending*: nobody saw it return, so it may have
        taken effect at any time since, or never.
    """

    thread: Hashable
    operation: Asked
    answer: Any
    begin: float
    end: float | None


@dataclass(frozen=True)
class Linearization(Generic[Asked]):
    """What a search has found.

    Attributes
    ----------
    answer : str
        ``"valid"``: there is an order. ``"invalid"``: there is none. ``"unknown"``: a limit was reached.
    order : tuple of Call
        An order that explains all calls which returned, with the pending ones that it needs. Unless the
        answer is ``"valid"``: of the orders that the model allowed, that with the most calls that returned.
    state : object
        The state after that order.
    refused : tuple of Call
        Those that could have been the next in real time, and that the model refused in that state or that
        led to no longer order; first the one that cannot wait: it was the first to return, or the model has
        an outlook and refuses it from there on.
    steps : int
        How many steps of the model were taken.
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
    """Search an order of calls that a model allows, and that agrees with their order in real time.

    Parameters
    ----------
    calls : iterable of Call
        In any order. Those that certainly had no effect are to be left out.
    model : Model
        Its states may be of any type: hashable ones are found by their hash, others compared by ``==``. Its
        parts are not looked at, see `linearize_parts`.
    steps : int, optional
        How many steps of the model the search may take; no limit if None.
    seconds : float, optional
        How long the search may take, looked at every few thousand steps; no limit if None.

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
) -> Iterator[tuple[Hashable, Linearization[Asked]]]:
    """Search an order for each part that the model names; all calls have one if and only if each part has.

    Parameters
    ----------
    calls, model, steps, seconds
        As of `linearize`; the limits are for all parts together.

    Yields
    ------
    part : hashable
        What the model's `part` returned; None if it has no parts.
    linearization : Linearization
    """
    parts: dict[Hashable, list[Call[Asked]]] = {}
    for call in calls:
        parts.setdefault(_part_of(call, model), []).append(call)
    return _searched(parts, model, steps, seconds)


def _part_of(call: Call[Any], model: Model[Any, Any, Any]) -> Hashable:
    return model.part(call.operation) if isinstance(model, HasParts) else None


def _searched(
    parts: Mapping[Hashable, Iterable[Call[Asked]]],
    model: Model[Any, Asked, Any],
    steps: int | None,
    seconds: float | None,
) -> Iterator[tuple[Hashable, Linearization[Asked]]]:
    """Search all parts in turn, a little longer each time: one that has no order may be found soon."""
    deadline = None if seconds is None else time.monotonic() + seconds
    searches = {part: _Search(calls, model) for part, calls in parts.items()}
    left = inf if steps is None else steps
    turn = _FIRST_TURN
    while searches:
        for part, search in list(searches.items()):
            before = search.steps
            found = search.run(min(turn, left))
            left -= search.steps - before
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
) -> Verdict:
    """Check operations, such as those on one key, against a model.

    Parameters
    ----------
    operations : iterable of Operation
        Those that failed are passed over. The model's `step` takes the `Invocation` of each.
    model : Model
        If it names parts, each is checked for itself.
    budget : int, optional
        How many steps the search may take; no limit if None.
    seconds : float, optional
        How long it may take; no limit if None.
    """
    recorded: dict[int, Operation] = {}
    calls: list[Call[Any]] = []
    for operation in operations:
        if operation.outcome != "fail":
            call = call_of(operation)
            recorded[id(call)] = operation
            calls.append(call)
    verdict = VALID
    for part, found in linearize_parts(calls, model, steps=budget, seconds=seconds):
        if found.answer == "invalid":
            members = (each for each in calls if _part_of(each, model) == part)
            return _explained(found, members, recorded, model)
        if found.answer == "unknown":
            at = f", at {recorded[id(found.refused[0])]}" if found.refused else ""
            verdict = Verdict("unknown", f"no answer after {found.steps:,} steps{at}")
    return verdict


def call_of(operation: Operation) -> Call[Any]:
    """Return the call that an operation of a history is; nothing is known of the end of an "info" one."""
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
    """Say what could not be put into any order."""
    stuck = recorded[id(found.refused[0])]
    taken = {id(call) for call in found.order}
    # Those that are in the order were explained; they matter if they were under way at the same time.
    near = sorted(calls, key=lambda call: id(call) in taken)
    around = [
        other
        for other in (recorded[id(call)] for call in near)
        if other is not stuck and not other.precedes(stuck) and not stuck.precedes(other)
    ]
    beside = f"; at the same time: {'; '.join(map(str, around[:8]))}" if around else ""
    reason = f"no order of these operations explains {stuck}{beside}"
    order = tuple(recorded[id(call)] for call in found.order)
    # Of more calls than people read nobody asks for each state, and long histories are cut to short ones.
    states = states_of(found.order, model) if len(order) <= _SHOWN else ()
    explanation = Explanation(order, states, stuck, "", stuck.answer)
    return Verdict("invalid", reason, (stuck, *around), explanation=explanation)


def states_of(order: Iterable[Call[Any]], model: Model[Any, Any, Any]) -> tuple[str, ...]:
    """Return for people the state of a model at the beginning, and after each call of an order."""
    states = [model.initial]
    for call in order:
        states.append(model.step(states[-1], call.operation, call.answer))
    return tuple(map(reprlib.repr, states))


# -- the search ---------------------------------------------------------------------------------------------


class _Frame:
    """A place of the search, and what may follow."""

    __slots__ = ("ahead", "done", "moves", "state", "taken", "used")

    def __init__(self, taken: int, done: int, ahead: int, used: int, state: Any, moves: list[int]) -> None:
        # The call that has led here; -1 at the beginning.
        self.taken = taken
        # How many calls are all taken, in the order of their beginnings; a bit set of those beyond them.
        self.done = done
        self.ahead = ahead
        # A bit set of the pending calls that were taken.
        self.used = used
        self.state = state
        # The calls that may follow, the last first.
        self.moves = moves


class _Reached:
    """The places that were entered: for each set of calls and state, the sets of pending calls."""

    def __init__(self) -> None:
        self._hashed: dict[tuple[int, int, Hashable], list[int]] = {}
        self._compared: dict[tuple[int, int], list[tuple[Any, int]]] = {}

    def enter(self, done: int, ahead: int, used: int, state: Any) -> bool:
        """Note a place; return False if it was entered with the same pending calls or fewer."""
        try:
            known = self._hashed.setdefault((done, ahead, state), [])
        except TypeError:
            return self._enter_compared(done, ahead, used, state)
        for other in known:
            if other & used == other:
                return False
        known.append(used)
        return True

    def _enter_compared(self, done: int, ahead: int, used: int, state: Any) -> bool:
        known = self._compared.setdefault((done, ahead), [])
        for other_state, other in known:
            if other & used == other and other_state == state:
                return False
        known.append((state, used))
        return True


class _Search(Generic[Asked]):
    """One search. In `_calls` those that return come first, each kind in the order of beginnings."""

    def __init__(
        self,
        calls: Iterable[Call[Asked]],
        model: Model[Any, Asked, Any],
    ) -> None:
        ordered = sorted(calls, key=lambda call: call.begin)
        certain = [call for call in ordered if call.end is not None]
        reads = model.is_read if isinstance(model, HasReads) else None
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
        self._twin = _twins(pending)
        # Rule 1. The number `count` stands for both ends of the list.
        self._after = [*range(1, count + 1), 0]
        self._before = [count, *range(count)]
        self._initial = model.initial
        self._step = model.step
        self._may_answer = model.may_answer if isinstance(model, HasOutlook) else None
        self.steps = 0
        self._reached = _Reached()
        self._stack = [_Frame(-1, 0, 0, 0, model.initial, self._moves(0))]
        # The order with the most calls that return, its state, what could not follow; how many they are.
        self._longest: tuple[tuple[int, ...], Any, tuple[int, ...]] = ((), model.initial, ())
        self._most = -1

    def run(self, steps: float) -> Answer | None:
        """Search for so many steps; return None if there is no answer yet."""
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
                continue
            if self.steps >= last:
                return None
            move = moves.pop()
            self.steps += 1
            state = step(frame.state, operations[move], answers[move])
            if state is REFUSED:
                continue
            done, ahead, used = frame.done, frame.ahead, frame.used
            if move < count:
                ahead |= 1 << move - done
                while ahead & 1:
                    done += 1
                    ahead >>= 1
                if self._reads[move]:
                    moves.clear()  # nothing else has to be tried here
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
        """Return the calls that may follow: no other call that is still to be taken must precede them."""
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
        pending = [
            count + number
            for number, twin in enumerate(self._twin)
            if not used >> number & 1
            and begins[count + number] <= first_end
            and (twin is None or used >> twin & 1)
        ]
        # That which returned first has mostly taken effect first.
        changing.sort(key=ends.__getitem__, reverse=True)
        return [*reversed(pending), *changing, *reading]

    def _hopeless(self, state: Any, moves: Iterable[int]) -> bool:
        """Tell whether one of the calls cannot have its answer any more, whatever else is done before."""
        may_answer = self._may_answer
        return may_answer is not None and not all(
            may_answer(state, self._operations[each], self._answered[each])
            for each in moves
            if each < self._count
        )

    def _take(self, move: int) -> None:
        """Take a call off the list of those that are still to be taken."""
        if move < self._count:
            after, before = self._after[move], self._before[move]
            self._after[before], self._before[after] = after, before

    def _put_back(self, move: int) -> None:
        """Undo the latest `_take` that was not undone."""
        if move < self._count:
            self._after[self._before[move]] = self._before[self._after[move]] = move

    def _note_longest(self) -> None:
        """Note the order that the search is at, if it is longer than those before."""
        frame = self._stack[-1]
        size = frame.done + frame.ahead.bit_count()
        if size <= self._most:
            return
        self._most = size
        taken = tuple(each.taken for each in self._stack[1:])
        following = [each for each in self._moves(frame.used) if each < self._count]
        following.sort(key=lambda each: (not self._hopeless(frame.state, [each]), self._ends[each]))
        self._longest = taken, frame.state, tuple(following)

    def result(self, answer: Answer) -> Linearization[Asked]:
        """Return what was found, with an order: the longest one if none is right."""
        if answer == "valid":
            self._longest = tuple(each.taken for each in self._stack[1:]), self._stack[-1].state, ()
        elif answer == "unknown":
            self._note_longest()
        taken, state, refused = self._longest
        return Linearization(
            answer,
            tuple(self._calls[each] for each in taken),
            state,
            tuple(self._calls[each] for each in refused),
            self.steps,
        )


def _twins(pending: Sequence[Call[Any]]) -> list[int | None]:
    """Return for each pending call the number of the one before it that asks for the same, if any."""
    twins: list[int | None] = []
    for number, call in enumerate(pending):
        equal = (
            other
            for other in range(number - 1, -1, -1)
            if pending[other].operation == call.operation and pending[other].answer == call.answer
        )
        twins.append(next(equal, None))
    return twins
