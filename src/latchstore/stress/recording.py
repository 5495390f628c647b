"""Locks of the system that write down in which order they are taken.

Thread safety: what a thread holds is a list of its own; a lock that another thread gives back is taken off
the list of the one that took it, by one list operation.
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
    """The locks that this thread has."""

    def __init__(self) -> None:
        self.locks: list[NamedLock] = []


_held = _Held()


def held_now() -> list[NamedLock]:
    """Return the locks that the calling thread has, as far as they are recorded."""
    return list(_held.locks)


class RecordingLock:
    """In the place of ``threading.Lock``: the same, with a note in a `LockOrder`."""

    def __init__(self, order: LockOrder) -> None:
        self._order = order
        self._lock = _Lock()
        self._list: list[NamedLock] | None = None
        self.label: str
        owner, self.label = maker_of(sys._getframe(2))
        self.owner: object = self if owner is None else owner
        # Of the parts of a reader/writer lock its handles note what there is to note.
        self._noted = not (owner and note_handles(owner, self.label, self.begin))

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it."""
        if not self._lock.acquire(blocking, timeout):
            return False
        if self._noted:
            self._list = self.begin(self, blocking)
        return True

    def begin(self, lock: NamedLock, blocking: bool = True) -> list[NamedLock]:
        """Note that the calling thread has a lock; return the list that it is to be taken off."""
        held = _held.locks
        # A lock that is only tried for is never waited for, so nothing has to be taken before it.
        if held and blocking:
            self._order.note(threading.current_thread().name, held, lock)
        held.append(lock)
        return held

    def release(self) -> None:
        """Give it back."""
        held, self._list = self._list, None
        if held is not None and self in held:
            held.remove(self)
        self._lock.release()

    def locked(self) -> bool:
        """Tell whether somebody has it."""
        return self._lock.locked()

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()


def recorded(scope: Scope, order: LockOrder) -> AbstractContextManager[object]:
    """Have locks that are made meanwhile by the code under test write down their order.

    Locks that may be taken twice by a thread (RLock) are left as they are.
    """

    def lock() -> RecordingLock | _thread.LockType:
        caller = sys._getframe(1)
        maker = frame_outside(caller)
        if maker is None or not scope.traced(maker.f_code):
            return _Lock()
        if isinstance(caller.f_locals.get("self"), Bell):
            return _Lock()  # taken means that nobody has rung: it is waited for, and never held
        return RecordingLock(order)

    # By the last of them a Condition waits for being notified, which is no order of locks.
    patches = [(threading, "_allocate_lock", _Lock)]
    replacements = [
        (_Lock, lock),
        (threading.Lock, lock),
    ]
    return substituted(scope.modules(), replacements, patches)
