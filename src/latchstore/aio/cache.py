"""`AsyncCache`: a cache with awaitable methods, and with coroutine functions as loaders.

Thread safety: it may be used in any number of loops, and the cache beneath by any thread. A key has one load
at a time, whichever task or thread has begun it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from latchstore.aio.calls import Calls
from latchstore.cache.async_loading import (
    AsyncMemoized,
    is_fresh,
    load_async,
    loads_of,
    memoized,
    near_value,
)
from latchstore.cache.load import MISSING
from latchstore.cache.options import LoadOptions, MemoizeOptions, SetOptions, checked_options
from latchstore.cache.shared import Cache
from latchstore.contract.arguments import check_callable, checked_key, describe
from latchstore.contract.codec import V
from latchstore.contract.seconds import Seconds
from latchstore.engine.transactional_store import TransactionalStore

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncCache(Generic[V]):
    """The methods of a `Cache` for tasks of asyncio.

    The cache is the same one that threads use, and `cache` returns it. A hit of a cache in memory awaits
    nothing. Writes run in another thread, as they may wait for other writers.

    Parameters
    ----------
    cache : Cache

    Thread safety
    -------------
    Tasks of any number of event loops may use it, while threads use the cache beneath it.

    Examples
    --------
    >>> import asyncio
    >>> from latchstore import Cache
    >>> from latchstore.aio import AsyncCache
    >>> async def load(key: str) -> str:
    ...     await asyncio.sleep(0)
    ...     return key.upper()
    >>> async def main() -> list[str]:
    ...     cache = AsyncCache(Cache(max_entries=100, ttl=60))
    ...     return await asyncio.gather(*(cache.get_or_load("a", load) for _ in range(3)))
    >>> asyncio.run(main())
    ['A', 'A', 'A']
    """

    def __init__(self, cache: Cache[V]) -> None:
        if not isinstance(cache, Cache):
            raise TypeError(f"cache must be a latchstore.Cache, got {describe(cache)}")
        assert isinstance(cache.store, TransactionalStore)
        self._cache = cache
        self._calls = Calls(cache.store)
        self._loads = loads_of(cache)
        # hot path: a hit is only this call.
        self._get = cache.get
        self._at_once = self._calls.reads_at_once

    @property
    def cache(self) -> Cache[V]:
        """The wrapped cache."""
        return self._cache

    # -- reading ----------------------------------------------------------------------------------

    @overload
    async def get(self, key: str, default: None = None) -> V | None: ...

    @overload
    async def get(self, key: str, default: V) -> V: ...

    @overload
    async def get(self, key: str, default: T) -> V | T: ...

    async def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default if it is missing or expired; like ``cache.get``."""
        if self._at_once:
            return self._get(key, default)
        if type(key) is str and (value := near_value(self._cache, key)) is not MISSING:
            return value
        return await self._calls.call_here(lambda: self._get(key, default))

    async def get_many(self, keys: Iterable[str]) -> dict[str, V]:
        """Return the values of those keys that exist and have not expired; like ``cache.get_many``."""
        return await self._calls.call_here(lambda: self._cache.get_many(keys))

    async def contains(self, key: str) -> bool:
        """Return whether a key exists and has not expired; like ``key in cache``."""
        return await self._calls.call_here(lambda: key in self._cache)

    # -- loading ----------------------------------------------------------------------------------

    @overload
    async def get_or_load(
        self, key: str, loader: Callable[[str], Awaitable[R]], **options: Unpack[LoadOptions]
    ) -> V | R: ...

    @overload
    async def get_or_load(
        self, key: str, loader: Callable[[str], R], **options: Unpack[LoadOptions]
    ) -> V | R: ...

    async def get_or_load(
        self, key: str, loader: Callable[[str], Any], **options: Unpack[LoadOptions]
    ) -> Any:
        """Return the value of a key; load it once if it is missing, whichever tasks and threads request it.

        If the task that has begun a load is cancelled, the load continues for others that wait for it. When
        the last task that awaits it is cancelled, the load is cancelled as well; a thread that waits for it
        then loads the key itself.

        Parameters
        ----------
        key : str
        loader : callable
            A coroutine function, called with the key in a task of its own; or a function, called in another
            thread. It may use the cache, but must not wait for the same key.
        ttl, idle, refresh_after, weight, tags, metadata, keep, negative_ttl, stale_on_error, timeout
            As for ``cache.get_or_load``.

        Returns
        -------
        value : object
            As for ``cache.get_or_load``.

        Raises
        ------
        Exception
            Whatever the loader, ``keep`` or ``ttl`` raises.
        LoadTimeoutError
            If another caller's load takes longer than ``timeout``.
        RecursiveLoadError
            If the loader requests the same key, directly, through another load, or through tasks that it has
            started. Other waits of loaders are not detected.
        """
        find = self._loads.find
        # hot path: a hit reads only what it needs.
        found = find(key) if self._at_once else await self._found(key)
        if is_fresh(found):
            return found
        check_callable(loader, "loader")
        checked = checked_options(LoadOptions, options, self._loads.defaults)
        load = partial(loader, checked_key(key))
        return await load_async(self._loads, self._calls, key, found, load, checked)

    async def _found(self, key: str) -> Any:
        """Find the value of a key, in another thread if no near cache serves it."""
        find = self._loads.find
        if type(key) is str and (value := near_value(self._cache, key)) is not MISSING:
            return value
        return await self._calls.call_here(lambda: find(key))

    @overload
    def memoize(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncMemoized[P, R]: ...

    @overload
    def memoize(
        self, /, **options: Unpack[MemoizeOptions]
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], AsyncMemoized[P, R]]: ...

    def memoize(self, function: Any = None, /, **options: Unpack[MemoizeOptions]) -> Any:
        """Return a decorator that caches the results of a coroutine function by its arguments.

        It returns a coroutine function with ``cache_key``, ``invalidate``, ``cache_info`` and
        ``cache_clear``; ``invalidate`` and ``cache_clear`` are coroutine functions. Options and errors are
        those of ``Cache.memoize``.
        """
        checked = checked_options(MemoizeOptions, options, self._loads.defaults)
        decorate = partial(memoized, self._cache, self._loads, self._calls, checked)
        return decorate if function is None else decorate(function)

    # -- writing ----------------------------------------------------------------------------------

    async def set(self, key: str, value: V, **options: Unpack[SetOptions]) -> None:
        """Set the value of a key; like ``cache.set``."""
        await self._calls.call(lambda: self._cache.set(key, value, **options))

    async def set_many(self, values: Mapping[str, V], **options: Unpack[SetOptions]) -> None:
        """Set the values of several keys in one commit; like ``cache.set_many``."""
        await self._calls.call(lambda: self._cache.set_many(values, **options))

    async def add(self, key: str, value: V, **options: Unpack[SetOptions]) -> bool:
        """Set the value of a key if it is missing; return whether it was set; like ``cache.add``."""
        return await self._calls.call(lambda: self._cache.add(key, value, **options))

    async def touch(self, key: str, ttl: Seconds | None = None) -> bool:
        """Let a key expire `ttl` seconds from now; like ``cache.touch``."""
        return await self._calls.call(lambda: self._cache.touch(key, ttl))

    async def delete(self, key: str) -> bool:
        """Remove a key; return whether it existed; like ``cache.delete``."""
        return await self._calls.call(lambda: self._cache.delete(key))

    async def invalidate_tag(self, tag: str) -> int:
        """Remove all entries with a tag; return their number; like ``cache.invalidate_tag``."""
        return await self._calls.call(lambda: self._cache.invalidate_tag(tag))

    async def delete_glob(self, pattern: str) -> int:
        """Remove all keys that match a pattern; return their number; like ``cache.delete_glob``."""
        return await self._calls.call(lambda: self._cache.delete_glob(pattern))

    async def clear(self) -> None:
        """Remove all keys; like ``cache.clear``."""
        await self._calls.call(self._cache.clear)

    async def sweep(self) -> int:
        """Evict expired entries; return their number; like ``cache.sweep``."""
        return await self._calls.call(self._cache.sweep)

    def __repr__(self) -> str:
        return f"<AsyncCache of {self._cache!r}>"
