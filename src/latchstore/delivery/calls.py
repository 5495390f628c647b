"""What is known of the calls of listeners, for statistics and error messages.

Thread safety: all attributes are assigned by the dispatcher's thread alone. Others read them at any time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from latchstore.contract.errors import FlushTimeoutError
from latchstore.contract.events import BaseEvent
from latchstore.delivery.deliveries import Delivery

#: A call of a listener: what is called, with which event, and since when.
Call = tuple[Callable[..., object], BaseEvent, float]


class ListenerCalls(ABC):
    """The observer (`emission.ListenerObserver`) of the listeners that a dispatcher calls.

    Parameters
    ----------
    listener_name : callable
        Names a listener in error messages.

    Attributes
    ----------
    calling : tuple of callable, BaseEvent and float, or None
        The listener that is being called, with what, and since when, in monotonic seconds; one assignment
        publishes it.
    delivering : tuple of Delivery and float, or None
        What is being delivered, and since when.
    delivered : int
        How many events have been emitted.
    listener_errors : int
        How many calls of listeners have raised something.
    slowest : tuple of str or None, and float
        The listener that has taken longest in one call, and how long, in seconds.
    """

    def __init__(self, listener_name: Callable[[object], str]) -> None:
        self._listener_name = listener_name
        self.calling: Call | None = None
        self.delivering: tuple[Delivery, float] | None = None
        self.delivered = 0
        self.listener_errors: int = 0
        self.slowest: tuple[str | None, float] = (None, 0.0)

    @property
    @abstractmethod
    def pending(self) -> int:
        """How many events are waiting or being heard."""

    def returned(self, failed: bool) -> float:
        """Note that the listener has returned, or raised something; return the time."""
        now = time.monotonic()
        calling, self.calling = self.calling, None
        if failed:
            self.listener_errors += 1
        if calling is not None and now - calling[2] > self.slowest[1]:
            self.slowest = (self._listener_name(calling[0]), now - calling[2])
        return now

    def listener(self) -> str | None:
        """Return the name of the listener that is being called."""
        calling = self.calling
        return None if calling is None else self._listener_name(calling[0])

    def describe(self) -> str:
        """Return what is being heard, by whom, for how long, and how much is waiting."""
        calling, delivering = self.calling, self.delivering
        waiting = f"{self.pending} events pending"
        if calling is not None:
            listener, event, since = calling
            held = time.monotonic() - since
            return f"listener {self._listener_name(listener)} has had {event!r} for {held:.3f} s, {waiting}"
        if delivering is None:
            return waiting
        delivery, since = delivering
        return f"{delivery!r} under way for {time.monotonic() - since:.3f} s, {waiting}"

    def not_heard(self, what: str) -> FlushTimeoutError:
        """Return the error of a wait that has failed."""
        return FlushTimeoutError(f"{what}: {self.describe()}", self.pending, self.listener())
