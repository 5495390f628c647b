"""`SqliteEngine`: entries in a SQLite file, with commits by any number of processes.

1. Reads never wait for a writer: the file has a write-ahead log (WAL), and a statement, or a read
   transaction, sees one commit. Values that belong to one instant are read by one statement.
2. A writer becomes the owner first (``owner.py``): a transaction from its beginning to its end, any other
   commit for its own time. In this process that is one ``dict.setdefault``; then the owner acquires the lock
   of all processes (``writer_lock.py``). So at most one thread of all processes is between acquiring and
   releasing that lock, and what it reads is what it changes.
3. A commit is one transaction of SQLite: its check, entries, items of the indexes, log and revision. While a
   user's block runs, no transaction of SQLite is open except for the views of readers.
4. The commit is recorded in the `journal` of the publication before its COMMIT, and removed when it is
   published. After an exception in between, the log shows whether it was made. `resolve` continues from
   there; it is called by the interrupted thread, or by the next one that ends the block or becomes the owner.
5. A block that an exception has left without an end is ended as in ``owner.py``.

Thread safety: as above. Connections belong to one thread at a time, and reads acquire no lock. Locks are
acquired in this order, each only while holding those above it:

====== ============================== ===========================================================
order  lock                           held for
====== ============================== ===========================================================
1      owner (no lock: a claim), and  a commit, or a transaction's block with the user's code
              the lock of all processes
2      SQLite's own, for writers      a commit, from its check to its COMMIT; what is noted beside
                                      the entries (``running.note``), which needs no owner
3      section of the publication     COMMIT and publishing, or reading the log and publishing that
4      latch for the end of a claim,  microseconds
       buffers of watches; the lock   one statement of a view, which a check may read
       of a pinned connection
====== ============================== ===========================================================
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import partial

from latchstore.contract.ordering import Item, Ordered
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.edits import Edit
from latchstore.engine.first_values import FirstValues
from latchstore.engine.follower import Follower, Interval
from latchstore.engine.owned import Block
from latchstore.engine.owner import OWNER, Claim
from latchstore.engine.publishing import COMMIT_EVENTS, Publisher
from latchstore.engine.routes import Routes
from latchstore.sqlite import items
from latchstore.sqlite.bounds import Bound, make_room
from latchstore.sqlite.committing import check_edit, decide, write
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.first_values import IndexedValues
from latchstore.sqlite.leases import Leases
from latchstore.sqlite.owned import OwnedFile
from latchstore.sqlite.publication import Decided, FilePublication
from latchstore.sqlite.running import OPENING, failure_of, run, take
from latchstore.sqlite.schema import prepare
from latchstore.sqlite.writer_lock import WriterLock


class SqliteEngine(OwnedFile):
    """The entries of a file.

    Parameters
    ----------
    path : str
    synchronous : str
        Value of SQLite's ``PRAGMA synchronous``.
    timeout : float
        Maximum seconds of any wait.
    history : int
        Minimum number of commits that the log keeps.
    interval : float
        Seconds between two checks for commits of other processes.
    publisher : Publisher

    Attributes
    ----------
    bounds : list of Bound
        The limits of the caches of this process; each of its commits keeps to them.
    leases : Leases
        Of the loads of these caches.
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
        self.publisher = publisher
        self.is_closed: bool = False
        self.connections: Connections = Connections(path, synchronous, timeout)
        # Changed by single operations of the list.
        self.bounds: list[Bound] = []
        self.leases: Leases = Leases(self.connections)
        self.routes: Routes = Routes()
        run(self.connections, OPENING, lambda connection: prepare(connection, path))
        self.writer: WriterLock = WriterLock(path)
        self.publication: FilePublication = FilePublication(self.connections, publisher)
        pause = Interval(partial(self.publication.observers.interval, interval))
        self.follower: Follower = Follower(self, pause)
        self.check_edit = check_edit
        self.renew_locks()

    # -- committing -------------------------------------------------------------------------------

    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        operation: str | Claim,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        if not isinstance(operation, str):
            return self._commit_of(operation, operation, edits, check, timeout)
        for key, edit in edits:
            check_edit(key, edit)  # before waiting for others
        blocks = [Block()]
        claim = Claim(blocks[0], self.abandon, operation)
        try:
            try:
                return self._commit_of(claim, None, edits, check, timeout)
            finally:
                self.end(claim)
        finally:
            blocks.clear()

    def _commit_of(
        self,
        claim: Claim,
        transaction: Claim | None,
        edits: Collection[tuple[str, Edit]],
        check: Callable[[], None] | None,
        timeout: float | None,
    ) -> bool:
        try:
            if self.owner.claims.get(OWNER) is not claim:
                self.become_owner(claim, timeout)
                if self.is_closed:
                    self.publisher.refuse(claim.purpose)
            if check is not None or edits:
                return self._commit(edits, claim, transaction, check)
            return self._end_unchanged(claim, transaction)
        except BaseException:
            self.resolve(claim)
            raise

    def _commit(
        self,
        edits: Collection[tuple[str, Edit]],
        claim: Claim,
        transaction: Claim | None,
        check: Callable[[], None] | None,
    ) -> bool:
        connection = take(self.connections, claim.purpose)
        try:
            connection.execute("BEGIN IMMEDIATE")
            if check is not None:
                # Here, as a thread that ends a lease need not be the owner (`running.note`). The check reads
                # through other connections, for which nothing changes before the COMMIT, and may decide the
                # edits.
                check()
                if not edits:
                    connection.rollback()
                    return self._end_unchanged(claim, transaction)
            work = decide(connection, edits)
            bounds = tuple(self.bounds)
            if bounds:
                work = make_room(connection, bounds, work)
            revision, changes = work.revision, work.changes
            if not changes:
                connection.rollback()
                return self._end_unchanged(claim, transaction)
            write(connection, work, None if transaction is None else transaction.info, self._history)
            for bound in bounds:
                bound.note_commit(connection, changes)
            self.leases.end_in_commit(connection)
            deliveries: Sequence[Delivery] = ()
            if self.publisher.has_listeners(COMMIT_EVENTS):
                deliveries = self.publisher.deliveries_of(changes, revision, transaction)
            self.publication.journal = decided = Decided(revision, changes, claim, transaction, deliveries)
            self.publication.during(self._make, connection, decided)
        except sqlite3.Error as error:
            raise failure_of(error, self.path, claim.purpose) from error
        finally:
            connection.rollback()  # one call in C: after it, an exception leaves no lock of SQLite held
            self.connections.give(connection)
        return bool(deliveries)

    def _make(self, connection: sqlite3.Connection, decided: Decided) -> None:
        """Make a commit and publish it, in the section of the publication."""
        connection.execute("COMMIT")
        self.finish(decided)

    def _end_unchanged(self, claim: Claim, transaction: Claim | None) -> bool:
        """End a block that has changed nothing."""
        self.leases.end_without_commit()
        revision = self.revision
        deliveries: Sequence[Delivery] = ()
        if transaction is not None and self.publisher.has_listeners(COMMIT_EVENTS):
            deliveries = self.publisher.deliveries_of((), revision, transaction)
        claim.revision = revision
        if deliveries:
            self.publication.during(lambda: self.publisher.publish((), revision, transaction, deliveries))
        self.end_claim(claim)
        return bool(deliveries)

    # -- indexes ----------------------------------------------------------------------------------

    def add_indexes(self, indexes: Sequence[str | Ordered]) -> None:
        """Add those indexes that do not exist."""
        listed = run(self.connections, "add_index", items.read).listed
        for index in indexes:
            if index not in listed:
                self.alone("add_index", partial(items.add, index=index))

    def remove_index(self, index: str | Ordered) -> None:
        """Remove an index, for all processes; KeyError if it does not exist."""
        self.alone("remove_index", partial(items.remove, index=index))

    def first_values(self, queue: str, name: str, prefixes: Sequence[str]) -> FirstValues:
        add_index = partial(self.add_indexes, (Ordered(Item(name)),))
        return IndexedValues(self._rows, add_index, name, prefixes)

    # -- the rest ---------------------------------------------------------------------------------

    def reopen(self) -> None:
        self.is_closed = False
        self.connections.reopen()
        self.follow()

    def give_up(self) -> None:
        """Close what a closed store keeps open; each read then opens it again for its own time."""
        self.follower.stop()
        self.publication.following = False
        self.connections.close()

    def renew_in_child(self) -> None:
        self.connections.renew_in_child()
        self.leases.renew_in_child()
        self.writer.renew_in_child()
        self.publication.renew_in_child()
        self.routes.clear()
        self.follower.renew_in_child()
        self.renew_locks()
