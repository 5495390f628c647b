"""Counts that every thread keeps for itself, and that are summed when somebody asks.

Thread safety: a thread writes its own counts alone, with no lock. Whoever asks reads them at any time, and
may be a call behind. The counts of threads that have ended are added up under a latch.
"""

from __future__ import annotations

import threading
import weakref

from latchstore.locking import Latch


class Counts:
    """What one thread has done, or all have.

    Attributes
    ----------
    hits, misses, loads, load_failures : int
    load_seconds : float
        What the loads, and those that failed, have taken.
    """

    __slots__ = ("hits", "load_failures", "load_seconds", "loads", "misses")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.loads = 0
        self.load_failures = 0
        self.load_seconds = 0.0

    def add(self, other: Counts) -> None:
        """Add what another has counted."""
        self.hits += other.hits
        self.misses += other.misses
        self.loads += other.loads
        self.load_failures += other.load_failures
        self.load_seconds += other.load_seconds


class ThreadCounts(threading.local):
    """The counts of the calling thread, and of all.

    Attributes
    ----------
    mine : Counts
        The calling thread's.
    """

    def __init__(self, register: CountRegister) -> None:
        # Called once a thread, when it first asks.
        self.mine = register.new_counts()


class CountRegister:
    """Knows the counts of all threads."""

    def __init__(self) -> None:
        # Guards the two that follow; held to add a thread's counts, and to sum them.
        self._latch = Latch()
        self._of_threads: list[tuple[weakref.ref[threading.Thread], Counts]] = []
        self._of_ended = Counts()

    def renew(self) -> None:
        """Go on with a free latch, in a forked child."""
        self._latch = Latch()

    def new_counts(self) -> Counts:
        """Return counts for the calling thread."""
        counts = Counts()
        self._latch.during(self._add, threading.current_thread(), counts)
        return counts

    def _add(self, thread: threading.Thread, counts: Counts) -> None:
        self._fold()
        self._of_threads.append((weakref.ref(thread), counts))

    def _fold(self) -> None:
        """Add up the counts of threads that have ended, so that they do not pile up."""
        alive = []
        for reference, counts in self._of_threads:
            thread = reference()
            if thread is not None and thread.is_alive():
                alive.append((reference, counts))
            else:
                self._of_ended.add(counts)
        self._of_threads = alive

    def total(self) -> Counts:
        """Return the sum of all threads' counts."""
        return self._latch.during(self._total)

    def _total(self) -> Counts:
        total = Counts()
        total.add(self._of_ended)
        for _, counts in self._of_threads:
            total.add(counts)
        return total
