"""Checks whether commits took effect in the order of their revisions, and whether reads fit that order.

Revisions give the order of the commits, so no search is needed. The commits are replayed in that order, which
gives the times, counted in commits, at which each key had each value. Then each operation is placed as early
as possible: a commit at its revision, a read between two commits where all that it read was current, and none
before an operation that had ended when it began. If an operation has no such place, no order is correct; if
all have one, this is a correct order. Operations are placed in the order of their beginnings, so the check
takes n log n steps and stores no states.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from math import inf

from latchstore.stress.history import Operation
from latchstore.stress.models import replayed
from latchstore.stress.verdict import VALID, Verdict

#: The interval in which a key had a value, from one place to before another. Places count commits in order:
#: the commit with number n has place n; everything else is between two of them.
_Window = tuple[float, float]


def changes(operation: Operation) -> bool:
    """Return whether an operation of several steps changed a key, and so must have a revision."""
    return operation.outcome == "ok" and any(
        name == "set" or (name in ("delete", "swap") and result)
        for (name, _, _), result in zip(operation.argument, operation.result, strict=True)
    )


def check_revision_order(operations: Iterable[Operation]) -> Verdict:
    """Check operations in the form of `StoreModel`; those that changed something have a revision.

    Returns
    -------
    verdict : Verdict
        "unknown" if a change has no revision, or its end is not known.
    """
    certain: list[Operation] = []
    for operation in operations:
        if operation.outcome == "info":
            if any(name not in ("get", "exists") for name, _, _ in operation.argument):
                return Verdict("unknown", f"({operation}) has no revision, as its end is unknown")
        elif operation.outcome == "ok":
            if changes(operation) and operation.revision is None:
                return Verdict("unknown", f"({operation}) has no revision")
            certain.append(operation)
    commits = sorted((each for each in certain if changes(each)), key=lambda each: each.revision or 0)
    timeline = _Timeline()
    problem = timeline.replay(commits)
    return _check_places(certain, commits, timeline) if problem is None else problem


class _Timeline:
    """The value of each key over the places."""

    def __init__(self) -> None:
        self._values: dict[str, Hashable] = {}
        # Intervals in order, by key and value, and by key and existence.
        self._windows: dict[tuple[str, str, Hashable], list[_Window]] = {}
        self._since: dict[str, float] = {}

    def replay(self, commits: Sequence[Operation]) -> Verdict | None:
        """Replay the commits in order; return a verdict if one of them read something else."""
        for place, commit in enumerate(commits, 1):
            if place > 1 and commits[place - 2].revision == commit.revision:
                reason = f"({commits[place - 2]}) and ({commit}) both have revision {commit.revision}"
                return Verdict("invalid", reason, (commits[place - 2], commit))
            before = dict(self._values)
            results = replayed(self._values, commit.argument)
            if results != commit.result:
                reason = f"({commit}): replayed in the order of revisions, it should have had {results!r}"
                return Verdict("invalid", reason, (commit,))
            for key in {key for _, key, _ in commit.argument}:
                if before.get(key) != self._values.get(key):
                    self._end_window(key, before.get(key), place)
                    self._since[key] = place
        for key, value in self._values.items():
            self._end_window(key, value, inf)
            self._since[key] = inf
        return None

    def _end_window(self, key: str, value: Hashable, place: float) -> None:
        window = self._since.get(key, 0), place
        seen: tuple[tuple[str, Hashable], ...] = (("get", value), ("exists", value is not None))
        for name, result in seen:
            windows = self._windows.setdefault((key, name, result), [])
            if name == "exists" and windows and windows[-1][1] == window[0]:
                window = windows.pop()[0], place
            windows.append(window)

    def place(self, read: Operation, earliest: float) -> float | None:
        """Return the first place, from a given one on, where all that an operation read was current."""
        place = earliest
        waiting = True
        while waiting:
            waiting = False
            for (name, key, _), result in zip(read.argument, read.result, strict=True):
                later = self._place_of("exists" if name in ("delete", "swap") else name, key, result, place)
                if later is None:
                    return None
                if later > place:
                    place, waiting = later, True
        return place

    def _place_of(self, name: str, key: str, result: Hashable, place: float) -> float | None:
        windows = self._windows.get((key, name, result))
        if windows is None:
            # A key that was never changed is missing throughout; other keys have intervals.
            never = result is None if name == "get" else not result
            return place if never and key not in self._since else None
        number = bisect_right(windows, place, key=lambda window: window[1])
        if number < len(windows):
            return max(place, windows[number][0])
        # The last interval of a missing key has no end, as no value follows.
        absent = (result is None or result is False) and key not in self._values
        return max(place, self._since.get(key, 0)) if absent else None


def _check_places(
    operations: Iterable[Operation], commits: Sequence[Operation], timeline: _Timeline
) -> Verdict:
    """Place each operation as early as possible."""
    number_of = {id(commit): place for place, commit in enumerate(commits, 1)}
    ended: list[tuple[int, int, float, Operation]] = []
    # The latest place of operations that had ended, and the operation there.
    bound: float = 0
    last: Operation | None = None
    for count, operation in enumerate(sorted(operations, key=lambda each: each.begin)):
        while ended and ended[0][0] < operation.begin:
            _, _, place, other = heapq.heappop(ended)
            if place > bound or last is None:
                bound, last = place, other
        found: float | None = number_of.get(id(operation))
        if found is None:
            found = timeline.place(operation, bound)
        elif found <= bound:
            # An operation that had ended before it began is placed already: it is not placed before that.
            found = None
        if found is None:
            after = "" if last is None else f" and comes after ({last}), which had ended before it began"
            reason = f"({operation}) has no place in the order of the revisions{after}"
            told = tuple(each for each in (operation, last) if each is not None)
            return Verdict("invalid", reason, told)
        if operation.end is not None:
            heapq.heappush(ended, (operation.end, count, found, operation))
    return VALID
