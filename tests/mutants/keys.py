"""Mutants of the methods that read and write one key, or many at once; part of the catalogue.

They use the public methods of the store, as somebody would who writes one, and no part of it: a method is
written as two calls of others, or does one key after the other. The table of README.md names them by method.

Thread safety: as what they break, as a rule without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import Any

from latchstore import RevisionMismatchError, StoreSetEvent, StoreUpdateEvent, StringValue
from latchstore.delivery import commit_events
from latchstore.engine.inspection import table_of
from latchstore.engine.memory import DictMemoryStore
from tests.mutants.mutant import metadata_of, mutant, replaces


def _data(store: DictMemoryStore, key: str) -> bytes:
    return store.to_bytes(key) if store.exists(key) else b""


def _pieces(store: DictMemoryStore, key: str) -> bytes:
    """Return the data, read in two pieces."""
    beginning = store.to_bytes(key)[:3]
    return beginning + store.to_bytes(key)[3:]


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


class LateStream(RawIOBase):
    """A stream that reads the data of a key when it is itself read."""

    def __init__(self, store: DictMemoryStore, key: str) -> None:
        self._read = functools.cache(lambda: BytesIO(store.to_bytes(key)))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._read().readinto(buffer)


@mutant("snapshots")
def stream_read_late() -> None:
    """A stream has the data of the time at which it is read."""

    @replaces(DictMemoryStore, "get_data")
    def get_data(original: Any, self: DictMemoryStore, key: str) -> Any:
        original(self, key).close()
        return BufferedReader(LateStream(self, key))


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
        self.set(key, (_content(data), metadata_of(self, key)))


@mutant("entries")
def bytes_set_as_read_and_set() -> None:
    """New bytes are set with the metadata that was read before."""

    @replaces(DictMemoryStore, "from_bytes")
    def from_bytes(
        original: Any, self: DictMemoryStore, key: str, data: bytes, *args: Any, **options: Any
    ) -> None:
        self.set(key, (data, metadata_of(self, key)))


@mutant("files")
def file_set_as_read_and_set() -> None:
    """The content of a file is set with the metadata that was read before."""

    @replaces(DictMemoryStore, "from_file")
    def from_file(
        original: Any, self: DictMemoryStore, key: str, path: Any, *args: Any, **options: Any
    ) -> None:
        metadata = metadata_of(self, key)
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


@mutant("removals")
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


@mutant("removals")
def eviction_of_a_new_value() -> None:
    """An eviction takes two steps, and says that it found nothing if the value was changed between them."""

    @replaces(DictMemoryStore, "evict")
    def evict(original: Any, self: DictMemoryStore, key: str, *args: Any, **options: Any) -> None:
        revision = self.get(key).revision
        if self.get(key).revision != revision:
            raise KeyError(key)
        original(self, key, *args, **options)


@mutant("removals")
def removal_without_its_condition() -> None:
    """The revision is compared, and then the key is removed, whatever it is by then."""

    def removing(original: Any, self: DictMemoryStore, key: str, *cause: str, **condition: Any) -> None:
        expected = condition.get("if_revision")
        if expected is not None:
            actual = self.get(key).revision if self.exists(key) else 0
            if actual != expected:
                raise RevisionMismatchError(key, expected, actual or 0)
        original(self, key, *cause)

    replaces(DictMemoryStore, "delete")(removing)
    replaces(DictMemoryStore, "evict")(removing)


@mutant("events")
def class_of_event_known_before() -> None:
    """Whether a key is new is looked at before the commit that sets it, and decides on its event's class."""
    existed: dict[tuple[str, bytes], bool] = {}

    @replaces(DictMemoryStore, "from_bytes")
    def from_bytes(
        original: Any, self: DictMemoryStore, key: str, data: bytes, *args: Any, **options: Any
    ) -> None:
        if self.current_transaction() is None:
            existed[key, bytes(data)] = self.exists(key)
        original(self, key, data, *args, **options)

    @replaces(commit_events, "event_class_of")
    def event_class_of(original: Any, change: Any) -> Any:
        key, old, new = change
        if new is None:
            return original(change)
        return StoreUpdateEvent if existed.get((key, bytes(new.data)), old is not None) else StoreSetEvent


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
