"""Tasks of asyncio that wait beside threads for what `Waiters` are rung for.

Loaded by those who use asyncio. Thread safety: a `LoopBell` may be rung by any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from latchstore.delivery.waiting import Bell, Waiters

#: Seconds after which a task looks even if nobody has rung: with an exception that strikes the thread which
#: was to ring, a wake-up may be lost.
LOOK_AGAIN = 1.0


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of asyncio that runs in this thread.

    Raises
    ------
    RuntimeError
        If none does, as in a task of trio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "latchstore.aio is for tasks of asyncio (of anyio: with its asyncio backend), "
            "and no event loop of asyncio runs in this thread"
        ) from None


class LoopBell(Bell):
    """Ends the sleep of one task of the loop that runs where it is made."""

    __slots__ = ("_is_rung", "_loop", "_wake")

    def __init__(self) -> None:
        self._loop = running_loop()
        self._wake = asyncio.Event()
        # Set before the loop is told: a task that is cancelled meanwhile finds that it was rung.
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
        """Sleep until it is rung, for so many seconds at the most; return whether it was rung."""
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
    """Have a task wait until `ready` returns something true; return whether it did in time.

    Parameters
    ----------
    waiters : Waiters
        Rung, one of them or all, when it may have come true.
    ready : callable
        Called in the loop's thread, with no lock held; does not wait.
    timeout : float or None
        Seconds; None for as long as it takes.
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
            waiters.ring()  # the one that was rung leaves: another looks in its place
