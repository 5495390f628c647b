"""Mutual exclusion that a thread may also only try to enter; for the buffers of watches.

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
    """Mutual exclusion for short sections of our own code, which a thread may also try to enter."""

    __slots__ = ("_holder", "_lock")

    def __init__(self) -> None:
        # Held while a function is called: microseconds, and no other lock is taken meanwhile. Reentrant only
        # for the moments in which a thread has it and `_holder` does not name that thread: whatever comes in
        # between (a signal handler, a finalizer) finds the section not begun, or over.
        self._lock = for_with(threading.RLock())
        # The identifier of the thread that is in the section, else 0.
        self._holder = 0

    def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of ours in the section.

        Raises
        ------
        LockTimeoutError
            If this thread is in it: a finalizer or a signal handler calls in the middle of such a section.
        """
        ident = get_ident()
        if self._holder == ident:
            raise LockTimeoutError(
                "this thread is in the middle of reading or filling this watch, and would wait for itself"
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
        """Call a function of ours in the section; nothing happens if any thread is in it."""
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
            # Whether this thread has it only the lock shows: an exception may come as `acquire` returns.
            try:  # noqa: SIM105 (a context manager written in Python may be struck before it begins)
                self._lock.release()
            except RuntimeError:
                pass
