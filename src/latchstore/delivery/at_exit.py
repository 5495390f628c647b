"""Deliver pending events at interpreter exit, before daemon threads are stopped.

Thread safety: any thread may call `drain_at_exit`; the main thread does the work at exit.
"""

from __future__ import annotations

import atexit
import logging
import weakref
from abc import abstractmethod
from typing import Protocol

from latchstore.contract.errors import FlushTimeoutError
from latchstore.delivery.waiting import clock

logger: logging.Logger = logging.getLogger("latchstore")

#: The most seconds that interpreter exit waits for the pending events of all stores together.
EXIT_TIMEOUT = 10.0


class Drained(Protocol):
    """An object with pending events."""

    @abstractmethod
    def drain(self, timeout: float) -> None:
        """Wait until all events are delivered; raise FlushTimeoutError if the timeout expires."""


_drained: weakref.WeakSet[Drained] = weakref.WeakSet()


def drain_at_exit(dispatcher: Drained) -> None:
    """Register a dispatcher to be drained at exit, if it still exists then."""
    _drained.add(dispatcher)


def _drain_all() -> None:
    deadline = clock() + EXIT_TIMEOUT
    for dispatcher in list(_drained):
        try:
            dispatcher.drain(max(0.0, deadline - clock()))
        except FlushTimeoutError as error:
            logger.warning("at exit: %s", error)


atexit.register(_drain_all)
