"""The first entry of some ranges of a metadata item's values, for work queues: one heap for each range.

1. A commit adds what an entry's item becomes to the heap of its range, and takes nothing away
   (`replace_all`). What is in a heap twice, or is not true any more, does no harm: `first` looks at the
   entry, and drops what is not so. So a commit may be applied again, or be broken off between two steps.
2. If a heap is more than twice as long as what was true in it when it was last looked through, `first` takes
   out all that is not true any more. So it stays in proportion to the entries, and each addition costs the
   same on average.

An ordered index gives all entries in their order; it pays for that by moving each key of each commit to its
place. A queue needs the first one alone.

Thread safety: none of its own. All methods are called in sections of the writer, and run builtin code alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Any

from latchstore.contract.values import Change, Entry

#: A value and its key.
Item = tuple[str, str]

#: How many items more than twice those that were true a heap may have.
_FEW = 1_000


class Head:
    """The first entries of one range.

    Parameters
    ----------
    prefix : str
        What all values of the range begin with.
    """

    __slots__ = ("_heap", "_most", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix: str = prefix
        self._heap: list[Item] = []
        self._most = _FEW

    def add(self, item: Item) -> None:
        """Add what becomes true with the commit that is being applied."""
        heappush(self._heap, item)

    def first(self, name: str, entries: dict[str, Entry], garbage: deque[object]) -> Item | None:
        """Return the first value that an entry has, and its key; between two commits."""
        heap = self._heap
        if len(heap) > self._most:
            heap = self._look_through(name, entries, garbage)
        while heap:
            item = heap[0]
            if _is_true(item, name, entries):
                return item
            heappop(heap)
        return None

    def _look_through(self, name: str, entries: dict[str, Entry], garbage: deque[object]) -> list[Item]:
        true = list({item for item in self._heap if _is_true(item, name, entries)})
        heapify(true)
        most = 2 * len(true) + _FEW
        garbage.append(self._heap)
        # No call in between.
        self._heap = true
        self._most = most
        return true

    def check(self, name: str, entries: dict[str, Entry]) -> None:
        """Raise AssertionError if an entry of the range is missing; for tests."""
        prefix = self.prefix
        expected = {
            (entry[name], key)
            for key, entry in entries.items()
            if name in entry and type(entry[name]) is str and entry[name].startswith(prefix)
        }
        assert expected <= set(self._heap), (prefix, expected - set(self._heap))
        assert not self._heap or self._heap[0] == min(self._heap), prefix


def _is_true(item: Item, name: str, entries: dict[str, Entry]) -> bool:
    value, key = item
    if key not in entries:
        return False
    entry = entries[key]
    return name in entry and type(entry[name]) is str and entry[name] == value


class Heads:
    """The first entries of some ranges, kept as an index is.

    Parameters
    ----------
    name : str
        The metadata item.
    prefixes : iterable of str
        What the values of each range begin with; none begins with another one.
    """

    __slots__ = ("_heads", "name")

    def __init__(self, name: str, prefixes: Iterable[str]) -> None:
        self.name: str = name
        self._heads: dict[str, Head] = {prefix: Head(prefix) for prefix in prefixes}

    def replace_all(self, changes: Iterable[Change]) -> None:
        """Note the changes of a commit; doing it twice is harmless."""
        name = self.name
        for key, _, new in changes:
            if new is not None and name in new:
                value: Any = new[name]
                if type(value) is str:
                    for head in self._heads.values():
                        if value.startswith(head.prefix):
                            head.add((value, key))

    def first(self, prefix: str, entries: dict[str, Entry], garbage: deque[object]) -> Item | None:
        """Return the first value of a range, and its key, between two commits; None if there is none."""
        return self._heads[prefix].first(self.name, entries, garbage)

    def check(self, entries: dict[str, Entry]) -> None:
        """Raise AssertionError if an entry of a range is missing; for tests."""
        for head in self._heads.values():
            head.check(self.name, entries)
