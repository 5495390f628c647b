"""The thread that checks for commits of other processes while there are listeners or watches.

Between two checks it waits on its `Pause`: some milliseconds, or for a commit, where an engine can wait for
one. It refers to the engine weakly, and ends with the engine. It also ends when there are no listeners and
watches, and is started again when there are. A forked child begins without it.

Thread safety: any thread may call `start`; one thread at a time starts the follower's thread.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from latchstore.delivery.threads import DeliveryThread
from latchstore.delivery.waiting import LOOK_AGAIN, Bell, Latch

logger: logging.Logger = logging.getLogger("latchstore")


class Followed(Protocol):
    """An object that is checked repeatedly."""

    def look(self) -> bool:
        """Publish the commits of other processes; return whether to continue."""


class Pause(Protocol):
    """The wait between two checks. It must not refer to the checked object."""

    def sleep(self, bell: Bell) -> bool:
        """Wait until there may be commits, or the bell rings; return whether it rang.

        An exception that it raises is logged, and the wait repeated a moment later.
        """

    def interrupt(self) -> None:
        """End the wait of the thread at once, since its bell was rung; never waits."""


class Interval(NamedTuple):
    """A pause of some seconds, which are read each time."""

    seconds: Callable[[], float]

    def sleep(self, bell: Bell) -> bool:
        return bell.sleep(self.seconds())

    def interrupt(self) -> None:
        """Do nothing: the bell has ended the wait."""


class Follower:
    """Calls `look` of an object repeatedly, until it returns False.

    Parameters
    ----------
    followed : Followed
        Held by a weak reference.
    pause : Pause
    name : str
        The name of the thread.
    """

    __slots__ = ("_bell", "_name", "_pause", "_reference", "_starting", "_thread")

    def __init__(self, followed: Followed, pause: Pause, name: str = "latchstore-follower") -> None:
        self._name = name
        self._pause = pause
        self._reference = weakref.ref(followed)
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Reset to no thread."""
        self._thread: DeliveryThread | None = None
        # Ends the thread's sleep, and then the thread.
        self._bell = Bell()
        # Held while a thread is started, so that only one is.
        self._starting = Latch()

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self) -> None:
        """Start the thread unless it runs."""
        if not self.running and not sys.is_finalizing():
            self._starting.during(self._start)

    def _start(self) -> None:
        if self.running:
            return
        self._bell = bell = Bell()
        run = partial(_run, self._reference, bell, self._pause)
        self._thread = thread = DeliveryThread(run, self._name)
        thread.start()

    def forget(self) -> None:
        """Record the end of the thread, when `look` is about to return False."""
        self._thread = None

    def stop(self) -> None:
        """End the thread and wait for that, unless called by the thread itself."""
        thread, self._thread = self._thread, None
        self._bell.ring()
        self._pause.interrupt()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(_PATIENCE)


#: The most seconds to wait for the end of the thread, which may be reading.
_PATIENCE = 5.0


def _run(reference: Callable[[], Followed | None], bell: Bell, pause: Pause) -> None:
    failed = False
    while True:
        try:
            if pause.sleep(bell) or not _looks_again(reference):
                return
            failed = False
        except Exception as error:
            if not failed:
                # An error of the system is clear by itself; any other is a bug, and needs the traceback.
                details = None if isinstance(error, OSError) else error
                logger.error(
                    "%s failed and tries again: %r", threading.current_thread().name, error, exc_info=details
                )
            failed = True
            if bell.sleep(LOOK_AGAIN):
                return


def _looks_again(reference: Callable[[], Followed | None]) -> bool:
    followed = reference()
    return followed is not None and followed.look()
