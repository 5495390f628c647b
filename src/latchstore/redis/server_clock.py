"""The clock of the server, for leases of jobs and times of expiry of caches on all machines.

Thread safety: one assignment replaces the last measurement.
"""

from __future__ import annotations

import time

from latchstore.delivery.waiting import clock
from latchstore.redis.client import Server

#: Seconds for which a measurement is used: after that, clocks of two machines differ by some microseconds
#: more.
_HOLDS = 10.0


class ServerClock:
    """Returns the time of a server.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        # The time of the server, and the monotonic clock at that moment.
        self._measured = (0.0, float("-inf"))

    def now(self) -> float:
        """Read the time: seconds since the epoch."""
        begun = clock()
        seconds, microseconds = self._server.call(b"TIME")
        now = int(seconds) + int(microseconds) / 1_000_000
        self._measured = (now, (begun + clock()) / 2)
        return now

    def __call__(self) -> float:
        """Return the time, read every ten seconds; so a hit of a cache sends no request."""
        measured, then = self._measured
        if clock() - then > _HOLDS:
            self.now()
            measured, then = self._measured
        return measured + (clock() - then)

    def offset(self) -> float:
        """Return the seconds by which it is ahead of ``time.time()``."""
        return self() - time.time()
