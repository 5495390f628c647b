"""Sending a commit, and finding out what has become of it if its answer is lost.

1. A commit is sent under a number of a session. The server keeps the last number of each that it has
   answered, and never makes two commits of one. To send a command again after a lost reply, without that, may
   make three of one.
2. If the answer does not come, the server is asked what has become of that number (``resolve.lua``), again
   and again, on new connections. It answers the revision of the commit; or that there was none, and then
   there never will be: a command which is on its way yet finds its number answered.
3. If that cannot be had in time, nobody knows (`OutcomeUnknownError`).

Thread safety: a commit belongs to the thread that sends it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis

from latchstore.contract.errors import OutcomeUnknownError
from latchstore.delivery.waiting import clock
from latchstore.redis.client import Disconnected, Server
from latchstore.redis.pauses import Pauses
from latchstore.redis.scripts import (
    COMMIT,
    COMMIT_CACHED,
    COMMIT_CACHED_DELETING,
    COMMIT_DELETING,
    RESOLVE,
    Script,
)
from latchstore.redis.sessions import Session
from latchstore.redis.view import Place

#: The answer if a commit was not made and never will be, so that it may be sent under another number.
NEVER = b"NEVER"

#: Seconds during which the server can be asked: it keeps what it has answered for an hour.
_REMEMBERED = 3_000.0


class Sent:
    """What a commit is known by.

    Parameters
    ----------
    session : Session
        Whose number is that of the commit.
    revision : int
        The one that it will have if it is made; 0 if that is not known.

    Attributes
    ----------
    session : bytes
    number : int
    identity : bytes
        What the log has of it.
    revision : int
    """

    __slots__ = ("identity", "number", "revision", "session")

    def __init__(self, session: Session, revision: int = 0) -> None:
        self.revision: int = revision
        self.session: bytes = session.name
        self.number: int = session.number
        self.identity: bytes = b"%b:%d" % (session.name, session.number)


def arguments_before_edits(
    sent: Sent,
    token: bytes,
    place: Place,
    version: bytes,
    history: int,
    author: bytes,
    caches: bytes,
) -> tuple[Any, ...]:
    """Return what the commit script takes before the edits.

    Parameters
    ----------
    sent : Sent
    token : bytes
        Of the lease, if there is one.
    place : Place
        What the last commit must be, if that matters.
    version : bytes
        Of the list of indexes.
    history : int
    author : bytes
    caches : bytes
        What those of this process bring along.
    """
    now = repr(time.time())
    return sent.session, sent.number, token, *place, version, history, 0, now, author, caches


def script_of(deletes: bool, has_caches: bool) -> Script:
    """Return the script of a commit.

    Parameters
    ----------
    deletes : bool
        Whether all of its edits only delete.
    has_caches : bool
        Whether a cache was ever opened on the namespace, as far as is known here.
    """
    if has_caches:
        return COMMIT_CACHED_DELETING if deletes else COMMIT_CACHED
    return COMMIT_DELETING if deletes else COMMIT


def send(
    server: Server, sent: Sent, script: Script, arguments: Sequence[Any], timeout: float, purpose: str
) -> Sequence[Any]:
    """Send a commit once, and return what the server answers, or `NEVER`.

    Parameters
    ----------
    script : Script
        From `script_of`.
    timeout : float
        Seconds in which the answer has to be had if it is lost; negative for ever.

    Raises
    ------
    OutcomeUnknownError
        If nobody can tell whether it was made.
    ConnectionError
        If the server cannot be reached, so that nothing was sent.
    """
    try:
        try:
            answer: Sequence[Any] = server.once_script(script, *arguments)
        except Disconnected as lost:
            if lost.sent:
                raise
            server.drop_idle()  # the server may have closed them all
            answer = server.once_script(script, *arguments)
        return answer
    except Disconnected as lost:
        if not lost.sent:
            raise server.failure_of(lost) from lost
    except redis.RedisError as error:
        raise server.failure_of(error) from error
    except BaseException:
        # Struck: it must not be made when the call has ended. Once, as nobody is to wait for that.
        _try(server, sent)
        raise
    revision = outcome(server, sent, timeout, purpose)
    return (b"OK", b"%d" % revision, b"", b"") if revision else (NEVER,)


def outcome(server: Server, sent: Sent, timeout: float, purpose: str) -> int:
    """Return the revision of a commit that was sent; 0 if it was not made and never will be.

    Raises
    ------
    OutcomeUnknownError
        If nobody can tell.
    """
    begun, pauses = clock(), Pauses(timeout)
    while True:
        server.drop_idle()  # they were connected to a server that may be gone
        revision, error = _try(server, sent)
        if error is None:
            return revision
        passed = clock() - begun
        if pauses.are_over or passed > _REMEMBERED:
            raise OutcomeUnknownError(
                f"{purpose}: the connection to {server.name} broke after the commit was sent, and in "
                f"{passed:.3f} s the server could not be asked whether it was made: it may have been"
            ) from error
        pauses.sleep()


def _try(server: Server, sent: Sent) -> tuple[int, Exception | None]:
    try:
        return int(server.once_script(RESOLVE, sent.session, sent.number)), None
    except (Disconnected, redis.RedisError) as error:
        return 0, error  # a server that starts, or becomes the primary, refuses for a while
