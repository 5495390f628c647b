"""A cache for Django: ``"BACKEND": "latchstore.backends.django.LatchstoreCache"``.

``LatchstoreSharedCache`` is the same for several processes.

Thread safety: Django makes a backend for every thread; all use the one cache of their location. Pickling,
unpickling and callables given as values run with no lock held.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from typing import Any, TypeVar, TypeVarTuple

from latchstore.backends import storing
from latchstore.cache.shared import Cache
from latchstore.contract.errors import LockTimeoutError, RecursiveLoadError
from latchstore.contract.extras import missing_extra

try:
    from asgiref.sync import sync_to_async
    from django.core.cache.backends.base import DEFAULT_TIMEOUT, MEMCACHE_MAX_KEY_LENGTH, BaseCache
    from django.core.exceptions import ImproperlyConfigured
except ImportError as error:
    raise missing_extra("latchstore.backends.django", "Django", "django", error) from error

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

#: Default maximum number of entries, which is also Django's.
_DEFAULT_ENTRIES = 300

#: The names allowed in OPTIONS. CULL_FREQUENCY has no effect, as no more entries are evicted than necessary.
_OPTIONS = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY", "max_bytes", "idle", "policy"})

#: The caches of this process by location, each with its bounds.
_caches: dict[str, tuple[Cache, dict[str, Any]]] = {}

#: The caches in files and on servers, by path or URL.
_shared_caches: dict[str, tuple[Cache, dict[str, Any]]] = {}


class LatchstoreCache(BaseCache):
    """A backend of Django's cache framework; backends with the same LOCATION share one cache of the process.

    Single calls are atomic: if many threads ``add`` a key, one succeeds; no ``incr`` is lost; ``set_many``,
    ``delete_many``, ``incr_version`` and ``clear`` are one commit each. ``get_or_set`` with a callable calls
    it once for any number of threads; the others wait for its result or its exception. The methods for
    coroutines run in the thread of the event loop, unless they would block there.

    Parameters
    ----------
    location : str
        Django's LOCATION.
    params : dict
        The other settings: TIMEOUT, KEY_PREFIX, VERSION, KEY_FUNCTION, and OPTIONS: ``MAX_ENTRIES``
        (300, or no bound if there is one in bytes), ``max_bytes``, ``idle`` and ``policy`` as for
        `latchstore.Cache`.

    Attributes
    ----------
    cache : Cache
        The pickled values, by the keys that ``make_key`` returns.

    Raises
    ------
    ImproperlyConfigured
        If OPTIONS are invalid, or differ from those of another cache at the same location.

    Thread safety
    -------------
    Django makes a backend for every thread; all of them use the one cache of their location.
    """

    pickle_protocol = pickle.HIGHEST_PROTOCOL

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self.cache: Cache = self._cache_at(location, self._bounds(params))

    def _cache_at(self, location: str, bounds: dict[str, Any]) -> Cache:
        return _cache_at(location, bounds, _caches, _in_memory)

    def _bounds(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the cache."""
        options = dict(params.get("OPTIONS", {}))
        if unknown := set(options) - _OPTIONS:
            raise ImproperlyConfigured(
                f"unknown OPTIONS {', '.join(sorted(map(str, unknown)))} of a latchstore cache; "
                f"choose from {', '.join(sorted(_OPTIONS))}"
            )
        options.pop("CULL_FREQUENCY", None)
        entries = options.pop("MAX_ENTRIES", None if "max_bytes" in options else _DEFAULT_ENTRIES)
        return {"max_entries": entries, **options}

    def validate_key(self, key: str) -> None:
        # hot path: Django runs a generator and a regular expression; most keys are valid at first sight.
        plain = key.isascii() and key.isprintable() and " " not in key
        if not plain or len(key) > MEMCACHE_MAX_KEY_LENGTH:
            super().validate_key(key)

    # -- methods of BaseCache ----------------------------------------------------------------------

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        data = self.cache.get(self.make_and_validate_key(key, version=version))
        return default if data is None else pickle.loads(data)  # noqa: S301 (pickled by this process)

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        # hot path: like `_pickled` and `_seconds`.
        key = self.make_and_validate_key(key, version=version)
        data = pickle.dumps(value, self.pickle_protocol)
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        storing.store(self.cache, key, data, seconds)

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        key = self.make_and_validate_key(key, version=version)
        return storing.add(self.cache, key, self._pickled(value), self._seconds(timeout))

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        key = self.make_and_validate_key(key, version=version)
        return storing.touch(self.cache, key, self._seconds(timeout))

    def delete(self, key: str, version: int | None = None) -> bool:
        return self.cache.delete(self.make_and_validate_key(key, version=version))

    def has_key(self, key: str, version: int | None = None) -> bool:
        return self.make_and_validate_key(key, version=version) in self.cache

    def clear(self) -> None:
        self.cache.clear()

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> Any:
        full_key = self.make_and_validate_key(key, version=version)
        value: Any = None

        def increase(data: bytes | None) -> bytes:
            nonlocal value
            if data is None:
                raise ValueError(f"Key {key!r} not found")
            value = pickle.loads(data) + delta  # noqa: S301
            return self._pickled(value)

        self.cache.modify(full_key, increase, default=None)
        return value

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        full_keys = {key: self.make_and_validate_key(key, version=version) for key in keys}
        data = self.cache.get_many(full_keys.values())
        return {key: pickle.loads(data[full]) for key, full in full_keys.items() if full in data}  # noqa: S301

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        full_keys, pickled = self._prepared(data, version)
        failed = storing.store_many(self.cache, pickled, self._seconds(timeout))
        return [key for key, full in full_keys.items() if full in failed]

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        storing.delete_many(self.cache, [self.make_and_validate_key(key, version=version) for key in keys])

    def get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            # The value would not be stored, so there is no load to share.
            return super().get_or_set(key, default, timeout, version)

        def load(_: str) -> bytes:
            return self._pickled(default() if callable(default) else default)

        full_key = self.make_and_validate_key(key, version=version)
        try:
            data = self.cache.get_or_load(full_key, load, ttl=storing.ttl_of(seconds))
        except RecursiveLoadError:
            # The callable requests its own key, which Django allows: the recursion must end by itself.
            return super().get_or_set(key, default, timeout, version)
        return pickle.loads(data)  # noqa: S301

    def incr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        version = self.version if version is None else version
        old = self.make_and_validate_key(key, version=version)
        new = self.make_and_validate_key(key, version=version + delta)
        if not storing.move(self.cache, old, new, self.default_timeout):
            raise ValueError(f"Key {key!r} not found")
        return version + delta

    # -- the same for coroutines ------------------------------------------------------------------

    # Reads never block, so they run in the thread of the event loop. Writes run there as well, unless another
    # thread has an exclusive transaction open: then another thread waits for it.

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return self.get(key, default, version)

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        return self.get_many(keys, version)

    async def ahas_key(self, key: str, version: int | None = None) -> bool:
        return self.has_key(key, version)

    async def aset(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        key, data = self.make_and_validate_key(key, version=version), self._pickled(value)
        await self._written(storing.store, key, data, self._seconds(timeout))

    async def aadd(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        key, data = self.make_and_validate_key(key, version=version), self._pickled(value)
        return await self._written(storing.add, key, data, self._seconds(timeout))

    async def atouch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        key = self.make_and_validate_key(key, version=version)
        return await self._written(storing.touch, key, self._seconds(timeout))

    async def adelete(self, key: str, version: int | None = None) -> bool:
        return await self._written(Cache.delete, self.make_and_validate_key(key, version=version))

    async def aset_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        full_keys, pickled = self._prepared(data, version)
        failed = await self._written(storing.store_many, pickled, self._seconds(timeout))
        return [key for key, full in full_keys.items() if full in failed]

    async def adelete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        await self._written(
            storing.delete_many, [self.make_and_validate_key(key, version=version) for key in keys]
        )

    async def aclear(self) -> None:
        await self._written(Cache.clear)

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> Any:
        full_key = self.make_and_validate_key(key, version=version)
        while True:
            data = self.cache.get(full_key)
            if data is None:
                raise ValueError(f"Key {key!r} not found")
            value = pickle.loads(data) + delta  # noqa: S301
            if await self._written(storing.replace, full_key, data, self._pickled(value)):
                return value

    async def aincr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        version = self.version if version is None else version
        old = self.make_and_validate_key(key, version=version)
        new = self.make_and_validate_key(key, version=version + delta)
        if not await self._written(storing.move, old, new, self.default_timeout):
            raise ValueError(f"Key {key!r} not found")
        return version + delta

    async def aclose(self, **kwargs: Any) -> None:
        self.close(**kwargs)

    async def aget_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """Return a key's value; if it is missing, set the default, or the result of the default.

        A coroutine function is awaited. Another callable is called in a thread, once for all callers.
        """
        found = self.get(key, self._missing_key, version)
        if found is not self._missing_key:
            return found
        if callable(default) and not iscoroutinefunction(default):
            return await sync_to_async(self.get_or_set)(key, default, timeout, version)
        value = await default() if callable(default) else default
        await self.aadd(key, value, timeout, version)
        return self.get(key, value, version)

    async def _written(
        self, function: Callable[[Cache, *Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Call a function that writes to the cache, in this thread unless it would block."""
        transaction: Any = self.cache.store.transaction
        try:
            with transaction(function.__name__, timeout=0):
                return function(self.cache, *arguments)
        except LockTimeoutError:
            return await sync_to_async(function)(self.cache, *arguments)

    def _prepared(
        self, data: Mapping[str, Any], version: int | None
    ) -> tuple[dict[str, str], dict[str, bytes]]:
        """Return the cache's keys by Django's keys, and the pickled values by the cache's keys."""
        full_keys = {key: self.make_and_validate_key(key, version=version) for key in data}
        return full_keys, {full_keys[key]: self._pickled(value) for key, value in data.items()}

    def _pickled(self, value: Any) -> bytes:
        return pickle.dumps(value, self.pickle_protocol)

    def _seconds(self, timeout: Any) -> float | None:
        """Return the seconds until a value expires; None for never."""
        seconds: float | None = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return seconds


class LatchstoreSharedCache(LatchstoreCache):
    """The same in a file, or on a Redis or Valkey server, for all processes with the same LOCATION.

    ``add``, ``incr`` and the others are atomic across these processes, and ``get_or_set`` calls its callable
    once for all of them. Values are pickled: anyone who can write to the file or the server can run code in
    these processes.

    Parameters
    ----------
    location : str
        The path of the file, or a URL as ``redis://host:6379/0?namespace=pages``.
    params : dict
        As for `LatchstoreCache`.

    Thread safety
    -------------
    As `LatchstoreCache`; processes that name the same file or server share the entries.
    """

    def _cache_at(self, location: str, bounds: dict[str, Any]) -> Cache:
        if not location:
            raise ImproperlyConfigured(
                "LOCATION of a shared latchstore cache must be the path of a file, or the URL of a server"
            )
        place = location if storing.is_url(location) else os.path.abspath(location)
        return _cache_at(place, bounds, _shared_caches, storing.cache_in)


def _in_memory(location: str, **bounds: Any) -> Cache:
    return Cache(codec="raw", **bounds)


def _cache_at(
    location: str,
    bounds: dict[str, Any],
    caches: dict[str, tuple[Cache, dict[str, Any]]],
    make: Callable[..., Cache],
) -> Cache:
    """Return the cache of a location; the first call makes it."""
    known = caches.get(location)
    if known is None:
        try:
            made = make(location, **bounds)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"OPTIONS of a latchstore cache: {error}") from error
        # If two threads make one, the first is used; the other is dropped unused.
        known = caches.setdefault(location, (made, bounds))
        if known[0] is not made:
            made.close()
    cache, made_with = known
    if made_with != bounds:
        raise ImproperlyConfigured(
            f"there is a latchstore cache at LOCATION {location!r} already, with other OPTIONS: "
            f"{made_with}, not {bounds}; use another LOCATION for this one"
        )
    return cache
