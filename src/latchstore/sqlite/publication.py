"""Publishing the log of a SQLite file, and the commit of this process that is not published yet.

A commit of this process is made in the section in which it is published, so it is normally not read from the
log. Its events are recorded in `journal` before.

Thread safety: everything runs in the section of the publication.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from latchstore.contract.values import Change
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.owner import Claim
from latchstore.engine.publication import Logged, Publication, Queued
from latchstore.engine.publishing import Publisher
from latchstore.sqlite import log
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.rows import Row
from latchstore.sqlite.running import run
from latchstore.sqlite.statements import REVISION


class FileLog:
    """The log of a file.

    Parameters
    ----------
    connections : Connections

    Attributes
    ----------
    name : str
        The path of the file.
    """

    __slots__ = ("_connections", "name")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.name: str = connections.path

    def last(self) -> int:
        return run(self._connections, "following", _revision)

    def replay(self, after: int, until: int, function: Callable[[Logged], None]) -> None:
        run(self._connections, "following", lambda each: _replay(each, after, until, function))

    def between(self, after: int, until: int) -> tuple[Iterator[Logged], int | None]:
        rows, oldest = run(self._connections, "watch", lambda each: _rows_between(each, after, until))
        return log.commits_of(rows), oldest


class Decided(NamedTuple):
    """A commit of this process that is about to be made.

    Attributes
    ----------
    revision : int
    changes : sequence of Change
    claim : Claim
        The claim of the thread that makes it.
    transaction : Claim or None
        The same if it is a transaction.
    deliveries : sequence of Delivery
    """

    revision: int
    changes: Sequence[Change]
    claim: Claim
    transaction: Claim | None
    deliveries: Sequence[Delivery]


class FilePublication(Publication):
    """The state of publication of a file's log in this process.

    Attributes
    ----------
    journal : Decided or None
        The commit of this process that may have been made and is not published.
    """

    def __init__(self, connections: Connections, publisher: Publisher) -> None:
        super().__init__(FileLog(connections), publisher)

    def renew_in_child(self) -> None:
        super().renew_in_child()
        self.journal: Decided | None = None

    def publish(self, decided: Decided) -> None:
        """Publish a commit of this process that was made, after those before it. May be repeated."""
        revision, changes, _, transaction, deliveries = decided
        if self.seen < revision - 1:
            self.publish_until(revision - 1)
        if self.seen < revision:
            self.publish_changes(changes, revision, transaction, deliveries)

    def queued_of(self, commit: Logged) -> Queued:
        decided = self.journal
        if decided is not None and decided.revision == commit.revision:
            # An exception has interrupted the thread that made it.
            return commit.revision, decided.transaction, decided.deliveries
        return super().queued_of(commit)


def _revision(connection: sqlite3.Connection) -> int:
    ((revision,),) = connection.execute(REVISION)
    return int(revision)


def _replay(
    connection: sqlite3.Connection, after: int, until: int, function: Callable[[Logged], None]
) -> None:
    for commit in log.commits(connection, after, until):
        function(commit)


def _rows_between(connection: sqlite3.Connection, since: int, revision: int) -> tuple[list[Row], int | None]:
    connection.execute("BEGIN")
    return log.rows_between(connection, since, revision).fetchall(), log.oldest(connection)
