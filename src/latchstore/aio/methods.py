"""The methods of a store, awaited: for stores and for their transactions.

Thread safety: used in any event loop; what the methods are passed on to may be used by any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

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
        """The store or transaction that the methods are passed on to."""

    @abstractmethod
    async def _read(self, function: Callable[[], T]) -> T:
        """Call what reads, in another thread if it may wait."""

    @abstractmethod
    async def _scan(self, function: Callable[[], T]) -> T:
        """Call what reads many keys, in another thread."""

    @abstractmethod
    async def _write(self, function: Callable[[], T]) -> T:
        """Call what writes, in another thread if it may wait."""

    # -- reading ----------------------------------------------------------------------------------

    async def get(self, key: str) -> Value:
        """Return data and metadata of a key, as ``store.get``."""
        target = self._target
        return await self._read(lambda: target.get(key))

    async def to_bytes(self, key: str) -> bytes:
        """Return the data of a key, as ``store.to_bytes``."""
        target = self._target
        return await self._read(lambda: target.to_bytes(key))

    async def get_metadata(self, key: str, select: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the metadata of a key, as ``store.get_metadata``."""
        target = self._target
        return await self._read(lambda: target.get_metadata(key, select))

    async def exists(self, key: str) -> bool:
        """Tell whether a key is there, as ``store.exists``."""
        target = self._target
        return await self._read(lambda: target.exists(key))

    async def multiget(self, keys: Iterable[str]) -> list[Value]:
        """Return the values of several keys at one instant, as ``store.multiget``."""
        target = self._target
        return await self._scan(lambda: list(target.multiget(keys)))

    async def multiget_metadata(
        self, keys: Iterable[str], select: Iterable[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the metadata of several keys at one instant, as ``store.multiget_metadata``."""
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
        """Return keys and metadata of what matches, as ``store.query``."""
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
        """Return the keys of what matches, as ``store.query_keys``."""
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
        """Return the keys that match a pattern, as ``store.glob``."""
        glob = self._target.glob
        return await self._scan(
            lambda: list(glob(pattern, order_by=order_by, descending=descending, limit=limit))
        )

    async def count(self) -> int:
        """Return how many keys there are, as ``len(store)``."""
        target = self._target
        return await self._read(lambda: len(target))

    # -- writing ----------------------------------------------------------------------------------

    async def set(self, key: str, value: SettableValue, *, if_revision: int | None = None) -> None:
        """Store data and metadata under a key, as ``store.set``."""
        target = self._target
        await self._write(lambda: target.set(key, value, if_revision=if_revision))

    async def from_bytes(self, key: str, data: bytes, *, if_revision: int | None = None) -> None:
        """Store data under a key and leave its metadata, as ``store.from_bytes``."""
        target = self._target
        await self._write(lambda: target.from_bytes(key, data, if_revision=if_revision))

    async def set_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        """Replace the metadata of a key, as ``store.set_metadata``."""
        target = self._target
        await self._write(lambda: target.set_metadata(key, metadata, if_revision=if_revision))

    async def update_metadata(
        self, key: str, metadata: Mapping[str, Any], *, if_revision: int | None = None
    ) -> None:
        """Set some metadata items of a key, as ``store.update_metadata``."""
        target = self._target
        await self._write(lambda: target.update_metadata(key, metadata, if_revision=if_revision))

    async def delete(self, key: str, *, if_revision: int | None = None) -> None:
        """Remove a key, as ``store.delete``."""
        target = self._target
        await self._write(lambda: target.delete(key, if_revision=if_revision))

    async def multiset(self, keys: Iterable[str], values: Iterable[SettableValue]) -> None:
        """Store several keys in one commit, as ``store.multiset``."""
        target = self._target
        await self._write(lambda: target.multiset(keys, values))

    async def multiset_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        """Replace the metadata of several keys in one commit, as ``store.multiset_metadata``."""
        target = self._target
        await self._write(lambda: target.multiset_metadata(keys, metadatas))

    async def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        """Set some metadata items of several keys in one commit, as ``store.multiupdate_metadata``."""
        target = self._target
        await self._write(lambda: target.multiupdate_metadata(keys, metadatas))
