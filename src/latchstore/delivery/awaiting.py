"""Plain functions that a task of asyncio calls, and that await in its event loop what they wait for.

Such a call runs in the thread of the loop, on a stack of its own, and the task awaits it
(``aio/greenlets.py``). So one code serves threads and tasks: where it waits, it asks for the `AwaitingCall`
that it is in, and has that wait. In a call of a thread there is none.

1. No lock is held where such a call waits: another task of the same thread may need that lock, and the thread
   would wait for itself. What is done under a lock while it waits for a server is called by `in_thread`.
2. What the call awaits raises CancelledError when the task is cancelled, as it raises any other error.

Thread safety: an `AwaitingCall` belongs to the task that has made it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class AwaitingCall(ABC):
    """A call of a plain function that a task awaits.

    Attributes
    ----------
    loop : asyncio.AbstractEventLoop
        Where the task runs.
    """

    loop: asyncio.AbstractEventLoop

    @abstractmethod
    def is_here(self) -> bool:
        """Return whether the code that asks runs in this call, and may wait by it."""

    @abstractmethod
    def wait(self, awaitable: Awaitable[T]) -> T:
        """Have the task await something; return its result."""

    @abstractmethod
    def wait_for_thread(self, function: Callable[[], T], *, to_its_end: bool) -> T:
        """Have a function called in another thread; return its result.

        If the task is cancelled meanwhile, the thread goes on; its end is waited for if that is asked for.
        """

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Have the task sleep."""


#: Set in the context of such a call, and copied into those of tasks that are made in it: hence `is_here`.
current_call: ContextVar[AwaitingCall | None] = ContextVar("latchstore_awaiting_call", default=None)


def awaiting_call() -> AwaitingCall | None:
    """Return the call of a task that this code runs in; None if it may block its thread."""
    call = current_call.get()
    return call if call is not None and call.is_here() else None


def pause(seconds: float) -> None:
    """Sleep, or have the task sleep that calls."""
    call = awaiting_call()
    if call is None:
        time.sleep(seconds)
    else:
        call.sleep(seconds)


def in_thread(function: Callable[[], T], *, to_its_end: bool = True) -> T:
    """Call a function that may block its thread: at once, but in another thread if a task calls.

    Parameters
    ----------
    function : callable
    to_its_end : bool
        Whether the function is waited for when the task is cancelled.
    """
    call = awaiting_call()
    return function() if call is None else call.wait_for_thread(function, to_its_end=to_its_end)
