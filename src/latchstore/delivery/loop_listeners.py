"""Listeners that are coroutine functions: they run on the event loop that they were connected from.

Loaded when one is connected. A call hands the event over to the loop, and a task there awaits the listener
for each in turn. So a slow one holds up no other listener, and no writer.

Thread safety: a listener may be called by any thread; what it has to do is kept in a deque, from which the
task of its loop alone takes.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

logger: logging.Logger = logging.getLogger("latchstore")

#: A call of a coroutine function that is yet to be made.
_Call = tuple[Any, ...]


class LoopListener:
    """A coroutine function as a listener: a function that hands its arguments over to a loop.

    Parameters
    ----------
    function : callable
        The coroutine function; of a bound method that of the class.
    name : str
        For log lines.
    drop : callable
        Disconnects it; called when its loop is found to be closed.

    Raises
    ------
    TypeError
        If no loop runs in this thread.
    """

    def __init__(
        self, function: Callable[..., Coroutine[Any, Any, object]], name: str, drop: Callable[[], object]
    ) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise TypeError(
                f"{name} is a coroutine function: connect it where its event loop runs, in a task of asyncio"
            ) from None
        self._function: Callable[..., Coroutine[Any, Any, object]] = function
        self.__module__, _, self.__qualname__ = name.rpartition(".")
        self._name = name
        self._drop = drop
        self._calls: deque[_Call] = deque()
        self._task: asyncio.Task[None] | None = None
        _listeners.setdefault(self._loop, weakref.WeakSet()).add(self)

    def __call__(self, *arguments: Any) -> None:
        """Have the loop await the function; if that was closed, disconnect it."""
        self._calls.append(arguments)
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            lost = len(self._calls)
            self._calls.clear()
            logger.warning(
                "listener %s is disconnected, as its event loop was closed; it was not called for %d events",
                self._name,
                lost,
            )
            self._drop()

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        while self._calls:
            arguments = self._calls.popleft()
            try:
                await self._function(*arguments)
            except Exception:
                logger.exception("Listener %s failed on %r", self._name, arguments[-1])
            del arguments

    def is_idle(self) -> bool:
        """Tell whether the loop has nothing to do for it."""
        return not self._calls and (self._task is None or self._task.done())

    async def wait(self) -> None:
        """Wait until it has been called for all that was handed over; in the loop's thread."""
        while not self.is_idle():
            self._begin()
            if self._task is not None and self._task is not asyncio.current_task():
                await asyncio.wait((self._task,))
            else:
                return  # it is this listener that waits


# Those of each loop that is alive. Changed in the thread of the loop.
_listeners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakSet[LoopListener]]
_listeners = weakref.WeakKeyDictionary()


async def wait_for_listeners() -> None:
    """Wait until the coroutine functions that listen in this loop have been called for all handed over."""
    for listener in list(_listeners.get(asyncio.get_running_loop(), ())):
        await listener.wait()
