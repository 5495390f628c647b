"""Mappings of Python objects over a store, encoded and decoded by a codec."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, Sized, ValuesView
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar, overload

from latchstore.contract.arguments import checked_key
from latchstore.contract.codec import Codec, V, checked_codec, decoded, encoded

T = TypeVar("T")

_MISSING: Any = object()


class ReadableStore(Protocol):
    """The methods of a store that a read-only mapping calls."""

    def to_bytes(self, key: str) -> bytes: ...

    def exists(self, key: str) -> bool: ...

    def query_keys(self) -> Iterator[str]: ...


class MappedStore(ReadableStore, Protocol):
    """The methods of a store that a mutable mapping calls."""

    def from_bytes(self, key: str, data: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def transaction(self, notes: str) -> AbstractContextManager[Any]: ...


class StoreView(Generic[V], Mapping[str, V]):
    """A read-only store, such as a snapshot, as a mapping; returned by its method ``mapping(codec=...)``.

    Iterating yields the keys of one instant. Each read returns a new object: changing it does not change the
    store.

    Parameters
    ----------
    store : AbstractReadOnlyStore
    codec : str or Codec, optional
        ``"pickle"``, ``"json"``, ``"msgpack"``, ``"raw"`` (bytes), or an object with ``encode`` and
        ``decode``; not ``"reference"``, which only a `Cache` supports. If None, the store's
        ``default_codec``: pickle, or for a store that was loaded from a file bytes only, since unpickling
        runs code from the file.

    Thread safety
    -------------
    As the store beneath it: any thread may use it.
    """

    _mapped: ReadableStore

    def __init__(self, store: ReadableStore, codec: str | Codec[V] | None = None) -> None:
        self._mapped = store
        if codec is None:
            # Stores of other packages have no default_codec.
            codec = getattr(store, "default_codec", "pickle")
        self._codec: Codec[V] = checked_codec(codec)

    @property
    def codec(self) -> Codec[V]:
        """The codec of the values."""
        return self._codec

    def __getitem__(self, key: str) -> V:
        return decoded(self._codec, key, self._mapped.to_bytes(key))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._mapped.exists(key)

    def __iter__(self) -> Iterator[str]:
        return self._mapped.query_keys()

    def __len__(self) -> int:
        # Stores of other packages may have no length.
        return len(self._mapped) if isinstance(self._mapped, Sized) else sum(1 for _ in self)

    def items(self) -> ItemsView[str, V]:
        """Return a view of keys and values; iterating it skips keys that are deleted meanwhile."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values; iterating it skips keys that are deleted meanwhile."""
        return _Values(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._mapped!r}>"


class StoreMapping(StoreView[V], MutableMapping[str, V]):
    """A store as a mutable mapping; returned by ``store.mapping(codec=...)``.

    Each method takes effect at one instant. Those of several steps (``pop``, ``setdefault``, ``update``,
    ``clear``) are transactions. Iterating yields the keys of one instant. Each read returns a new object:
    changing it does not change the store. The codec is called with no lock held. An empty mapping is false.

    Parameters
    ----------
    store : AbstractStore
    codec : str or Codec, optional
        As for a `StoreView`.

    Thread safety
    -------------
    As the store beneath it: any thread may use it.
    """

    _mapped: MappedStore

    def __init__(self, store: MappedStore, codec: str | Codec[V] | None = None) -> None:
        super().__init__(store, codec)

    def __setitem__(self, key: str, value: V) -> None:
        key = checked_key(key)
        self._mapped.from_bytes(key, encoded(self._codec, key, value))

    def __delitem__(self, key: str) -> None:
        self._mapped.delete(key)

    def _live_data(self, key: str) -> bytes | None:
        """Return the data of a key; None if it is missing."""
        try:
            return self._mapped.to_bytes(key)
        except KeyError:
            return None

    def _read(self, key: str) -> Any:
        """Return the undecoded data of a key; None if it is missing."""
        return self._live_data(key)

    def _value_of(self, key: str, found: Any) -> Any:
        """Return the value of a key from the result of `_read`."""
        return decoded(self._codec, key, found)

    def _remove(self, key: str) -> None:
        self._mapped.delete(key)

    def _add(self, key: str, value: V) -> bool:
        """Set a key if it is missing; return whether it was."""
        data = encoded(self._codec, key, value)
        with self._mapped.transaction("setdefault"):
            if self._live_data(key) is not None:
                return False
            self._mapped.from_bytes(key, data)
            return True

    def _take(self, key: str, found: Any, notes: str) -> bool:
        """Remove a key if it still has the data that was read, and return whether it was removed."""
        with self._mapped.transaction(notes):
            if self._live_data(key) != found:
                return False
            self._remove(key)
            return True

    @overload
    def pop(self, key: str) -> V: ...

    @overload
    def pop(self, key: str, default: V) -> V: ...

    @overload
    def pop(self, key: str, default: T) -> V | T: ...

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove a key and return its value; if it is missing, return the default or raise KeyError."""
        key = checked_key(key)
        while (found := self._read(key)) is not None:
            value = self._value_of(key, found)
            if self._take(key, found, "pop"):
                return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[str, V]:
        """Remove a key and return it with its value; raise KeyError if the store is empty."""
        # Begun again if other threads remove the keys: the store must be seen empty at one instant.
        while keys := list(self):
            for key in keys:
                found = self._read(key)
                if found is not None:
                    value = self._value_of(key, found)
                    if self._take(key, found, "popitem"):
                        return key, value
        raise KeyError("popitem(): the store is empty")

    @overload
    def setdefault(self: StoreMapping[T | None], key: str, default: None = None) -> T | None: ...

    @overload
    def setdefault(self, key: str, default: V) -> V: ...

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; if it is missing, set it to the default first."""
        key = checked_key(key)
        while True:
            found = self._read(key)
            if found is not None:
                return self._value_of(key, found)
            if self._add(key, default):
                return default

    def update(  # type: ignore[override]
        self, other: Mapping[str, V] | Iterable[tuple[str, V]] = (), /, **more: V
    ) -> None:
        """Set many keys in one transaction."""
        # Iterated and encoded before the transaction, since that runs user code and may take long.
        items = [
            (checked_key(key), encoded(self._codec, key, value)) for key, value in dict(other, **more).items()
        ]
        with self._mapped.transaction("update"):
            for key, data in items:
                self._mapped.from_bytes(key, data)

    def clear(self) -> None:
        """Remove all keys in one transaction."""
        with self._mapped.transaction("clear"):
            for key in list(self):
                try:
                    del self[key]
                except KeyError:
                    continue  # deleted by a signal handler or finalizer, whose calls belong to the block


class _Items(ItemsView[str, V]):
    """Keys and values of a mapping that other threads may change meanwhile."""

    _mapping: StoreView[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        for key in self._mapping:
            value = self._mapping.get(key, _MISSING)
            if value is not _MISSING:
                yield key, value


class _Values(ValuesView[V]):
    """Values of a mapping that other threads may change meanwhile."""

    _mapping: StoreView[V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.items())

    def __contains__(self, value: object) -> bool:
        return any(other is value or other == value for other in self)
