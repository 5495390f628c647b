"""Waits of asyncio tasks on the same `Waiters` as those of threads.

Imported only where asyncio is used. Thread safety: any thread may ring a `LoopBell`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from latchstore.delivery.waiting import Bell, Waiters

#: Seconds after which a task checks without a ring: an exception that interrupts the ringing thread may lose
#: a wake-up.
LOOK_AGAIN = 1.0


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the asyncio event loop that runs in this thread.

    Raises
    ------
    RuntimeError
        If there is none, as in a trio task.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "latchstore.aio needs a running asyncio event loop, and none runs in this thread: call it in an "
            "asyncio task (with anyio, choose the asyncio backend)"
        ) from None


class LoopBell(Bell):
    """Wakes one task of the loop that runs in the thread where the bell is created."""

    __slots__ = ("_is_rung", "_loop", "_wake")

    def __init__(self) -> None:
        self._loop = running_loop()
        self._wake = asyncio.Event()
        # Set before the loop is called, so that a task that is cancelled meanwhile finds the ring.
        self._is_rung = False
        self.release: Callable[[], None] = self.ring

    def ring(self) -> None:
        self._is_rung = True
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            return  # the loop was closed, and the task with it

    def is_rung(self) -> bool:
        return self._is_rung

    async def sleep_async(self, seconds: float) -> bool:
        """Sleep until the bell rings, at most `seconds`; return whether it rang."""
        timer = self._loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        was_rung = self._is_rung
        self._is_rung = False
        self._wake.clear()
        return was_rung


async def wait_async(waiters: Waiters, ready: Callable[[], object], timeout: float | None) -> bool:
    """Wait in a task until `ready` returns a true value; return whether it did in time.

    Parameters
    ----------
    waiters : Waiters
        Rung, one bell or all, whenever `ready` may have become true.
    ready : callable
        Called in the loop's thread, with no lock held; must not block.
    timeout : float or None
        Seconds; None for no limit.
    """
    if ready():
        return True
    loop = running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    bell, answered = LoopBell(), False
    try:
        while True:
            waiters.bells.append(bell)
            if ready():
                answered = True
                return True
            left = LOOK_AGAIN if deadline is None else min(LOOK_AGAIN, deadline - loop.time())
            if left <= 0:
                return False
            if not await bell.sleep_async(left):
                waiters.discard(bell)
            if ready():
                answered = True
                return True
    finally:
        waiters.discard(bell)
        if not answered and bell.is_rung():
            waiters.ring()  # this task used up a ring, so another waiter must check instead
