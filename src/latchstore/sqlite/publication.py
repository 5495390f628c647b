"""Publishing the commits of all processes in this one, in their order, once each.

1. The log is the journal. `seen` is the revision up to which this process has published; whoever comes reads
   what the log has after it (`catch_up`). So what an exception has broken off between a commit and its
   publication is made good by the next one who looks: a follower, a flush, a new watch, a commit.
2. A commit of this process is made in the section in which it is published, so that nobody reads it from the
   log in the ordinary course. What it queues is noted in `journal` before; what is queued of a commit in the
   log, in `_queued`.
3. While nobody listens and no watch is open, the commits of others are passed over, and `seen` need not be up
   to date. `following` is set, at the revision of that moment, in the section in which somebody begins to.
   So nobody is told of what was committed before.

Thread safety: all is done in the section of the latch. No user code runs in it; what is dropped there is
freed outside.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from latchstore.contract.errors import CompactedError
from latchstore.contract.values import Change
from latchstore.delivery.change_buffer import Commit
from latchstore.delivery.dispatcher import Delivery
from latchstore.delivery.waiting import Latch
from latchstore.engine.owner import Claim, TransactionInfo
from latchstore.engine.publishing import Author, LoggedAuthor, Publisher
from latchstore.sqlite import log
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.rows import Row
from latchstore.sqlite.running import run
from latchstore.sqlite.statements import REVISION

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("latchstore")


class Decided(NamedTuple):
    """A commit of this process that is about to be made.

    Attributes
    ----------
    revision : int
    changes : sequence of Change
    claim : Claim
        Of whoever makes it.
    transaction : Claim or None
        The same if it is a transaction.
    deliveries : sequence of Delivery
    """

    revision: int
    changes: Sequence[Change]
    claim: Claim
    transaction: Claim | None
    deliveries: Sequence[Delivery]


#: The revision of a commit of the log, and what its publisher is given beside the changes.
Queued = tuple[int, Author | None, Sequence[Delivery]]


class Publication:
    """How far the log is published in this process.

    Attributes
    ----------
    seen : int
    following : bool
        Whether the commits of others are published.
    journal : Decided or None
        The commit of this process that may have been made and is not published.
    """

    __slots__ = ("_connections", "_latch", "_publisher", "_queued", "following", "journal", "seen")

    def __init__(self, connections: Connections, publisher: Publisher) -> None:
        self._connections = connections
        self._publisher = publisher
        self.seen: int = 0
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Begin with a free section, and with nobody following."""
        # The section in which commits are made and published, and watches opened: the time of a COMMIT.
        self._latch = Latch()
        self.following: bool = False
        self.journal: Decided | None = None
        # What of the log was queued last: after an exception the same is queued again, and is heard once.
        self._queued: Queued | None = None

    def during(self, function: Callable[[], T]) -> T:
        """Call a function of ours in the section; free what was dropped in it, and have listeners called.

        Raises
        ------
        LockTimeoutError
            If this thread is in the section: a finalizer or a signal handler calls.
        """
        try:
            return self._latch.during(function)
        finally:
            self._publisher.garbage.clear()
            self._publisher.dispatcher.start_if_needed()

    # -- in the section ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Publish what others commit from now on."""
        if not self.following:
            self.seen = run(self._connections, "following", _revision)
            self.following = True

    def end_unless_followed(self) -> bool:
        """Publish what others commit no more if nobody listens; return whether that is so."""
        if not self._publisher.is_followed:
            self.following = False
        return not self.following

    def catch_up(self, most: int | None = None) -> int:
        """Publish what is committed, `most` commits at the most; return the revision of the last one."""
        revision = run(self._connections, "following", _revision)
        if revision > self.seen:
            self._publish_until(revision if most is None else min(revision, self.seen + most))
        return self.seen

    def publish(self, decided: Decided) -> None:
        """Publish a commit of this process that was made, after those before it. May be done again."""
        revision, changes, _, transaction, deliveries = decided
        if self.seen < revision - 1:
            self._publish_until(revision - 1)
        if self.seen < revision:
            self._publisher.publish(changes, revision, transaction, deliveries)
            self.seen = revision

    def _publish_until(self, revision: int) -> None:
        if not self.following:
            self.seen = revision
            return
        run(self._connections, "following", lambda connection: self._publish(connection, revision))

    def _publish(self, connection: sqlite3.Connection, until: int) -> None:
        publisher = self._publisher
        for commit in log.commits(connection, self.seen, until):
            if commit.revision > self.seen + 1:
                self._lose(commit.revision - 1)
            if self._queued is None or self._queued[0] != commit.revision:
                self._queued = self._of_log(commit)
            _, author, deliveries = self._queued
            publisher.publish(commit.changes, commit.revision, author, deliveries)
            self.seen = commit.revision
        if until > self.seen:
            self._lose(until)

    def _of_log(self, commit: log.Logged) -> Queued:
        """Return what is queued of a commit in the log."""
        decided = self.journal
        if decided is not None and decided.revision == commit.revision:
            # An exception has struck the thread that has made it.
            return commit.revision, decided.transaction, decided.deliveries
        author = LoggedAuthor(_info_of(commit))
        deliveries = self._publisher.deliveries_of(commit.changes, commit.revision, author)
        return commit.revision, author, deliveries

    def _lose(self, until: int) -> None:
        """Pass over commits that the log does not have any more."""
        logger.warning(
            "%s: %d commits were deleted from the log before this process has read them (history)",
            self._connections.path,
            until - self.seen,
        )
        self._publisher.lose(self.seen + 1, until)
        self.seen = until

    def past(self, since: int, revision: int) -> Iterator[Commit]:
        """Return the commits after one revision up to another; CompactedError if the log lacks some."""
        if since >= revision:
            return iter(())
        rows, oldest = run(self._connections, "watch", lambda each: _rows_between(each, since, revision))
        if oldest is None or since < oldest - 1:
            raise CompactedError(since, revision + 1 if oldest is None else oldest)
        return (Commit(commit.revision, commit.changes, _info_of(commit)) for commit in log.commits_of(rows))


def _revision(connection: sqlite3.Connection) -> int:
    ((revision,),) = connection.execute(REVISION)
    return int(revision)


def _rows_between(connection: sqlite3.Connection, since: int, revision: int) -> tuple[list[Row], int | None]:
    connection.execute("BEGIN")
    return log.rows_between(connection, since, revision).fetchall(), log.oldest(connection)


def _info_of(commit: log.Logged) -> TransactionInfo | None:
    """Return what events have of the transaction: of another process with that in the thread's name."""
    info = commit.transaction
    if info is None or commit.process == os.getpid():
        return info
    return info._replace(thread=f"{info.thread} of process {commit.process}")
