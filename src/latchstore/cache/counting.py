"""Counts that every thread keeps for itself, and that are summed when somebody asks.

Thread safety: a thread writes its own counts alone, with no lock. Whoever asks reads them at any time, and
may be a call behind. The counts of threads that have ended are added up under a latch.
"""

from __future__ import annotations

import os
import threading
import weakref

from latchstore.delivery.waiting import Latch


class Counts:
    """What one thread has done, or all have.

    Attributes
    ----------
    hits, misses, loads, load_failures : int
        Hits without those of a near cache.
    near_hits : int
    load_seconds : float
        What the loads, and those that failed, have taken.
    undecodable : int
        Entries that were loaded again, as they could not be decoded.
    stale_served : int
        Expired values that were returned, as loads had failed.
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
        """Add what another has counted."""
        self.hits += other.hits
        self.near_hits += other.near_hits
        self.misses += other.misses
        self.loads += other.loads
        self.load_failures += other.load_failures
        self.load_seconds += other.load_seconds
        self.undecodable += other.undecodable
        self.stale_served += other.stale_served


class ThreadCounts(threading.local):
    """The counts of the calling thread, and of all.

    Attributes
    ----------
    mine : Counts
        The calling thread's.
    """

    def __init__(self, register: CountRegister) -> None:
        # Called once a thread, when it first asks.
        self.mine: Counts = register.new_counts()


class CountRegister:
    """Has the counts of all threads.

    Attributes
    ----------
    latch : Latch
        Held to add a thread's counts, and to sum them.
    """

    def __init__(self) -> None:
        # Guards what follows; held to add a thread's counts, and to sum them.
        self.latch: Latch = Latch()
        # The counts of threads, and the sum of those that have ended: one assignment changes both.
        self._all: tuple[list[tuple[weakref.ref[threading.Thread], Counts]], Counts] = [], Counts()
        _registers[id(self)] = self

    def __len__(self) -> int:
        """Return of how many threads the counts are kept one by one."""
        return len(self._all[0])

    def renew(self) -> None:
        """Go on with a free latch, in a forked child."""
        self.latch = Latch()

    def new_counts(self) -> Counts:
        """Return counts for the calling thread."""
        counts = Counts()
        self.latch.during(self._add, threading.current_thread(), counts)
        return counts

    def _add(self, thread: threading.Thread, counts: Counts) -> None:
        """Note a thread's counts, and add up those of threads that have ended."""
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


# All that are alive, for children that this process forks.
_registers: weakref.WeakValueDictionary[int, CountRegister] = weakref.WeakValueDictionary()


def _renew_in_child() -> None:
    for register in list(_registers.values()):
        register.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
