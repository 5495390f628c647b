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
from contextvars import ContextVar
from typing import Any

from latchstore.contract.errors import FlushTimeoutError

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
        # Also true while an eager task has not been returned yet.
        self._is_running = False
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
                raise  # it is this task that is cancelled, not something that the listener awaits
            logger.exception("Listener %s failed on %r", self._name, arguments[-1])

    def is_idle(self) -> bool:
        """Return whether the loop has nothing to do for it."""
        return not self._calls and not self._is_running and (self._task is None or self._task.done())

    async def wait(self, deadline: float | None) -> None:
        """Wait until it has been called for all that was handed over; in the loop's thread.

        Raises
        ------
        FlushTimeoutError
            If that is not so at a time of the loop.
        """
        while not self.is_idle():
            self._begin()
            left = None if deadline is None else max(0.0, deadline - self._loop.time())
            if left == 0:
                pending = len(self._calls) + self._is_running
                raise FlushTimeoutError(
                    f"coroutine function {self._name} has not been awaited for {pending} events in time",
                    pending,
                    self._name,
                )
            assert self._task is not None
            await asyncio.wait((self._task,), timeout=left)


#: The listener that is called in this context, that of tasks which it has started included.
_calling: ContextVar[LoopListener | None] = ContextVar("latchstore_calling", default=None)

# Those of each loop that is alive. Changed in the thread of the loop.
_listeners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakSet[LoopListener]]
_listeners = weakref.WeakKeyDictionary()


async def wait_for_listeners(deadline: float | None) -> None:
    """Wait until the coroutine functions that listen in this loop have been called for all handed over.

    One that calls it itself waits for none: they might wait for each other.

    Parameters
    ----------
    deadline : float or None
        A time of the loop; None for as long as it takes.

    Raises
    ------
    FlushTimeoutError
        If one takes longer.
    """
    if _calling.get() is None:
        for listener in list(_listeners.get(asyncio.get_running_loop(), ())):
            await listener.wait(deadline)
