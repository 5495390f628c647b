"""Waiting for other threads, and keeping them out of short sections.

Everything here stands on locks that are written in C, and takes them by ``with``, or gives them back by one
call in C. CPython raises exceptions from outside (signals, ``PyThreadState_SetAsyncExc``) when a
call returns, when a Python function is entered and at backward jumps, and ``with`` has none of these between
taking such a lock and the block (no check of the eval breaker in ``BEFORE_WITH``); where it has one, on 3.14,
``contract/with_lock.py`` keeps it out. So no exception leaves one taken.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Generic, TypeVar, TypeVarTuple

from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.frames import frames_of_threads
from latchstore.contract.with_lock import for_with

#: Seconds that waits are measured in. Tests that freeze time, or let it jump, replace the functions of `time`
#: (by name, as freezegun and mocks do, or in place, as time-machine does): no wait is to be endless or short.
clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_MONOTONIC")
    else partial(time.perf_counter)
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: How often a thread lets others run before it goes to sleep.
YIELDS = 32

#: Seconds after which a thread that sleeps looks by itself whether it can go on.
LOOK_AGAIN = 0.05


# The threads of the parent, by identifier, in a child that it is about to fork.
_threads_of_parent: frozenset[int] = frozenset()


def other_threads_of_parent() -> frozenset[int]:
    """Return, in a forked child, the identifiers of the parent's threads that are not here."""
    return _threads_of_parent - {get_ident()}


def _note_threads() -> None:
    global _threads_of_parent
    _threads_of_parent = frozenset(frames_of_threads())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_threads)


class Life:
    """Is there as long as its thread runs; for weak references.

    ``Thread.is_alive`` is not for us: if an exception strikes the thread that calls it, Python 3.12 and older
    take the other one to have ended from then on, though it runs (``Thread._wait_for_tstate_lock``).
    """

    __slots__ = ("__weakref__",)


class _FirstLook(Generic[T]):
    """An attribute of a ``threading.local``, found when a thread first looks and kept from then on.

    No constructor of the local finds it: a finalizer may look in the middle of that. No ``__getattr__``
    either: with one, each look takes a call of Python's own.
    """

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, local: threading.local, owner: type) -> T:
        found: T = local.__dict__.setdefault(self._name, self._find())
        return found


class _ThisThread(threading.local):
    """The calling thread, found faster than by ``threading.current_thread()``.

    Threads are distinguished by these objects, as the identifier of an ended thread is given to a new one.
    """

    thread = _FirstLook(lambda: threading.current_thread())  # what there is when it looks
    life = _FirstLook(Life)


this_thread: _ThisThread = _ThisThread()


def is_patched_later() -> bool:
    """Return whether gevent or eventlet have replaced what `threading` has after we had taken it from there.

    Then the greenlets of a thread are one thread to us, and each wait of one keeps all of them from running.
    """
    return threading.get_ident is not get_ident


def warn_if_patched_later() -> None:
    """Warn of that, once."""
    global _warned
    if threading.get_ident is not get_ident and not _warned:  # hot path: as `is_patched_later`
        _warned = True
        warnings.warn(
            "threading was patched (by gevent or eventlet) after latchstore had been imported: while one "
            "greenlet waits none runs, and only flush() and close() call listeners; patch before the import",
            RuntimeWarning,
            stacklevel=3,
        )


_warned = False


def thread_name(thread: threading.Thread) -> str:
    """Return the name of a thread, for error messages."""
    return thread.name if thread.is_alive() else f"{thread.name} (ended)"


class Bell:
    """Ends the sleep of one thread: a lock that is taken when it is made, and given back to ring.

    No ``SimpleQueue``: until CPython 3.12 its ``get(timeout=...)`` waits for ever if the timeout has passed
    when it counts what is left of it. That happens after a signal whose handler took longer than that, and in
    a process that the system has stopped for a moment. ``Lock.acquire`` looks for that
    (``acquire_timed`` in CPython's Modules/_threadmodule.c).

    Attributes
    ----------
    release : callable
        Rings, by one call in C; RuntimeError if it was rung before.
    """

    __slots__ = ("_lock", "release")

    def __init__(self) -> None:
        # Guards nothing: taken means that nobody has rung.
        self._lock = threading.Lock()
        self._lock.acquire()
        self.release: Callable[[], None] = self._lock.release

    def ring(self) -> None:
        """Wake the thread, or let its next sleep end at once."""
        try:
            self.release()
        except RuntimeError:
            return  # it was rung before

    def is_rung(self) -> bool:
        """Return whether it was rung, and no sleep has ended by that."""
        return not self._lock.locked()

    def sleep(self, seconds: float) -> bool:
        """Sleep until it is rung, for so many seconds at the most; return whether it was rung."""
        return self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class Waiters:
    """Threads that sleep until something may have come true, each at a `Bell` of its own."""

    __slots__ = ("bells",)

    def __init__(self) -> None:
        #: Those of the threads that sleep now.
        self.bells: deque[Bell] = deque()

    def wait(
        self,
        ready: Callable[[], object],
        timeout: float,
        yields: int = YIELDS,
        look_again: float = LOOK_AGAIN,
    ) -> bool:
        """Wait until `ready` returns something true; return whether it did in time.

        First other threads may run a few times. A thread that waits for a lock of the system gets it when
        it is released, and only then waits for the interpreter, for a switch interval, while all that need
        the lock wait as well: a convoy (Blasgen, Gray, Mitoma and Price, "The convoy phenomenon", ACM SIGOPS
        Operating Systems Review 13(2), 1979). A thread that looks when it is running holds nobody up.

        Parameters
        ----------
        ready : callable
        timeout : float
            Seconds; negative waits for ever. They are counted by the waits themselves, so that a test which
            has frozen the clock does not make the wait endless.
        yields : int
            How often others may run before the thread goes to sleep.
        look_again : float
            Seconds after which it looks even if nobody has rung.
        """
        warn_if_patched_later()
        for _ in range(yields):
            time.sleep(0)
            if ready():
                return True
        if sys.is_finalizing():
            return False  # whoever could change that does not run any more
        bell = Bell()
        left = timeout
        try:
            while True:
                self.bells.append(bell)
                if ready():
                    return True
                if left == 0:
                    return False
                left = self._sleep(bell, left, look_again)
                if ready():
                    return True
        finally:
            self.discard(bell)

    def _sleep(self, bell: Bell, left: float, look_again: float) -> float:
        """Sleep until the bell rings, `look_again` seconds at the most; return what is left of the time."""
        seconds = look_again if left < 0 else min(look_again, left)
        begun = clock()
        if bell.sleep(seconds):
            seconds = clock() - begun
        else:
            self.discard(bell)
        return left if left < 0 else max(0.0, left - seconds)

    def discard(self, bell: Bell) -> None:
        """Take away the bell of a thread that sleeps no more."""
        try:
            self.bells.remove(bell)
        except ValueError:
            return  # it has been rung

    def ring(self) -> None:
        """Wake whoever has slept longest; nothing happens if nobody sleeps."""
        if self.bells:
            try:
                self.bells.popleft().ring()
            except IndexError:
                return  # another thread was quicker

    def ring_all(self) -> None:
        """Wake all who sleep now."""
        for _ in range(len(self.bells)):
            self.ring()


class Latch:
    """Mutual exclusion for short sections in which nothing but code of ours runs."""

    __slots__ = ("_holder", "_lock")

    def __init__(self) -> None:
        # Held while `during` calls its function: microseconds, and no other lock is taken meanwhile.
        self._lock = for_with(threading.Lock())
        # The identifier of the thread that is in the section, else 0. Set right after the lock was taken and
        # taken back right before it is given back, with no point in between at which CPython runs a signal
        # handler or a finalizer; so whoever comes in the middle of a section of its own thread finds it.
        self._holder = 0

    def locked(self) -> bool:
        """Return whether a thread is in a section."""
        return self._lock.locked()

    def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of ours while holding the latch.

        Raises
        ------
        LockTimeoutError
            If this thread holds it: a finalizer or a signal handler calls in the middle of such a section.
        """
        ident = get_ident()
        if self._holder == ident:
            raise LockTimeoutError("this thread is in the middle of such a call and would wait for itself")
        # The end of a ``with`` needs a tuple of three: this one, which the interpreter keeps for it, so that
        # the lock is given back though there is no memory.
        spare = (ident, function, arguments)
        with self._lock:
            self._holder = ident
            try:
                return function(*arguments)
            finally:
                self._holder = 0
                del spare
