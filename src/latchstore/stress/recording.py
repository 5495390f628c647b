"""Locks of the system that record the order in which they are acquired.

Thread safety: each thread has its own list of held locks. If another thread releases a lock, one list
operation removes it from the list of the thread that acquired it.
"""

from __future__ import annotations

import _thread
import sys
import threading
from contextlib import AbstractContextManager

from latchstore.delivery.waiting import Bell
from latchstore.stress.lock_order import LockOrder, NamedLock, frame_outside, maker_of, note_handles
from latchstore.stress.scope import Scope
from latchstore.stress.substitution import substituted

_Lock = _thread.allocate_lock


class _Held(threading.local):
    """The locks that this thread holds."""

    def __init__(self) -> None:
        self.locks: list[NamedLock] = []


_held = _Held()


def held_now() -> list[NamedLock]:
    """Return the recorded locks that the calling thread holds."""
    return list(_held.locks)


class RecordingLock:
    """Replaces ``threading.Lock``: the same, with a record in a `LockOrder`."""

    def __init__(self, order: LockOrder) -> None:
        self._order = order
        self._lock = _Lock()
        self._list: list[NamedLock] | None = None
        self.label: str
        owner, self.label = maker_of(sys._getframe(2))
        self.owner: object = self if owner is None else owner
        # The handles of a reader/writer lock record its lock order, so its parts do not.
        self._noted = not (owner and note_handles(owner, self.label, self.begin))

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it."""
        if not self._lock.acquire(blocking, timeout):
            return False
        if self._noted:
            self._list = self.begin(self, blocking)
        return True

    def begin(self, lock: NamedLock, blocking: bool = True) -> list[NamedLock]:
        """Record that the calling thread holds a lock; return the list from which to remove it later."""
        held = _held.locks
        # A lock acquired without blocking is never waited for, so it needs no place in the lock order.
        if held and blocking:
            self._order.note(threading.current_thread().name, held, lock)
        held.append(lock)
        return held

    def release(self) -> None:
        """Release the lock."""
        held, self._list = self._list, None
        if held is not None and self in held:
            held.remove(self)
        self._lock.release()

    def locked(self) -> bool:
        """Return whether the lock is held."""
        return self._lock.locked()

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()


def recorded(scope: Scope, order: LockOrder) -> AbstractContextManager[object]:
    """Make locks created meanwhile by the code under test record their order.

    Reentrant locks (RLock) are unchanged.
    """

    def lock() -> RecordingLock | _thread.LockType:
        caller = sys._getframe(1)
        maker = frame_outside(caller)
        if maker is None or not scope.traced(maker.f_code):
            return _Lock()
        if isinstance(caller.f_locals.get("self"), Bell):
            return _Lock()  # held means "not notified yet": threads wait for it, but none holds it
        return RecordingLock(order)

    # A Condition waits on this kind of lock for a notification, which is not part of the lock order.
    patches = [(threading, "_allocate_lock", _Lock)]
    replacements = [
        (_Lock, lock),
        (threading.Lock, lock),
    ]
    return substituted(scope.modules(), replacements, patches)
