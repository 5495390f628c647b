"""The thread of a dispatcher, whose start ends even if memory runs out meanwhile.

Thread safety: a thread is started once, by one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Seconds that a thread may take to start.
START_TIMEOUT = 2.0


class DeliveryThread(threading.Thread):
    """A daemon thread that runs deliveries.

    If memory runs out while a new thread begins, it ends without setting the event for which `Thread.start`
    waits, or keeps the event's lock for ever. So the start of this one waits at an event of ours, and for a
    limited time; whoever has started it finds it not alive then.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = _StartedEvent()


class _StartedEvent(threading.Event):
    """An event that is set once, over a lock written in C, and that one thread waits for."""

    def __init__(self) -> None:
        super().__init__()
        # Held until the event is set; nothing is done while it is held but to wait for it. Whether the event
        # is set is no question of this lock: an exception may strike who has waited, and it is held again.
        self._unset = threading.Lock()
        self._unset.acquire()
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._unset.release()

    def wait(self, timeout: float | None = None) -> bool:
        if self._is_set:
            return True
        if not self._unset.acquire(timeout=START_TIMEOUT if timeout is None else timeout):
            return False
        self._unset.release()
        return True
