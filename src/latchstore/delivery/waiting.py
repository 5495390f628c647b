"""Waits for other threads, and mutual exclusion for short sections.

All of it is built on locks written in C, which are acquired by ``with`` or released by one call in C. CPython
raises exceptions from outside (signals, ``PyThreadState_SetAsyncExc``) when a call returns, when a Python
function is entered and at backward jumps. ``with`` has none of these between acquiring such a lock and its
block (no check of the eval breaker in ``BEFORE_WITH``); on 3.14, where it has one, ``contract/with_lock.py``
avoids it. So no exception leaves a lock acquired.
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
from latchstore.contract.frames import identifiers_of_threads
from latchstore.contract.with_lock import for_with

#: The monotonic clock of waits, in seconds. Tests that freeze or move time replace the functions of `time`
#: (by name, as freezegun and mocks do, or in place, as time-machine does); that must not make a wait endless
#: or short.
clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_MONOTONIC")
    else partial(time.perf_counter)
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: How often a waiting thread yields before it sleeps.
YIELDS = 32

#: Seconds after which a sleeping thread checks by itself whether it can continue.
LOOK_AGAIN = 0.05


# The identifiers of the parent's threads, in a child; set before each fork.
_threads_of_parent: frozenset[int] = frozenset()


def other_threads_of_parent() -> frozenset[int]:
    """Return, in a forked child, the identifiers of the parent's other threads, which do not exist here."""
    return _threads_of_parent - {get_ident()}


def _note_threads() -> None:
    global _threads_of_parent
    _threads_of_parent = identifiers_of_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_threads)


class Life:
    """An object that exists as long as its thread runs; for weak references.

    It replaces ``Thread.is_alive``: if an exception interrupts the caller of that, Python 3.12 and older
    report the running thread as ended from then on (``Thread._wait_for_tstate_lock``).
    """

    __slots__ = ("__weakref__",)


class _FirstLook(Generic[T]):
    """An attribute of a ``threading.local``, computed when a thread first reads it and kept from then on.

    It is not computed in the constructor of the local, since a finalizer may read it in the middle of that;
    nor in ``__getattr__``, which would make each read a Python call.
    """

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, local: threading.local, owner: type) -> T:
        found: T = local.__dict__.setdefault(self._name, self._find())
        return found


class _ThisThread(threading.local):
    """The calling thread; faster than ``threading.current_thread()``.

    These objects identify threads, since a new thread may get the identifier of one that has ended.
    """

    thread = _FirstLook(lambda: threading.current_thread())  # looked up late, so that patches apply
    life = _FirstLook(Life)


this_thread: _ThisThread = _ThisThread()


def is_patched_later() -> bool:
    """Return whether gevent or eventlet patched `threading` after this module imported its functions.

    Then the greenlets of a thread are one thread here, and the wait of one blocks all of them.
    """
    return threading.get_ident is not get_ident


def warn_if_patched_later() -> None:
    """Warn of a late patch (`is_patched_later`), once."""
    global _warned
    if threading.get_ident is not get_ident and not _warned:  # hot path: as `is_patched_later`
        _warned = True
        warnings.warn(
            "threading was patched by gevent or eventlet after latchstore was imported: a waiting greenlet "
            "blocks all others, and only flush() and close() call listeners; patch before the import",
            RuntimeWarning,
            stacklevel=3,
        )


_warned = False


def thread_name(thread: threading.Thread) -> str:
    """Return the name of a thread, for error messages."""
    return thread.name if thread.is_alive() else f"{thread.name} (ended)"


class Bell:
    """Ends the sleep of one thread: a lock that is acquired when the bell is created, and released to ring.

    Not a ``SimpleQueue``: until CPython 3.12 its ``get(timeout=...)`` waits forever if the timeout has
    expired when it computes the remaining time. That happens after a signal whose handler took longer, and in
    a process that the system has stopped for a moment. ``Lock.acquire`` checks for that (``acquire_timed`` in
    CPython's Modules/_threadmodule.c).

    Attributes
    ----------
    release : callable
        Rings, by one call in C; RuntimeError if the bell was rung before.
    """

    __slots__ = ("_lock", "release")

    def __init__(self) -> None:
        # Guards nothing: acquired means that the bell has not been rung.
        self._lock = threading.Lock()
        self._lock.acquire()
        self.release: Callable[[], None] = self._lock.release

    def ring(self) -> None:
        """Wake the thread, or let its next sleep end at once."""
        try:
            self.release()
        except RuntimeError:
            return  # rung before

    def is_rung(self) -> bool:
        """Return whether the bell was rung and no sleep has ended by that ring."""
        return not self._lock.locked()

    def sleep(self, seconds: float) -> bool:
        """Sleep until the bell rings, at most `seconds`; return whether it rang."""
        return self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class Waiters:
    """Threads that sleep until a condition may have become true, each at a `Bell` of its own."""

    __slots__ = ("bells",)

    def __init__(self) -> None:
        #: The bells of the threads that sleep now.
        self.bells: deque[Bell] = deque()

    def wait(
        self,
        ready: Callable[[], object],
        timeout: float,
        yields: int = YIELDS,
        look_again: float = LOOK_AGAIN,
    ) -> bool:
        """Wait until `ready` returns a true value; return whether it did in time.

        The thread first yields a few times. A thread that waits for a lock of the system gets it when it is
        released, and only then waits for the interpreter, for a switch interval, while all other threads that
        need the lock wait as well: a convoy (Blasgen, Gray, Mitoma and Price, "The convoy phenomenon", ACM
        SIGOPS Operating Systems Review 13(2), 1979). A thread that checks while it is running blocks no
        others.

        Parameters
        ----------
        ready : callable
        timeout : float
            Seconds; negative waits forever. The waits themselves count them, so that a test which has frozen
            the clock does not make the wait endless.
        yields : int
            How often to yield before the thread sleeps.
        look_again : float
            Seconds after which it checks without a ring.
        """
        warn_if_patched_later()
        for _ in range(yields):
            time.sleep(0)
            if ready():
                return True
        if sys.is_finalizing():
            return False  # no other thread runs any more that could make it true
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
        """Sleep until the bell rings, at most `look_again` seconds; return the remaining time."""
        seconds = look_again if left < 0 else min(look_again, left)
        begun = clock()
        if bell.sleep(seconds):
            seconds = clock() - begun
        else:
            self.discard(bell)
        return left if left < 0 else max(0.0, left - seconds)

    def discard(self, bell: Bell) -> None:
        """Remove the bell of a thread that no longer sleeps."""
        try:
            self.bells.remove(bell)
        except ValueError:
            return  # rung, and so removed

    def ring(self) -> None:
        """Wake the thread that has slept longest; do nothing if none sleeps."""
        if self.bells:
            try:
                self.bells.popleft().ring()
            except IndexError:
                return  # another thread has woken it

    def ring_all(self) -> None:
        """Wake all sleeping threads."""
        for _ in range(len(self.bells)):
            self.ring()


class Latch:
    """Mutual exclusion for short sections that run internal code only."""

    __slots__ = ("_holder", "_lock")

    def __init__(self) -> None:
        # Held while `during` calls its function: microseconds, and no other lock is acquired meanwhile.
        self._lock = for_with(threading.Lock())
        # The identifier of the thread in the section, else 0. Set right after the lock is acquired and
        # cleared right before it is released, with no point in between at which CPython runs a signal handler
        # or a finalizer; so one that interrupts a section of its own thread finds it set.
        self._holder = 0

    def locked(self) -> bool:
        """Return whether a thread is in a section."""
        return self._lock.locked()

    def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call an internal function while holding the latch.

        Raises
        ------
        LockTimeoutError
            If this thread holds the latch, so a finalizer or signal handler calls in the middle of a section.
        """
        ident = get_ident()
        if self._holder == ident:
            raise LockTimeoutError(
                "a signal handler or finalizer calls in the middle of such a call of its own thread: "
                "it would wait for itself"
            )
        # The end of a ``with`` needs a tuple of three: this one, which the interpreter keeps for it, so that
        # the lock is released even if there is no memory.
        spare = (ident, function, arguments)
        with self._lock:
            self._holder = ident
            try:
                return function(*arguments)
            finally:
                self._holder = 0
                del spare
