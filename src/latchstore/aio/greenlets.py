"""Calls of plain functions that await: each runs in a greenlet, which a task enters, and leaves to await.

1. The function runs in the loop's thread, in a copy of the task's context. The task awaits on behalf of the
   function, and enters it again with the result or the exception.
2. If the task is cancelled, the function gets the CancelledError where it waits, and may wait a moment longer
   (`PATIENCE`), for example for the outcome of a commit; then it gets a TimeoutError.
3. If the task's coroutine is closed, as its loop is gone, nothing can be awaited any more. The function gets
   the GeneratorExit, and its clean-up blocks the thread, as in a thread without a loop.

Imported where a store awaits its connections; greenlet is in the extra ``redis``.

Thread safety: a call belongs to its task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from latchstore.aio.threads import call_in_thread, call_to_its_end
from latchstore.delivery.async_waiting import running_loop, sleep_async
from latchstore.delivery.awaiting import AwaitingCall, current_call

T = TypeVar("T")

#: Seconds for which a cancelled call may still wait.
PATIENCE = 1.0


class GreenletCall(AwaitingCall):
    """A call of a function in a greenlet.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.loop: asyncio.AbstractEventLoop = running_loop()
        self._is_closed = False
        # The end of its patience, in the time of the loop, once it is cancelled.
        self._until: float | None = None
        self._greenlet = greenlet(function)
        context = copy_context()
        context.run(current_call.set, self)
        self._greenlet.gr_context = context

    def is_here(self) -> bool:
        return getcurrent() is self._greenlet and not self._is_closed

    def wait(self, awaitable: Awaitable[T]) -> T:
        parent = self._greenlet.parent
        assert parent is not None
        result: T = parent.switch(awaitable)
        return result

    def wait_for_thread(self, function: Callable[[], T], *, to_its_end: bool) -> T:
        return self.wait(call_to_its_end(function) if to_its_end else call_in_thread(function))

    def sleep(self, seconds: float) -> None:
        self.wait(sleep_async(seconds))

    async def result(self) -> Any:
        """Enter the function, and await on its behalf; return its result."""
        function = self._greenlet
        result = function.switch()
        while not function.dead:
            raised: BaseException | None = None
            try:
                async with asyncio.timeout_at(self._until):
                    value = await result
            except BaseException as error:
                raised = error
            if raised is None:
                result = function.switch(value)
                continue
            if self._until is None and isinstance(raised, asyncio.CancelledError):
                self._until = self.loop.time() + PATIENCE
            if not _runs_here(self.loop):
                # The awaited object may have raised another error than GeneratorExit: rule 3.
                self._is_closed, raised = True, GeneratorExit()
            try:
                result = function.throw(raised)
                if self._is_closed:
                    raise raised
            finally:
                del raised  # its traceback refers to this frame
        return result


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def call_awaiting(function: Callable[[], T]) -> T:
    """Call a function that awaits in the loop of this task; return its result."""
    result: T = await GreenletCall(function).result()
    return result
