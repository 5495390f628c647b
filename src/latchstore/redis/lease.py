"""The writer lease, which excludes other processes while an exclusive transaction is open.

1. The server has the token of the holder, for some seconds. A thread renews it while the block is open; if
   the process stops, it expires. If the block was freed without an end, the thread releases it.
2. The lease alone decides nothing: a commit carries its token, and the server refuses the commit if the lease
   belongs to another holder.
3. The token is known before it is requested, so a lease that an exception has interrupted is released as
   well. A lease that cannot be released expires.

Thread safety: an engine uses one lease at a time, its owner's. `Leases` is changed by single operations.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from latchstore.contract.errors import LockTimeoutError, StoreError
from latchstore.delivery.waiting import thread_name
from latchstore.engine.follower import Follower, Interval
from latchstore.engine.owner import Claim, Writer
from latchstore.redis.client import Server
from latchstore.redis.pauses import Pauses
from latchstore.redis.scripts import LEASE

logger: logging.Logger = logging.getLogger("latchstore")

#: How often a lease is renewed during its time, and how often after a failure.
_IN_TIME, _SOON = 3, 30

_SEPARATOR = "\0"


class Place(NamedTuple):
    """The last commit at the time when the lease was taken."""

    revision: bytes
    id: bytes


class Lease:
    """The lease of one exclusive transaction, until it is released.

    Parameters
    ----------
    server : Server
    seconds : float
        Duration unless it is renewed.
    claim : Claim

    Attributes
    ----------
    token : bytes
    place : Place or None
        None before the lease is taken.
    drop : callable
        Marks it as released, after the server has released it.
    """

    def __init__(self, server: Server, seconds: float, claim: Claim) -> None:
        self._server = server
        self._milliseconds = max(1, round(seconds * 1000))
        self._purpose = claim.purpose
        self._thread = thread_name(claim.thread)
        self.token: bytes = secrets.token_hex(16).encode()
        self.place: Place | None = None
        self._route = claim.route
        # Empty after the release.
        self._held = [None]
        self.drop: Callable[[], None] = self._held.clear

    def acquire(self, timeout: float) -> None:
        """Wait until the lease is free, and acquire it.

        Raises
        ------
        LockTimeoutError
            If it takes longer, with the holder and the duration.
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
        """Extend it by its duration from now on; release it if its block was freed."""
        if self._route is None or self._route() is None:
            self.release()
        elif self._held and self.place is not None:
            self._server.run(LEASE, b"renew", self.token, self._milliseconds)

    def give_back(self) -> bool:
        """Release it; return whether it was still held."""
        # A request for a lease that was not taken may still be on its way to the server.
        mark = (b"1",) if self.place is None else ()
        try:
            return bool(self._server.run(LEASE, b"give", self.token, *mark))
        finally:
            self.drop()

    def release(self) -> None:
        """Release it, or leave it to expire; does nothing if that is done."""
        if self._held:
            try:
                self.give_back()
            except (OSError, StoreError) as error:
                logger.warning("%s: its lease cannot be released and will expire: %s", self._purpose, error)


def holder_of(stored: bytes) -> Writer | None:
    """Return the holder of a lease from the server's record; None if the record is incomplete."""
    text = stored.partition(b" ")[2].decode("utf-8", "replace")
    try:
        host, process, since, thread, purpose = text.split(_SEPARATOR)
        return Writer(thread, purpose, max(0.0, time.time() - float(since)), int(process), host)
    except ValueError:
        return None


def described(stored: bytes) -> str:
    """Return a text for the holder of a lease, from the server's record."""
    holder = holder_of(stored)
    if holder is None:
        return "held by another process"
    thread, purpose, held, process, host = holder
    return f"held for {held:.3f} s by process {process} of {host}, thread {thread!r} ({purpose})"


class Leases(dict[Claim, Lease]):
    """The lease of the owner, if it has or requests one, and those of blocks that exceptions have left.

    A thread renews them.

    Parameters
    ----------
    server : Server
    seconds : float
        Duration of a lease.

    Attributes
    ----------
    seconds : float
    """

    __slots__ = ("__weakref__", "_late", "_renewal", "_server", "seconds")

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self.seconds: float = seconds
        # Not empty if leases could not be renewed: then the next attempt comes soon.
        self._late = late = list[None]()
        interval = Interval(lambda: seconds / (_SOON if late else _IN_TIME))
        self._renewal = Follower(self, interval, "latchstore-lease")

    def renew_in_child(self) -> None:
        """Begin without leases, in a forked child."""
        self.clear()
        self._late.clear()
        self._renewal.renew_in_child()

    def take(self, claim: Claim, timeout: float) -> Lease:
        """Wait until the lease is free, and acquire it; LockTimeoutError as for `Lease.acquire`."""
        # Before the request: an exception may come after the server has granted it.
        self[claim] = lease = Lease(self._server, self.seconds, claim)
        lease.acquire(timeout)
        self._renewal.start()
        return lease

    def look(self) -> bool:
        """Renew the leases; return whether there are any. Called by the thread."""
        self._late[:] = [None]
        for lease in list(self.values()):
            lease.renew()
        self._late.clear()
        if self:
            return True
        self._renewal.forget()
        if self:  # a thread that took one has seen this thread running
            self._renewal.start()
        return False

    def stop(self) -> None:
        """End the thread."""
        self._renewal.stop()
