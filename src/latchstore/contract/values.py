"""Entries, which a store holds, and values, which it returns.

Thread safety:

1. An `Entry` is built by one thread, published by one assignment and never changed afterwards. Any number of
   threads may read it without a lock. The object of a `ReferenceEntry` belongs to users and may change.
2. Metadata that is returned is always a copy: a plain ``dict.copy`` if every item is immutable, a deep
   copy otherwise. Metadata that is passed in is copied the same way by `entry_from_metadata`.
3. A `Value` belongs to the caller that got it. Its one stream has a position, so two threads must not read
   it at the same time; the data and metadata behind it never change.
"""

from __future__ import annotations

import copy
import io
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf, nextafter
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, TypeVar

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    as_bytes,
    checked_buffer_size,
    checked_range,
    describe,
    exact_string,
)
from latchstore.contract.copying import copied_items
from latchstore.contract.errors import KeptByReferenceError

#: Types whose instances are immutable. Exact types only: a subclass may have attributes.
ATOMIC_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})

_ONLY_STR = frozenset({str})


def is_immutable(value: object) -> bool:
    """Return whether `value` is immutable: of an atomic type, or a tuple or frozenset of such values.

    It runs builtin code only, never a method of the value, so it may be called under a lock.
    """
    kind = type(value)
    if kind in ATOMIC_TYPES:
        return True
    if kind is tuple or kind is frozenset:
        return all(is_immutable(item) for item in value)  # type: ignore[attr-defined]
    return False


class Entry(dict[str, Any]):
    """The data, times, revision and metadata of one key; the metadata items are the entry's own items.

    The entry is the metadata dictionary itself instead of holding one, which saves an object per key
    (``benchmarks/memory.py``). Therefore an entry without metadata is false: test ``entry is None``, never
    ``if entry``.

    Attributes
    ----------
    content : object
        The value of the key: bytes, or the object of a `ReferenceEntry`.
    data : bytes
        The same; raises KeptByReferenceError if it is not bytes.
    created, modified : float
        Seconds since the epoch.
    revision : int
        The revision of the commit that wrote the entry.
    """

    __slots__ = ("content", "created", "modified", "revision")

    content: Any
    data: bytes
    created: float
    modified: float
    revision: int

    #: The class for an entry that has the same items and bytes.
    plain: ClassVar[type[Entry]]

    #: A copy of the metadata that shares no mutable object with the entry. hot path: every item here is
    #: immutable, so the shallow copy in C is deep enough.
    isolated_metadata: ClassVar[Callable[[Entry], dict[str, Any]]] = dict.copy

    # An entry is also an edit (edits.Edit), which replaces the whole entry.
    blind: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        """Set times and revision of this new entry, which replaces `current`, and return it.

        `created` is kept; `modified` increases even if the clock stood still or was set back.
        """
        if current is None:
            self.created = now
        else:
            self.created = current.created
            if now <= current.modified:
                now = nextafter(current.modified, inf)
        self.modified = now
        self.revision = revision
        return self

    def selected_metadata(self, names: Iterable[str]) -> dict[str, Any]:
        """Return an isolated copy of the items in `names`; missing names are left out."""
        return {name: self[name] for name in names if name in self}

    @property
    def size(self) -> int:
        """The length of the data in bytes; the weight of an object kept by reference."""
        return len(self.data)

    def with_items(self, plain: type[Entry], items: Mapping[str, Any]) -> Entry:
        """Return a new entry, without times, that has the same content and other items.

        Parameters
        ----------
        plain : type
            The class for an entry that has such items and bytes.
        items : mapping
            Shared, not copied: an entry's items are never changed or returned.
        """
        entry = plain(items)
        entry.content = self.content
        return entry


# hot path: one slot under two names, so that bytes are read by either equally fast.
Entry.data = Entry.content
Entry.plain = Entry


class NestedEntry(Entry):
    """An entry with a mutable item, so that each copy of the metadata is deep."""

    __slots__ = ()

    def isolated_metadata(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self))

    def selected_metadata(self, names: Iterable[str]) -> dict[str, Any]:
        return copy.deepcopy(super().selected_metadata(names))


NestedEntry.plain = NestedEntry


class ReferenceEntry(NestedEntry):
    """An entry with an object that is kept itself, and shared with all its readers.

    Parameters
    ----------
    key : str
        The key of the entry, for errors.
    content : object
    size : int
        The weight of the object.
    items : mapping, optional
        The metadata; shared, not copied.
    """

    __slots__ = ("key", "size")

    key: str
    size: int

    def __init__(self, key: str, content: Any, size: int = 1, items: Mapping[str, Any] | None = None) -> None:
        if items:
            self.update(items)
        self.key = key
        self.content = content
        self.size = size

    @property
    def data(self) -> bytes:  # type: ignore[override]
        content = self.content
        if type(content) is bytes:
            return content
        # The message has no repr of the object, which would run user code.
        raise KeptByReferenceError(
            self.key,
            f"has no bytes: a cache keeps its {type(content).__name__} by reference; read it through that "
            "cache or as the content of its value, or make the cache with codec='pickle'",
        )

    def with_items(self, plain: type[Entry], items: Mapping[str, Any]) -> Entry:
        return ReferenceEntry(self.key, self.content, self.size, items)


E = TypeVar("E")

#: A change of one key: the key, its entry before (None: it is new) and after (None: it is deleted).
Change = tuple[str, Entry | None, Entry | None]


class Eviction(tuple[str, Any, None]):
    """A change by which a cache removes a key.

    Attributes
    ----------
    cause : str
    """

    cause: str


def deletion(key: str, old: E, cause: str | None) -> tuple[str, E, None]:
    """Return the change that deletes a key, with the cause if there is one."""
    if cause is None:
        return key, old, None
    eviction = Eviction((key, old, None))
    eviction.cause = cause
    return eviction


def cause_of(change: tuple[str, object, object]) -> str | None:
    """Return the cause of an eviction; None for any other change."""
    return change.cause if type(change) is Eviction else None


def entry_from_metadata(
    metadata: Mapping[str, Any], argument: str = "metadata", part: str = "", key: str | None = None
) -> Entry:
    """Build an entry, without data and times, whose items are an isolated copy of `metadata`.

    Errors name the metadata by `argument` and `part` and by its `key`. hot path: two strings, which are
    joined for an error only.

    Runs the caller's code (mapping methods, ``__deepcopy__``), so it is never called under a lock.

    Raises
    ------
    TypeError
        If `metadata` is not a mapping, one of its keys is not a string, or an item cannot be copied.
    ValueError
        If an item is nested too deeply to be copied.
    """
    # hot path: the exact type first, as isinstance with an abstract class is slow.
    if type(metadata) is not dict and not isinstance(metadata, Mapping):
        raise TypeError(f"{argument}{part} must be a mapping with str keys, got {describe(metadata)}")
    entry = Entry(metadata)
    for name, item in entry.items():
        if type(name) is not str or type(item) not in ATOMIC_TYPES:
            return _checked_entry(entry, argument + part, key)
    return entry


def _checked_entry(entry: Entry, argument: str, key: str | None) -> Entry:
    """Check and copy an entry that has keys other than plain strings, or values that are not atomic."""
    if not _ONLY_STR.issuperset(map(type, entry)):
        entry = _with_exact_keys(entry, argument)
    try:
        if all(map(is_immutable, entry.values())):
            return entry
    except RecursionError:
        pass  # copying it fails as well, with an error that names the item
    return NestedEntry(copied_items(entry, argument, key))


def _with_exact_keys(entry: Entry, argument: str) -> Entry:
    """Replace keys of string subclasses, whose ``__hash__`` and ``__eq__`` would run in our dicts."""
    for name in entry:
        if not isinstance(name, str):
            raise TypeError(f"{argument} must have str keys, got the key {describe(name)}")
    return Entry({exact_string(name): item for name, item in entry.items()})


def with_metadata_of(entry: Entry | None) -> Entry:
    """Return a new entry, without content and times, that shares the items of `entry`.

    Sharing is safe, since an entry's items are never changed or returned.
    """
    return Entry() if entry is None else entry.plain(entry)


def merged_metadata(entry: Entry, changes: Entry) -> Entry:
    """Return a new entry, without times, with the items of `entry` updated by those of `changes`."""
    if type(entry) is Entry and all(map(is_immutable, changes.values())):
        new = entry.with_items(Entry, entry)  # hot path: all items of such an entry are immutable
        new.update(changes)
        return new
    merged = dict(entry)
    merged.update(changes)
    nested = not all(map(is_immutable, merged.values()))
    return entry.with_items(NestedEntry if nested else Entry, merged)


class Value(ABC):
    """The result of ``store.get(key)``: the data as a stream, a copy of the metadata, and the facts.

    A value unpacks as the pair ``data, metadata``, and ``store.set`` accepts it. As a context manager it
    returns its stream and closes it. It is immutable, so any thread may read it; a stream is for one thread.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def data(self) -> BinaryIO:
        """The value's only readable binary stream, which is a context manager.

        Raises KeptByReferenceError if the value is an object that a cache keeps by reference.
        """

    @property
    def content(self) -> Any:
        """The object that a cache keeps by reference, shared with it; the bytes of any other value."""
        with self.range() as stream:
            return stream.read()

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """A deep copy of the metadata, a new one at each access."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The length of the data in bytes; the weight of an object kept by reference."""

    @property
    @abstractmethod
    def created(self) -> float:
        """The time when the key was created, in seconds since the epoch; overwriting keeps it."""

    @property
    @abstractmethod
    def modified(self) -> float:
        """The time when data or metadata last changed, in seconds since the epoch."""

    @property
    def revision(self) -> int | None:
        """The revision of the commit that last changed the key; None for a value that is in no store."""
        return None

    @abstractmethod
    def range(self, start: int | None = None, end: int | None = None) -> BinaryIO:
        """Return a new stream over the bytes from `start` up to but not including `end`.

        The bounds are those of a slice: None is the start or the end, negative numbers count from the end.
        """

    def iterdata(
        self,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        progress: Callable[..., object] | None = None,
    ) -> Iterator[bytes]:
        """Iterate over the rest of the stream in blocks of at most `buffer_size` bytes.

        Parameters
        ----------
        buffer_size : int
            The size of a block in bytes, 1 MiB by default.
        progress : callable, optional
            Called as ``progress(step=bytes_so_far)`` after each block.
        """
        return _blocks(self.data, checked_buffer_size(buffer_size), progress)

    def __enter__(self) -> BinaryIO:
        return self.data

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.data.close()

    def __iter__(self) -> Iterator[Any]:
        yield self.data
        yield self.metadata

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return (self.data, self.metadata)[index]


def _blocks(stream: BinaryIO, buffer_size: int, progress: Callable[..., object] | None) -> Iterator[bytes]:
    done = 0
    buffer_size = min(buffer_size, sys.maxsize)  # streams accept no larger size
    while block := stream.read(buffer_size):
        done += len(block)
        if progress is not None:
            progress(step=done)
        yield block


class StringValue(Value):
    """A value built from bytes; any thread may read it.

    Parameters
    ----------
    data : bytes-like
        Copied unless it is a ``bytes`` object, which is immutable.
    metadata : mapping of str to object, optional
        Deeply copied; empty if None.
    created, modified : float, optional
        Seconds since the epoch; now if None.

    Raises
    ------
    TypeError
        If `data` is not bytes-like or `metadata` is not a mapping with str keys.
    """

    __slots__ = ("_entry", "_stream")

    _entry: Entry
    _stream: io.BytesIO | None

    def __init__(
        self,
        data: bytes | bytearray | memoryview = b"",
        metadata: Mapping[str, Any] | None = None,
        created: float | None = None,
        modified: float | None = None,
    ) -> None:
        entry = Entry() if metadata is None else entry_from_metadata(metadata)
        now = time.time()
        entry.data = as_bytes(data)
        entry.created = now if created is None else created
        entry.modified = now if modified is None else modified
        self._entry = entry
        self._stream = None

    @property
    def data(self) -> BinaryIO:
        # BytesIO shares the bytes object until the stream is written to, so this neither copies anything
        # nor can change what the store holds.
        stream = self._stream
        if stream is None:
            stream = self._stream = io.BytesIO(self._entry.data)
        return stream

    @property
    def metadata(self) -> dict[str, Any]:
        return self._entry.isolated_metadata()

    @property
    def content(self) -> Any:
        return self._entry.content

    @property
    def size(self) -> int:
        return self._entry.size

    @property
    def created(self) -> float:
        return self._entry.created

    @property
    def modified(self) -> float:
        return self._entry.modified

    @property
    def revision(self) -> int | None:
        return getattr(self._entry, "revision", None)

    def range(self, start: int | None = None, end: int | None = None) -> BinaryIO:
        return io.BytesIO(self._entry.data[checked_range(start, end)])

    @property
    def untouched(self) -> bool:
        """Whether the stream has not been returned yet, so all of it is still unread."""
        return self._stream is None

    @property
    def bytes(self) -> bytes:
        """All of the data."""
        return self._entry.data

    def shared_metadata(self) -> Entry:
        """Return the metadata itself, not a copy; for stores, which do not change it."""
        return self._entry

    def __repr__(self) -> str:
        entry = self._entry
        what = f"{entry.size} bytes"
        if type(entry) is ReferenceEntry:
            what = f"{type(entry.content).__name__} by reference"
        return f"<{type(self).__name__} {what}, {len(entry)} metadata items>"


class StoredValue(StringValue):
    """A value over an entry of a store; later writes do not change it."""

    __slots__ = ()

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._stream = None
