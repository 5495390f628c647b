"""Emissions: the one loop that calls the listeners of an event, for event managers and dispatchers.

Thread safety: an emission belongs to the thread that runs it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from latchstore.contract.event_manager import Listener, Trace
from latchstore.contract.events import BaseEvent, is_handled
from latchstore.delivery.registry import Connection

logger: logging.Logger = logging.getLogger("latchstore")


class ListenerObserver(Protocol):
    """Observes each call of a listener, on the thread that makes it.

    Attributes
    ----------
    calling : tuple of callable, BaseEvent and float, or None
        The running call: the listener, the event, and the start in monotonic seconds.
    """

    calling: tuple[Listener, BaseEvent, float] | None

    def returned(self, failed: bool) -> float:
        """Record that the listener has returned or raised; return the time, the start of the next call."""


class Emission:
    """Calls the listeners of one event, each of them once.

    If an exception interrupts `run` outside of a listener, `run` can be called again and continues.

    Parameters
    ----------
    event : BaseEvent
        An event whose `pre_emit` has been called.
    connections : sequence of Connection
        The connections of its listeners. Listeners that are collected meanwhile are not called.
    trace : callable, optional
        As for `BaseEventManager.set_trace`.

    Attributes
    ----------
    position : int
        The number of connections that are done.
    """

    __slots__ = ("_connections", "_event", "_trace", "position")

    def __init__(
        self, event: BaseEvent, connections: Sequence[Connection], trace: Trace | None = None
    ) -> None:
        self._event = event
        self._connections = connections
        self._trace = trace
        self.position: int = 0

    def run(self, observer: ListenerObserver | None = None) -> None:
        """Call the remaining listeners, until the event is handled; log the exceptions that they raise.

        Parameters
        ----------
        observer : ListenerObserver, optional
            Notified of each call. Without one, an exception that is not an `Exception` ends the run; with
            one, no exception of a listener does.
        """
        event, connections, trace, position = self._event, self._connections, self._trace, self.position
        logged = Exception if observer is None else BaseException
        since = 0.0 if observer is None else time.monotonic()
        count = len(connections)
        while position < count and not (position and is_handled(event)):
            listener = connections[position].listener()
            position += 1
            if listener is None or (trace is not None and self._is_vetoed(trace, listener)):
                self.position = position
                continue
            if observer is not None:
                observer.calling = (listener, event, since)
            # No exception can come between this and the call, so each listener is called once.
            self.position = position
            try:
                listener(event)
            except logged:
                if observer is not None:
                    since = observer.returned(failed=True)
                self._log(listener)
            else:
                if observer is not None:
                    since = observer.returned(failed=False)
        self.finish()

    def finish(self) -> None:
        """Do the work that follows the last listener."""
        self._event.post_emit()

    def _is_vetoed(self, trace: Trace, listener: Listener) -> bool:
        try:
            return bool(trace("listen", listener, (self._event,)))
        except Exception:
            self._log(listener)
            return True

    def _log(self, listener: Listener) -> None:
        logger.exception("listener %s failed on %r", listener_name(listener), self._event)


class ForeignEmission(Emission):
    """The one call of `emit` of a foreign event manager, which calls `post_emit` itself."""

    __slots__ = ()

    def finish(self) -> None:
        """Do nothing more."""


def listener_name(func: object) -> str:
    """Return the name of a callable without its repr, which may contain data."""
    name = getattr(func, "__qualname__", None)
    if not isinstance(name, str):
        return f"an instance of {type(func).__qualname__}"
    return f"{getattr(func, '__module__', None)}.{name}"
