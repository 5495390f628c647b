"""The clock of the server, by which leases of jobs and deadlines of caches are counted, on all machines.

Thread safety: what was measured last is replaced by one assignment.
"""

from __future__ import annotations

import time

from latchstore.delivery.waiting import clock
from latchstore.redis.client import Server

#: Seconds for which a measurement holds: clocks of two machines differ by some microseconds more after that.
_HOLDS = 10.0


class ServerClock:
    """Tells the time of a server.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        # What the server has shown, and what the monotonic clock has shown then.
        self._measured = (0.0, float("-inf"))

    def now(self) -> float:
        """Ask for the time: seconds since the epoch."""
        begun = clock()
        seconds, microseconds = self._server.call(b"TIME")
        now = int(seconds) + int(microseconds) / 1_000_000
        self._measured = (now, (begun + clock()) / 2)
        return now

    def __call__(self) -> float:
        """Return the time, asked for every ten seconds; so a hit of a cache need not ask."""
        measured, then = self._measured
        if clock() - then > _HOLDS:
            self.now()
            measured, then = self._measured
        return measured + (clock() - then)

    def offset(self) -> float:
        """Return by how many seconds it is ahead of ``time.time()``."""
        return self() - time.time()
