"""The thread of a dispatcher, whose start ends even if memory runs out meanwhile, and who delivers.

Thread safety: a thread is started once, by one thread. A `Post` is changed by single operations of a dict.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import NamedTuple

from latchstore.delivery.waiting import Bell, Life, is_patched_later, this_thread

#: Seconds that a thread may take to start.
START_TIMEOUT = 2.0


class DeliveryThread(threading.Thread):
    """A daemon thread that runs deliveries.

    If memory runs out while a new thread begins, it ends without setting the event for which `Thread.start`
    waits, or keeps the lock of that event for ever. So the start of this one waits at an event of ours, and
    for a limited time; whoever has started it finds it not alive then.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = _StartedEvent()

    def start(self) -> None:
        if is_patched_later():
            raise RuntimeError("it would be a greenlet, and keep all others from running while it waits")
        super().start()


class _StartedEvent(threading.Event):
    """An event that is set once, and that one thread waits for.

    Nothing of the base class is used, so its Condition is not made: after a fork `threading` would renew the
    lock of it in each thread, and the start of a thread that is struck would leave one more lock.
    """

    def __init__(self) -> None:
        # Whether the event is set is no question of the bell: an exception may strike the thread that it has
        # woken.
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
        """Do nothing: in a forked child no thread sets the event, and the one that forked does not wait."""


class Deliverer(NamedTuple):
    """A thread that delivers, or would if it were the first."""

    thread: threading.Thread
    life: weakref.ref[Life]


class Post(dict[int, Deliverer]):
    """Who delivers, by thread identifier: the first one. Each puts and takes away itself."""

    __slots__ = ()

    def holder(self) -> threading.Thread | None:
        """Return the first one, or None; those that have ended are taken away."""
        for ident, each in list(self.items()):
            if each.life() is not None:
                return each.thread
            taken = self.pop(ident, None)
            if taken is not None and taken is not each:
                self[ident] = taken  # a new thread that has got the same identifier
        return None


def calling_deliverer() -> Deliverer:
    """Return the calling thread."""
    return Deliverer(threading.current_thread(), weakref.ref(this_thread.life))
