"""What a key-value store promises: the contract, which every store of this package keeps.

`AbstractReadOnlyStore` has the reading half, `AbstractStore` the whole. Each method's promise stands
here once and implementations inherit it. A store must define the abstract methods; the rest have
an implementation here that is right for any store whose abstract methods are: each of them makes one call
of an abstract method, or several in a `transaction`. docs/how-to/writing-a-store.md has a store of 60 lines.

Terms that hold throughout:

- A *key* is a string. A *stream* is a readable binary file object. *Metadata* is a dictionary with
  string keys; it is copied in depth on its way in and out, so nobody shares it with the store.
- Which values metadata may have depends on where a store keeps it. One in memory (`DictMemoryStore`)
  takes whatever can be copied. One that writes it to a file (`SqliteStore`) takes the types that its
  encoding brings back equal and of the same type, and no others. What a store does not take is refused
  with a TypeError that names key and item, and nothing changes.
- `buffer_size` is how many bytes are read at a time from a stream that is handed in: a positive
  integer, 1 MiB by default. Where nothing is read from a stream it is checked and then ignored;
  `to_bytes` does not even check it.
- Wrong arguments raise TypeError or ValueError that name the argument, before anything changes.
- All methods may be called by any thread at any time unless documented otherwise. Each takes effect at
  one instant between its call and its return.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    Readable,
    as_bytes,
    checked_buffer_size,
    checked_iterable,
    checked_key,
    checked_keys,
    checked_path,
    checked_select,
    given,
)
from latchstore.contract.event_manager import BaseEventManager, get_event_manager
from latchstore.contract.files import content_of, copy_to_file
from latchstore.contract.glob_pattern import checked_pattern, matching_keys
from latchstore.contract.ordering import OrderBy
from latchstore.contract.requests import request_of
from latchstore.contract.values import Value

if TYPE_CHECKING:
    from latchstore.contract.codec import Codec, V
    from latchstore.contract.mapping import StoreMapping, StoreView
    from latchstore.contract.seconds import Seconds

#: What `set` takes: a value, or a pair of a stream and metadata.
SettableValue = Value | tuple[Readable | bytes | bytearray | memoryview, Mapping[str, Any]]

T = TypeVar("T")


class AbstractReadOnlyStore(ABC):
    """The reading half of the key-value store API.

    Parameters
    ----------
    event_manager : BaseEventManager, optional
        Where the store's events go; the process-wide default if None.

    Attributes
    ----------
    event_manager : BaseEventManager
    default_codec : str or Codec
        That of ``mapping()`` if none is named: ``"pickle"``, but bytes as they are of a store that was loaded
        from a file, as that may be somebody else's.
    """

    event_manager: BaseEventManager
    default_codec: Any = "pickle"

    def __init__(self, event_manager: BaseEventManager | None = None) -> None:
        self.event_manager = get_event_manager() if event_manager is None else event_manager

    # -- connection -------------------------------------------------------------------------------

    @abstractmethod
    def connect(self, credentials: object = None) -> None:
        """Connect to the store.

        Parameters
        ----------
        credentials : object, optional
            Whatever the store needs; a store in memory needs nothing and ignores it.

        Raises
        ------
        AuthorizationError
            If the credentials do not open the store.
        """

    @abstractmethod
    def disconnect(self) -> None:
        """Disconnect from the store; doing it twice is harmless."""

    @abstractmethod
    def is_connected(self) -> bool:
        """Tell whether the store is connected."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return facts about the store; at least ``readonly``, a bool."""

    def close(self, timeout: Seconds | None = 30.0) -> None:
        """Disconnect, and give up what the store holds open; doing it twice is harmless.

        Parameters
        ----------
        timeout : Seconds or None
            Seconds that closing may take; None for as long as it needs.
        """
        self.disconnect()

    def __enter__(self) -> Self:
        """Connect."""
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # -- one key ----------------------------------------------------------------------------------

    @abstractmethod
    def get(self, key: str) -> Value:
        """Return the data and metadata of a key as a value, which unpacks as that pair.

        The value is of one moment: a later change of the key does not change it.

        Raises
        ------
        KeyError
            If the key is not in the store.
        """

    def get_data(self, key: str) -> BinaryIO:
        """Return the data of a key as a stream, which is a context manager.

        Raises
        ------
        KeyError
            If the key is not in the store.
        """
        return self.get(key).data

    def get_data_range(self, key: str, start: int | None = None, end: int | None = None) -> BinaryIO:
        """Return the bytes from `start` up to but not including `end` as a stream.

        Parameters
        ----------
        start, end : int or None
            The bounds, as of a slice: None is the start or the end, negative counts from the end.

        Raises
        ------
        KeyError
            If the key is not in the store.
        """
        return self.get(key).range(start, end)

    def get_metadata(self, key: str, select: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the metadata of a key.

        Parameters
        ----------
        select : iterable of str, optional
            The names of the items to return; all if None.

        Raises
        ------
        KeyError
            If the key is not in the store, or a selected name not in its metadata.
        """
        names = checked_select(select)
        metadata = self.get(key).metadata
        return metadata if names is None else {name: metadata[name] for name in names}

    def exists(self, key: str) -> bool:
        """Tell whether the key is in the store."""
        try:
            self.get(key)
        except KeyError:
            return False
        return True

    def __contains__(self, key: str) -> bool:
        """Tell whether the key is in the store."""
        return self.exists(key)

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        """Return the data of a key as bytes.

        Raises
        ------
        KeyError
            If the key is not in the store.
        """
        with self.get(key) as stream:
            return stream.read()

    def to_file(self, key: str, path: str | os.PathLike[str], buffer_size: int = DEFAULT_BUFFER_SIZE) -> None:
        """Write the data of a key to a file.

        The data is written to an unfinished file in the same directory, which then replaces the target
        in one step: if anything fails, an old file at `path` is still there, whole. The mode of an old file
        is kept, its owner where that is allowed; a symbolic link is followed. What is no regular file (a
        pipe, a device) is written to directly.

        Raises
        ------
        KeyError
            If the key is not in the store; no file is touched.
        OSError
            If the file cannot be written; its ``filename`` is the path.
        """
        checked_buffer_size(buffer_size)
        target = checked_path(path)
        with self.get(key) as stream:
            copy_to_file(stream, target, buffer_size)

    # -- many keys, at one instant ----------------------------------------------------------------

    @abstractmethod
    def multiget(self, keys: Iterable[str]) -> Iterator[Value]:
        """Return the values of many keys, in order, all as they are at one instant of the call.

        Raises
        ------
        KeyError
            If one of the keys is not in the store; raised by the call, not by the iteration.
        """

    def multiget_data(self, keys: Iterable[str]) -> Iterator[BinaryIO]:
        """Return the data of many keys as streams, in order, all of one instant of the call.

        Raises
        ------
        KeyError
            As `multiget`.
        """
        return iter([value.data for value in self.multiget(keys)])

    def multiget_metadata(
        self, keys: Iterable[str], select: Iterable[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the metadata of many keys, in order, all of one instant of the call.

        Parameters
        ----------
        select : iterable of str, optional
            The names of the items to return; all if None. A name that is missing is left out.

        Raises
        ------
        KeyError
            As `multiget`.
        """
        names = checked_select(select)
        return iter([_selected(value.metadata, names) for value in self.multiget(keys)])

    @abstractmethod
    def query(
        self,
        select: Iterable[str] | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Return key and metadata of every key whose metadata items are all as the terms have it.

        The answer is that of one instant of the call, whatever happens while it is read. A key
        matches when each named item is there and as its term: ``==`` to a value, or what a condition
        (`Above`, `Below`, `Between`, `Prefix`, `In`, `Contains`) matches. An item that is missing matches
        nothing, None included; what cannot be compared does not match. Without terms every key matches.

        Parameters
        ----------
        select : iterable of str, optional
            The names of the items to return; all if None. A name that is missing is left out.
        where : mapping of str to object, optional
            Names of metadata items and their terms, for names that no keyword can have, or that are those of
            other parameters.
        order_by : str or Item, optional
            What the answer is ordered by: ``"key"``, ``"created"``, ``"modified"``, ``"revision"``, or any
            other name of a metadata item; ``Item("key")`` is an item of any name. By default there is no
            order. Values of several types are ordered by type: None, NaN, numbers, str, bytes, date, datetime
            without and with a time zone, timedelta, tuple (item by item), all others. Entries of equal values
            are ordered by key; those that lack the item come last.
        descending : bool
            Whether the order is turned round. Entries that lack the item are last all the same, in the order
            of their keys.
        limit : int, optional
            How many entries are given at the most; all if None.
        **kwargs
            Names of metadata items and their terms.

        Raises
        ------
        TypeError
            If an argument is of a wrong type, or a term is neither a value nor a condition but a function or
            a class.
        ValueError
            If `limit` is negative, or `descending` comes without `order_by`.
        """

    def query_keys(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
        **kwargs: Any,
    ) -> Iterator[str]:
        """Return the keys that `query` would; cheaper, since no metadata is copied.

        Parameters
        ----------
        where, order_by, descending, limit, **kwargs
            As for `query`.
        """
        request_of(where, kwargs, order_by, descending, limit)  # bad arguments raise here
        options = given(where=where, order_by=order_by, descending=descending or None, limit=limit)
        found = self.query((), **options, **kwargs)
        return iter([key for key, _ in found])

    def glob(
        self,
        pattern: str,
        *,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[str]:
        """Return the keys that match a glob-style pattern, as they are at one instant of the call.

        Parameters
        ----------
        pattern : str
            ``*`` stands for any characters, ``?`` for one, ``[ab]`` for one of these, ``[!ab]`` for
            one not of these. Upper and lower case differ, ``/`` is a character like any other.
        order_by, descending, limit
            As for `query`.

        Raises
        ------
        ValueError
            If it has more than 10,000 characters, unless ``*`` at its ends is all that stands for others.
        """
        pattern = checked_pattern(pattern)
        limit = request_of(None, {}, order_by, descending, limit).limit
        keys = self.query_keys(**given(order_by=order_by, descending=descending or None))
        return iter(matching_keys(pattern, keys)[:limit])

    def __len__(self) -> int:
        """Return how many keys the store has at one instant of the call."""
        return sum(1 for _ in self.query_keys())

    def mapping(self, codec: str | Codec[V] | None = None) -> StoreView[V]:
        """Return a view of the store as a mapping of Python objects; of one that can be written to, mutable.

        Parameters
        ----------
        codec : str or Codec, optional
            ``"pickle"``, ``"json"``, ``"msgpack"``, ``"raw"`` (bytes), or an object with ``encode`` and
            ``decode``; if None the store's `default_codec`.
        """
        from latchstore.contract.mapping import StoreView  # loaded when used: see latchstore/__init__.py

        return StoreView(self, codec)


class AbstractStore(AbstractReadOnlyStore):
    """The whole key-value store API: reading, writing, transactions.

    Writing emits events once the change is committed: StoreSetEvent for a new key, StoreUpdateEvent (a
    kind of StoreSetEvent) for one that was there, StoreDeleteEvent; each with the key and the metadata.
    Reading streams in emits StoreProgressStartEvent, StoreProgressStepEvent and StoreProgressEndEvent,
    if anybody listens.

    The methods that write one key take `if_revision`: the revision that the key must have now, 0 for a key
    that must not exist, None for whatever there is. With another revision they raise
    RevisionMismatchError, which has both, and change nothing.
    """

    # -- one key ----------------------------------------------------------------------------------

    @abstractmethod
    def set(
        self,
        key: str,
        value: SettableValue,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        """Store data and metadata under a key, in place of what was there.

        Parameters
        ----------
        value : Value or pair
            What `get` returns, of this or another store, or a pair of a stream (or bytes) and a
            metadata dictionary. The stream is read to its end before anything changes.

        Events
        ------
        StoreProgressStartEvent, StoreProgressStepEvent, StoreProgressEndEvent
            Before, while and after the stream is read.
        StoreSetEvent
            When the change is committed.
        """

    @abstractmethod
    def delete(self, key: str, *, if_revision: int | None = None) -> None:
        """Remove a key with its data and metadata.

        Raises
        ------
        KeyError
            If the key is not in the store.

        Events
        ------
        StoreDeleteEvent
            When the change is committed; its metadata is that which the key had.
        """

    def evict(self, key: str, cause: str = "size", *, if_revision: int | None = None) -> None:
        """Remove a key as `delete` does, for a reason of a cache's.

        Parameters
        ----------
        cause : str
            ``"size"``, ``"expired"`` or ``"idle"``; for those who listen.

        Raises
        ------
        KeyError
            If the key is not in the store.

        Events
        ------
        StoreEvictEvent
            When the change is committed. It is a StoreDeleteEvent; a store without causes emits that.
        """
        checked_key(cause, "cause")
        condition = {} if if_revision is None else {"if_revision": if_revision}
        self.delete(key, **condition)

    @abstractmethod
    def set_data(
        self,
        key: str,
        data: Readable | bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        """Replace the data of a key and leave its metadata; a new key has none.

        Parameters
        ----------
        data : stream or bytes
            Read to its end before anything changes.

        Events
        ------
        StoreProgressStartEvent, StoreProgressStepEvent, StoreProgressEndEvent
            Before, while and after the stream is read.
        StoreSetEvent
            When the change is committed.
        """

    @abstractmethod
    def set_metadata(self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None) -> None:
        """Replace the metadata of a key and leave its data; a new key has empty data.

        Events
        ------
        StoreSetEvent
            When the change is committed.
        """

    @abstractmethod
    def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        """Update the metadata of a key: items given are set, others stay.

        Raises
        ------
        KeyError
            If the key is not in the store.

        Events
        ------
        StoreSetEvent
            When the change is committed.
        """

    def from_bytes(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        """Replace the data of a key by any bytes-like object and leave its metadata.

        A ``bytes`` object is kept as it is by a store in memory; anything else is copied, and by a store that
        keeps its data elsewhere everything is.

        Events
        ------
        StoreSetEvent
            When the change is committed.
        """
        # Passed on only if given: many stores of this API have no conditions.
        condition = {} if if_revision is None else {"if_revision": if_revision}
        self.set_data(key, as_bytes(data), buffer_size, **condition)

    def from_file(
        self,
        key: str,
        path: str | os.PathLike[str],
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        """Replace the data of a key by what a file holds and leave its metadata.

        On Linux, locks that this process has on the file stay (POSIX takes them away when it is closed).

        Raises
        ------
        OSError
            If the file cannot be read; nothing changes.

        Events
        ------
        StoreSetEvent
            When the change is committed.
        """
        checked_buffer_size(buffer_size)
        condition = {} if if_revision is None else {"if_revision": if_revision}
        self.from_bytes(key, content_of(checked_path(path), buffer_size), **condition)

    # -- many keys, in one transaction ------------------------------------------------------------

    # What the caller hands in is gone through before the transaction, which keeps others out.

    def multiget(self, keys: Iterable[str]) -> Iterator[Value]:
        wanted = checked_keys(keys)
        with self.transaction("multiget"):
            return iter([self.get(key) for key in wanted])

    def multiset(
        self,
        keys: Iterable[str],
        values: Iterable[SettableValue],
        buffer_size: int = DEFAULT_BUFFER_SIZE,
    ) -> None:
        """Store many values under many keys, in one transaction: all of them, or none.

        Parameters
        ----------
        keys : iterable of str
        values : iterable of Value or pair
            As for `set`. Like ``zip``, stops at the end of the shorter of the two.

        Events
        ------
        StoreProgressStartEvent, StoreProgressStepEvent, StoreProgressEndEvent
            Before, while and after each stream is read.
        StoreSetEvent
            For each key, when the transaction is committed.
        """
        checked_buffer_size(buffer_size)
        pairs = _pairs(keys, values, "values")
        with self.transaction("multiset"):
            for key, value in pairs:
                self.set(key, value, buffer_size)

    def multiset_data(
        self,
        keys: Iterable[str],
        datas: Iterable[Readable | bytes | bytearray | memoryview],
        buffer_size: int = DEFAULT_BUFFER_SIZE,
    ) -> None:
        """Replace the data of many keys, in one transaction; as `set_data` for each.

        Parameters
        ----------
        keys : iterable of str
        datas : iterable of stream or bytes
            Like ``zip``, stops at the end of the shorter of the two.

        Events
        ------
        StoreProgressStartEvent, StoreProgressStepEvent, StoreProgressEndEvent
            Before, while and after each stream is read.
        StoreSetEvent
            For each key, when the transaction is committed.
        """
        checked_buffer_size(buffer_size)
        pairs = _pairs(keys, datas, "datas")
        with self.transaction("multiset_data"):
            for key, data in pairs:
                self.set_data(key, data, buffer_size)

    def multiset_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        """Replace the metadata of many keys, in one transaction; as `set_metadata` for each.

        Parameters
        ----------
        keys : iterable of str
        metadatas : iterable of mapping
            Like ``zip``, stops at the end of the shorter of the two.

        Events
        ------
        StoreSetEvent
            For each key, when the transaction is committed.
        """
        pairs = _pairs(keys, metadatas, "metadatas")
        with self.transaction("multiset_metadata"):
            for key, metadata in pairs:
                self.set_metadata(key, metadata)

    def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        """Update the metadata of many keys, in one transaction; as `update_metadata` for each.

        Parameters
        ----------
        keys : iterable of str
        metadatas : iterable of mapping
            Like ``zip``, stops at the end of the shorter of the two.

        Raises
        ------
        KeyError
            If one of the keys is not in the store; nothing changes.

        Events
        ------
        StoreSetEvent
            For each key, when the transaction is committed.
        """
        pairs = _pairs(keys, metadatas, "metadatas")
        with self.transaction("multiupdate_metadata"):
            for key, metadata in pairs:
                self.update_metadata(key, metadata)

    # -- transactions and events ------------------------------------------------------------------

    def mapping(self, codec: str | Codec[V] | None = None) -> StoreMapping[V]:
        from latchstore.contract.mapping import StoreMapping  # loaded when used: see latchstore/__init__.py

        return StoreMapping(self, codec)

    @abstractmethod
    def transaction(self, notes: str = "") -> AbstractContextManager[Any]:
        """Return a context manager that makes all changes of its block one commit, or none.

        The block's thread sees its own changes, no other thread sees any before the commit. An
        exception that leaves the block rolls all of it back. A block inside a block of the same
        thread joins it; if the inner one fails, its own changes alone are taken back.

        Parameters
        ----------
        notes : str
            What the transaction is about; shown in error messages and events.

        Events
        ------
        StoreTransactionStartEvent
            When the outermost block is entered.
        StoreTransactionEndEvent
            When it is left, with the state "done", followed by one event per changed key; or with
            the state "failed", followed by nothing.
        """

    def flush(self, timeout: Seconds | None = 30.0) -> None:
        """Wait until all events of what was committed before the call have been heard.

        Parameters
        ----------
        timeout : Seconds or None
            Seconds; None for as long as it takes.

        Raises
        ------
        FlushTimeoutError
            If that takes longer.
        DispatcherThreadError
            If a listener calls it, which would wait for itself.
        """


def _pairs(keys: Iterable[str], others: Iterable[T], argument: str) -> list[tuple[str, T]]:
    """Go through both as ``zip`` does: the contract is to stop at the end of the shorter one."""
    return list(zip(checked_iterable(keys, "keys"), checked_iterable(others, argument)))  # noqa: B905


def _selected(metadata: dict[str, Any], names: tuple[str, ...] | None) -> dict[str, Any]:
    if names is None:
        return metadata
    return {name: metadata[name] for name in names if name in metadata}
