"""Publishing the commits of all processes in this one, in their order, once each.

1. The log is the journal. `seen` is the revision up to which this process has published; whoever comes reads
   what the log has after it (`catch_up`). So what an exception has broken off between a commit and its
   publication is made good by the next one who looks: a follower, a flush, a new watch, a commit.
2. A commit of this process is made in the section in which it is published, so that nobody reads it from
   the log in the ordinary course.
3. If nobody listens and no watch is open, catching up sets `seen` and reads nothing.

Thread safety: all is done in the section of the latch. No user code runs in it; what is dropped there is
freed outside.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from latchstore.contract.values import Change
from latchstore.delivery.dispatcher import Delivery
from latchstore.delivery.waiting import Latch
from latchstore.engine.owner import Claim, TransactionInfo
from latchstore.engine.publishing import COMMIT_EVENTS, Publisher
from latchstore.sqlite import log
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.running import run
from latchstore.sqlite.statements import REVISION

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("latchstore")


class Publication:
    """How far the log is published in this process.

    Attributes
    ----------
    seen : int
    """

    __slots__ = ("_connections", "_latch", "_publisher", "seen")

    def __init__(self, connections: Connections, publisher: Publisher, seen: int) -> None:
        self._connections = connections
        self._publisher = publisher
        self.seen: int = seen
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Have a free section."""
        # The section in which commits are made and published, and watches opened: the time of a COMMIT.
        self._latch = Latch()

    @property
    def is_awaited(self) -> bool:
        """Whether anybody is to be told of commits."""
        return self._publisher.feed.active or self._publisher.has_listeners(COMMIT_EVENTS)

    def during(self, function: Callable[[], T]) -> T:
        """Call a function of ours in the section; free what was dropped in it, and have listeners called."""
        try:
            return self._latch.during(function)
        finally:
            self._publisher.garbage.clear()
            self._publisher.dispatcher.start_if_needed()

    def catch_up(self) -> int:
        """Publish all that is committed; return the revision of the last commit."""
        return self.during(self.catch_up_in_section)

    def catch_up_in_section(self) -> int:
        """Publish as `catch_up` does, in the section."""
        revision = run(self._connections, "following", _revision)
        if revision > self.seen:
            self._publish_until(revision)
        return self.seen

    def _publish_until(self, revision: int) -> None:
        if not self.is_awaited:
            self.seen = revision
            return
        run(self._connections, "following", lambda connection: self._publish(connection, revision))

    def _publish(self, connection: sqlite3.Connection, until: int) -> None:
        for commit in log.commits(connection, self.seen, until):
            if commit.revision > self.seen + 1:
                self._note_loss(commit.revision - 1)
            claim = None if commit.transaction is None else _Committed(commit.transaction)
            deliveries = self._publisher.deliveries_of(commit.changes, commit.revision, claim)
            self._publisher.publish(commit.changes, commit.revision, claim, deliveries)
            self.seen = commit.revision
        if until > self.seen:
            self._note_loss(until)

    def _note_loss(self, until: int) -> None:
        """Pass over commits that the log does not have any more."""
        logger.warning(
            "%s: %d commits were deleted from the log before this process has read them",
            self._connections.path,
            until - self.seen,
        )
        self.seen = until

    def publish(
        self, changes: Sequence[Change], revision: int, claim: Claim | None, deliveries: Sequence[Delivery]
    ) -> None:
        """Publish a commit of this process, after those before it; in the section. May be done again."""
        if self.seen < revision - 1:
            self._publish_until(revision - 1)
        if self.seen < revision:
            self._publisher.publish(changes, revision, claim, deliveries)
            self.seen = revision


class _Committed:
    """What a publisher needs of a transaction that was committed."""

    __slots__ = ("info",)

    def __init__(self, info: TransactionInfo) -> None:
        self.info = info


def _revision(connection: sqlite3.Connection) -> int:
    ((revision,),) = connection.execute(REVISION)
    return int(revision)
