"""The engine in memory: entries, one journal, one owner, and the one path of every commit.

`Table.commit` makes a commit of one key or many, of the store or a transaction, in one section of the table
lock's writer. The edits are applied to the current entries, which gives the changes. Assigning the `journal`
decides the commit, and `finish` applies it. Nothing is ever undone.

Thread safety:

1. `entries`, `indexes`, `journal`, `revision`, the pre-images and the books of bounds are changed in sections
   of the writer (``locks.py``), which take microseconds and run no user code except a bound's policy. A
   section begins and ends between the steps of a transaction's beginning, which takes no lock (``owner.py``).
2. A thread that begins a section and finds a journal finishes it first: an exception has interrupted the
   thread that assigned it. `finish` may be interrupted anywhere and repeated from its start; so may each of
   its steps.
3. Several entries are read while no writer is in a section (`read`).
4. A single entry is read with no lock at all: first ``entries[key]``, then `detour`. CPython documents
   ``d[key]`` and ``key in d`` as atomic, with and without the GIL. If the gate is open, the value is valid.
   Otherwise the gate has the entries from before a commit of several keys, and for keys that this commit does
   not change the value is valid as well.
5. Objects dropped in a section (replaced entries, old layers) are freed after it, since they may contain
   users' objects with finalizers. They are put into `garbage`, or referenced by the commit, which outlives
   its section.

Why one check of the gate after the read is enough: the gate is shut before the first entry of a commit
changes, and opened after the last one has; its opening is the instant of the commit for readers of single
keys. A reader that finds the gate shut returns what was true before that instant. One that got a new entry
and then finds the gate open returns after the commit is complete. One that got an old entry read it before
the commit was complete, so it counts as having read before the commit. The remaining case, a new entry of a
commit that is then undone, is impossible: a decided commit is always finished. A commit of one key needs no
gate, since one dict operation is a single instant by itself. A reader of several keys waits for the end of
the section, which comes after the gate was opened, so it never sees less than a reader of one key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from threading import get_ident
from typing import Any, ClassVar, TypeVar, TypeVarTuple

from latchstore.contract.events import StoreTransactionStartEvent
from latchstore.contract.ordering import Ordered
from latchstore.contract.values import Change, Entry, ReferenceEntry, deletion
from latchstore.delivery.change_buffer import Commit
from latchstore.delivery.commit_events import MODIFICATION_EVENTS
from latchstore.delivery.dispatcher import Delivery
from latchstore.delivery.waiting import other_threads_of_parent
from latchstore.engine.bounds import Bound
from latchstore.engine.edits import Edit, cause_of_edit
from latchstore.engine.indexed import IndexedEngine
from latchstore.engine.interface import View
from latchstore.engine.journal import Decided, Gate, Many, Revised
from latchstore.engine.locks import AnyReadWriteLock
from latchstore.engine.owner import OWNER, Claim, purpose_of
from latchstore.engine.preimages import LayerView, Preimages
from latchstore.engine.publishing import COMMIT_EVENTS, Publisher
from latchstore.engine.routes import Routes

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Table(IndexedEngine):
    """The entries of one store, by key, and its indexes by metadata item.

    Parameters
    ----------
    lock_class : callable
        Returns the reader/writer lock.
    timeout : float
        The most seconds of any wait.
    publisher : Publisher
        Notified of each commit.
    indexes : iterable of str and Ordered
        Metadata items with an index, and the orders of ordered indexes.

    Attributes
    ----------
    detour : Gate, Routes or None
        Contains the identifier of each thread that must not use a single key that it has read: rule 4.
    journal : tuple or None
        The commit that is decided and not finished: rule 2.
    bounds : tuple of Bound
        The bounds of the caches on the table.
    """

    __slots__ = ("_feed", "bounds", "loaded_at", "preimages")

    reads_wait: ClassVar[bool] = False

    revision: int
    journal: Decided | None
    detour: Gate | Routes | None

    def __init__(
        self,
        lock_class: Callable[[], AnyReadWriteLock],
        timeout: float,
        publisher: Publisher,
        indexes: Iterable[str | Ordered] = (),
    ) -> None:
        super().__init__(lock_class, timeout, publisher, indexes)
        self._feed = publisher.feed
        self.preimages: Preimages = Preimages(self.entries, self.garbage, self._forget_closed_views)
        self.bounds: tuple[Bound, ...] = ()
        # The clock's time when the loaded entries were saved, if there was a clock.
        self.loaded_at: float | None = None

    # -- reading ----------------------------------------------------------------------------------

    def entry(self, key: str) -> Entry | None:
        entry: Entry | None
        try:
            entry = self.entries[key]
        except KeyError:
            entry = None
        detour = self.detour
        return detour.before.get(key, entry) if type(detour) is Gate else entry

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        entries = self.entries
        # First without the lock: if no commit was made meanwhile and none is running, this was one instant. A
        # key that is given twice is read once: a commit of that single key raises the revision only after it
        # is visible.
        revision = self.revision
        try:
            found: dict[str, Entry | None] = dict(zip(keys, map(entries.__getitem__, keys), strict=True))
        except KeyError:
            found = {}
        if found and type(self.detour) is not Gate and self.revision == revision:
            return found
        return self.read(lambda: {key: entries[key] if key in entries else None for key in keys})

    def keys(self) -> list[str]:
        return self.read(list, self.entries)

    def count(self) -> int:
        return self.read(len, self.entries)

    def view(self) -> View:
        view = LayerView(self.preimages, self.select_at)
        self.exclusively("snapshot", self._open_view, view)
        return view

    def _open_view(self, view: LayerView) -> None:
        self.preimages.open(self.revision, view)

    # -- committing -------------------------------------------------------------------------------

    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        operation: str | Claim,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        claim = None if isinstance(operation, str) else operation
        lock, owner = self._lock, self.owner
        own = lock.own
        ident = get_ident()
        decided: Decided | None = None
        left: float | None = None
        try:
            while True:
                if own.holder:
                    lock.wait_for_writer(purpose_of(operation))
                spare = (ident, operation, claim)  # rule 6 of locks.py
                with own.mutex:
                    own.holder = ident
                    self._preparing = operation
                    try:
                        if own.readers:
                            lock.wait_for_readers(purpose_of(operation))
                        if self.journal is not None or owner.abandoned:
                            self.finish_others()
                        if not owner.claims or owner.claims.get(OWNER) is claim:
                            self.journal = decided = self._decide(edits, operation, claim, check)
                            self.finish()
                            break
                    finally:
                        if lock.foreign is not None:
                            lock.give_back_foreign()
                        self._preparing = None
                        own.holder = 0
                        del spare
                seconds = self.timeout if timeout is None else timeout
                left = owner.wait(claim, purpose_of(operation), seconds if left is None else left, seconds)
        except BaseException:
            if decided is not None and self.journal is decided:
                self.settle(purpose_of(operation))
            raise
        if owner.waiters.bells or self.garbage or owner.abandoned:
            self.after_section()
        return bool(decided[3])

    def _decide(
        self,
        edits: Collection[tuple[str, Edit]],
        operation: str | Claim,
        claim: Claim | None,
        check: Callable[[], None] | None,
    ) -> Decided:
        """Return the commit of the edits, or raise; in a section of the writer."""
        if self._is_closed and (claim is None or self.owner.claims.get(OWNER) is not claim):
            self._publisher.refuse(purpose_of(operation))  # but admit the transaction that `close` waits for
        if check is not None:
            check()
        revision = self.revision + 1
        has_listeners = self._has_listeners  # hot path: as in `EntryStore.set`
        notify = has_listeners(MODIFICATION_EVENTS if claim is None else COMMIT_EVENTS)
        changes: Sequence[Change]
        if self.bounds:
            changes, many = self._decide_within_bounds(edits, revision, notify)
        elif len(edits) == 1:
            ((key, edit),) = edits
            entries, many = self.entries, None
            # Not ``get``, for which the free-threaded 3.13 locks the dict and, if it meets a key or an entry
            # of another thread, waits for that lock a second time.
            old = entries[key] if key in entries else None
            new = edit.revise(key, old, revision, time.time())
            if new is not None:
                changes = ((key, old, new),)
                if not notify:
                    return changes, revision, claim, (), None
            else:
                changes = () if old is None else (deletion(key, old, cause_of_edit(edit)),)
        else:
            changes, many = self._commit_of(*self._revised(edits, revision), notify)
        if not (changes or many):
            revision -= 1
        deliveries: Sequence[Delivery] = ()
        if notify:
            deliveries = self._publisher.deliveries_of(changes, revision, claim)
        return changes, revision, claim, deliveries, many

    def _revised(self, edits: Collection[tuple[str, Edit]], revision: int) -> Revised:
        """Return the result of several edits, or of none."""
        entries, now = self.entries, time.time()
        before: dict[str, Entry | None] = {}
        after: dict[str, Entry] = {}
        deleted: dict[str, str | None] = {}
        for key, edit in edits:
            old = entries[key] if key in entries else None
            new = edit.revise(key, old, revision, now)
            if new is not None:
                after[key] = new
            elif old is not None:
                deleted[key] = cause_of_edit(edit)
            else:
                continue
            before[key] = old
        return before, after, deleted

    def _decide_within_bounds(
        self, edits: Collection[tuple[str, Edit]], revision: int, notify: bool
    ) -> tuple[Sequence[Change], Many | None]:
        """Return the result of the edits, including the evictions that keep the bounds."""
        bounds = self.bounds
        if len(bounds) > 1 or bounds[0].closed:
            bounds = self.bounds = tuple([bound for bound in bounds if not bound.closed])
        for bound in bounds:
            bound.begin(edits)
        if len(edits) == len(bounds) == 1:
            # hot path: most commits are like that. Others revise the edit once more.
            ((key, edit),) = edits
            entries = self.entries
            old = entries[key] if key in entries else None
            new = edit.revise(key, old, revision, time.time())
            if new is not None or cause_of_edit(edit) is None:
                evicted = bounds[0].note_one(key, new)
                if evicted:
                    assert new is not None
                    before: dict[str, Entry | None] = {key: old}
                    for each in evicted:
                        before[each] = entries[each]
                    return self._commit_of(before, {key: new}, dict.fromkeys(evicted, "size"), notify)
                if evicted is not None:
                    return ((key, old, new),), None
        before, after, deleted = self._revised(edits, revision)
        for bound in bounds:
            bound.make_room(self.entries, before, after, deleted)
        for bound in bounds:
            bound.note(before, after, deleted)
        if len(before) == 1:
            ((key, old),) = before.items()
            change = (key, old, after[key]) if key in after else deletion(key, old, deleted[key])
            return (change,), None
        return self._commit_of(before, after, deleted, notify)

    def _commit_of(
        self,
        before: dict[str, Entry | None],
        after: dict[str, Entry],
        deleted: dict[str, str | None],
        notify: bool,
    ) -> tuple[Sequence[Change], Many | None]:
        """Return the commit of several keys, or none; `notify`: whether there are listeners."""
        if not before:
            return (), None
        changes: Sequence[Change] = ()
        if notify or self.indexes or self.heads or self.preimages.layers or self._feed.active:
            changes = [
                (key, old, after[key]) if key in after else deletion(key, old, deleted[key])
                for key, old in before.items()
            ]
        return changes, Many(after, list(deleted), Gate(before))

    def finish(self) -> None:
        """Apply the decided commit, in a section of the writer. May be repeated from its start."""
        journal = self.journal
        assert journal is not None
        changes, revision, claim, deliveries, many = journal
        followed = self.followed
        if followed:
            if self.preimages.layers:
                self.preimages.record(changes)
            for index in self.indexes.values():
                index.replace_all(changes)
            for heads in self.heads.values():
                heads.replace_all(changes)
        if many is None:
            if changes:
                ((key, _, new),) = changes
                if new is not None:
                    self.entries[key] = new
                else:
                    self.entries.pop(key, None)
            self.revision = revision
        else:
            if self.revision != revision:
                # Else the gate may have been opened already: a reader of a new entry must not see an old one.
                self.detour = many.gate
            entries = self.entries
            # hot path: no call, since CPython switches threads when one returns, and readers would have to
            # ask the gate for a whole switch interval.
            entries |= many.after
            for key in many.deleted:
                entries.pop(key, None)
            self.revision = revision
            self.detour = self.routes or None
        if followed:
            for bound in self.bounds:
                bound.finish()
        if claim is not None:
            claim.revision = revision
            self.end_claim(claim)
        if deliveries or (followed and self._feed.active):
            self._publisher.publish(changes, revision, claim, deliveries)
        if followed:
            self.followed: bool = bool(
                self.bounds or self.indexes or self.heads or self.preimages.layers or self._feed.active
            )
        self.journal = None

    # -- transactions ---------------------------------------------------------------------------

    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        if not exclusive:
            view = LayerView(self.preimages, self.select_at)
            try:
                self.exclusively(claim, self._begin_optimistic, claim, view)
            except BaseException:
                view.close()
                raise
            return view
        self.become_owner(claim, self.timeout if timeout is None else timeout)
        self.detour = self.routes
        if self._is_closed:
            self._publisher.refuse(claim.purpose)
        has_listeners = self._has_listeners  # hot path: as in `EntryStore.set`
        if has_listeners(StoreTransactionStartEvent):
            self.exclusively(claim, self._publisher.begin, claim)
        return None

    def _begin_optimistic(self, claim: Claim, view: LayerView) -> None:
        assert claim.route is not None
        self._open_view(view)
        if self._has_listeners(StoreTransactionStartEvent):
            self._publisher.begin(claim)
        self.routes.begin(claim.route)
        self.detour = self.routes

    # -- the rest ---------------------------------------------------------------------------------

    def past(self, since: int, revision: int) -> list[Commit]:
        return self._feed.past(since, revision)

    def renew_in_child(self) -> None:
        self._renew_locks()
        if self.journal is not None:
            self.finish()
        self.routes.clear()
        self.detour = None
        self.preimages.close_others(other_threads_of_parent())
        for index in self.ordered.values():
            index.forget_builder()

    def _forget_closed_views(self) -> None:
        if not self._lock.is_used():
            self.exclusively("closing a snapshot", self.preimages.forget_closed)

    def add_bound(self, bound: Bound) -> None:
        """Add a bound, which commits keep until it is closed."""
        self.exclusively("a bound", self._add_bound, bound)

    def _add_bound(self, bound: Bound) -> None:
        bound.stale, bound.closed = True, False
        self.bounds = (*[other for other in self.bounds if other is not bound], bound)

    def load(self, entries: dict[str, Entry], revision: int, clock: float | None = None) -> None:
        """Take over the saved entries of another store, while no other thread has this one.

        Parameters
        ----------
        entries : dict
        revision : int
        clock : float, optional
            The time of the caches' clock at the save.
        """
        self.loaded_at = clock
        for index in self.indexes.values():
            index.replace_all([(key, None, entry) for key, entry in entries.items()])
        self.entries.update(entries)
        self.revision = revision

    def facts(self) -> dict[str, Any]:
        return self.exclusively("info", self._facts)

    def _facts(self) -> dict[str, Any]:
        return {
            "keys": len(self.entries),
            "revision": self.revision,
            "indexes": list(self.indexes),
            **self.preimages.facts(),
        }

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; for tests, with no writers."""
        assert self.journal is not None or type(self.detour) is not Gate, "the gate was left shut"
        self.settle("check")
        assert self.journal is None
        assert self.detour is None or (self.detour is self.routes and self.routes)
        for key, entry in self.entries.items():
            assert type(key) is str, key
            assert isinstance(entry, Entry), (key, entry)
            assert entry.key == key if type(entry) is ReferenceEntry else type(entry.data) is bytes, key
            assert entry.created <= entry.modified, key
            assert 0 < entry.revision <= self.revision, key
        for each in (*self.indexes.values(), *self.heads.values()):
            each.check(self.entries)
        for bound in self.bounds:
            if not (bound.stale or bound.closed):
                bound.check(self.entries)
