"""Ownership of the file: the writer, and recovery of interrupted commits.

Thread safety: rules 2, 4 and 5 of ``engine.py``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial

from latchstore.engine.owned import Block, OwnedEngine
from latchstore.engine.owner import Claim, Writer
from latchstore.sqlite import log
from latchstore.sqlite.publication import Decided, FilePublication
from latchstore.sqlite.reading import ReadingEngine
from latchstore.sqlite.rows import stored_key
from latchstore.sqlite.running import run
from latchstore.sqlite.writer_lock import Hold, WriterLock


class OwnedFile(ReadingEngine, OwnedEngine):
    """An engine whose owner holds the lock of all processes that write to a file.

    Attributes
    ----------
    writer : WriterLock
        Held while there is an owner.
    """

    publication: FilePublication
    writer: WriterLock

    def acquire(self, claim: Claim, timeout: float) -> Hold:
        return self.writer.acquire(claim.purpose, timeout)

    def writer_elsewhere(self) -> Writer | None:
        return self.writer.holder_elsewhere()

    def finish(self, decided: Decided) -> None:
        """Publish a commit that was made, and end its block; in the section. May be repeated."""
        publication, claim = self.publication, decided.claim
        claim.revision = decided.revision
        publication.publish(decided)
        publication.journal = None  # first: the next owner has its own
        self.end_claim(claim)

    def resolve(self, claim: Claim | None = None) -> None:
        """Determine whether the commit of the journal was made, and continue from there."""
        decided = self.publication.journal
        if decided is None or (claim is not None and decided.claim is not claim):
            return
        if run(self.connections, "resolving", partial(_has_made, decided)):
            self.publication.during(self.finish, decided)
        else:
            self.publication.journal = None

    def alone(self, purpose: str, function: Callable[[sqlite3.Connection], object]) -> None:
        """Call a function in a transaction of SQLite that is not a commit of the store."""
        blocks = [Block()]
        claim = Claim(blocks[0], self.abandon, purpose)

        def call(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            function(connection)
            connection.execute("COMMIT")

        try:
            try:
                self.become_owner(claim, None)
                run(self.connections, purpose, call)
            finally:
                self.end(claim)
        finally:
            blocks.clear()


def _has_made(decided: Decided, connection: sqlite3.Connection) -> bool:
    """Return whether a commit was made: another process may have made one of the same revision since."""
    key, _, new = decided.changes[0]
    wanted = stored_key(key), None if new is None else new.modified
    found = log.first_of(connection, decided.revision)
    return found is not None and found == (*wanted, os.getpid())
