"""A latch that a thread may also try to enter without waiting; for the buffers of watches.

Thread safety: the rules of ``change_buffer.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from threading import get_ident
from typing import TypeVar, TypeVarTuple

from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.with_lock import for_with

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class TryLatch:
    """Mutual exclusion for short sections of internal code, which a thread may also try to enter."""

    __slots__ = ("_holder", "_lock")

    def __init__(self) -> None:
        # Held while a function is called: microseconds, and no other lock is acquired meanwhile. It is
        # reentrant only for the moments in which a thread holds it and `_holder` does not name that thread: a
        # signal handler or finalizer that runs in between finds the section not begun, or finished.
        self._lock = for_with(threading.RLock())
        # The identifier of the thread in the section, else 0.
        self._holder = 0

    def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call an internal function in the section.

        Raises
        ------
        LockTimeoutError
            If this thread is in the section, so a finalizer or signal handler calls in the middle of it.
        """
        ident = get_ident()
        if self._holder == ident:
            raise LockTimeoutError(
                "a signal handler or finalizer uses this watch while its own thread reads or fills it: it "
                "would wait for itself"
            )
        spare = (ident, function, arguments)  # as in `Latch.during`
        with self._lock:
            self._holder = ident
            try:
                return function(*arguments)
            finally:
                self._holder = 0
                del spare

    def attempt(self, function: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Call an internal function in the section; do nothing if any thread is in it."""
        ident = get_ident()
        if self._holder == ident:
            return
        try:
            if self._lock.acquire(blocking=False):
                self._holder = ident
                function(*arguments)
        finally:
            if self._holder == ident:
                self._holder = 0
            # Only the lock shows whether this thread holds it: an exception may come as `acquire` returns.
            try:  # noqa: SIM105 (a context manager written in Python may be interrupted before it begins)
                self._lock.release()
            except RuntimeError:
                pass
