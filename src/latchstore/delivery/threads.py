"""The dispatcher's thread, whose start returns even if memory runs out, and the post of that thread.

Thread safety: a thread is started once, by one thread. A `Post` is changed by single operations of a dict.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import NamedTuple

from latchstore.delivery.waiting import Bell, Life, is_patched_later, this_thread

#: The most seconds that a thread may take to start.
START_TIMEOUT = 2.0


class DeliveryThread(threading.Thread):
    """A daemon thread that runs deliveries.

    If memory runs out while a new thread begins, the thread ends without setting the event for which
    `Thread.start` waits, or keeps the lock of that event forever. So this class waits at an event of its own,
    for a limited time; the caller of `start` then finds the thread not alive.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = _StartedEvent()

    def start(self) -> None:
        if is_patched_later():
            raise RuntimeError("the thread would be a greenlet, which blocks all others while it waits")
        super().start()


class _StartedEvent(threading.Event):
    """An event that is set once, and that one thread waits for.

    It uses nothing of the base class, so no Condition is created: after a fork `threading` would renew the
    Condition's lock in each thread, and an interrupted start of a thread would leave one more lock.
    """

    def __init__(self) -> None:
        # The flag, not the bell, is the state of the event: an exception may interrupt the thread that the
        # bell has woken.
        self._flag = False
        self._bell = Bell()

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        self._flag = True
        self._bell.ring()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._flag:
            self._bell.sleep(START_TIMEOUT if timeout is None else timeout)
        return self._flag

    def _at_fork_reinit(self) -> None:
        """Do nothing: in a forked child no thread sets the event, and the forking thread does not wait."""


class Deliverer(NamedTuple):
    """A thread that delivers, or would deliver if it were the first in the post."""

    thread: threading.Thread
    life: weakref.ref[Life]


class Post(dict[int, Deliverer]):
    """The threads that want to deliver, by identifier; the first one does. Each adds and removes itself."""

    __slots__ = ()

    def holder(self) -> threading.Thread | None:
        """Return the first live thread, or None; remove threads that have ended."""
        for ident, each in list(self.items()):
            if each.life() is not None:
                return each.thread
            taken = self.pop(ident, None)
            if taken is not None and taken is not each:
                self[ident] = taken  # a new thread with the same identifier
        return None


def calling_deliverer() -> Deliverer:
    """Return the entry of the calling thread for a `Post`."""
    return Deliverer(threading.current_thread(), weakref.ref(this_thread.life))
