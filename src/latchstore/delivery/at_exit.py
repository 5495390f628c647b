"""Pending events are delivered at the exit of the interpreter, before daemon threads are cut off.

Thread safety: `drain_at_exit` may be called by any thread; what is done at the exit, the main thread does.
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

#: Seconds that the interpreter's exit waits for pending events of all stores together.
EXIT_TIMEOUT = 10.0


class Drained(Protocol):
    """What has events pending."""

    @abstractmethod
    def drain(self, timeout: float) -> None:
        """Wait until all has been heard; FlushTimeoutError if that takes longer."""


_drained: weakref.WeakSet[Drained] = weakref.WeakSet()


def drain_at_exit(dispatcher: Drained) -> None:
    """Have a dispatcher drained at the exit, if it is there by then."""
    _drained.add(dispatcher)


def _drain_all() -> None:
    deadline = clock() + EXIT_TIMEOUT
    for dispatcher in list(_drained):
        try:
            dispatcher.drain(max(0.0, deadline - clock()))
        except FlushTimeoutError as error:
            logger.warning("at exit: %s", error)


atexit.register(_drain_all)
