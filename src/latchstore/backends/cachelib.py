"""A cache for cachelib, which Flask-Caching and Flask-Session use.

Thread safety: that of the cache. The serializer is called with no lock held.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from latchstore.backends import storing
from latchstore.cache.policies import EvictionPolicy
from latchstore.cache.shared import Cache
from latchstore.contract.arguments import advising, given
from latchstore.contract.extras import missing_extra

try:
    from cachelib.base import BaseCache
    from cachelib.serializers import BaseSerializer, SimpleSerializer
except ImportError as error:
    raise missing_extra("latchstore.backends.cachelib", "cachelib", "flask", error) from error

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class LatchstoreCache(BaseCache):
    """A cachelib cache that stores its values in a `latchstore.Cache`.

    ``add``, ``inc`` and ``dec`` are atomic; ``set_many`` and ``delete_many`` are one commit each. ``inc`` and
    ``dec`` keep a key's time of expiry.

    Parameters
    ----------
    threshold : int or None
        Maximum number of entries; 0 means 500, as in cachelib's SimpleCache; None means no bound.
    default_timeout : int or timedelta
        Seconds until values expire, 0 for never.
    ignore_delete_many_errors : bool
        Accepted for compatibility; deleting does not fail.
    cache : Cache, optional
        Cache of the values, instead of a new one with the other options; its codec must be ``"raw"``.
    path : str or os.PathLike, optional
        Place of a new cache that all processes with the same path share: a file, or the URL of a Redis or
        Valkey server, as ``redis://host:6379/0?namespace=pages``. Without it the new cache is in memory. The
        serializer unpickles the stored data: anyone who can write to the file or the server can run code in
        these processes.
    max_bytes, idle, policy, clock
        Options of the new cache, as for `latchstore.Cache`.

    Attributes
    ----------
    cache : Cache
        The serialized values.
    serializer : BaseSerializer
        Converts objects to bytes; by default it pickles them.

    Thread safety
    -------------
    Any thread may use it. The serializer is called with no lock held.
    """

    serializer: BaseSerializer = SimpleSerializer()

    @advising
    def __init__(
        self,
        threshold: int | None = 500,
        default_timeout: int | timedelta = 300,
        ignore_delete_many_errors: bool = True,
        *,
        cache: Cache | None = None,
        path: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
        idle: Seconds | None = None,
        policy: str | Callable[[], EvictionPolicy] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        options = given(max_bytes=max_bytes, idle=idle, policy=policy, clock=clock)
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors)
        if threshold == 0:
            threshold = 500
        if cache is None and path is not None:
            cache = storing.cache_in(path, max_entries=threshold, **options)
        elif cache is None:
            cache = Cache(max_entries=threshold, codec="raw", **options)
        elif path is not None:
            raise TypeError("give either cache or path, not both: a given cache has its own store")
        elif options:
            raise TypeError(f"give either cache or {', '.join(options)}, not both")
        self.cache: Cache = storing.checked_cache(cache)

    def get(self, key: str) -> Any:
        data = self.cache.get(key)
        return None if data is None else self.serializer.loads(data)

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        data = self.serializer.dumps(value)
        return data is not None and storing.store(self.cache, key, data, self._seconds(timeout))

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        data = self.serializer.dumps(value)
        return data is not None and storing.add(self.cache, key, data, self._seconds(timeout))

    def set_many(self, mapping: Mapping[str, Any], timeout: int | timedelta | None = None) -> list[Any]:
        dumped = {key: self.serializer.dumps(value) for key, value in mapping.items()}
        data = {key: value for key, value in dumped.items() if value is not None}
        failed = storing.store_many(self.cache, data, self._seconds(timeout))
        return [key for key in data if key not in failed]

    def delete(self, key: str) -> bool:
        return self.cache.delete(key)

    def delete_many(self, *keys: str) -> list[Any]:
        storing.delete_many(self.cache, keys)
        return list(keys)

    def has(self, key: str) -> bool:
        return key in self.cache

    def clear(self) -> bool:
        self.cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        def increase(data: bytes | None) -> bytes | None:
            value = 0 if data is None else self.serializer.loads(data) or 0
            return self.serializer.dumps(value + delta)

        ttl = storing.ttl_of(self._seconds(None))
        changed: int | None = self.serializer.loads(self.cache.modify(key, increase, default=None, ttl=ttl))
        return changed

    def dec(self, key: str, delta: int = 1) -> int | None:
        return self.inc(key, -delta)

    def _seconds(self, timeout: int | timedelta | None) -> float | None:
        """Return the seconds until a value expires; None for never."""
        return self._normalize_timeout(timeout) or None
