"""The first entry of some ranges of a metadata item's values, for work queues: a line and a heap for each.

1. A commit adds the new value of an entry to its range, and removes nothing (`replace_all`): to the end of
   the line if it comes after all that is there, as for most jobs, else to the heap. Duplicate and outdated
   items do no harm: `first` reads the entry, and drops items that do not match it. So a commit may be applied
   again, or be interrupted between two steps.
2. If a range has more than twice as many items as were valid at the last cleanup, `first` removes all
   outdated ones. So its size stays proportional to the entries, and each addition has the same cost on
   average.

An ordered index gives all entries in order, at the price of moving each key of each commit to its place. A
queue needs only the first one.

Thread safety: none of its own. All methods are called in sections of the writer, and run builtin code only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from latchstore.contract.values import Change, Entry
from latchstore.engine.first_values import FirstValues, Item

if TYPE_CHECKING:
    from latchstore.engine.indexed import IndexedEngine

#: The items that a range may have beyond twice those that were valid.
_FEW = 1_000


class Head:
    """The first entries of one range.

    Parameters
    ----------
    prefix : str
        The prefix of all values of the range.
    """

    __slots__ = ("_heap", "_line", "_most", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix: str = prefix
        # In order. hot path: taking the first item of a heap compares one item on each of its levels.
        self._line: deque[Item] = deque()
        self._heap: list[Item] = []
        self._most = _FEW

    def __len__(self) -> int:
        return len(self._line) + len(self._heap)

    def add(self, item: Item) -> None:
        """Add an item that is valid from the commit that is being applied."""
        line = self._line
        if not line or item >= line[-1]:
            line.append(item)
        else:
            heappush(self._heap, item)

    def first(self, name: str, entries: dict[str, Entry], garbage: deque[object]) -> Item | None:
        """Return the first value that an entry has, and its key; called between two commits."""
        if len(self._line) + len(self._heap) > self._most:  # hot path: no call
            self._look_through(name, entries, garbage)
        line, heap = self._line, self._heap
        while line:
            value, key = line[0]
            # hot path: a valid value is mostly the very string that was added.
            if key in entries:
                entry = entries[key]
                if name in entry and (entry[name] is value or _is_true(line[0], name, entries)):
                    break
            line.popleft()
        if not heap:
            return line[0] if line else None
        while heap and not _is_true(heap[0], name, entries):
            heappop(heap)
        if not (line and heap):
            return line[0] if line else heap[0] if heap else None
        return min(line[0], heap[0])

    def _look_through(self, name: str, entries: dict[str, Entry], garbage: deque[object]) -> None:
        true = {item for item in (*self._line, *self._heap) if _is_true(item, name, entries)}
        line: deque[Item] = deque(sorted(true))
        heap: list[Item] = []
        most = 2 * len(true) + _FEW
        garbage.append((self._line, self._heap))
        # No call in between.
        self._line = line
        self._heap = heap
        self._most = most

    def check(self, name: str, entries: dict[str, Entry]) -> None:
        """Raise AssertionError if an entry of the range is missing; for tests."""
        prefix = self.prefix
        expected = {
            (entry[name], key)
            for key, entry in entries.items()
            if name in entry and type(entry[name]) is str and entry[name].startswith(prefix)
        }
        there = {*self._line, *self._heap}
        assert expected <= there, (prefix, expected - there)
        assert list(self._line) == sorted(self._line), prefix
        assert not self._heap or self._heap[0] == min(self._heap), prefix


def _is_true(item: Item, name: str, entries: dict[str, Entry]) -> bool:
    value, key = item
    if key not in entries:
        return False
    entry = entries[key]
    return name in entry and type(entry[name]) is str and entry[name] == value


class Heads:
    """The first entries of some ranges, maintained like an index.

    Parameters
    ----------
    name : str
        The metadata item.
    prefixes : iterable of str
        The prefixes of the ranges; none is a prefix of another.
    """

    __slots__ = ("_heads", "name")

    def __init__(self, name: str, prefixes: Iterable[str]) -> None:
        self.name: str = name
        self._heads: dict[str, Head] = {prefix: Head(prefix) for prefix in prefixes}

    def replace_all(self, changes: Iterable[Change]) -> None:
        """Record the changes of a commit; may be repeated."""
        name = self.name
        for key, _, new in changes:
            if new is not None and name in new:
                value: Any = new[name]
                if type(value) is str:
                    for head in self._heads.values():
                        if value.startswith(head.prefix):
                            head.add((value, key))

    def first(self, prefix: str, entries: dict[str, Entry], garbage: deque[object]) -> Item | None:
        """Return the first value of a range, and its key, or None; called between two commits."""
        return self._heads[prefix].first(self.name, entries, garbage)

    def __len__(self) -> int:
        """Return the number of items, including outdated ones."""
        return sum(map(len, self._heads.values()))

    def check(self, entries: dict[str, Entry]) -> None:
        """Raise AssertionError if an entry of a range is missing; for tests."""
        for head in self._heads.values():
            head.check(self.name, entries)


class KeptValues(FirstValues):
    """The first values that an engine maintains in `Heads`.

    Parameters
    ----------
    engine : IndexedEngine
    heads : Heads
    """

    __slots__ = ("_engine", "_heads")

    def __init__(self, engine: IndexedEngine, heads: Heads) -> None:
        self._engine = engine
        self._heads = heads

    @property
    def may_wait(self) -> bool:
        return bool(self._engine.owner.claims)

    def first(self, prefix: str) -> Item | None:
        engine = self._engine
        return self._heads.first(prefix, engine.entries, engine.garbage)

    def look(self, prefixes: Sequence[str]) -> list[Item | None]:
        return self._engine.exclusively("a work queue", lambda: list(map(self.first, prefixes)))
