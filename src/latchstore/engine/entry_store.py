"""The store's methods, written once over entries: for the store, its transactions, its snapshots.

A subclass says how to find entries (`_entry`, `_entries_of`, `_items`, `_candidates`) and, if it can be
written to, how to commit edits (`_write`). All that may run the caller's code (reading streams,
iterating, copying metadata in depth, comparing) is here, outside those methods, so that no lock that
they take is ever held while it runs.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any, Protocol

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    Readable,
    as_bytes,
    checked_buffer_size,
    checked_iterable,
    checked_key,
    checked_keys,
    checked_path,
    checked_revision,
    checked_select,
    describe,
    read_all,
)
from latchstore.contract.errors import RevisionMismatchError
from latchstore.contract.events import StoreProgressEndEvent, StoreProgressStartEvent, StoreProgressStepEvent
from latchstore.contract.matching import exact_terms, matching
from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore, SettableValue
from latchstore.contract.values import (
    Entry,
    StoredValue,
    StringValue,
    Value,
    entry_from_metadata,
    merged_metadata,
    with_metadata_of,
)

_new_object = object.__new__

#: The events that tell of the reading of a stream. A frozenset remembers its hash, a tuple does not: 30 ns
#: of each `set` (benchmarks/transactions.py).
PROGRESS_EVENTS = frozenset({StoreProgressStartEvent, StoreProgressStepEvent, StoreProgressEndEvent})

#: Called with ``step=bytes_so_far`` while a stream is read.
Progress = Callable[..., object]


class EntryReader(AbstractReadOnlyStore):
    """The reading methods, over entries."""

    @abstractmethod
    def _entry(self, key: str) -> Entry:
        """Return the entry of a key; KeyError if there is none, TypeError if the key is no str."""

    @abstractmethod
    def _entries_of(self, keys: list[str]) -> list[Entry]:
        """Return the entries of many keys at one instant; KeyError if there is none for one."""

    @abstractmethod
    def _items(self) -> Iterable[tuple[str, Entry]]:
        """Return all keys and entries at one instant, to iterate over once."""

    @abstractmethod
    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return, at one instant, keys and entries among which are all that match `terms`."""

    def get(self, key: str) -> Value:
        # StoredValue(entry), without the call of its __init__: 175 ns, not 205 ns.
        value = _new_object(StoredValue)
        value._entry = self._entry(key)
        value._stream = None
        return value

    def get_metadata(self, key: str, select: Iterable[str] | None = None) -> dict[str, Any]:
        if select is None:
            return self._entry(key).isolated_metadata()
        names = checked_select(select) or ()
        entry = self._entry(key)
        for name in names:
            if name not in entry:
                raise KeyError(name)
        return entry.selected_metadata(names)

    def exists(self, key: str) -> bool:
        try:
            self._entry(key)
        except KeyError:
            return False
        return True

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        return self._entry(key).data

    def multiget(self, keys: Iterable[str]) -> Iterator[Value]:
        return map(StoredValue, self._entries_of(checked_keys(keys)))

    def multiget_metadata(
        self, keys: Iterable[str], select: Iterable[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        names = checked_select(select)
        entries = self._entries_of(checked_keys(keys))
        return (_metadata(entry, names) for entry in entries)

    def query(
        self, select: Iterable[str] | None = None, **kwargs: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        names = checked_select(select)
        terms = exact_terms(kwargs)
        return ((key, _metadata(entry, names)) for key, entry in matching(self._candidates(terms), terms))

    def query_keys(self, **kwargs: Any) -> Iterator[str]:
        terms = exact_terms(kwargs)
        return (key for key, _ in matching(self._candidates(terms), terms))

    def __len__(self) -> int:
        return sum(1 for _ in self._items())


def _metadata(entry: Entry, names: tuple[str, ...] | None) -> dict[str, Any]:
    return entry.isolated_metadata() if names is None else entry.selected_metadata(names)


class Edit(Protocol):
    """What a call wants of one key. Made outside all locks, used under the writer mutex.

    An `Entry` with data is an edit, too: to be put in place of whatever there is.

    Attributes
    ----------
    blind : bool
        Whether it does the same whatever there is: it cannot conflict with what others write.
    whole : bool
        Whether nothing is left of what there was.
    """

    @property
    def blind(self) -> bool: ...

    @property
    def whole(self) -> bool: ...

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
        """Return the new entry, whole, or None to delete; runs no user code.

        Parameters
        ----------
        current : Entry or None
            What there is now.
        revision : int
            The revision that the commit will have.
        now : float
            Seconds since the epoch.

        Raises
        ------
        KeyError
            If the edit needs an entry and there is none.
        """


class SetData:
    """Set the data and leave the metadata."""

    __slots__ = ("_data",)

    blind = True
    whole = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        entry = Entry() if current is None else type(current)(current)  # with_metadata_of(current)
        entry.data = self._data
        return entry.revise(key, current, revision, now)


class SetMetadata:
    """Set the metadata and leave the data."""

    __slots__ = ("_metadata",)

    blind = True
    whole = False

    def __init__(self, metadata: Entry) -> None:
        self._metadata = metadata

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        entry = with_metadata_of(self._metadata)
        entry.data = b"" if current is None else current.data
        return entry.revise(key, current, revision, now)


class MergeMetadata:
    """Set some metadata items and leave the others.

    Parameters
    ----------
    metadata : Entry
        The items, from `entry_from_metadata`.
    """

    __slots__ = ("_metadata",)

    blind = False
    whole = False

    def __init__(self, metadata: Entry) -> None:
        self._metadata = metadata

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        if current is None:
            raise KeyError(key)
        entry = merged_metadata(current, self._metadata)
        entry.data = current.data
        return entry.revise(key, current, revision, now)


class Delete:
    """Remove the key."""

    __slots__ = ()

    blind = False
    whole = True
    cause: str | None = None

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> None:
        if current is None:
            raise KeyError(key)


class Evict(Delete):
    """Remove the key for a reason of a cache's."""

    __slots__ = ("cause",)

    def __init__(self, cause: str) -> None:
        self.cause: str | None = cause


class IfRevision:
    """Do another edit, if the key has the revision that is expected.

    Parameters
    ----------
    edit : Edit
    expected : int
        0: the key must not exist.
    """

    __slots__ = ("_expected", "edit")

    blind = False

    def __init__(self, edit: Edit, expected: int) -> None:
        self.edit = edit
        self._expected = expected

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
        actual = 0 if current is None else current.revision
        if actual != self._expected:
            raise RevisionMismatchError(key, self._expected, actual)
        return self.edit.revise(key, current, revision, now)

    @property
    def whole(self) -> bool:
        return self.edit.whole

    @property
    def cause(self) -> str | None:
        return cause_of_edit(self.edit)


def cause_of_edit(edit: Edit) -> str | None:
    """Return why an edit evicts the key; None if it does not."""
    cause: str | None = getattr(edit, "cause", None)
    return cause


_DELETE = Delete()


def _conditional(edit: Edit, if_revision: int | None) -> Edit:
    return edit if if_revision is None else IfRevision(edit, if_revision)


class EntryStore(EntryReader, AbstractStore):
    """The writing methods, over edits.

    Attributes
    ----------
    _has_listeners : callable
        Tells whether any of the event classes in a tuple has listeners.
    """

    _has_listeners: Callable[[Any], bool]

    @abstractmethod
    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        """Commit one edit; inside a transaction, add it to that. As `_write` otherwise."""

    @abstractmethod
    def _write(self, edits: Iterable[tuple[str, Edit]], purpose: str) -> None:
        """Commit the edits, all or none; inside a transaction, add them to it.

        Parameters
        ----------
        purpose : str
            The name of the operation, for those who have to wait for it.
        """

    @abstractmethod
    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        """Return what tells of the reading of a stream.

        Parameters
        ----------
        steps : int
            The length of the stream in bytes, -1 if it is not known.
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
        expected = None if if_revision is None else checked_revision(if_revision)
        edit: Edit = self._replacement(key, value, buffer_size, "value")
        if expected is not None:
            edit = IfRevision(edit, expected)
        self._write_one(key, edit, "set")

    def set_data(
        self,
        key: str,
        data: Readable | bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        key = checked_key(key)
        checked_buffer_size(buffer_size)
        if_revision = checked_revision(if_revision)
        edit = SetData(self._read(key, data, None, -1, buffer_size, "data"))
        self._write_one(key, _conditional(edit, if_revision), "set_data")

    def set_metadata(self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        edit = SetMetadata(entry_from_metadata(metadata))
        self._write_one(key, _conditional(edit, if_revision), "set_metadata")

    def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        edit = MergeMetadata(entry_from_metadata(metadata))
        self._write_one(key, _conditional(edit, if_revision), "update_metadata")

    def delete(self, key: str, *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        self._write_one(key, _conditional(_DELETE, if_revision), "delete")

    def evict(self, key: str, cause: str = "size", *, if_revision: int | None = None) -> None:
        key = checked_key(key)
        if_revision = checked_revision(if_revision)
        self._write_one(key, _conditional(Evict(checked_key(cause, "cause")), if_revision), "evict")

    def from_bytes(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        # The calls are saved for what is usual: 0.1 of 2 us.
        if type(key) is not str:
            key = checked_key(key)
        if buffer_size is not DEFAULT_BUFFER_SIZE:
            checked_buffer_size(buffer_size)
        edit: Edit = SetData(data if type(data) is bytes else as_bytes(data))
        if if_revision is not None:
            edit = _conditional(edit, checked_revision(if_revision))
        self._write_one(key, edit, "from_bytes")

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
        with open(checked_path(path), "rb") as stream:
            edit = SetData(stream.read())
        self._write_one(key, _conditional(edit, if_revision), "from_file")

    def multiset(
        self,
        keys: Iterable[str],
        values: Iterable[SettableValue],
        buffer_size: int = DEFAULT_BUFFER_SIZE,
    ) -> None:
        checked_buffer_size(buffer_size)
        edits = [
            (key, self._replacement(key, value, buffer_size, f"values[{position}]"))
            for position, key, value in _paired(keys, values, "values")
        ]
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
            (key, SetMetadata(entry_from_metadata(metadata, f"metadatas[{position}]")))
            for position, key, metadata in _paired(keys, metadatas, "metadatas")
        ]
        self._write(edits, "multiset_metadata")

    def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        edits = [
            (key, MergeMetadata(entry_from_metadata(metadata, f"metadatas[{position}]")))
            for position, key, metadata in _paired(keys, metadatas, "metadatas")
        ]
        self._write(edits, "multiupdate_metadata")

    def _replacement(self, key: str, value: SettableValue, buffer_size: int, argument: str) -> Entry:
        """Read all that a value or pair has to give; return it as an entry."""
        if type(value) is tuple and len(value) == 2:
            # A plain pair is told first: to ask for an abstract class takes 0.3 us.
            stream, metadata = value
            size = -1
        elif isinstance(value, StringValue) and value.untouched:
            # Its stream is not read: the bytes behind it are shared.
            stream, metadata, size = value.bytes, value.shared_metadata(), value.size
        else:
            stream, metadata, size = _parts(value, argument)
        new = entry_from_metadata(metadata, argument, "'s metadata")
        # Loaded first: a call of what is no method of the class is not specialised by CPython 3.11 (0.05 us).
        has_listeners = self._has_listeners
        if type(stream) is BytesIO and not has_listeners(PROGRESS_EVENTS):
            new.data = stream.read()  # as read_all does, 0.1 of 1.4 us faster
        else:
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
        """Read a stream to its end, telling those who listen how far it has come.

        Errors name it by `argument` and `part`.
        """
        if self._has_listeners(PROGRESS_EVENTS):
            with self._progress(key, metadata, size) as step:
                return read_all(data, buffer_size, step, argument + part)
        return read_all(data, buffer_size, None, argument + part)


def _paired(keys: Iterable[str], others: Iterable[Any], argument: str) -> Iterator[tuple[int, str, Any]]:
    """Go through both as ``zip`` does, with the position, checking each key as it comes."""
    pairs = zip(  # noqa: B905 (the contract is zip's: stop at the shorter one)
        checked_iterable(keys, "keys"), checked_iterable(others, argument)
    )
    for position, (key, other) in enumerate(pairs):
        yield position, checked_key(key, f"keys[{position}]"), other


def _parts(value: Any, argument: str) -> tuple[Any, Any, int]:
    """Take a value apart into stream, metadata and size in bytes (-1 if it is not known).

    Any object with ``data`` and ``metadata`` will do, so values of other libraries' stores do.
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
            f"{argument} must be a Value or a pair of stream and metadata, got {describe(value)}"
        ) from None
    size = getattr(value, "size", -1)
    return stream, metadata, size if type(size) is int else -1
