"""The mutants: our store with one thing broken in each, by patched methods.

A mutant is a factory for ``python -m latchstore stress --store tests.mutants.catalogue:NAME``. The first
store that it makes breaks the package for good, so each mutant needs a process of its own. A mutant replaces
methods by name, or hands in a lock of its own; it never looks at source text.

Thread safety: as what it breaks, as a rule without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from io import BytesIO
from threading import get_ident
from typing import Any

from readerwriterlock import rwlock

from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.values import Change, Entry
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.edits import Edit, IfRevision
from latchstore.engine.first_entry import FirstEntry
from latchstore.engine.inspection import table_of
from latchstore.engine.locks import ReadWriteLock
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.owner import OWNER, Claim, Route
from latchstore.engine.preimages import Preimages
from latchstore.engine.publishing import Publisher
from latchstore.engine.table import Table
from tests.mutants import caches, contract, keys, queues, searches
from tests.mutants.mutant import MUTANTS, Optimistic, mutant, put_off, replaces

__all__ = ["MUTANTS", "Optimistic", "caches", "contract", "keys", "queues", "searches"]

# -- locks ------------------------------------------------------------------------------------------------


class _NoHolder(ReadWriteLock):
    """A lock of which nobody finds that a writer has it."""

    holder = property(lambda self: 0, lambda self, thread: None)


@mutant("compare-and-set")
def write_without_lock() -> dict[str, Any]:
    """A commit does not take the table lock."""

    @replaces(Table, "finish")
    def finish(original: Any, self: Table) -> None:
        try:
            original(self)
        except (AssertionError, TypeError):
            # Another thread has finished the only journal: that a commit is lost is for a checker to find.
            if self.journal is not None:
                raise

    class Unlocked(_NoHolder):
        def __init__(self) -> None:
            super().__init__()
            self.mutex = nullcontext()  # type: ignore[assignment]

    return {"lock_class": Unlocked}


def _query_entry_by_entry() -> None:
    """Have queries take longer under the lock; that alone is no mistake."""

    @replaces(Table, "candidates")
    def candidates(original: Any, self: Table, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return self.read(lambda: list(_entries_one_by_one(self)))


def _entries_one_by_one(table: Table) -> Iterator[tuple[str, Entry]]:
    for key in list(table.entries):
        # Waits for nothing, but changes threads all the same: so others have longer to come in between.
        for _ in range(5):
            entry = table.entries.get(key)
        # A writer that was let in may have removed the key.
        if entry is not None:
            yield key, entry


@mutant("scans")
def read_lock_for_a_write() -> dict[str, Any]:
    """A commit keeps out other commits, but no readers."""
    _query_entry_by_entry()

    class Unseen(dict[object, int]):
        def __bool__(self) -> bool:
            return False

    class Shared(_NoHolder):
        def __init__(self) -> None:
            super().__init__()
            self.readers = Unseen()

    return {"lock_class": Shared}


@mutant("scans")
def writer_not_looked_for() -> None:
    """A reader of several keys does not look whether a commit is being made."""
    _query_entry_by_entry()

    @replaces(Table, "read")
    def read(original: Any, self: Table, function: Callable[..., Any], *arguments: Any) -> Any:
        readers = self.latches.table.own.readers
        mine = object()
        try:
            readers[mine] = get_ident()
            return function(*arguments)
        finally:
            readers.pop(mine, None)


@mutant("registers")
def lock_kept_on_exception() -> dict[str, Any]:
    """A commit that raises does not give the lock back."""

    class Mutex:
        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> bool:
            return self._lock.acquire()

        def __exit__(self, kind: object, error: object, traceback: object) -> None:
            if kind is None:
                self._lock.release()

    class Kept(ReadWriteLock):
        def __init__(self) -> None:
            super().__init__()
            self.mutex = Mutex()  # type: ignore[assignment]

    return {"lock_class": Kept}


@mutant("events")
def locks_in_two_orders() -> None:
    """Watch takes another lock before the table lock, and commits the other way round."""

    @replaces(DictMemoryStore, "watch")
    def watch(original: Any, self: DictMemoryStore, *args: Any, **options: Any) -> Any:
        table: Any = table_of(self)
        table.other = threading.Lock()
        with table.other:
            return original(self, *args, **options)

    @replaces(Table, "finish")
    def finish(original: Any, self: Table) -> None:
        with getattr(self, "other", nullcontext()):
            original(self)


@mutant("scans")
def nested_read_lock() -> dict[str, Any]:
    """A query takes the read side of a fair lock of readerwriterlock twice."""

    @replaces(Table, "candidates")
    def candidates(original: Any, self: Table, terms: Mapping[str, Any]) -> Any:
        with self.latches.table.read_handle():  # type: ignore[attr-defined]
            return original(self, terms)

    return {"lock_class": rwlock.RWLockFair}


@mutant("transactions")
def owner_not_respected() -> None:
    """A write outside of transactions is made while an exclusive one is under way."""

    @replaces(Table, "commit")
    def commit(
        original: Any, self: Table, edits: Any, purpose: str, claim: Claim | None = None, *rest: Any
    ) -> Any:
        if claim is not None:
            return original(self, edits, purpose, claim, *rest)

        def make() -> bool:
            self.journal = decided = self._decide(edits, purpose, None, None)
            self.finish()
            return bool(decided[3])

        return self.exclusively(purpose, make)


@mutant("transactions")
def commit_under_way_not_waited_for() -> None:
    """A transaction begins while a commit is made that has found no owner."""

    @replaces(Table, "become_owner")
    def become_owner(original: Any, self: Table, claim: Claim, timeout: float) -> None:
        left = timeout
        while self.owner.claims.setdefault(OWNER, claim) is not claim:
            left = self.owner.wait(claim, claim.purpose, left, timeout)
        if claim.route is not None and claim.notes is not None:
            self.routes[claim.ident] = claim.route


# -- reading ----------------------------------------------------------------------------------------------


@mutant("transactions")
def many_keys_read_without_lock() -> None:
    """A read of several keys does not look whether a commit came between."""

    @replaces(Table, "entries_of")
    def entries_of(original: Any, self: Table, keys: Sequence[str]) -> dict[str, Entry | None]:
        return {key: self.entry(key) for key in keys}


@mutant("scans")
def iteration_without_lock() -> None:
    """A query looks through the entries without the table lock."""

    @replaces(Table, "candidates")
    def candidates(original: Any, self: Table, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return [(key, self.entries[key]) for key in list(self.entries) if key in self.entries]


@mutant("registers")
def live_metadata() -> None:
    """Metadata is handed out as the dictionary of the entry itself."""

    @replaces(DictMemoryStore, "get_metadata")
    def get_metadata(original: Any, self: DictMemoryStore, key: str, select: Any = None) -> Any:
        entry = table_of(self).entry(key) if select is None else None
        return original(self, key, select) if entry is None else entry


@mutant("transactions")
def dirty_read() -> None:
    """A read sees what an open transaction has not committed."""

    @replaces(DictMemoryStore, "to_bytes")
    def to_bytes(original: Any, self: DictMemoryStore, key: str, *args: Any) -> bytes:
        for route in list(table_of(self).routes.values()):
            batch = route.batch if isinstance(route, Route) else None
            entry = None if batch is None else batch.current(key)
            if entry is not None:
                return entry.data
        data: bytes = original(self, key, *args)
        return data


@mutant("registers")
def stale_read() -> None:
    """A read is remembered until the store has had up to four more commits."""

    @replaces(DictMemoryStore, "to_bytes")
    def to_bytes(original: Any, self: DictMemoryStore, key: str, *args: Any) -> bytes:
        known = self.__dict__.setdefault("known", {})
        age = table_of(self).revision // 4
        if known.get(key, (-1, b""))[0] != age:
            known[key] = age, original(self, key, *args)
        data: bytes = known[key][1]
        return data


# -- committing -------------------------------------------------------------------------------------------


@mutant("compare-and-set")
def check_then_act() -> None:
    """The condition of a write is looked at in one section, and the write made in another."""

    @replaces(Table, "commit")
    def commit(original: Any, self: Table, edits: Any, *args: Any, **options: Any) -> Any:
        if isinstance(edits, FirstEntry):
            return original(self, edits, *args, **options)  # a claim, whose key the commit finds
        unconditional: list[tuple[str, Edit]] = []
        for key, edit in edits:
            if isinstance(edit, IfRevision):
                # Raises if it does not hold.
                self.exclusively("check", edit.revise, key, self.entry(key), self.revision + 1, 1.0)
                edit = edit.edit
            unconditional.append((key, edit))
        return original(self, unconditional, *args, **options)


@mutant("registers")
def data_and_metadata_apart() -> None:
    """A value is set by one commit for the data and another for the metadata."""

    @replaces(DictMemoryStore, "set")
    def set_(original: Any, self: DictMemoryStore, key: str, value: Any, *args: Any, **options: Any) -> None:
        if options or not isinstance(value, tuple) or not self.exists(key):
            original(self, key, value, *args, **options)
            return
        stream, metadata = value
        self.set_data(key, stream if isinstance(stream, bytes) else BytesIO(stream.read()))
        self.set_metadata(key, metadata)


def _put_one_by_one(finish: Callable[[Table], None], table: Table, count: int | None = None) -> None:
    """Put new entries of a commit of several keys into the table as if each were a commit of its own."""
    decided = table.journal
    assert decided is not None
    _, revision, *_, many = decided
    if many is not None:
        for key, entry in list(many.after.items())[:count]:
            # More than once, as it may be repeated: so others have longer to come in between.
            for _ in range(3):
                table.journal = ([(key, many.gate.before[key], entry)], revision, None, (), None)
                finish(table)
        table.journal = decided


@mutant("transactions")
def commit_applied_key_by_key() -> dict[str, Any]:
    """The changes of a commit are applied one after the other, and readers come in between."""

    @replaces(Table, "finish")
    def finish(original: Any, self: Table) -> None:
        _put_one_by_one(original, self)
        original(self)

    return {"lock_class": _NoHolder}


@mutant("transactions")
def gate_left_open() -> None:
    """No gate is shut while a commit is applied, so reads without the lock find half of it."""

    @replaces(Table, "finish")
    def finish(original: Any, self: Table) -> None:
        _put_one_by_one(original, self)
        original(self)


@mutant("transactions")
def gate_opened_too_early() -> None:
    """The gate is opened after the first change of a commit, and not after the last."""

    @replaces(Table, "finish")
    def finish(original: Any, self: Table) -> None:
        assert self.journal is not None
        many = self.journal[-1]
        if many is not None:
            self.detour = many.gate
            _put_one_by_one(original, self, 1)
            self.detour = self.routes or None
            _put_one_by_one(original, self)
        original(self)


@mutant("bank", faults="exceptions")
def journal_dropped() -> None:
    """What an exception has left of a commit is dropped, and not finished."""

    @replaces(Table, "finish")
    def finish(original: Any, self: Table) -> None:
        assert self.journal is not None
        many = self.journal[-1]
        try:
            if many is not None:
                self.detour = many.gate
                _put_one_by_one(original, self)
            original(self)
        except BaseException:
            self.journal = None
            self.detour = self.routes or None
            raise


@mutant("list-append")
def optimistic_check_left_out() -> dict[str, Any]:
    """An optimistic transaction commits whatever others have changed."""

    @replaces(OptimisticBatch, "check")
    def check(original: Any, self: OptimisticBatch) -> None:
        """Do nothing."""

    return {"store_class": Optimistic}


@mutant("transactions")
def rollback_leaves_a_key() -> None:
    """An inner block that is rolled back keeps its first change."""

    @replaces(WriteBatch, "rollback_to")
    def rollback_to(original: Any, self: WriteBatch, savepoint: int) -> None:
        original(self, savepoint + 1)


@mutant("scans")
def index_updated_late() -> dict[str, Any]:
    """The indexes are updated after the section of the commit."""
    put_off(MetadataIndex, "replace_all")

    def known_to_index(table: Table, value: Any) -> list[tuple[str, Entry]]:
        # A key that the index still has and that is gone is passed over: that is no failure by itself.
        known = table.indexes["scans"].candidates(value)
        entries = table.entries
        # Copied by one call, as the index is changed meanwhile.
        keys = list(entries if known is None else known)
        return [(key, entries[key]) for key in keys if key in entries]

    @replaces(Table, "candidates")
    def candidates(original: Any, self: Table, terms: Mapping[str, Any]) -> Any:
        if "scans" in terms:
            return self.read(known_to_index, self, terms["scans"])
        return original(self, terms)

    return {"indexes": ["scans"]}


@mutant("snapshots")
def old_entries_kept_late() -> None:
    """What a snapshot needs of the past is kept after the section of the commit."""
    # Two threads that free closed views at a time would crash.
    put_off(Preimages, "record", in_section=True)


# -- events -----------------------------------------------------------------------------------------------


@mutant("events")
def event_queued_late() -> None:
    """The events of a commit are queued after its section."""
    put_off(Publisher, "publish")


@mutant("events")
def event_on_rollback() -> None:
    """A transaction that is rolled back tells of its changes."""

    @replaces(Table, "end")
    def end(original: Any, self: Table, claim: Claim) -> None:
        batch = None if claim.ended or claim.route is None else claim.route.batch
        original(self, claim)
        for key, edit in [] if batch is None else batch.edits():
            old = self.entry(key)
            new = edit.revise(key, old, self.revision + 1, time.time())
            if new is not None:
                self.exclusively("rollback", publish, self._publisher, self.revision + 1, (key, old, new))

    def publish(publisher: Publisher, revision: int, change: Change) -> None:
        publisher.publish([change], revision, None, publisher.deliveries_of([change], revision, None))


@mutant("events")
def event_lost() -> None:
    """A commit that finds a listener being called queues no events."""

    @replaces(Publisher, "publish")
    def publish(
        original: Any,
        self: Publisher,
        changes: Any,
        revision: int,
        claim: Any,
        deliveries: Any,
    ) -> None:
        heard = () if self.dispatcher.calling is not None else deliveries
        original(self, changes, revision, claim, heard)


@mutant("events")
def event_twice() -> None:
    """A commit that finds the queue empty queues its events twice."""

    @replaces(Publisher, "publish")
    def publish(
        original: Any, self: Publisher, changes: Any, revision: int, claim: Any, deliveries: Any
    ) -> None:
        empty = not self.dispatcher.pending
        original(self, changes, revision, claim, deliveries)
        if empty:
            for delivery in self.deliveries_of(changes, revision, claim):
                self.dispatcher.submit(delivery)


@mutant("events", faults="exceptions")
def event_twice_on_redo() -> None:
    """A commit that is finished again makes new events, which are heard as well."""

    @replaces(Publisher, "publish")
    def publish(
        original: Any, self: Publisher, changes: Any, revision: int, claim: Any, deliveries: Any
    ) -> None:
        original(self, changes, revision, claim, self.deliveries_of(changes, revision, claim))


# -- for comparison ---------------------------------------------------------------------------------------


def unbroken(event_manager: BaseEventManager | None = None, **options: Any) -> DictMemoryStore:
    """Return a store in which nothing is broken."""
    return DictMemoryStore(event_manager, **options)
