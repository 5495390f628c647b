"""Whether the operations have an order that keeps to real time and is one that a model allows.

The search is that of Wing and Gong, "Testing and verifying concurrent objects" (Journal of Parallel and
Distributed Computing 17, 1993), with the memory of Lowe, "Testing for linearizability" (Concurrency and
Computation 29(4), 2017, section 3): what was reached before, the same operations in another order with the
same state, is not looked at again. Where no operation is under way the history is cut: what comes after
depends on the states that the part before can end in, and on nothing else of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import inf
from typing import Protocol

from latchstore.stress.history import Operation
from latchstore.stress.verdict import VALID, Verdict

#: Steps that a search may take before its answer is "unknown".
BUDGET = 1_000_000


class Model(Protocol):
    """What one thread alone would see."""

    @property
    def initial(self) -> Hashable:
        """The state at the beginning."""

    def step(self, state: Hashable, operation: Operation) -> Iterable[Hashable]:
        """Return the states that there may be after the operation; none if it cannot have gone as it did.

        Of an operation with the outcome "info" the result is not known: whatever it was is allowed.
        """


class OutOfBudgetError(Exception):
    """The search took more steps than it was given."""


def check_linearizable(operations: Iterable[Operation], model: Model, budget: int = BUDGET) -> Verdict:
    """Check operations, such as those on one key, against a model.

    Parameters
    ----------
    operations : iterable of Operation
        Those that failed are passed over.
    model : Model
    budget : int
        How many steps the search may take.
    """
    relevant = sorted((each for each in operations if each.outcome != "fail"), key=lambda each: each.begin)
    states: set[Hashable] = {model.initial}
    left = budget
    for part in quiescent_parts(relevant):
        search = _Search(part, model, left)
        try:
            after = search.final_states(states)
        except OutOfBudgetError:
            return Verdict("unknown", f"no answer after {budget:,} steps, at {part[0]}")
        left = search.budget
        if not after:
            return search.explain()
        states = after
    return VALID


def quiescent_parts(operations: Sequence[Operation]) -> Iterable[list[Operation]]:
    """Cut operations, in the order of their beginnings, where none is under way."""
    part: list[Operation] = []
    latest: float = -inf
    for operation in operations:
        if part and latest < operation.begin:
            yield part
            part = []
        part.append(operation)
        latest = max(latest, _end(operation))
    if part:
        yield part


def _end(operation: Operation) -> float:
    return inf if operation.end is None or operation.outcome == "info" else operation.end


class _Search:
    """The search through one part.

    A place in the search is: how many of the operations, in the order of their beginnings, are all done; a
    bit set of those done beyond them; a bit set of the done ones among those that nobody saw end, which may
    be left out; and the state.
    """

    def __init__(self, part: Sequence[Operation], model: Model, budget: int) -> None:
        self._certain = [operation for operation in part if _end(operation) < inf]
        self._open = [operation for operation in part if _end(operation) == inf]
        self._model = model
        self.budget = budget
        # The most operations that any order could do, and what came next then.
        self._furthest = 0

    def final_states(self, states: Iterable[Hashable]) -> set[Hashable]:
        """Return the states in which the part can end, if it begins in one of `states`."""
        final: set[Hashable] = set()
        places: list[tuple[int, int, int, Hashable]] = [(0, 0, 0, state) for state in states]
        known = set(places)
        while places:
            place = places.pop()
            done, ahead, opened, state = place
            self._furthest = max(self._furthest, done)
            if done == len(self._certain):
                final.add(state)
            for following in self._following(done, ahead, opened, state):
                if following not in known:
                    known.add(following)
                    places.append(following)
        return final

    def _following(
        self, done: int, ahead: int, opened: int, state: Hashable
    ) -> Iterable[tuple[int, int, int, Hashable]]:
        """Return the places that one more operation leads to."""
        certain, step = self._certain, self._model.step
        first_end: float = inf
        for position in range(done, len(certain)):
            operation = certain[position]
            if operation.begin > first_end:
                break  # something that is still to be done had ended before
            if ahead >> (position - done) & 1:
                continue
            self._spend()
            first_end = min(first_end, _end(operation))
            for after in step(state, operation):
                yield (*_advanced(done, ahead | 1 << (position - done)), opened, after)
        for position, operation in enumerate(self._open):
            if opened >> position & 1 or operation.begin > self._first_end(done, ahead):
                continue
            self._spend()
            for after in step(state, operation):
                yield done, ahead, opened | 1 << position, after

    def _first_end(self, done: int, ahead: int) -> float:
        """Return when the first of the operations that are still to be done had ended."""
        first_end: float = inf
        for position in range(done, len(self._certain)):
            operation = self._certain[position]
            if operation.begin > first_end:
                break
            if not ahead >> (position - done) & 1:
                first_end = min(first_end, _end(operation))
        return first_end

    def _spend(self) -> None:
        self.budget -= 1
        if self.budget < 0:
            raise OutOfBudgetError

    def explain(self) -> Verdict:
        """Say what could not be put into any order, once there is no final state."""
        stuck = self._certain[self._furthest]
        around = [
            other
            for other in [*self._certain, *self._open]
            if other is not stuck and not other.precedes(stuck) and not stuck.precedes(other)
        ]
        beside = f"; at the same time: {'; '.join(map(str, around[:8]))}" if around else ""
        reason = f"no order of these operations explains {stuck}{beside}"
        return Verdict("invalid", reason, (stuck, *around))


def _advanced(done: int, ahead: int) -> tuple[int, int]:
    """Count the operations that are all done, from the bits of those done beyond them."""
    while ahead & 1:
        done += 1
        ahead >>= 1
    return done, ahead
