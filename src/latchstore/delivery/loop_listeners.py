"""Listeners that are coroutine functions; they run on the event loop that they were connected from.

Imported when one is connected. A call passes the event to the loop, where a task awaits the listener for one
event after another. So a slow coroutine function delays neither other listeners nor writers.

Thread safety: any thread may call a listener. Its calls are kept in a deque, from which only the task of its
loop takes them.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from latchstore.contract.errors import FlushTimeoutError
from latchstore.delivery.async_waiting import Remaining, until_done

logger: logging.Logger = logging.getLogger("latchstore")

#: The arguments of a pending call.
_Call = tuple[Any, ...]


class LoopListener:
    """A coroutine function as a listener: a function that passes its arguments to an event loop.

    Parameters
    ----------
    function : callable
        The coroutine function; of a bound method the function of the class.
    name : str
        The name in log messages.
    drop : callable
        Disconnects the listener; called if its loop is closed.

    Raises
    ------
    TypeError
        If no event loop runs in this thread.
    """

    def __init__(
        self, function: Callable[..., Coroutine[Any, Any, object]], name: str, drop: Callable[[], object]
    ) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise TypeError(
                f"{name} is a coroutine function, so it must be connected in an asyncio task, whose event "
                "loop then runs it"
            ) from None
        self._function: Callable[..., Coroutine[Any, Any, object]] = function
        self.__module__, _, self.__qualname__ = name.rpartition(".")
        self._name = name
        self._drop = drop
        self._calls: deque[_Call] = deque()
        self._task: asyncio.Task[None] | None = None
        # Also true while an eager task runs before `create_task` has returned.
        self._is_running = False
        _listeners.setdefault(self._loop, weakref.WeakSet()).add(self)

    def __call__(self, *arguments: Any) -> None:
        """Have the loop await the function; disconnect the listener if the loop is closed."""
        self._calls.append(arguments)
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            lost = len(self._calls)
            self._calls.clear()
            logger.warning(
                "listener %s is disconnected, since its event loop is closed; it missed %d events",
                self._name,
                lost,
            )
            self._drop()

    def _begin(self) -> None:
        if not self._is_running and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        self._is_running = True
        _calling.set(self)
        try:
            await self._call_all()
        finally:
            self._is_running = False

    async def _call_all(self) -> None:
        while self._calls:
            await self._call(self._calls.popleft())

    async def _call(self, arguments: _Call) -> None:
        try:
            await self._function(*arguments)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # this task itself was cancelled, not something that the listener awaits
            logger.exception("listener %s failed on %r", self._name, arguments[-1])

    def is_idle(self) -> bool:
        """Return whether the listener has neither running nor pending calls."""
        return not self._calls and not self._is_running and (self._task is None or self._task.done())

    async def wait(self, remaining: Remaining) -> None:
        """Wait, in the loop's thread, until all calls so far have been made.

        Raises
        ------
        FlushTimeoutError
            If calls are left when no time remains.
        """
        while not self.is_idle():
            self._begin()
            left = remaining()
            if left == 0:
                pending = len(self._calls) + self._is_running
                raise FlushTimeoutError(
                    f"coroutine function {self._name} was not awaited in time for {pending} events",
                    pending,
                    self._name,
                )
            assert self._task is not None
            await until_done(self._task, left)


#: The listener that runs in this context, which includes the tasks that it starts.
_calling: ContextVar[LoopListener | None] = ContextVar("latchstore_calling", default=None)

# The listeners of each existing loop. Changed in the thread of the loop only.
_listeners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakSet[LoopListener]]
_listeners = weakref.WeakKeyDictionary()


async def wait_for_listeners(remaining: Remaining) -> None:
    """Wait until the coroutine functions connected in this loop have been called for all events so far.

    If one of them calls it, it does not wait, since two of them might wait for each other.

    Parameters
    ----------
    remaining : Remaining
        The time limit.

    Raises
    ------
    FlushTimeoutError
        If the calls take longer.
    """
    if _calling.get() is None:
        for listener in list(_listeners.get(asyncio.get_running_loop(), ())):
            await listener.wait(remaining)
