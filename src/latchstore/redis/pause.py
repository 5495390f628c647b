"""Waits for a commit of any process: XREAD on a connection of its own blocks until the log has one.

1. After each new connection the thread checks the log before it waits: the server may be another one than
   before, or may have restarted and lost commits. It also checks at least once a second.
2. While listeners are behind, new commits stay in the log; a check would have no effect, and XREAD would
   return at once, so the thread sleeps for a moment instead.
3. A lost connection is replaced at once, and if that fails, after increasing pauses. A line is logged when
   the next XREAD was answered, or if none is answered for some seconds although the server can be reached.
4. `interrupt` shuts the connection down, which ends the thread's wait at once.

Thread safety: one thread calls `sleep`; any thread, and finalizers, may call `interrupt`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis

from latchstore.delivery.waiting import LOOK_AGAIN, Bell, clock
from latchstore.redis.client import NO_CLUSTER, Server

logger: logging.Logger = logging.getLogger("latchstore")

#: Seconds before the second new connection, if the first one is lost as well, and maximum before any.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1

#: Maximum seconds between two checks.
_LONGEST = 1.0

#: Additional seconds for the answer, after which the connection is abandoned.
_PATIENCE = 5.0


class Loss:
    """A loss of the connection, and of its replacements, until one works.

    Parameters
    ----------
    why : str

    Attributes
    ----------
    until : float
        Time of the last connection, in seconds of `clock`.
    """

    __slots__ = ("_next", "_since", "_told", "_why", "until")

    def __init__(self, why: str) -> None:
        self._why = why
        self._since = self.until = clock()
        self._next = 0.0
        self._told = False

    def pause(self) -> float:
        """Return the seconds before the next connection: none at first."""
        pause, self._next = self._next, min(max(_FIRST_PAUSE, 2 * self._next), _LONGEST_PAUSE)
        return pause

    def tell(self, server: str) -> None:
        """Log that the loss is over."""
        seconds = self.until - self._since
        logger.warning(
            "%s: the connection that waits for commits was lost for %.3f s: %s", server, seconds, self._why
        )

    def tell_in_time(self, server: str) -> None:
        """Log a loss that lasts for some seconds, once."""
        if not self._told and clock() - self._since > _PATIENCE:
            self._told = True
            logger.warning("%s: cannot wait for commits of others, only poll for them: %s", server, self._why)


class LogPause:
    """The pause of a follower whose log is a stream.

    Parameters
    ----------
    server : Server
    seen : callable
        Returns the revision up to which the log was read.
    is_behind : callable
        Returns whether reading of the log is suspended.
    interval : callable
        Called with the seconds until the next check at the latest; returns them, or fewer.
    """

    __slots__ = ("_interval", "_is_behind", "_loss", "_open", "_seen", "_server")

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
        # The connection of the waiting thread, with its bell.
        self._open: tuple[Bell, Any] | None = None
        self._loss: Loss | None = None

    def sleep(self, bell: Bell) -> bool:
        if self._is_behind():
            return bell.sleep(LOOK_AGAIN)
        if bell.is_rung():
            return True
        is_open = self._open
        if is_open is None or is_open[0] is not bell:
            return self._connect(bell)
        try:
            self._wait(is_open[1])
            return bell.is_rung()
        except (redis.RedisError, OSError) as error:
            self.interrupt()
            if bell.is_rung():
                return True
            self._lose(error)
            assert self._loss is not None
            self._loss.tell_in_time(self._server.name)
            return self._connect(bell)
        except Exception:
            self.interrupt()
            if bell.is_rung():
                return True  # a connection that was shut down meanwhile raises such an error
            raise

    def _connect(self, bell: Bell) -> bool:
        """Make a new connection, after a pause if one was lost; return whether the bell was rung."""
        until = clock() + _LONGEST
        while True:
            if self._loss is not None and bell.sleep(self._loss.pause()):
                return True
            try:
                connection = self._server.connect(socket_timeout=_LONGEST + _PATIENCE)
                connection.connect()
            except (redis.RedisError, NO_CLUSTER, OSError) as error:
                self._lose(error)
                if clock() > until:
                    return bell.is_rung()  # the check of the log finds that the server is away
                continue
            self._open = bell, connection  # rule 1
            if bell.is_rung():
                self.interrupt()  # `interrupt` may have found no connection
                return True
            if self._loss is not None:
                self._loss.until = clock()
            return False

    def _lose(self, error: Exception) -> None:
        if self._loss is None:
            self._loss = Loss(str(error))

    def _wait(self, connection: Any) -> None:
        connection.send_command(
            b"XREAD",
            b"BLOCK",
            max(1, int(self._interval(_LONGEST) * 1_000)),  # 0 means no limit
            b"COUNT",
            1,
            b"STREAMS",
            self._server.tag + b":log",
            b"%d-0" % self._seen(),
        )
        connection.read_response()
        loss, self._loss = self._loss, None
        if loss is not None:
            loss.tell(self._server.name)

    def interrupt(self) -> None:
        is_open, self._open = self._open, None
        if is_open is not None:
            is_open[1].disconnect()
