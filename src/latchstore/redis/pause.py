"""Waiting for a commit of any process: XREAD on a connection of its own, which blocks until the log has one.

1. After each new connection the thread looks before it waits: the server may be another one than before, or
   have been started anew, and have lost commits. So it does after a second in any case.
2. While listeners are behind, the log keeps what is to come; then a look would change nothing, and XREAD
   would return at once, so the thread sleeps for a moment instead.
3. `interrupt` shuts the connection down, which ends the wait of the thread at once.

Thread safety: `sleep` is called by one thread; `interrupt` by any, and by finalizers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from latchstore.delivery.waiting import LOOK_AGAIN, Bell
from latchstore.redis.client import Server

#: Seconds after which the thread looks at the latest.
_LONGEST = 1.0

#: Seconds that the answer may take beyond that, else the connection is given up.
_PATIENCE = 5.0


class LogPause:
    """The pause of a follower whose log is a stream.

    Parameters
    ----------
    server : Server
    seen : callable
        Returns the revision up to which the log was read.
    is_behind : callable
        Tells whether the log is not read on for now.
    interval : callable
        Called with the seconds after which the thread looks at the latest; returns them, or fewer.
    """

    __slots__ = ("_interval", "_is_behind", "_open", "_seen", "_server")

    def __init__(
        self,
        server: Server,
        seen: Callable[[], int],
        is_behind: Callable[[], bool],
        interval: Callable[[float], float],
    ) -> None:
        self._server = server
        self._seen = seen
        self._is_behind = is_behind
        self._interval = interval
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Leave the connection to the parent."""
        # The connection of the thread that has the bell.
        self._open: tuple[Bell, Any] | None = None

    def sleep(self, bell: Bell) -> bool:
        if self._is_behind():
            return bell.sleep(LOOK_AGAIN)
        if bell.is_rung():
            return True
        try:
            self._wait(bell)
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            self._open = None  # the look tells whether the server is away
        except Exception:
            self._open = None
            if not bell.is_rung():  # else it is what a connection raises that was shut down meanwhile
                raise
        return bell.is_rung()

    def _wait(self, bell: Bell) -> None:
        is_open = self._open
        if is_open is None or is_open[0] is not bell:
            connection = self._server.connect(socket_timeout=_LONGEST + _PATIENCE)
            connection.connect()
            self._open = bell, connection  # rule 1
            return
        connection = is_open[1]
        connection.send_command(
            b"XREAD",
            b"BLOCK",
            max(1, int(self._interval(_LONGEST) * 1_000)),  # 0 is for ever
            b"COUNT",
            1,
            b"STREAMS",
            self._server.tag + b":log",
            b"%d-0" % self._seen(),
        )
        connection.read_response()

    def interrupt(self) -> None:
        is_open, self._open = self._open, None
        if is_open is not None:
            is_open[1].disconnect()
