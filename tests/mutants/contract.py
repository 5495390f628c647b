"""Mutants of single methods of the contract: what each would be if it were not atomic; part of the catalogue.

They use the public methods of the store, as somebody would who writes one, and no part of it: a method is
written as two calls of others, or does one key after the other. The table of README.md names them by method.

Thread safety: as what they break, as a rule without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from latchstore import EventManager, StringValue, TransactionConflictError
from latchstore.contract.mapping import StoreMapping
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.engine.attempts import Attempt
from latchstore.engine.batch import OptimisticBatch
from latchstore.engine.inspection import table_of
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.table import Table
from tests.mutants.mutant import mutant, replaces


def _data(store: DictMemoryStore, key: str) -> bytes:
    return store.to_bytes(key) if store.exists(key) else b""


def _pieces(store: DictMemoryStore, key: str) -> bytes:
    """Return the data, read in two pieces."""
    beginning = store.to_bytes(key)[:3]
    return beginning + store.to_bytes(key)[3:]


def _metadata(store: DictMemoryStore, key: str) -> dict[str, Any]:
    try:
        return store.get_metadata(key)
    except KeyError:
        return {}


def _content(stream: Any) -> bytes:
    return bytes(stream.read()) if hasattr(stream, "read") else bytes(stream)


# -- reading one key --------------------------------------------------------------------------------------


class _WithRevision(StringValue):
    """A value of which somebody else says the revision."""

    __slots__ = ("revision_told",)

    revision_told: int | None

    @property
    def revision(self) -> int | None:
        return self.revision_told


def _value(data: bytes, metadata: Mapping[str, Any], revision: int | None) -> _WithRevision:
    value = _WithRevision(data, metadata)
    value.revision_told = revision
    return value


@mutant("entries")
def value_of_two_moments() -> None:
    """A value has data of one moment and metadata of another."""

    @replaces(DictMemoryStore, "get")
    def get(original: Any, self: DictMemoryStore, key: str) -> Any:
        data = original(self, key).bytes
        value = original(self, key)
        return _value(data, value.metadata, value.revision)


@mutant("entries")
def revision_of_another_moment() -> None:
    """The revision of a value is that which the key has a moment later."""

    @replaces(DictMemoryStore, "get")
    def get(original: Any, self: DictMemoryStore, key: str) -> Any:
        value = original(self, key)
        return _value(value.bytes, value.metadata, original(self, key).revision)


@mutant("entries")
def stream_of_two_reads() -> None:
    """A stream of data is put together from two reads."""

    @replaces(DictMemoryStore, "get_data")
    def get_data(original: Any, self: DictMemoryStore, key: str) -> Any:
        return BytesIO(_pieces(self, key))


@mutant("entries")
def range_of_two_reads() -> None:
    """A range of data is put together from two reads."""

    @replaces(DictMemoryStore, "get_data_range")
    def get_data_range(
        original: Any, self: DictMemoryStore, key: str, start: int | None = None, end: int | None = None
    ) -> Any:
        return BytesIO(_pieces(self, key)[start:end])


@mutant("entries")
def metadata_item_by_item() -> None:
    """Metadata is read item by item."""

    @replaces(DictMemoryStore, "get_metadata")
    def get_metadata(original: Any, self: DictMemoryStore, key: str, select: Any = None) -> Any:
        names = list(original(self, key)) if select is None else select
        found: dict[str, Any] = {}
        for name in names:
            found.update(original(self, key, [name]))
        return found


@mutant("entries")
def existence_remembered() -> None:
    """Whether there is a key is remembered until the store has had another two commits."""

    @replaces(DictMemoryStore, "exists")
    def exists(original: Any, self: DictMemoryStore, key: str) -> bool:
        known = self.__dict__.setdefault("known", {})
        age = table_of(self).revision // 2
        if known.get(key, (-1, False))[0] != age:
            known[key] = age, original(self, key)
        found: bool = known[key][1]
        return found


@mutant("entries")
def bytes_of_two_reads() -> None:
    """Data is read in two pieces."""

    @replaces(DictMemoryStore, "to_bytes")
    def to_bytes(original: Any, self: DictMemoryStore, key: str, *args: Any) -> bytes:
        beginning: bytes = original(self, key)[:3]
        rest: bytes = original(self, key)[3:]
        return beginning + rest


@mutant("files")
def file_of_two_reads() -> None:
    """A file is written from two reads."""

    @replaces(DictMemoryStore, "to_file")
    def to_file(original: Any, self: DictMemoryStore, key: str, path: Any, *args: Any) -> None:
        Path(path).write_bytes(_pieces(self, key))


# -- writing one key --------------------------------------------------------------------------------------


@mutant("entries")
def value_set_in_two_commits() -> None:
    """A value is set by one commit for the data and another for the metadata."""

    @replaces(DictMemoryStore, "set")
    def set_(original: Any, self: DictMemoryStore, key: str, value: Any, *args: Any, **options: Any) -> None:
        stream, metadata = value
        self.set_data(key, _content(stream))
        self.set_metadata(key, metadata)


@mutant("entries")
def data_set_as_read_and_set() -> None:
    """New data is set with the metadata that was read before."""

    @replaces(DictMemoryStore, "set_data")
    def set_data(
        original: Any, self: DictMemoryStore, key: str, data: Any, *args: Any, **options: Any
    ) -> None:
        self.set(key, (_content(data), _metadata(self, key)))


@mutant("entries")
def bytes_set_as_read_and_set() -> None:
    """New bytes are set with the metadata that was read before."""

    @replaces(DictMemoryStore, "from_bytes")
    def from_bytes(
        original: Any, self: DictMemoryStore, key: str, data: bytes, *args: Any, **options: Any
    ) -> None:
        self.set(key, (data, _metadata(self, key)))


@mutant("files")
def file_set_as_read_and_set() -> None:
    """The content of a file is set with the metadata that was read before."""

    @replaces(DictMemoryStore, "from_file")
    def from_file(
        original: Any, self: DictMemoryStore, key: str, path: Any, *args: Any, **options: Any
    ) -> None:
        metadata = _metadata(self, key)
        self.set(key, (Path(path).read_bytes(), metadata))


@mutant("entries")
def metadata_set_as_read_and_set() -> None:
    """New metadata is set with the data that was read before."""

    @replaces(DictMemoryStore, "set_metadata")
    def set_metadata(
        original: Any, self: DictMemoryStore, key: str, metadata: Any, *args: Any, **options: Any
    ) -> None:
        self.set(key, (_data(self, key), metadata))


@mutant("entries")
def update_as_read_and_write() -> None:
    """An update of metadata is a read, and a write of all items."""

    @replaces(DictMemoryStore, "update_metadata")
    def update_metadata(
        original: Any, self: DictMemoryStore, key: str, metadata: Any, *args: Any, **options: Any
    ) -> None:
        self.set_metadata(key, {**self.get_metadata(key), **metadata})


@mutant("entries")
def delete_as_look_and_removal() -> None:
    """A delete looks whether there is the key, and then removes what there is."""

    @replaces(DictMemoryStore, "delete")
    def delete(original: Any, self: DictMemoryStore, key: str, *args: Any, **options: Any) -> None:
        if not self.exists(key):
            raise KeyError(key)
        try:
            original(self, key, *args, **options)
        except KeyError:
            return


@mutant("entries")
def evicted_key_comes_back() -> None:
    """A read puts its key in front again, though it was removed or evicted meanwhile."""

    @replaces(DictMemoryStore, "get")
    def get(original: Any, self: DictMemoryStore, key: str) -> Any:
        value = original(self, key)
        if not self.exists(key):
            self.set(key, (value.bytes, value.metadata))
        return value


@mutant("entries")
def eviction_of_a_new_value() -> None:
    """An eviction takes two steps, and says that it found nothing if the value was changed between them."""

    @replaces(DictMemoryStore, "evict")
    def evict(original: Any, self: DictMemoryStore, key: str, *args: Any, **options: Any) -> None:
        revision = self.get(key).revision
        if self.get(key).revision != revision:
            raise KeyError(key)
        original(self, key, *args, **options)


# -- many keys --------------------------------------------------------------------------------------------


def _one_by_one(name: str, single: Callable[[DictMemoryStore, str], Any]) -> None:
    @replaces(DictMemoryStore, name)
    def multi(original: Any, self: DictMemoryStore, keys: Iterable[str], *args: Any) -> Iterator[Any]:
        return iter([single(self, key) for key in keys])


@mutant("batches")
def values_one_by_one() -> None:
    """Values of many keys are read one after the other."""
    _one_by_one("multiget", lambda store, key: store.get(key))


@mutant("batches")
def data_one_by_one() -> None:
    """Data of many keys is read one key after the other."""
    _one_by_one("multiget_data", lambda store, key: store.get_data(key))


@mutant("batches")
def metadata_one_by_one() -> None:
    """Metadata of many keys is read one key after the other."""
    _one_by_one("multiget_metadata", lambda store, key: store.get_metadata(key))


def _written_one_by_one(name: str, single: Callable[[DictMemoryStore, str, Any], None]) -> None:
    @replaces(DictMemoryStore, name)
    def multi(original: Any, self: DictMemoryStore, keys: Any, values: Any, *args: Any) -> None:
        for key, value in zip(keys, values, strict=False):
            single(self, key, value)


@mutant("batches")
def many_set_one_by_one() -> None:
    """Many values are set by a commit each."""
    _written_one_by_one("multiset", lambda store, key, value: store.set(key, value))


@mutant("batches")
def many_data_set_one_by_one() -> None:
    """Data of many keys is set by a commit each."""
    _written_one_by_one("multiset_data", lambda store, key, value: store.set_data(key, value))


@mutant("batches")
def many_metadata_set_one_by_one() -> None:
    """Metadata of many keys is set by a commit each."""
    _written_one_by_one("multiset_metadata", lambda store, key, value: store.set_metadata(key, value))


@mutant("batches")
def many_updated_one_by_one() -> None:
    """Metadata of many keys is updated by a commit each."""
    _written_one_by_one("multiupdate_metadata", lambda store, key, value: store.update_metadata(key, value))


# -- looking through the store ----------------------------------------------------------------------------


@mutant("sizes")
def uncommitted_keys_counted() -> None:
    """The length counts keys that an open transaction has added, for all threads."""

    @replaces(DictMemoryStore, "__len__")
    def length(original: Any, self: DictMemoryStore) -> int:
        table: Any = table_of(self)
        added: set[str] = set()
        for route in list(table.routes.values()):
            batch: Any = route.batch
            if batch is not None:
                # Copied by one call, as the thread of the block goes on.
                added.update(key for key in list(batch._edits) if batch.current(key) is not None)
        return len(added.union(list(table.entries)))


@mutant("scans")
def glob_in_two_looks() -> None:
    """A glob looks through one half of the keys, and later through the other."""

    @replaces(DictMemoryStore, "glob")
    def glob(original: Any, self: DictMemoryStore, pattern: str) -> Iterator[str]:
        one = sorted(original(self, pattern))
        middle = one[len(one) // 2] if one else ""
        return iter(
            [key for key in one if key < middle] + [key for key in original(self, pattern) if key >= middle]
        )


@mutant("scans")
def query_key_by_key() -> None:
    """A query finds the keys, and then reads the metadata of each."""

    @replaces(DictMemoryStore, "query")
    def query(original: Any, self: DictMemoryStore, select: Any = None, **terms: Any) -> Iterator[Any]:
        keys = [key for key, _ in original(self, (), **terms)]
        found = ((key, _metadata(self, key)) for key in keys)
        return iter([(key, metadata) for key, metadata in found if metadata])


@mutant("scans")
def query_of_candidates() -> None:
    """A query of keys takes all keys, and then looks at the metadata of each."""

    @replaces(DictMemoryStore, "query_keys")
    def query_keys(original: Any, self: DictMemoryStore, **terms: Any) -> Iterator[str]:
        keys = list(original(self))
        return iter([key for key in keys if terms.items() <= _metadata(self, key).items()])


@mutant("indexes")
def index_built_beside_commits() -> None:
    """An index is built while others commit, which it does not find."""

    @replaces(Table, "add_index")
    def add_index(original: Any, self: Table, name: str) -> None:
        if name not in self.indexes:
            index = MetadataIndex(name)
            for key, entry in list(self.candidates({})):
                index.replace(key, None, entry)
            self.indexes = {**self.indexes, name: index}


@mutant("indexes")
def old_index_used_again() -> None:
    """An index that was removed and is made again finds the keys that it had."""
    removed: dict[str, set[str]] = {}

    def forget_others(table: Table, name: str, known: set[str]) -> None:
        if name in table.indexes:
            for key, entry in table.entries.items():
                if key not in known:
                    table.indexes[name].replace(key, entry, None)

    @replaces(Table, "remove_index")
    def remove_index(original: Any, self: Table, name: str) -> None:
        if name in self.indexes:
            removed[name] = {*list(self.entries)}
        original(self, name)

    @replaces(Table, "add_index")
    def add_index(original: Any, self: Table, name: str) -> None:
        known = None if name in self.indexes else removed.pop(name, None)
        original(self, name)
        if known is not None:
            self.exclusively("add_index", forget_others, self, name, known)


# -- mappings ---------------------------------------------------------------------------------------------


@mutant("mappings")
def default_set_in_two_steps() -> None:
    """The default of a mapping is set by a look and a write."""

    @replaces(StoreMapping, "setdefault")
    def setdefault(original: Any, self: Any, key: str, default: Any = None) -> Any:
        found = self.get(key)
        if found is None:
            self[key] = found = default
        return found


@mutant("mappings")
def pop_in_two_steps() -> None:
    """A pop of a mapping is a read and a delete."""

    @replaces(StoreMapping, "pop")
    def pop(original: Any, self: Any, key: str, default: Any = None) -> Any:
        found = self.get(key, default)
        try:
            del self[key]
        except KeyError:
            return found
        return found


@mutant("mappings")
def mapping_updated_key_by_key() -> None:
    """An update of a mapping is a commit for each key."""

    @replaces(StoreMapping, "update")
    def update(original: Any, self: Any, other: Mapping[str, Any]) -> None:
        for key, value in other.items():
            self[key] = value


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
def predicate_called_before_the_watch() -> None:
    """Who waits for a predicate calls it, and then opens the watch."""

    @replaces(DictMemoryStore, "wait_for")
    def wait_for(original: Any, self: DictMemoryStore, predicate: Any, timeout: Any = 30.0) -> Any:
        while not (result := predicate()):
            with self.watch() as changes:
                changes.get(timeout)
        return result
