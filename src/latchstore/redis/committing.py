"""Sending a commit, until it is known what has become of it.

Thread safety: a commit belongs to the thread that sends it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis

from latchstore.contract.errors import StoreError
from latchstore.redis.client import Disconnected, Server
from latchstore.redis.lease import Pauses
from latchstore.redis.scripts import COMMIT, COMMIT_DELETING, RESOLVE
from latchstore.redis.sessions import Session
from latchstore.redis.view import Place


class Outgoing:
    """A commit as the script takes it.

    Parameters
    ----------
    session : Session
        Whose number is that of the commit.
    token : bytes
        Of the lease, if there is one.
    place : Place
        What the last commit must be, if that matters.
    history : int
    author : bytes
    edits : list
        From `arguments_of`.
    deletes : bool
        Whether all of them only delete.

    Attributes
    ----------
    identity : bytes
        What the log has of the commit.
    """

    __slots__ = ("_script", "arguments", "identity", "session")

    def __init__(
        self,
        session: Session,
        token: bytes,
        place: Place,
        history: int,
        author: bytes,
        edits: list[Any],
        deletes: bool,
    ) -> None:
        number = session.number
        self.session: Session = session
        self.identity: bytes = b"%b:%d" % (session.name, number)
        self._script = COMMIT_DELETING if deletes else COMMIT
        self.arguments: tuple[Any, ...] = (
            session.name, number, token, *place, 0, history, 0, repr(time.time()), author, b"", *edits,
        )  # fmt: skip

    def send(self, server: Server) -> Sequence[Any]:
        """Send it once; return the answer."""
        answer: Sequence[Any] = server.once_script(self._script, *self.arguments)
        return answer


def send(server: Server, outgoing: Outgoing, timeout: float, purpose: str) -> Sequence[Any]:
    """Send a commit, again if its answer is lost; return the answer.

    Whatever is raised, the commit is not made later than that.
    """
    try:
        answer = outgoing.send(server)
    except Disconnected as error:
        answer = _again(server, outgoing, error, timeout, purpose)
    except redis.RedisError as error:
        raise server.failure_of(error) from error
    except BaseException:
        session = outgoing.session
        server.run(RESOLVE, session.name, session.number)
        raise
    if answer[0] == b"AGAIN":
        return (b"OK", answer[1], b"", b"")
    return answer


def _again(
    server: Server, outgoing: Outgoing, error: Disconnected, timeout: float, purpose: str
) -> Sequence[Any]:
    """Send a commit whose answer was lost, under the same number, until there is one."""
    pauses = Pauses(timeout)
    while not pauses.are_over:
        server.drop_idle()
        try:
            return outgoing.send(server)
        except Disconnected as again:
            error = again
        except redis.RedisError as refused:
            raise server.failure_of(refused) from refused
        pauses.sleep()
    raise StoreError(f"{purpose}: {server.name} has not answered; it may have happened: {error}") from error
