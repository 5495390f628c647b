"""`SqliteEngine`: entries in a SQLite file, of which any number of processes make commits.

1. Reads never wait for a writer: the file has a write-ahead log (WAL), and a statement, or a read
   transaction, sees one commit. One statement reads what belongs to one instant.
2. Whoever writes is the owner first (``owner.py``): a transaction from its beginning to its end, and any
   other commit for its own time. In this process that is one ``dict.setdefault``; then the owner takes the
   lock of the process (``writer_lock.py``). So at most one thread of all processes is between taking and
   giving up that lock, and what it reads is what it changes.
3. A commit is one transaction of SQLite's: entries, items of the indexes, log and revision. While a block of
   the user's runs, no transaction of SQLite's is open but for the views of those who read.
4. The commit is noted in the `journal` of the publication before its COMMIT, and forgotten when it is
   published. After an exception in between, the revision in the file tells whether it was made: `_resolve`
   goes on from there, and is done by the thread that was struck, or by the next one that ends the block or
   becomes the owner.
5. What an exception has left (a block without its end) is ended as in ``owner.py``.

Thread safety: as above. Locks are taken in this order: owner, lock of the process, section of the
publication, SQLite's own. Connections belong to one thread at a time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.events import StoreTransactionStartEvent
from latchstore.contract.values import Change, Entry, deletion
from latchstore.delivery.change_buffer import Published
from latchstore.delivery.dispatcher import Delivery
from latchstore.delivery.waiting import Latch
from latchstore.engine.edits import Edit, cause_of_edit
from latchstore.engine.interface import Engine, View
from latchstore.engine.owner import OWNER, Claim, Ownership, Route
from latchstore.engine.publishing import COMMIT_EVENTS, Publisher
from latchstore.engine.routes import Routes
from latchstore.sqlite import log
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.follower import Follower
from latchstore.sqlite.publication import Decided, Publication
from latchstore.sqlite.rows import (
    AT_ONE_INSTANT,
    Row,
    entry_of,
    name_of,
    pairs_of,
    rows_of,
    stored_key,
)
from latchstore.sqlite.running import failure_of, run
from latchstore.sqlite.schema import prepare
from latchstore.sqlite.statements import (
    ADVANCE,
    BEFORE,
    CANDIDATES,
    COUNT,
    DATA,
    DELETE,
    ENTRY,
    INSERT,
    KEYS,
    REVISION,
    UPDATE,
)
from latchstore.sqlite.view import SqliteView
from latchstore.sqlite.writer_lock import WriterLock

T = TypeVar("T")


logger: logging.Logger = logging.getLogger("latchstore")

#: How many commits of others are published in one section, for which commits of this process wait.
_AT_A_TIME = 500


class _Block:
    """Held by the call of a method that writes."""

    __slots__ = ("__weakref__",)


class SqliteEngine(Engine):
    """The entries of a file.

    Parameters
    ----------
    path : str
    synchronous : str
        SQLite's ``PRAGMA synchronous``.
    timeout : float
        Seconds that any wait may take.
    history : int
        How many of the last commits the log has at the least.
    interval : float
        Seconds after which a follower looks for commits of others.
    publisher : Publisher
    """

    def __init__(
        self,
        path: str,
        synchronous: str,
        timeout: float,
        history: int,
        interval: float,
        publisher: Publisher,
    ) -> None:
        self.path: str = path
        self.timeout = timeout
        self._history = history
        self._publisher = publisher
        self._is_closed = False
        self.routes = Routes()
        self.connections: Connections = Connections(path, synchronous, timeout)
        run(self.connections, "opening", lambda connection: prepare(connection, path))
        self._writer = WriterLock(path)
        self.publication: Publication = Publication(self.connections, publisher)
        self.follower: Follower = Follower(self, interval)
        self._renew_locks()

    def _renew_locks(self) -> None:
        self.owner: Ownership = Ownership()
        self.abandoned: deque[Route] = self.owner.abandoned
        # Held while a claim is ended: so that nobody gives back the lock of the next one.
        self._ending = Latch()

    # -- reading ----------------------------------------------------------------------------------

    @property
    def revision(self) -> int:  # type: ignore[override]
        """The revision of the last commit of any process."""
        ((revision,),) = self._rows(REVISION)
        return int(revision)

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return the rows of one statement."""
        idle = self.connections.idle
        try:
            connection = idle.pop()  # hot path: mostly there is one
        except IndexError:
            connection = self.connections.take()
        try:
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise failure_of(error, self.path, "reading") from error
        finally:
            self.connections.give(connection)

    def entry(self, key: str) -> Entry | None:
        rows = self._rows(ENTRY, (key if key.isascii() else stored_key(key),))
        return entry_of(key, rows[0]) if rows else None

    def data(self, key: str) -> bytes | None:
        """Return the data of a key, or None; only bytes are data."""
        rows = self._rows(DATA, (stored_key(key),))
        return rows[0][0] if rows and type(rows[0][0]) is bytes else None

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        found = dict(pairs_of(run(self.connections, "reading", lambda each: _rows_at_once(each, keys))))
        return {key: found.get(key) for key in keys}

    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        return pairs_of(self._rows(CANDIDATES))

    def keys(self) -> list[str]:
        return [name_of(key) for (key,) in self._rows(KEYS)]

    def count(self) -> int:
        ((count,),) = self._rows(COUNT)
        return int(count)

    def view(self) -> View:
        return SqliteView(self.connections)

    # -- the owner --------------------------------------------------------------------------------

    def _become_owner(self, claim: Claim, timeout: float | None, of_all: bool = True) -> None:
        """Wait until nobody writes; `of_all`: nor in another process."""
        timeout = self.timeout if timeout is None else timeout
        left, owner = timeout, self.owner
        while True:
            if self.abandoned:
                self._end_abandoned()
            claim.since = time.time()
            if owner.claims.setdefault(OWNER, claim) is claim:
                break
            left = owner.wait(claim, claim.purpose, left, timeout)
        if self.publication.journal is not None:
            self._resolve()
        if of_all:
            self._writer.acquire(claim.purpose, left, claim.notes)

    def _end_abandoned(self) -> None:
        """End blocks that were freed without an end."""
        while self.abandoned:
            try:
                route = self.abandoned[0]
            except IndexError:
                return
            self.end(route.claim)
            try:  # noqa: SIM105
                self.abandoned.remove(route)
            except ValueError:
                pass  # another thread was quicker

    def end(self, claim: Claim) -> None:
        if claim.ended:
            return
        self._resolve(claim)
        if not claim.ended:
            if claim.notes is not None and claim.revision is None:
                self.publication.during(lambda: self._publisher.roll_back(claim))
            self._end_claim(claim)

    def _end_claim(self, claim: Claim) -> None:
        """Take away what a block has that was committed or rolled back."""
        self._ending.during(self._take_away, claim)
        self.owner.waiters.ring()

    def _take_away(self, claim: Claim) -> None:
        claims = self.owner.claims
        if claims.get(OWNER) is claim:
            self._writer.release()
            claims.pop(OWNER, None)
        claim.ended = True
        claim.route = None
        if claim.notes is not None:
            self.routes.forget(claim)

    # -- transactions -----------------------------------------------------------------------------

    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        view = None
        if exclusive:
            self._become_owner(claim, timeout)
            if self._is_closed:
                self._publisher.refuse(claim.purpose)
        else:
            view = SqliteView(self.connections)
        if self._publisher.has_listeners(StoreTransactionStartEvent):
            self.publication.during(lambda: self._publisher.begin(claim))
        assert claim.route is not None
        self.routes.begin(claim.route)
        return view

    # -- committing -------------------------------------------------------------------------------

    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        purpose: str,
        claim: Claim | None = None,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        block = None
        transaction = claim
        if claim is None:
            block = _Block()
            claim = Claim(block, self.abandoned, purpose)
        try:
            if self.owner.claims.get(OWNER) is not claim:
                self._become_owner(claim, timeout)
                if self._is_closed:
                    self._publisher.refuse(purpose)
            if check is not None:
                check()
            if edits:
                return self._commit(edits, claim, transaction)
            return self._end_unchanged(claim, transaction)
        except BaseException:
            self._resolve(claim)
            raise
        finally:
            if block is not None:
                self.end(claim)

    def _commit(self, edits: Collection[tuple[str, Edit]], claim: Claim, transaction: Claim | None) -> bool:
        connection = self.connections.take()
        try:
            connection.execute("BEGIN IMMEDIATE")
            changes, rows, revision = self._decide(connection, edits)
            if not changes:
                connection.rollback()
                return self._end_unchanged(claim, transaction)
            info = None if transaction is None else transaction.info
            self._write(connection, changes, rows, revision)
            log.add(connection, revision, changes, rows, info, os.getpid())
            log.trim(connection, revision, self._history)
            deliveries: Sequence[Delivery] = ()
            if self._publisher.has_listeners(COMMIT_EVENTS):
                deliveries = self._publisher.deliveries_of(changes, revision, transaction)
            self.publication.journal = decided = Decided(revision, changes, claim, transaction, deliveries)
            self.publication.during(lambda: self._make(connection, decided))
        except sqlite3.Error as error:
            raise failure_of(error, self.path, claim.purpose) from error
        finally:
            connection.rollback()  # one call in C: whatever strikes after it, no lock of SQLite's is held
            self.connections.give(connection)
        return bool(deliveries)

    def _decide(
        self, connection: sqlite3.Connection, edits: Collection[tuple[str, Edit]]
    ) -> tuple[list[Change], list[tuple[Row, Row]], int]:
        """Return what edits come to: changes, the columns before and after each, and the revision."""
        before: dict[str, Row] = {}
        if len(edits) == 1:
            ((key, _),) = edits
            row = connection.execute(BEFORE, (stored_key(key),)).fetchone()
            revision = row[0] + 1
            if row[1] is not None:
                before[key] = row[2:]
        else:
            ((last,),) = connection.execute(REVISION)
            revision = last + 1
            for key, *row in rows_of(connection, [key for key, _ in edits]):
                before[name_of(key)] = row
        now = time.time()
        changes: list[Change] = []
        rows: list[tuple[Row, Row]] = []
        for key, edit in edits:
            held = before.get(key)
            old = None if held is None else entry_of(key, held)
            new = edit.revise(key, old, revision, now)
            if new is not None:
                changes.append((key, old, new))
            elif old is not None:
                changes.append(deletion(key, old, cause_of_edit(edit)))
            else:
                continue
            rows.append((log.columns_of(key, None) if held is None else held, log.columns_of(key, new)))
        return changes, rows, revision

    def _write(
        self,
        connection: sqlite3.Connection,
        changes: Sequence[Change],
        rows: Sequence[tuple[Row, Row]],
        revision: int,
    ) -> None:
        """Write entries and revision."""
        inserted: list[Row] = []
        updated: list[Row] = []
        deleted: list[Row] = []
        for (key, old, new), (_, row) in zip(changes, rows, strict=True):
            stored = stored_key(key)
            if new is None:
                deleted.append((stored,))
            elif old is None:
                inserted.append((stored, *row))
            else:
                updated.append((*row, stored))
        for sql, each in ((INSERT, inserted), (UPDATE, updated), (DELETE, deleted)):
            if len(each) == 1:
                connection.execute(sql, each[0])
            elif each:
                connection.executemany(sql, each)
        connection.execute(ADVANCE, (revision, len(inserted) - len(deleted)))

    def _make(self, connection: sqlite3.Connection, decided: Decided) -> None:
        """Make a commit and publish it, in the section of the publication."""
        connection.execute("COMMIT")
        self._finish(decided)

    def _finish(self, decided: Decided) -> None:
        """Publish a commit that was made, and end its block; in the section. May be done again."""
        publication, claim = self.publication, decided.claim
        claim.revision = decided.revision
        publication.publish(decided)
        publication.journal = None  # first: the next owner has its own
        self._end_claim(claim)

    def _resolve(self, claim: Claim | None = None) -> None:
        """Find out whether the commit of the journal was made, and go on from there.

        Parameters
        ----------
        claim : Claim, optional
            Only if it is the commit of this one.
        """
        decided = self.publication.journal
        if decided is None or (claim is not None and decided.claim is not claim):
            return
        if self.revision >= decided.revision:
            self.publication.during(lambda: self._finish(decided))
        else:
            self.publication.journal = None

    def _end_unchanged(self, claim: Claim, transaction: Claim | None) -> bool:
        """End a block that has changed nothing."""
        revision = self.revision
        deliveries: Sequence[Delivery] = ()
        if transaction is not None and self._publisher.has_listeners(COMMIT_EVENTS):
            deliveries = self._publisher.deliveries_of((), revision, transaction)
        claim.revision = revision
        if deliveries:
            self.publication.during(lambda: self._publisher.publish((), revision, transaction, deliveries))
        self._end_claim(claim)
        return bool(deliveries)

    # -- following --------------------------------------------------------------------------------

    def settle(self, purpose: str, timeout: float | None = None) -> None:
        if self.abandoned:
            self._end_abandoned()
        self.publication.during(self.publication.catch_up)
        if self.publication.following:
            self.follower.start()

    def between_commits(self, function: Callable[[int], T]) -> T:
        return self.publication.during(lambda: self._between_commits(function))

    def _between_commits(self, function: Callable[[int], T]) -> T:
        publication = self.publication
        result = function(publication.catch_up())
        publication.following = publication.following or self._publisher.feed.active
        return result

    def past(self, since: int, revision: int) -> Iterable[Published]:
        return self.publication.past(since, revision)

    def follow(self) -> None:
        if self._is_closed or not self._publisher.is_followed:
            return
        try:
            self.publication.during(self.publication.begin)
            self.follower.start()
        except LockTimeoutError:
            return  # a finalizer or a signal handler in a section: the next call that looks begins
        except Exception:
            logger.exception("commits of other processes are not followed")

    def look(self) -> bool:
        """Publish what others have committed; return whether anybody listens. The follower's."""
        if self.abandoned:
            self._end_abandoned()
        return self.publication.during(self._look)

    def _look(self) -> bool:
        if self.publication.end_unless_followed():
            self.follower.forget()
            return False
        if not self._publisher.dispatcher.crowded:
            self.publication.catch_up(_AT_A_TIME)
        return True

    # -- the rest ---------------------------------------------------------------------------------

    def close(self, timeout: float | None) -> None:
        self._is_closed = True
        block = _Block()
        claim = Claim(block, self.abandoned, "close")
        try:
            self._become_owner(claim, -1 if timeout is None else timeout, of_all=False)
        finally:
            self.end(claim)

    def reopen(self) -> None:
        self._is_closed = False
        self.connections.reopen()
        self.follow()

    def give_up(self) -> None:
        """Close what a closed store keeps open; reads open it again for their own time."""
        self.follower.stop()
        self.publication.following = False
        self.connections.close()

    def renew_in_child(self) -> None:
        self.connections.renew_in_child()
        self._writer.renew_in_child()
        self.publication.renew_in_child()
        self.routes.clear()
        self.follower.renew_in_child()
        self._renew_locks()


def _rows_at_once(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Row]:
    """Return the rows of keys at one instant."""
    if len(keys) > AT_ONE_INSTANT:
        connection.execute("BEGIN")
    return list(rows_of(connection, keys))
