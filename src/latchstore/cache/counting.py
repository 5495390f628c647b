"""Statistics of a cache: each thread counts for itself, and a reader sums the counts.

Thread safety: a thread writes only its own counts, without a lock. A reader may run at any time, and may miss
the call in progress. The counts of ended threads are added up under a latch.
"""

from __future__ import annotations

import os
import threading
import weakref

from latchstore.delivery.waiting import Latch


class Counts:
    """The counts of one thread, or of all.

    Attributes
    ----------
    hits, misses, loads, load_failures : int
        Hits exclude those of a near cache.
    near_hits : int
    load_seconds : float
        Duration of all loads, failed ones included.
    undecodable : int
        Entries that could not be decoded, and were loaded again.
    stale_served : int
        Expired values that were returned after a failed load.
    """

    __slots__ = (
        "hits",
        "load_failures",
        "load_seconds",
        "loads",
        "misses",
        "near_hits",
        "stale_served",
        "undecodable",
    )

    def __init__(self) -> None:
        self.hits: int = 0
        self.near_hits: int = 0
        self.misses: int = 0
        self.loads: int = 0
        self.load_failures: int = 0
        self.load_seconds: float = 0.0
        self.undecodable: int = 0
        self.stale_served: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of another object."""
        self.hits += other.hits
        self.near_hits += other.near_hits
        self.misses += other.misses
        self.loads += other.loads
        self.load_failures += other.load_failures
        self.load_seconds += other.load_seconds
        self.undecodable += other.undecodable
        self.stale_served += other.stale_served


class ThreadCounts(threading.local):
    """The counts of the calling thread.

    Attributes
    ----------
    mine : Counts
        The calling thread's.
    """

    def __init__(self, register: CountRegister) -> None:
        # Called once per thread, at its first access.
        self.mine: Counts = register.new_counts()


class CountRegister:
    """The counts of all threads.

    Attributes
    ----------
    latch : Latch
        Held to add a thread's counts, and to sum them.
    """

    def __init__(self) -> None:
        # Guards `_all`; held to add a thread's counts, and to sum them.
        self.latch: Latch = Latch()
        # The counts of running threads, and the sum of ended ones: one assignment replaces both.
        self._all: tuple[list[tuple[weakref.ref[threading.Thread], Counts]], Counts] = [], Counts()
        _registers[id(self)] = self

    def __len__(self) -> int:
        """Return the number of threads whose counts are kept separately."""
        return len(self._all[0])

    def renew(self) -> None:
        """Replace the latch by a free one, in a forked child."""
        self.latch = Latch()

    def new_counts(self) -> Counts:
        """Return counts for the calling thread."""
        counts = Counts()
        self.latch.during(self._add, threading.current_thread(), counts)
        return counts

    def _add(self, thread: threading.Thread, counts: Counts) -> None:
        """Register a thread's counts, and sum those of ended threads."""
        of_threads, of_ended = self._all
        ended = Counts()
        ended.add(of_ended)
        alive = []
        for reference, others in of_threads:
            other = reference()
            if other is not None and other.is_alive():
                alive.append((reference, others))
            else:
                ended.add(others)
        self._all = [*alive, (weakref.ref(thread), counts)], ended

    def total(self) -> Counts:
        """Return the sum of all threads' counts."""
        return self.latch.during(self._total)

    def _total(self) -> Counts:
        of_threads, of_ended = self._all
        total = Counts()
        total.add(of_ended)
        for _, counts in of_threads:
            total.add(counts)
        return total


# All live registers, for forked children.
_registers: weakref.WeakValueDictionary[int, CountRegister] = weakref.WeakValueDictionary()


def _renew_in_child() -> None:
    for register in list(_registers.values()):
        register.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
