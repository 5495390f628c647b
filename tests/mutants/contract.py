"""Mutants of the other methods of the contract, from transactions to waits; part of the catalogue.

As in `keys.py`: each method is what somebody would write who does not think of other threads.

Thread safety: as what they break, as a rule without it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from latchstore import EventManager, StoreUpdateEvent, TransactionConflictError, WaitTimeoutError
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.engine.attempts import Attempt
from latchstore.engine.batch import OptimisticBatch
from latchstore.engine.inspection import table_of
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.table import Table
from latchstore.engine.transaction import Transaction
from tests.mutants.mutant import metadata_of, mutant, replaces

# -- transactions -----------------------------------------------------------------------------------------


@mutant("optimistic")
def reads_not_checked() -> None:
    """An optimistic transaction checks the keys that it has written, and not those that it has read."""

    @replaces(OptimisticBatch, "current")
    def current(original: Any, self: Any, key: str) -> Any:
        before = set(self._read)
        entry = original(self, key)
        self._read = before
        return entry


@mutant("phantoms")
def looks_not_checked() -> None:
    """An optimistic transaction checks the keys that it has read, and not its queries and globs."""

    for name in ("candidates", "found"):

        @replaces(OptimisticBatch, name)
        def look(original: Any, self: Any, *args: Any, **options: Any) -> Any:
            found = original(self, *args, **options)
            self._queries = []
            return found


@mutant("optimistic")
def last_attempt_not_made() -> None:
    """After a conflict there is no further attempt, and no error."""

    @replaces(Attempt, "__exit__")
    def leave(original: Any, self: Any, *error: Any) -> bool:
        left: bool = original(self, *error)
        self._attempts.finished = True
        return left


@mutant("optimistic")
def function_run_once() -> None:
    """A transactional function returns its result although its transaction has met a conflict."""

    @replaces(DictMemoryStore, "transactional")
    def transactional(original: Any, self: DictMemoryStore, *args: Any, **options: Any) -> Any:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                try:
                    with self.transaction(optimistic=True):
                        result = function(*args)
                except TransactionConflictError:
                    return result
                return result

            return run

        return decorate


@mutant("bank")
def blocks_side_by_side() -> None:
    """Exclusive transactions run side by side, and nothing is checked."""

    @replaces(DictMemoryStore, "transaction")
    def transaction(original: Any, self: DictMemoryStore, notes: str = "", **options: Any) -> Any:
        return original(self, notes, optimistic=True)

    @replaces(OptimisticBatch, "check")
    def check(original: Any, self: OptimisticBatch) -> None:
        """Do nothing."""


@mutant("snapshots")
def snapshot_key_by_key() -> None:
    """A snapshot is a copy that was made key by key."""

    @replaces(DictMemoryStore, "snapshot")
    def snapshot(original: Any, self: DictMemoryStore) -> Any:
        copy = DictMemoryStore(EventManager())
        for key in list(self.query_keys()):
            if self.exists(key):
                copy.set(key, self.get(key))
        return original(copy)


class LateSnapshot:
    """Opens a snapshot when one of its attributes is first read."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._opened = functools.cache(make)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened(), name)

    def __contains__(self, key: str) -> bool:
        return key in self._opened()

    def __len__(self) -> int:
        return len(self._opened())

    def __enter__(self) -> LateSnapshot:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened().close()


@mutant("snapshots")
def snapshot_opened_late() -> None:
    """A snapshot shows the state of the time at which it is first read."""

    @replaces(DictMemoryStore, "snapshot")
    def snapshot(original: Any, self: DictMemoryStore) -> Any:
        return LateSnapshot(functools.partial(original, self))


@mutant("snapshots")
def snapshot_searches_the_store() -> None:
    """The searches of a snapshot look through the store as it is."""

    _answered_by_the_store("glob", "query", "query_keys")


@mutant("snapshots")
def snapshot_counts_the_store() -> None:
    """The length of a snapshot is that of the store as it is."""
    _answered_by_the_store("__len__")


def _answered_by_the_store(*names: str) -> None:
    """Have the store answer some methods of its snapshots."""

    @replaces(DictMemoryStore, "snapshot")
    def snapshot(original: Any, self: DictMemoryStore) -> Any:
        view = original(self)
        live = {name: staticmethod(getattr(self, name)) for name in names}
        view.__class__ = type("Snapshot", (type(view),), live)
        return view


@mutant("files")
def saved_key_by_key() -> None:
    """What is saved is a copy that was made key by key."""

    @replaces(DictMemoryStore, "save")
    def save(original: Any, self: DictMemoryStore, path: Any) -> None:
        copy = DictMemoryStore(EventManager())
        for key in list(self.query_keys()):
            if self.exists(key):
                copy.set(key, self.get(key))
        original(copy, path)
        copy.close()


# -- events and waits -------------------------------------------------------------------------------------


@mutant("events")
def event_of_a_batch_twice() -> None:
    """The first key of a multiset has two events."""

    @replaces(DictMemoryStore, "multiset")
    def multiset(original: Any, self: DictMemoryStore, keys: Any, values: Any, *buffer_size: int) -> None:
        first, *others = keys
        original(self, [first, *others], values, *buffer_size)
        revision = self.info()["revision"]
        self.event_manager.emit(StoreUpdateEvent(self, key=first, metadata={}, revision=revision))


@mutant("delivery")
def flush_of_the_commits_before() -> None:
    """A flush waits for all commits but the last."""

    @replaces(DictMemoryStore, "flush")
    def flush(original: Any, self: DictMemoryStore, timeout: Any = 30.0, revision: int | None = None) -> None:
        original(self, timeout, max(0, table_of(self).revision - 1) if revision is None else revision)


@mutant("delivery")
def flush_of_an_earlier_revision() -> None:
    """A flush up to a revision waits for those before it."""

    @replaces(DictMemoryStore, "flush")
    def flush(original: Any, self: DictMemoryStore, timeout: Any = 30.0, revision: int | None = None) -> None:
        original(self, timeout, None if revision is None else revision - 1)


@mutant("delivery")
def close_without_waiting() -> None:
    """A store is closed before all has been heard."""

    @replaces(EventDispatcher, "stop")
    def stop(original: Any, self: EventDispatcher, timeout: float | None) -> None:
        self.start_if_needed()


@mutant("delivery")
def told_before_it_is_there() -> None:
    """The events of a commit are queued before it can be seen."""

    @replaces(Table, "finish")
    def finish(original: Any, self: Table) -> None:
        assert self.journal is not None
        changes, revision, claim, deliveries, many = self.journal
        for delivery in deliveries:
            self._publisher.dispatcher.submit(delivery)
        self.journal = changes, revision, claim, (), many
        original(self)


@mutant("phantoms")
def function_called_within_the_block() -> None:
    """What a transaction is to call after its commit is called at once."""

    @replaces(Transaction, "on_commit")
    def on_commit(original: Any, self: Transaction, function: Any) -> None:
        function()


@mutant("phantoms")
def function_called_after_a_rollback() -> None:
    """What a transaction is to call after its commit is called after its rollback as well."""

    @replaces(Transaction, "on_commit")
    def on_commit(original: Any, self: Transaction, function: Any) -> None:
        original(self, function)
        self.on_rollback(function)


@mutant("events")
def filter_looks_at_the_store() -> None:
    """A watch with a filter compares the metadata that a key has when its change is read."""

    @replaces(DictMemoryStore, "watch")
    def watch(
        original: Any, self: DictMemoryStore, glob: str = "*", filter: Any = None, **options: Any
    ) -> Any:
        changes = original(self, glob, **options)
        if filter is not None:
            changes.__class__ = type("Watch", (type(changes),), {"get": _matching_now(self, filter)})
        return changes


def _matching_now(store: DictMemoryStore, filter: Mapping[str, Any]) -> Callable[..., Any]:
    def get(self: Any, timeout: Any = None) -> Any:
        while True:
            event = super(type(self), self).get(timeout)
            before = {} if event.previous is None else event.previous.metadata
            if any(filter.items() <= each.items() for each in (before, metadata_of(store, event.key))):
                return event

    return get


@mutant("resuming")
def watch_skips_a_commit() -> None:
    """A watch that is resumed begins one commit too late."""

    @replaces(DictMemoryStore, "watch")
    def watch(original: Any, self: DictMemoryStore, glob: str = "*", *args: Any, **options: Any) -> Any:
        since = options.pop("since", None)
        if since is not None and since < table_of(self).revision:
            since += 1
        return original(self, glob, *args, since=since, **options)


@mutant("waiting")
def key_looked_for_before_the_watch() -> None:
    """Who waits for a key looks for it, and then opens the watch."""

    @replaces(DictMemoryStore, "wait_for_key")
    def wait_for_key(original: Any, self: DictMemoryStore, key: str, timeout: Any = 30.0) -> Any:
        if not self.exists(key):
            with self.watch(key) as changes:
                changes.get(timeout)
        return self.get(key)


@mutant("waiting")
def key_looked_for_outside_the_condition() -> None:
    """Who waits for a key looks for it before it holds the condition that writes notify."""

    @replaces(DictMemoryStore, "__init__")
    def initialise(original: Any, self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.changed = threading.Condition()

    @replaces(DictMemoryStore, "from_bytes")
    def from_bytes(original: Any, self: Any, key: str, *args: Any, **options: Any) -> None:
        original(self, key, *args, **options)
        with self.changed:
            self.changed.notify_all()

    @replaces(DictMemoryStore, "wait_for_key")
    def wait_for_key(original: Any, self: Any, key: str, timeout: Any = 30.0) -> Any:
        while not self.exists(key):
            with self.changed:
                if not self.changed.wait(timeout):
                    raise WaitTimeoutError(f"no {key!r} after {timeout} s")
        return self.get(key)


@mutant("waiting")
def predicate_called_before_the_watch() -> None:
    """Who waits for a predicate calls it, and then opens the watch."""

    @replaces(DictMemoryStore, "wait_for")
    def wait_for(original: Any, self: DictMemoryStore, predicate: Any, timeout: Any = 30.0) -> Any:
        while not (result := predicate()):
            with self.watch() as changes:
                changes.get(timeout)
        return result


@mutant("waiting")
def any_change_ends_the_wait() -> None:
    """Who waits for a key goes on after the first change of any key."""

    @replaces(DictMemoryStore, "wait_for_key")
    def wait_for_key(original: Any, self: DictMemoryStore, key: str, timeout: Any = 30.0) -> Any:
        with self.watch() as changes:
            if not self.exists(key):
                changes.get(timeout)
