"""An LRU cache with a race, and a test that finds it.

Run it with

    python -m pip install pytest
    python -m pytest test_lru_race.py

`RacyLRUTest` fails: the report shows the calls, an order that explains most of them, and the lines between
which the other thread ran. `LRUTest` passes, as `LRU` looks only while it holds the lock. Run one of them
without pytest by

    python -m latchstore stress --test test_lru_race:RacyLRUTest

docs/tutorial/proving-your-class.md explains the report.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from latchstore.stress import Test, operation


class LRU:
    """A cache of `size` entries that evicts what was used least recently."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: OrderedDict[str, int] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: str) -> int | None:
        """Return the value of a key, or None."""
        with self.lock:
            if key not in self.items:
                return None
            self.items.move_to_end(key)
            return self.items[key]

    def put(self, key: str, value: int) -> None:
        """Set the value of a key, and evict another one if there are too many."""
        with self.lock:
            self.items[key] = value
            if len(self.items) > self.size:
                self.items.popitem(last=False)


class RacyLRU(LRU):
    """The same with a mistake: between the look and the lock another thread may evict the key."""

    def get(self, key: str) -> int | None:
        """Return the value of a key, or None; sometimes raise KeyError."""
        if key not in self.items:
            return None
        with self.lock:
            self.items.move_to_end(key)
            return self.items[key]


class LRUTest(Test):
    """Threads put and get; what they get must be what one thread gets in some order of the calls."""

    #: How many schedules are tried, and for how many seconds at most.
    schedules = 100
    seconds = 60

    def make(self) -> LRU:
        """Return a new cache for each schedule."""
        return LRU(2)

    @operation(key=["a", "b", "c"])
    def get(self, cache: LRU, key: str) -> int | None:
        """Get the value of a key."""
        return cache.get(key)

    @operation(key=["a", "b", "c"], value=[1, 2])
    def put(self, cache: LRU, key: str, value: int) -> None:
        """Put a value."""
        cache.put(key, value)


class RacyLRUTest(LRUTest):
    """The same test of the other class."""

    def make(self) -> LRU:
        """Return a new cache for each schedule."""
        return RacyLRU(2)
