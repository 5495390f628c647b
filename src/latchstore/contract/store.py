"""The contract of a key-value store, which every store of this package implements.

`AbstractReadOnlyStore` has the methods that read, `AbstractStore` all of them. Each method is documented here
once, and implementations inherit the docstring. A store must define the abstract methods. The others
have an implementation here that is correct for any store with correct abstract methods: each makes one
call of an abstract method, or several in a `transaction`. docs/how-to/writing-a-store.md has a store of 40
lines.

Terms used throughout:

- A *key* is a string. A *stream* is a readable binary file object. *Metadata* is a dictionary with
  string keys; it is deeply copied on its way in and out, so it is never shared with the store.
- The values that metadata may have depend on the store. A store in memory (`DictMemoryStore`) accepts
  every value that can be copied. A store that writes to a file (`SqliteStore`) accepts only types that its
  encoding restores exactly: equal and of the same type. For any other value the call raises a TypeError
  that names key and item, and changes nothing.
- `buffer_size` is the number of bytes read at a time from a stream that the caller passes: a positive
  integer, 1 MiB by default. Methods that read no stream check it and ignore it; `to_bytes` does not check
  it.
- Wrong arguments raise TypeError or ValueError that name the argument, before anything changes.
- Any thread may call any method at any time unless documented otherwise. Each call takes effect at
  one instant between its start and its return.
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
    read_all,
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

#: The types that `set` accepts: a value, or a pair of a stream and metadata.
SettableValue = Value | tuple[Readable | bytes | bytearray | memoryview, Mapping[str, Any]]

T = TypeVar("T")


class AbstractReadOnlyStore(ABC):
    """The methods of the key-value store API that read.

    Parameters
    ----------
    event_manager : BaseEventManager, optional
        Delivers the store's events; the process-wide default if None.

    Attributes
    ----------
    event_manager : BaseEventManager
    default_codec : str or Codec
        The codec of ``mapping()`` if none is named: ``"pickle"``; bytes only for a store that was loaded
        from a file, which may come from somebody else.

    Thread safety
    -------------
    Any thread may call any method at any time. Each call takes effect at one instant between its
    beginning and its return; no call waits for user code, except for the body of another thread's
    exclusive transaction.
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
            Depends on the store; a store in memory ignores it.

        Raises
        ------
        AuthorizationError
            If the store rejects the credentials.
        """

    @abstractmethod
    def disconnect(self) -> None:
        """Disconnect from the store; repeated calls do nothing."""

    @abstractmethod
    def is_connected(self) -> bool:
        """Return whether the store is connected."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return facts about the store; at least ``readonly``, a bool."""

    def close(self, timeout: Seconds | None = 30.0) -> None:
        """Disconnect and release all resources; repeated calls do nothing.

        Parameters
        ----------
        timeout : Seconds or None
            The most seconds that closing may take; None for no limit.
        """
        self.disconnect()

    def __enter__(self) -> Self:
        """Connect to the store."""
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    # -- one key ----------------------------------------------------------------------------------

    @abstractmethod
    def get(self, key: str) -> Value:
        """Return the data and metadata of a key as a value, which unpacks as that pair.

        The value is a snapshot: later changes of the key do not change it.

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
            The bounds, as of a slice: None is the start or the end, negative numbers count from the end.

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
            If the key is not in the store, or a selected name is not in its metadata.
        """
        names = checked_select(select)
        metadata = self.get(key).metadata
        return metadata if names is None else {name: metadata[name] for name in names}

    def exists(self, key: str) -> bool:
        """Return whether the key is in the store."""
        try:
            self.get(key)
        except KeyError:
            return False
        return True

    def __contains__(self, key: str) -> bool:
        """Return whether the key is in the store."""
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

        The data is written to a temporary file in the same directory, which then replaces the target in one
        step: if anything fails, an old file at `path` is unchanged. The mode of an old file is kept, its
        owner where permitted; a symbolic link is followed. A file that is not regular (a pipe, a device) is
        written to directly.

        Raises
        ------
        KeyError
            If the key is not in the store; the file is not changed.
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
        """Return the values of many keys, in the order of `keys`, all of one instant of the call.

        Raises
        ------
        KeyError
            If one of the keys is not in the store; raised by the call, not by the iteration.
        """

    def multiget_data(self, keys: Iterable[str]) -> Iterator[BinaryIO]:
        """Return the data of many keys as streams, in the order of `keys`, all of one instant of the call.

        Raises
        ------
        KeyError
            As `multiget`.
        """
        return iter([value.data for value in self.multiget(keys)])

    def multiget_metadata(
        self, keys: Iterable[str], select: Iterable[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the metadata of many keys, in the order of `keys`, all of one instant of the call.

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
        """Return key and metadata of every entry whose metadata matches all terms.

        The result is of one instant of the call, also if the store changes while it is iterated. An entry
        matches if it has each named item and each matches its term: it equals the value, or the condition
        (`Above`, `Below`, `Between`, `Prefix`, `In`, `Contains`) matches it. A missing item matches no
        term, None included; values that cannot be compared do not match. Without terms every entry matches.

        Parameters
        ----------
        select : iterable of str, optional
            The names of the items to return; all if None. A name that is missing is left out.
        where : mapping of str to object, optional
            Names of metadata items and their terms, for names that cannot be keywords or are names of
            parameters.
        order_by : str or Item, optional
            The order of the result: ``"key"``, ``"created"``, ``"modified"``, ``"revision"``, or the name of
            a metadata item; ``Item("key")`` stands for an item of any name. By default the order is
            unspecified. Values of different types are ordered by type: None, NaN, numbers, str, bytes, date,
            datetime without and with a time zone, timedelta, tuple (item by item), all others. Entries with
            equal values are ordered by key; entries without the item come last.
        descending : bool
            Whether to reverse the order. Entries without the item still come last, in the order of their
            keys.
        limit : int, optional
            The most entries to return; all if None.
        **kwargs
            Names of metadata items and their terms.

        Raises
        ------
        TypeError
            If an argument is of a wrong type, or a term is a function or a class.
        ValueError
            If `limit` is negative, or `descending` is true without `order_by`.
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
        """Return the keys that `query` returns; cheaper, since it copies no metadata.

        Parameters
        ----------
        where, order_by, descending, limit, **kwargs
            As for `query`.
        """
        request_of(where, kwargs, order_by, descending, limit)  # raises for wrong arguments
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
        """Return the keys that match a glob pattern at one instant of the call.

        Parameters
        ----------
        pattern : str
            ``*`` matches any characters, ``?`` one character, ``[ab]`` one of these, ``[!ab]`` one that is
            none of these. Matching is case-sensitive; ``/`` is an ordinary character.
        order_by, descending, limit
            As for `query`.

        Raises
        ------
        ValueError
            If `pattern` is longer than 10,000 characters and has ``?``, ``[`` or an inner ``*``.
        """
        pattern = checked_pattern(pattern)
        limit = request_of(None, {}, order_by, descending, limit).limit
        keys = self.query_keys(**given(order_by=order_by, descending=descending or None))
        return iter(matching_keys(pattern, keys)[:limit])

    def __len__(self) -> int:
        """Return the number of keys at one instant of the call."""
        return sum(1 for _ in self.query_keys())

    def mapping(self, codec: str | Codec[V] | None = None) -> StoreView[V]:
        """Return a mapping of Python objects over the store; it is mutable if the store is writable.

        Parameters
        ----------
        codec : str or Codec, optional
            ``"pickle"``, ``"json"``, ``"msgpack"``, ``"raw"`` (bytes), or an object with ``encode`` and
            ``decode``; the store's `default_codec` if None.
        """
        from latchstore.contract.mapping import StoreView  # imported when used: see latchstore/__init__.py

        return StoreView(self, codec)


class AbstractStore(AbstractReadOnlyStore):
    """The whole key-value store API: reading, writing, transactions.

    Each committed change emits an event: StoreSetEvent for a new key, StoreUpdateEvent (a subclass of
    StoreSetEvent) for an existing one, StoreDeleteEvent; each has the key and the metadata. Reading a stream
    emits StoreProgressStartEvent, StoreProgressStepEvent and StoreProgressEndEvent if they have listeners.

    The methods that write one key take `if_revision`: the revision that the key must have, 0 for a key that
    must not exist, None for any. If the revision differs, they raise RevisionMismatchError, which has both
    revisions, and change nothing.

    Thread safety
    -------------
    As `AbstractReadOnlyStore`.
    """

    _is_connected = False

    # -- connection: stores that have none only remember the calls ---------------------------------

    def connect(self, credentials: object = None) -> None:
        self._is_connected = True

    def disconnect(self) -> None:
        self._is_connected = False

    def is_connected(self) -> bool:
        return self._is_connected

    def info(self) -> dict[str, Any]:
        return {"readonly": False}

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
        """Store data and metadata under a key, replacing what it had.

        Parameters
        ----------
        value : Value or pair
            A result of `get`, of this or another store, or a pair of a stream (or bytes) and a
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
            When the change is committed; `metadata` is the last metadata of the key.
        """

    def evict(self, key: str, cause: str = "size", *, if_revision: int | None = None) -> None:
        """Remove a key as `delete` does, but with an eviction event.

        Parameters
        ----------
        cause : str
            ``"size"``, ``"expired"`` or ``"idle"``; passed on in the event.

        Raises
        ------
        KeyError
            If the key is not in the store.

        Events
        ------
        StoreEvictEvent
            When the change is committed; a subclass of StoreDeleteEvent, which stores without causes emit.
        """
        checked_key(cause, "cause")
        condition = {} if if_revision is None else {"if_revision": if_revision}
        self.delete(key, **condition)

    def set_data(
        self,
        key: str,
        data: Readable | bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        """Replace the data of a key and keep its metadata; a new key has no metadata.

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
        content = read_all(data, checked_buffer_size(buffer_size))
        condition = {} if if_revision is None else {"if_revision": if_revision}
        with self.transaction("set_data"):
            self.set(key, (content, self.get_metadata(key) if key in self else {}), **condition)

    def set_metadata(self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None) -> None:
        """Replace the metadata of a key and keep its data; a new key has empty data.

        Events
        ------
        StoreSetEvent
            When the change is committed.
        """
        condition = {} if if_revision is None else {"if_revision": if_revision}
        with self.transaction("set_metadata"):
            self.set(key, (self.to_bytes(key) if key in self else b"", metadata), **condition)

    def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        """Update the metadata of a key: set the given items and keep the others.

        Raises
        ------
        KeyError
            If the key is not in the store.

        Events
        ------
        StoreSetEvent
            When the change is committed.
        """
        condition = {} if if_revision is None else {"if_revision": if_revision}
        with self.transaction("update_metadata"):
            self.set_metadata(key, {**self.get_metadata(key), **metadata}, **condition)

    def from_bytes(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        *,
        if_revision: int | None = None,
    ) -> None:
        """Replace the data of a key by a bytes-like object and keep its metadata.

        A store in memory keeps a ``bytes`` object itself and copies other objects; other stores copy all of
        them.

        Events
        ------
        StoreSetEvent
            When the change is committed.
        """
        # Passed on only if given: many stores of this API lack it.
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
        """Replace the data of a key by the content of a file and keep its metadata.

        On Linux, this process keeps its locks on the file, which POSIX would drop when the file is closed.

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

    # Arguments are iterated before the transaction, which blocks other writers.

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
        """Store many values under many keys in one transaction, all or none.

        Parameters
        ----------
        keys : iterable of str
        values : iterable of Value or pair
            As for `set`. Like ``zip``, stops at the end of the shorter iterable.

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
        """Replace the data of many keys in one transaction; as `set_data` for each.

        Parameters
        ----------
        keys : iterable of str
        datas : iterable of stream or bytes
            Like ``zip``, stops at the end of the shorter iterable.

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
        """Replace the metadata of many keys in one transaction; as `set_metadata` for each.

        Parameters
        ----------
        keys : iterable of str
        metadatas : iterable of mapping
            Like ``zip``, stops at the end of the shorter iterable.

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
        """Update the metadata of many keys in one transaction; as `update_metadata` for each.

        Parameters
        ----------
        keys : iterable of str
        metadatas : iterable of mapping
            Like ``zip``, stops at the end of the shorter iterable.

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
        from latchstore.contract.mapping import StoreMapping  # imported when used: see latchstore/__init__.py

        return StoreMapping(self, codec)

    @abstractmethod
    def transaction(self, notes: str = "") -> AbstractContextManager[Any]:
        """Return a context manager whose block is a transaction: all its changes are one commit.

        The block's thread reads its own changes; other threads see none before the commit. An exception
        that leaves the block rolls it back. A nested block of the same thread joins the transaction; if
        the nested block fails, only its changes are rolled back.

        Parameters
        ----------
        notes : str
            A description of the transaction, shown in error messages and events.

        Events
        ------
        StoreTransactionStartEvent
            When the outermost block is entered.
        StoreTransactionEndEvent
            When it is left, with the state "done", followed by one event for each changed key; or with
            the state "failed" and no others.
        """

    def flush(self, timeout: Seconds | None = 30.0) -> None:
        """Wait until the events of all commits before the call have been delivered.

        Parameters
        ----------
        timeout : Seconds or None
            The most seconds to wait; None for no limit.

        Raises
        ------
        FlushTimeoutError
            If the timeout expires.
        DispatcherThreadError
            If a listener calls it, since it would wait for itself.
        """


def _pairs(keys: Iterable[str], others: Iterable[T], argument: str) -> list[tuple[str, T]]:
    """Return the pairs as ``zip`` does: by contract they end with the shorter iterable."""
    return list(zip(checked_iterable(keys, "keys"), checked_iterable(others, argument)))  # noqa: B905


def _selected(metadata: dict[str, Any], names: tuple[str, ...] | None) -> dict[str, Any]:
    if names is None:
        return metadata
    return {name: metadata[name] for name in names if name in metadata}
