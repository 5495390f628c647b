"""The methods of a store as coroutine functions: for stores and for their transactions.

Thread safety: may be used in any event loop; any thread may use the wrapped store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from latchstore.contract.values import StringValue

if TYPE_CHECKING:
    from latchstore.contract.ordering import OrderBy
    from latchstore.contract.store import AbstractStore, SettableValue
    from latchstore.contract.values import Value

T = TypeVar("T")


class AsyncMethods(ABC):
    """The reading and writing methods, with the parameters and errors of `AbstractStore`."""

    @property
    @abstractmethod
    def _target(self) -> AbstractStore:
        """The store or transaction that the methods call."""

    @abstractmethod
    async def _read(self, function: Callable[[], T]) -> T:
        """Call a function that reads, in another thread if it may wait, or awaiting a server."""

    @abstractmethod
    async def _scan(self, function: Callable[[], T]) -> T:
        """Call a function that reads many keys, in another thread, or awaiting a server."""

    @abstractmethod
    async def _write(self, function: Callable[[], T]) -> T:
        """Call a function that writes, in another thread if it may wait, or awaiting a server."""

    @abstractmethod
    async def _write_streams(self, function: Callable[[], T]) -> T:
        """Call a function that writes the user's streams, in another thread if it may wait for a server."""

    # -- reading ----------------------------------------------------------------------------------

    async def get(self, key: str) -> Value:
        """Return data and metadata of a key; like ``store.get``."""
        target = self._target
        return await self._read(lambda: target.get(key))

    async def to_bytes(self, key: str) -> bytes:
        """Return the data of a key; like ``store.to_bytes``."""
        target = self._target
        return await self._read(lambda: target.to_bytes(key))

    async def get_metadata(self, key: str, select: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the metadata of a key; like ``store.get_metadata``."""
        target = self._target
        return await self._read(lambda: target.get_metadata(key, select))

    async def exists(self, key: str) -> bool:
        """Return whether a key exists; like ``store.exists``."""
        target = self._target
        return await self._read(lambda: target.exists(key))

    async def multiget(self, keys: Iterable[str]) -> list[Value]:
        """Return the values of several keys at one instant; like ``store.multiget``."""
        target = self._target
        return await self._scan(lambda: list(target.multiget(keys)))

    async def multiget_metadata(
        self, keys: Iterable[str], select: Iterable[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the metadata of several keys at one instant; like ``store.multiget_metadata``."""
        target = self._target
        return await self._scan(lambda: list(target.multiget_metadata(keys, select)))

    async def query(
        self,
        select: Iterable[str] | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
        **kwargs: Any,
    ) -> list[tuple[str, dict[str, Any]]]:
        """Return keys and metadata of the matches; like ``store.query``."""
        query = self._target.query
        return await self._scan(
            lambda: list(
                query(select, where=where, order_by=order_by, descending=descending, limit=limit, **kwargs)
            )
        )

    async def query_keys(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Return the keys of the matches; like ``store.query_keys``."""
        query = self._target.query_keys
        return await self._scan(
            lambda: list(query(where=where, order_by=order_by, descending=descending, limit=limit, **kwargs))
        )

    async def glob(
        self,
        pattern: str,
        *,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> list[str]:
        """Return the keys that match a pattern; like ``store.glob``."""
        glob = self._target.glob
        return await self._scan(
            lambda: list(glob(pattern, order_by=order_by, descending=descending, limit=limit))
        )

    async def count(self) -> int:
        """Return the number of keys; like ``len(store)``."""
        target = self._target
        return await self._read(lambda: len(target))

    # -- writing ----------------------------------------------------------------------------------

    async def set(self, key: str, value: SettableValue, *, if_revision: int | None = None) -> None:
        """Store data and metadata of a key; like ``store.set``."""
        target = self._target
        write = self._write if _is_in_memory(value) else self._write_streams
        await write(lambda: target.set(key, value, if_revision=if_revision))

    async def from_bytes(self, key: str, data: bytes, *, if_revision: int | None = None) -> None:
        """Store data of a key and keep its metadata; like ``store.from_bytes``."""
        target = self._target
        await self._write(lambda: target.from_bytes(key, data, if_revision=if_revision))

    async def set_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        """Replace the metadata of a key; like ``store.set_metadata``."""
        target = self._target
        await self._write(lambda: target.set_metadata(key, metadata, if_revision=if_revision))

    async def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        """Set some metadata items of a key; like ``store.update_metadata``."""
        target = self._target
        await self._write(lambda: target.update_metadata(key, metadata, if_revision=if_revision))

    async def delete(self, key: str, *, if_revision: int | None = None) -> None:
        """Remove a key; like ``store.delete``."""
        target = self._target
        await self._write(lambda: target.delete(key, if_revision=if_revision))

    async def multiset(self, keys: Iterable[str], values: Iterable[SettableValue]) -> None:
        """Store several keys in one commit; like ``store.multiset``."""
        target = self._target
        is_in_memory = type(values) in (list, tuple) and all(map(_is_in_memory, values))
        write = self._write if is_in_memory else self._write_streams
        await write(lambda: target.multiset(keys, values))

    async def multiset_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        """Replace the metadata of several keys in one commit; like ``store.multiset_metadata``."""
        target = self._target
        await self._write(lambda: target.multiset_metadata(keys, metadatas))

    async def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        """Set some metadata items of several keys in one commit; like ``store.multiupdate_metadata``."""
        target = self._target
        await self._write(lambda: target.multiupdate_metadata(keys, metadatas))


def _is_in_memory(value: object) -> bool:
    """Return whether a value has no stream that may block the reading thread."""
    if type(value) in (list, tuple):
        return bool(value) and type(value[0]) in (bytes, BytesIO)  # type: ignore[index]
    return isinstance(value, StringValue)
