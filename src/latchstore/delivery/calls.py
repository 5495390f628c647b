"""Records of the calls of listeners, for statistics and error messages.

Thread safety: only the dispatcher's thread assigns the attributes. Other threads read them at any time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from latchstore.contract.errors import FlushTimeoutError
from latchstore.contract.events import BaseEvent, StoreKeyEvent
from latchstore.delivery.deliveries import Delivery

#: A call of a listener: the listener, the event, and the monotonic time of the call in seconds.
Call = tuple[Callable[..., object], BaseEvent, float]

#: The most listener names that are counted separately, since closures may be many, and the name for the
#: others.
MOST_NAMES = 500
OTHERS = "(others)"


class CallTimes(NamedTuple):
    """The calls of the listeners of one name.

    Attributes
    ----------
    calls, errors : int
        The number of calls, and of those that raised.
    seconds, longest : float
        The seconds of all calls together, and of the longest one.
    """

    calls: int
    errors: int
    seconds: float
    longest: float


class ListenerCalls(ABC):
    """The observer (`emission.ListenerObserver`) of the listeners that a dispatcher calls.

    Parameters
    ----------
    listener_name : callable
        Returns the name of a listener for error messages.

    Attributes
    ----------
    calling : tuple of callable, BaseEvent and float, or None
        The running call of a listener, with the event and its start in monotonic seconds; published by one
        assignment.
    delivering : tuple of Delivery and float, or None
        The delivery that is running, and its start in monotonic seconds.
    delivered : int
        The number of events emitted.
    listener_errors : int
        The number of calls of listeners that raised.
    slowest : tuple of str or None, and float
        The listener with the longest call, and its seconds.
    times : dict of str to CallTimes, or None
        The times of each listener by its name; None until `count_times` is called.
    """

    def __init__(self, listener_name: Callable[[object], str]) -> None:
        self._listener_name = listener_name
        self.calling: Call | None = None
        self.delivering: tuple[Delivery, float] | None = None
        self.delivered = 0
        self.listener_errors: int = 0
        self.slowest: tuple[str | None, float] = (None, 0.0)
        self.times: dict[str, CallTimes] | None = None

    @property
    @abstractmethod
    def pending(self) -> int:
        """The number of events that are queued or being delivered."""

    def returned(self, failed: bool) -> float:
        """Record that the listener has returned or raised; return the time."""
        now = time.monotonic()
        calling, self.calling = self.calling, None
        if failed:
            self.listener_errors += 1
        if calling is not None and now - calling[2] > self.slowest[1]:
            self.slowest = (self._listener_name(calling[0]), now - calling[2])
        if calling is not None and self.times is not None:
            self._count(self.times, self._listener_name(calling[0]), now - calling[2], failed)
        return now

    def count_times(self) -> dict[str, CallTimes]:
        """Start to count the calls of each listener, at the first call of this method; return the counts."""
        if self.times is None:
            self.times = {}
        return dict(self.times)

    @staticmethod
    def _count(times: dict[str, CallTimes], name: str, seconds: float, failed: bool) -> None:
        if name not in times and len(times) >= MOST_NAMES:
            name = OTHERS
        calls, errors, total, longest = times.get(name, (0, 0, 0.0, 0.0))
        times[name] = CallTimes(calls + 1, errors + failed, total + seconds, max(longest, seconds))

    def listener(self) -> str | None:
        """Return the name of the listener that is running."""
        calling = self.calling
        return None if calling is None else self._listener_name(calling[0])

    def call_in_progress(self) -> dict[str, Any] | None:
        """Return the running call: listener, event class, key and seconds."""
        calling = self.calling
        if calling is None:
            return None
        listener, event, since = calling
        return {
            "name": self._listener_name(listener),
            "event": type(event).__name__,
            "key": event.key if isinstance(event, StoreKeyEvent) else None,
            "seconds": max(0.0, time.monotonic() - since),
        }

    def describe(self) -> str:
        """Return a description: the running listener, its event and seconds, and the pending events."""
        calling, delivering = self.calling, self.delivering
        waiting = f"{self.pending} events pending"
        if calling is not None:
            listener, event, since = calling
            held = time.monotonic() - since
            return f"listener {self._listener_name(listener)} has had {event!r} for {held:.3f} s, {waiting}"
        if delivering is None:
            return waiting
        delivery, since = delivering
        return f"{delivery!r} has been running for {time.monotonic() - since:.3f} s, {waiting}"

    def timeout_error(self, what: str) -> FlushTimeoutError:
        """Return the error for a wait that has timed out."""
        return FlushTimeoutError(f"{what}: {self.describe()}", self.pending, self.listener())
