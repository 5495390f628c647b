"""The search for an order of calls, see `latchstore.stress.linearizability`.

Five additions, none of which changes an answer:

- A call that leaves every state unchanged, and whose answer the present state allows, is taken at once and
  never put back: any order of the rest that has it later can have it here.
- Pending calls with equal operations are interchangeable, so they are taken in the order of their beginnings;
  calls with equal operations and answers, in the order of their ends.
- A place is abandoned if the model excludes that a remaining call can still have its answer.
- What a model makes known of the states that calls require and lead to is in `latchstore.stress.sources`.
- A pair is not entered either if it was reached with fewer pending calls: these may all be omitted.

Rules of the search:

1. ``_after`` and ``_before`` link the remaining calls, in the order of their beginnings.
2. Only calls that returned must be taken. The search succeeds when none of them is left.
3. A frame has the place that its calls lead to, and the next calls that were not tried yet.

Thread safety: one thread uses a search.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar

from latchstore.stress.models import REFUSED, UNKNOWN, Model
from latchstore.stress.reached import Reached, alike, groups_of
from latchstore.stress.sources import Sources
from latchstore.stress.verdict import Answer

Asked = TypeVar("Asked")

#: How many calls beyond those that can be next are looked through, and how many reads of these are looked at.
_AHEAD, _READS_AHEAD = 24, 2

#: The number of calls up to which a search does without what takes longer to prepare than to search.
FEW = 12

#: Steps after which the search for a readable reason ends, if it is certain that there is no order.
_ENOUGH = 20_000


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


def optional(model: Model[Any, Any, Any], name: str) -> Any:
    """Return a method that a model need not have, or None.

    ``isinstance(model, HasParts)`` takes as long as the search of a short history.
    """
    return getattr(model, name, None)


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


class Search(Generic[Asked]):
    """One search. In `_calls` those that returned come first, each kind in the order of beginnings."""

    def __init__(
        self,
        calls: Iterable[Call[Asked]],
        model: Model[Any, Asked, Any],
        by_need: bool = True,
    ) -> None:
        # Whether calls that others must come after are tried first, not those that returned first.
        self._by_need = by_need
        ordered = sorted(calls, key=lambda call: call.begin)
        certain = [call for call in ordered if call.end is not None]
        reads = optional(model, "is_read")
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
        # A number for each call that returned, the same if they ask and got the same; empty if all differ.
        self._kinds: dict[int, int] = {}
        if count > FEW:
            groups = groups_of([(call.operation, call.answer) for call in certain])
            if len(groups) < count:
                self._kinds = {each: kind for kind, members in enumerate(groups) for each in members}
        self._alike = alike([(call.operation, call.answer) for call in pending], count)
        # Rule 1. The number `count` stands for both ends of the list.
        self._after = [*range(1, count + 1), 0]
        self._before = [count, *range(count)]
        self._initial = model.initial
        self._step = model.step
        self._may_answer = optional(model, "may_answer")
        self._outlook = self._outlook_of(model)
        self._impossible = frozenset[int]() if self._outlook is None else self._outlook.impossible
        # The first remaining call that cannot be next, of those that returned.
        self._beyond = count
        self.steps: int = 0
        self._reached = Reached()
        self._stack = [_Frame(-1, 0, 0, 0, model.initial, self._moves(0, 0, 0))]
        # The order with the most returned calls, its state, the calls that could not follow; their number.
        self._longest: list[int] = []
        self._longest_state = model.initial
        self._stuck: list[int] = []
        self._most = -1
        # The number of its calls with which the present order begins as well.
        self._agree = 0

    @property
    def has_sources(self) -> bool:
        """Whether the model makes known which calls others must come after."""
        return self._outlook is not None

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
        sources = self._outlook
        last = self.steps + steps
        while self._after[count] != count:
            frame = stack[-1]
            moves = frame.moves
            if not moves:
                self._note_longest()
                if len(stack) == 1 or self._has_met_impossible():
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
                following = self._moves(done, ahead, used)
                if self._is_hopeless(state, following) or (
                    sources is not None and sources.is_missing(state, following, done, ahead, used)
                ):
                    following = []
                stack.append(_Frame(move, done, ahead, used, state, following))
        return "valid"

    def _outlook_of(self, model: Model[Any, Any, Any]) -> Sources | None:
        """Return the sources of states if the model makes them known for all calls."""
        requires, gives, overwrites = (optional(model, name) for name in ("requires", "gives", "overwrites"))
        if requires is None or gives is None or overwrites is None or self._count <= FEW:
            return None
        asked = list(zip(self._operations, self._answered, strict=True))
        given = [gives(*each) for each in asked]
        reads = [*self._reads, *[False] * (len(given) - self._count)]
        if any(state is UNKNOWN and not read for state, read in zip(given, reads, strict=True)):
            return None
        required = [requires(*each) for each in asked]
        try:
            return Sources(
                model.initial,
                self._begins,
                self._ends,
                required,
                given,
                [overwrites(each) for each, _ in asked],
            )
        except TypeError:
            return None  # states that cannot be hashed

    def _moves(self, done: int, ahead: int, used: int) -> list[int]:
        """Return the calls to be tried next."""
        moves = self._all_moves(used)
        return moves if self._outlook is None else self._outlook.narrowed(moves, done, ahead) or moves

    def _all_moves(self, used: int) -> list[int]:
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
        self._beyond = position
        changing.sort(key=ends.__getitem__, reverse=True)
        if self._kinds and len(changing) > 1:
            # Of calls that ask and got the same, the one that returned first can be taken first.
            firsts: dict[int, int] = {}
            for each in reversed(changing):
                firsts.setdefault(self._kinds[each], each)
            changing = [*firsts.values()][::-1]
        # The call that returned first usually took effect first, or that which another one must come after.
        if self._outlook is not None and self._by_need:
            changing.sort(key=self._outlook.due([*reading, *changing]).__getitem__, reverse=True)
        return [*pending, *changing, *reading]

    def _is_hopeless(self, state: Any, moves: Iterable[int]) -> bool:
        """Return whether a remaining call cannot have its answer any more, whatever comes before it."""
        return self._may_answer is not None and any(
            self._is_excluded(state, each) for each in (*moves, *self._ahead_of_time()) if each < self._count
        )

    def _has_met_impossible(self) -> bool:
        """Return whether there is no order for a reason that comes next, or has not come for long."""
        if not self._impossible:
            return False
        met = [each for each in self._stuck if each in self._impossible]
        if self.steps > _ENOUGH:
            met = met or [min(self._impossible, key=self._ends.__getitem__)]
        self._stuck = [*met, *(each for each in self._stuck if each not in met)]
        return bool(met)

    def _is_in_vain(self, frame: _Frame, move: int) -> bool:
        """Return whether a call cannot have its answer any more, after the calls of a place."""
        return self._is_excluded(frame.state, move) or (
            self._outlook is not None
            and self._outlook.is_missing(frame.state, [move], frame.done, frame.ahead, frame.used)
        )

    def _is_excluded(self, state: Any, move: int) -> bool:
        may_answer = self._may_answer
        return move in self._impossible or (
            may_answer is not None and not may_answer(state, self._operations[move], self._answered[move])
        )

    def _ahead_of_time(self) -> Iterator[int]:
        """Yield the first reads of the calls that cannot be next: their answers show the order of others."""
        position, reads = self._beyond, 0
        for _ in range(_AHEAD):
            if position == self._count or reads == _READS_AHEAD:
                return
            if self._reads[position]:
                reads += 1
                yield position
            position = self._after[position]

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
        moves = self._all_moves(frame.used)
        excluded = (each for each in self._ahead_of_time() if self._is_excluded(frame.state, each))
        self._stuck = [each for each in (*moves, *excluded) if each < self._count]
        self._stuck.sort(key=lambda each: (not self._is_in_vain(frame, each), self._ends[each]))

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
