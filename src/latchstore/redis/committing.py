"""Sends a commit, and determines its outcome if the answer is lost.

1. A commit is sent under a number of a session. The server keeps the last answered number of each session,
   and never makes two commits of one number. Without that, sending a command again after a lost reply could
   make several.
2. If the answer does not arrive, the server is asked for the outcome of that number (``resolve.lua``),
   repeatedly, on new connections. It answers the revision of the commit; or that there is none, and then
   there never will be: a command that is still on its way finds its number answered.
3. If that fails until the timeout, the outcome is unknown (`OutcomeUnknownError`).

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

#: The answer for a commit that was not made and never will be, so that it may be sent under another number.
NEVER = b"NEVER"

#: Seconds during which the outcome is available: the server keeps its answers for an hour.
_REMEMBERED = 3_000.0


class Sent:
    """The identification of a commit.

    Parameters
    ----------
    session : Session
        The session of its number.
    revision : int
        Its revision if it is made; 0 if that is not known.

    Attributes
    ----------
    session : bytes
    number : int
    identity : bytes
        Its identification in the log.
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
    """Return the arguments of the commit script before the edits.

    Parameters
    ----------
    sent : Sent
    token : bytes
        Of the lease, if there is one.
    place : Place
        The required last commit, if that matters.
    version : bytes
        Version of the list of indexes.
    history : int
    author : bytes
    caches : bytes
        The part of this process's caches.
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
        Whether a cache was ever opened on the namespace, as far as this process knows.
    """
    if has_caches:
        return COMMIT_CACHED_DELETING if deletes else COMMIT_CACHED
    return COMMIT_DELETING if deletes else COMMIT


def send(
    server: Server, sent: Sent, script: Script, arguments: Sequence[Any], timeout: float, purpose: str
) -> Sequence[Any]:
    """Send a commit once, and return the server's answer, or `NEVER`.

    Parameters
    ----------
    script : Script
        From `script_of`.
    timeout : float
        Time limit for determining a lost answer; negative for none.

    Raises
    ------
    OutcomeUnknownError
        If the outcome cannot be determined.
    ConnectionError
        If the server cannot be reached, so that nothing was sent.
    """
    try:
        try:
            answer: Sequence[Any] = server.once_script(script, *arguments)
        except Disconnected as lost:
            if lost.sent:
                raise
            server.drop_idle()  # the server may have closed all of them
            answer = server.once_script(script, *arguments)
        return answer
    except Disconnected as lost:
        if not lost.sent:
            raise server.failure_of(lost) from lost
    except redis.RedisError as error:
        raise server.failure_of(error) from error
    except BaseException:
        # Interrupted: it must not be made after the call has ended. One attempt, without waiting.
        _try(server, sent)
        raise
    revision = outcome(server, sent, timeout, purpose)
    return (b"OK", b"%d" % revision, b"", b"") if revision else (NEVER,)


def outcome(server: Server, sent: Sent, timeout: float, purpose: str) -> int:
    """Return the revision of a commit that was sent; 0 if it was not made and never will be.

    Raises
    ------
    OutcomeUnknownError
        If the outcome cannot be determined.
    """
    begun, pauses = clock(), Pauses(timeout)
    while True:
        server.drop_idle()  # the server that they were connected to may be gone
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
