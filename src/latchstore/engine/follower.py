"""The thread that looks for commits of other processes while somebody listens or watches.

Between two looks it waits as its `Pause` does: for some milliseconds, or for a commit, where an engine can
wait for one. It refers to the engine weakly, and ends with that; it ends when nobody listens any more, and is
started again when somebody does. A forked child begins without it.

Thread safety: `follow` may be called by any thread; one thread at a time starts one.
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
    """What is looked at now and then."""

    def look(self) -> bool:
        """Publish what others have committed; return whether to look again."""


class Pause(Protocol):
    """How the thread waits between two looks. It does not refer to what is looked at."""

    def sleep(self, bell: Bell) -> bool:
        """Wait until there may be commits, or the bell is rung; return whether it was rung.

        What it raises is logged, and tried again a moment later.
        """

    def interrupt(self) -> None:
        """End the wait of the thread at once, as its bell was rung; called by any thread, never waits."""


class Interval(NamedTuple):
    """A pause of some time, which is asked for each time."""

    seconds: Callable[[], float]

    def sleep(self, bell: Bell) -> bool:
        return bell.sleep(self.seconds())

    def interrupt(self) -> None:
        """Do nothing: the bell has ended it."""


class Follower:
    """Calls `look` of an object again and again, until that returns False.

    Parameters
    ----------
    followed : Followed
        Referred to weakly.
    pause : Pause
    name : str
        Of the thread.
    """

    __slots__ = ("_bell", "_name", "_pause", "_reference", "_starting", "_thread")

    def __init__(self, followed: Followed, pause: Pause, name: str = "latchstore-follower") -> None:
        self._name = name
        self._pause = pause
        self._reference = weakref.ref(followed)
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Begin without a thread."""
        self._thread: DeliveryThread | None = None
        # Ends the thread's sleep, and the thread.
        self._bell = Bell()
        # Held while a thread is started, so that it is one.
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
        """Take the thread to have ended, as `look` is about to return False."""
        self._thread = None

    def stop(self) -> None:
        """End the thread, and wait for that unless it calls."""
        thread, self._thread = self._thread, None
        self._bell.ring()
        self._pause.interrupt()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(_PATIENCE)


#: Seconds that the end of the thread is waited for: it may be reading.
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
                # What the system cannot do now says all; anything else is a mistake of ours.
                details = None if isinstance(error, OSError) else error
                logger.error(
                    "%s failed, and tries again: %r", threading.current_thread().name, error, exc_info=details
                )
            failed = True
            if bell.sleep(LOOK_AGAIN):
                return


def _looks_again(reference: Callable[[], Followed | None]) -> bool:
    followed = reference()
    return followed is not None and followed.look()
