"""The lease of the one writer: what keeps other processes out while an exclusive transaction is open.

1. The server has the token of who has it, for some seconds. A thread of the engine renews it while the block
   is open; if the process stops, it ends by itself.
2. It does not decide: a commit carries its token, and the server refuses it if the lease is another's by now.
3. The token is known before it is asked for, so what an exception has broken off is given back as well.

Thread safety: an engine uses one lease at a time, its owner's.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from latchstore.contract.errors import LockTimeoutError
from latchstore.delivery.threads import DeliveryThread
from latchstore.delivery.waiting import Bell, clock, thread_name
from latchstore.engine.owner import Claim
from latchstore.redis.client import Server
from latchstore.redis.scripts import LEASE

logger: logging.Logger = logging.getLogger("latchstore")

#: Seconds between two looks at whether others have ended, first and longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_5, 0.01

_SEPARATOR = "\0"


class Pauses:
    """The pauses of a wait for what another process has, which grow.

    Parameters
    ----------
    left : float
        Seconds that may be waited; negative for ever.

    Attributes
    ----------
    left : float
    """

    __slots__ = ("_next", "left")

    def __init__(self, left: float) -> None:
        self.left: float = left
        self._next = _FIRST_PAUSE

    @property
    def are_over(self) -> bool:
        """Whether there is no time left, or nobody runs any more who could end the wait."""
        return self.left == 0 or sys.is_finalizing()

    def sleep(self) -> None:
        """Sleep for the next one."""
        seconds = self._next * random.uniform(0.5, 1)  # noqa: S311 (so that those who wait do not meet again)
        if self.left >= 0:
            seconds = min(seconds, self.left)
        begun = clock()
        time.sleep(seconds)
        if self.left >= 0:
            self.left = max(0.0, self.left - max(seconds, clock() - begun))
        self._next = min(2 * self._next, _LONGEST_PAUSE)


class Place(NamedTuple):
    """Which commit was the last one when the lease was taken."""

    revision: bytes
    id: bytes


class Lease:
    """What one exclusive transaction has, until it is given back.

    Parameters
    ----------
    server : Server
    seconds : float
        How long it lasts unless it is renewed.
    claim : Claim

    Attributes
    ----------
    token : bytes
    place : Place or None
        None before it is taken.
    is_over : bool
        Whether the server has had no such lease any more when it was asked last.
    drop : callable
        Takes it to be given back, as the server has done so.
    """

    def __init__(self, server: Server, seconds: float, claim: Claim) -> None:
        self._server = server
        self._milliseconds = max(1, round(seconds * 1000))
        self._purpose = claim.purpose
        self._thread = thread_name(claim.thread)
        self.token: bytes = secrets.token_hex(16).encode()
        self.place: Place | None = None
        self.is_over: bool = False
        # Empty when it was given back.
        self._held = [None]
        self.drop: Callable[[], None] = self._held.clear

    def acquire(self, timeout: float) -> None:
        """Wait until nobody else has it.

        Raises
        ------
        LockTimeoutError
            If it takes longer, with who has it and for how long.
        """
        pauses = Pauses(timeout)
        while True:
            taken, *found = self._server.run(
                LEASE, b"take", self.token, self._milliseconds, self._description()
            )
            if taken:
                self.place = Place(*found)
                return
            if pauses.are_over:
                raise LockTimeoutError(
                    f"{self._purpose}: no write lock in {timeout:g} s, {described(found[0])}"
                )
            pauses.sleep()

    def _description(self) -> bytes:
        parts = (socket.gethostname(), str(os.getpid()), repr(time.time()), self._thread, self._purpose)
        text = _SEPARATOR.join([part.replace(_SEPARATOR, " ") for part in parts])
        return text.encode("utf-8", "replace")

    def renew(self) -> None:
        """Have it last as long again from now on."""
        if self._held and self.place is not None:
            self.is_over = not self._server.run(LEASE, b"renew", self.token, self._milliseconds)

    def release(self) -> None:
        """Give it back; nothing happens if that was done."""
        if not self._held:
            return
        # One that was not taken may be on its way to the server yet.
        mark = (b"1",) if self.place is None else ()
        self.is_over = not self._server.run(LEASE, b"give", self.token, *mark)
        self.drop()


def described(stored: bytes) -> str:
    """Name the holder of a lease, from what the server has of it."""
    text = stored.partition(b" ")[2].decode("utf-8", "replace")
    try:
        host, process, since, thread, purpose = text.split(_SEPARATOR)
        held = max(0.0, time.time() - float(since))
    except ValueError:
        return "held by another process"
    return f"held for {held:.3f} s by process {process} of {host}, thread {thread!r} ({purpose})"


class Renewal:
    """The thread that renews the lease of an engine while it has one.

    It refers to the engine weakly. It ends when it has found no lease for a round, and is started again with
    the next one. A forked child begins without it.

    Parameters
    ----------
    engine : object
        Has `leases`, and `end_abandoned`.
    seconds : float
        Of a lease.
    """

    def __init__(self, engine: Any, seconds: float) -> None:
        self._reference: weakref.ref[Any] = weakref.ref(engine)
        self._interval = seconds / 3
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Begin without a thread."""
        self._running: list[Bell] = []

    def start(self) -> None:
        """Start the thread unless it runs."""
        if self._running or sys.is_finalizing():
            return
        bell, running = Bell(), self._running
        running.append(bell)
        if running[0] is bell:
            DeliveryThread(
                lambda: _renew(self._reference, running, bell, self._interval), "latchstore-lease"
            ).start()

    def stop(self) -> None:
        """End the thread."""
        running, self._running = self._running, []
        for bell in running:
            bell.ring()


def _renew(reference: weakref.ref[Any], running: list[Bell], bell: Bell, interval: float) -> None:
    try:
        while not bell.sleep(interval):
            engine = reference()
            if engine is None:
                return
            try:
                if engine.abandoned:
                    engine.end_abandoned()
                if not engine.leases:
                    return
                for lease in list(engine.leases.values()):
                    lease.renew()
            except Exception:
                logger.exception("a lease cannot be renewed; trying again")
            del engine
    finally:
        running.clear()
