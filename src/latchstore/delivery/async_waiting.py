"""Waits of asyncio tasks on the same `Waiters` as those of threads.

They are timed by the loop, as ``asyncio.sleep`` is. A test that replaces the clock that loops ask can stop a
loop's timers forever; then a thread wakes the task in time as well.

Imported only where asyncio is used. Thread safety: any thread may ring a `LoopBell`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import Timer
from types import BuiltinFunctionType
from typing import Any

from latchstore.delivery.waiting import Bell, Waiters, clock

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


class Remaining:
    """The seconds that remain of a timeout that begins now, by the loop or by the clock of waits, if less.

    Raises
    ------
    RuntimeError
        If no asyncio event loop runs in this thread, also without a timeout.
    """

    __slots__ = ("_begun", "_loop", "_timeout")

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._loop = running_loop()
        self._begun = self._loop.time(), clock()

    def __call__(self) -> float | None:
        """Return the seconds; None if there is no timeout."""
        if self._timeout is None:
            return None
        passed = max(self._loop.time() - self._begun[0], clock() - self._begun[1])
        return max(0.0, self._timeout - passed)


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
        self._wake_up()

    def _wake_up(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            return  # the loop was closed, and the task with it

    def is_rung(self) -> bool:
        return self._is_rung

    async def sleep_async(self, seconds: float) -> bool:
        """Sleep until the bell rings, at most `seconds`; return whether it rang."""
        timer = self._loop.call_later(seconds, self._wake.set)
        alarm = None if isinstance(time.monotonic, BuiltinFunctionType) else Timer(seconds, self._wake_up)
        try:
            if alarm is not None:
                alarm.daemon = True
                alarm.start()
            await self._wake.wait()
        finally:
            timer.cancel()
            if alarm is not None:
                alarm.cancel()
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
    remaining = Remaining(timeout)
    bell, answered = LoopBell(), False
    try:
        while True:
            waiters.bells.append(bell)
            if ready():
                answered = True
                return True
            left = remaining()
            if left == 0:
                return False
            if not await bell.sleep_async(LOOK_AGAIN if left is None else min(LOOK_AGAIN, left)):
                waiters.discard(bell)
            if ready():
                answered = True
                return True
    finally:
        waiters.discard(bell)
        if not answered and bell.is_rung():
            waiters.ring()  # this task used up a ring, so another waiter must check instead


async def sleep_async(seconds: float) -> None:
    """Sleep, also in a loop whose timers a test has stopped."""
    await LoopBell().sleep_async(seconds)


async def until_done(future: asyncio.Future[Any], seconds: float | None) -> None:
    """Wait until a future is done, at most some seconds, and without limit for None; may return earlier."""
    bell = LoopBell()

    def ring(future: asyncio.Future[Any]) -> None:
        bell.ring()

    future.add_done_callback(ring)
    try:
        await bell.sleep_async(LOOK_AGAIN if seconds is None else min(LOOK_AGAIN, seconds))
    finally:
        future.remove_done_callback(ring)
