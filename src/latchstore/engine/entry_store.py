"""The writing methods of a store over edits, shared by the store and its transactions.

A subclass commits edits (`_write`, `_write_one`). All code that may run the caller's code (reading streams,
iterating, deep copies of metadata) is here, outside those methods, so it never runs under their locks.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    Readable,
    as_bytes,
    checked_buffer_size,
    checked_iterable,
    checked_key,
    checked_path,
    checked_revision,
    describe,
    read_all,
)
from latchstore.contract.events import (
    StoreProgressEndEvent,
    StoreProgressStartEvent,
    StoreProgressStepEvent,
)
from latchstore.contract.files import content_of
from latchstore.contract.store import AbstractStore, SettableValue
from latchstore.contract.values import ATOMIC_TYPES, Entry, StringValue, entry_from_metadata
from latchstore.engine.edits import Delete, Edit, IfRevision, MergeMetadata, SetData, SetMetadata
from latchstore.engine.entry_reader import EntryReader

#: The progress events of reading a stream. hot path: a frozenset caches its hash, a tuple does not.
PROGRESS_EVENTS = frozenset({StoreProgressStartEvent, StoreProgressStepEvent, StoreProgressEndEvent})

#: Called with ``step=bytes_so_far`` while a stream is read.
Progress = Callable[..., object]

_DELETE = Delete()

_new_object = object.__new__

#: Types whose bytes are taken without reading block by block.
_PLAIN = frozenset({bytes, BytesIO})


def _conditional(edit: Edit, if_revision: int | None) -> Edit:
    return edit if if_revision is None else IfRevision(edit, if_revision)


class EntryStore(EntryReader, AbstractStore):
    """The writing methods, over edits.

    Attributes
    ----------
    _has_listeners : callable
        Returns whether any of some event classes has listeners.
    """

    _has_listeners: Callable[[Any], bool]

    @abstractmethod
    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        """Commit one edit; inside a transaction, add it to that. Otherwise like `_write`."""

    @abstractmethod
    def _write(self, edits: Sequence[tuple[str, Edit]], purpose: str) -> None:
        """Commit the edits, all or none; inside a transaction, add them to it.

        Parameters
        ----------
        purpose : str
            The name of the operation, for error messages of other writers.
        """

    @abstractmethod
    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        """Return a context manager that reports the progress of reading a stream.

        Parameters
        ----------
        steps : int
            The length of the stream in bytes; -1 if it is unknown.
        """

    def set(
        self,
        key: str,
        value: SettableValue,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        if type(key) is not str:
            key = checked_key(key)
        if buffer_size is not DEFAULT_BUFFER_SIZE:
            checked_buffer_size(buffer_size)
        if if_revision is not None:
            if_revision = checked_revision(if_revision)
        # hot path: loaded first, since CPython 3.11 does not specialise calls of instance attributes.
        has_listeners = self._has_listeners
        new = None if has_listeners(PROGRESS_EVENTS) else _plain_entry(value)
        if new is None:
            new = self._replacement(key, value, buffer_size, "value")
        self._write_one(key, new if if_revision is None else IfRevision(new, if_revision), "set")

    def set_data(
        self,
        key: str,
        data: Readable | bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:

        if type(key) is not str:
            key = checked_key(key)
        if buffer_size is not DEFAULT_BUFFER_SIZE:
            checked_buffer_size(buffer_size)
        if_revision = None if if_revision is None else checked_revision(if_revision)
        if type(data) is not bytes or self._has_listeners(PROGRESS_EVENTS):
            data = self._read(key, data, None, -1, buffer_size, "data")
        # hot path: as in `set`.
        self._write_one(key, _conditional(SetData(data), if_revision), "set_data")

    def set_metadata(self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        edit = SetMetadata(entry_from_metadata(metadata, key=key))
        self._write_one(key, _conditional(edit, if_revision), "set_metadata")

    def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        edit = MergeMetadata(entry_from_metadata(metadata, key=key))
        self._write_one(key, _conditional(edit, if_revision), "update_metadata")

    def delete(self, key: str, *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        self._write_one(key, _conditional(_DELETE, if_revision), "delete")

    def evict(self, key: str, cause: str = "size", *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        self._write_one(key, _conditional(Delete(checked_key(cause, "cause")), if_revision), "evict")

    def from_bytes(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        # hot path: the usual case makes no calls.
        if type(key) is not str:
            key = checked_key(key)
        if buffer_size is not DEFAULT_BUFFER_SIZE:
            checked_buffer_size(buffer_size)
        edit = _new_object(SetData)
        edit.data = data if type(data) is bytes else as_bytes(data)
        if_revision = None if if_revision is None else checked_revision(if_revision)
        self._write_one(key, edit if if_revision is None else IfRevision(edit, if_revision), "from_bytes")

    def from_file(
        self,
        key: str,
        path: str | os.PathLike[str],
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        key = checked_key(key)
        checked_buffer_size(buffer_size)
        if_revision = checked_revision(if_revision)
        edit = SetData(content_of(checked_path(path), buffer_size))
        self._write_one(key, _conditional(edit, if_revision), "from_file")

    def multiset(
        self,
        keys: Iterable[str],
        values: Iterable[SettableValue],
        buffer_size: int = DEFAULT_BUFFER_SIZE,
    ) -> None:
        checked_buffer_size(buffer_size)
        is_followed = self._has_listeners(PROGRESS_EVENTS)
        edits: list[tuple[str, Edit]] = []
        for position, key, value in _paired(keys, values, "values"):
            new = None if is_followed else _plain_entry(value)
            if new is None:
                new = self._replacement(key, value, buffer_size, f"values[{position}]")
            edits.append((key, new))
        self._write(edits, "multiset")

    def multiset_data(
        self,
        keys: Iterable[str],
        datas: Iterable[Readable | bytes | bytearray | memoryview],
        buffer_size: int = DEFAULT_BUFFER_SIZE,
    ) -> None:
        checked_buffer_size(buffer_size)
        edits = [
            (key, SetData(self._read(key, data, None, -1, buffer_size, f"datas[{position}]")))
            for position, key, data in _paired(keys, datas, "datas")
        ]
        self._write(edits, "multiset_data")

    def multiset_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        edits = [
            (key, SetMetadata(entry_from_metadata(metadata, f"metadatas[{position}]", key=key)))
            for position, key, metadata in _paired(keys, metadatas, "metadatas")
        ]
        self._write(edits, "multiset_metadata")

    def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        edits = [
            (key, MergeMetadata(entry_from_metadata(metadata, f"metadatas[{position}]", key=key)))
            for position, key, metadata in _paired(keys, metadatas, "metadatas")
        ]
        self._write(edits, "multiupdate_metadata")

    def _replacement(self, key: str, value: SettableValue, buffer_size: int, argument: str) -> Entry:
        """Read the parts of a value or pair; return them as an entry."""
        if isinstance(value, StringValue) and value.untouched:
            # Its stream has not been read, so the bytes are shared.
            stream, metadata, size = value.bytes, value.shared_metadata(), value.size
        else:
            stream, metadata, size = _parts(value, argument)
        new = entry_from_metadata(metadata, argument, "'s metadata", key)
        new.data = self._read(key, stream, new, size, buffer_size, argument, "'s data")
        return new

    def _read(
        self,
        key: str,
        data: Any,
        metadata: Entry | None,
        size: int,
        buffer_size: int,
        argument: str,
        part: str = "",
    ) -> bytes:
        """Read a stream to its end, and report progress if there are listeners.

        Errors name the data by `argument` and `part`.
        """
        if self._has_listeners(PROGRESS_EVENTS):
            with self._progress(key, metadata, size) as step:
                return read_all(data, buffer_size, step, argument + part)
        return read_all(data, buffer_size, None, argument + part)


def _paired(keys: Iterable[str], others: Iterable[Any], argument: str) -> Iterator[tuple[int, str, Any]]:
    """Iterate over pairs as ``zip`` does, with their positions, and check each key."""
    pairs = zip(  # noqa: B905 (the contract is zip's: stop at the shorter one)
        checked_iterable(keys, "keys"), checked_iterable(others, argument)
    )
    for position, (key, other) in enumerate(pairs):
        yield position, key if type(key) is str else checked_key(key, f"keys[{position}]"), other


def _plain_entry(value: Any) -> Entry | None:
    """Return the entry for a pair of builtin types without nested values, else None."""
    if type(value) is not tuple or len(value) != 2:
        return None
    stream, metadata = value
    kind = type(stream)
    if kind not in _PLAIN or type(metadata) is not dict:
        return None
    entry = Entry(metadata)
    # hot path: as in `entry_from_metadata`, inlined.
    for name, item in entry.items():
        if type(name) is not str or type(item) not in ATOMIC_TYPES:
            return None
    entry.data = stream if kind is bytes else stream.read()
    return entry


def _parts(value: Any, argument: str) -> tuple[Any, Any, int]:
    """Return stream, metadata and size in bytes of a value (-1 if the size is unknown).

    Any object with ``data`` and ``metadata`` is accepted, such as values of other packages' stores.
    """
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(
                f"{argument} must be a Value or a pair of stream and metadata, "
                f"got {len(value)} items: {describe(value)}"
            )
        return value[0], value[1], -1
    try:
        stream, metadata = value.data, value.metadata
    except AttributeError:
        raise TypeError(
            f"{argument} must be a Value or a pair of stream and metadata, such as (b'data', {{'item': 1}}), "
            f"got {describe(value)}"
        ) from None
    size = getattr(value, "size", -1)
    return stream, metadata, size if type(size) is int else -1
