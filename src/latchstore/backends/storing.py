"""Code that the backends share: the frameworks' rules for timeouts, and for values that are too large.

Thread safety: that of the cache. All values are bytes here; each backend converts objects to bytes and back
with no lock held.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from latchstore.cache.shared import Cache
from latchstore.contract.arguments import describe
from latchstore.contract.codec import RawCodec
from latchstore.contract.errors import EntryTooLargeError
from latchstore.delivery.event_manager import EventManager


def checked_cache(cache: Cache) -> Cache:
    """Return a cache given to a backend, if its codec is ``"raw"``.

    Raises
    ------
    TypeError
        If it is not a `Cache`.
    ValueError
        If it has another codec, which would encode the bytes again, or refuse them.
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must be a latchstore.Cache, got {describe(cache)}")
    if not isinstance(cache.codec, RawCodec):
        raise ValueError(
            f"cache must have the codec 'raw', as the framework encodes values itself, "
            f"got {describe(cache.codec)}; make it with Cache(codec='raw')"
        )
    return cache


#: Prefixes of the URLs of servers.
_URLS = ("redis://", "rediss://", "unix://")

#: Default namespace of a cache on a server.
_NAMESPACE = "latchstore"


def is_url(place: str | os.PathLike[str]) -> bool:
    """Return whether a place is the URL of a server, not a path."""
    return isinstance(place, str) and place.startswith(_URLS)


def cache_in(path: str | os.PathLike[str], **options: Any) -> Cache:
    """Return a cache on a store in a file or on a server, shared by all processes that are given its path.

    A power failure may lose the last changes of a file, which is acceptable for a cache; in return, no change
    waits for the disk.

    Parameters
    ----------
    path : str or os.PathLike
        Path of a file; or URL of a Redis or Valkey server, as for `RedisStore`, with the namespace as a query
        parameter: ``redis://host:6379/0?namespace=pages``. The default namespace is ``latchstore``.
    **options
        Options of the `Cache`.
    """
    # Imported here, as caches in memory do not need it.
    if is_url(path):
        from latchstore.redis import RedisStore

        url, namespace = _parts_of(str(path))
        return Cache(RedisStore(url, EventManager(), namespace=namespace), codec="raw", **options)
    from latchstore.sqlite import SqliteStore

    return Cache(SqliteStore(path, EventManager(), durability="normal"), codec="raw", **options)


def _parts_of(url: str) -> tuple[str, str]:
    """Return a URL without its namespace parameter, and the namespace."""
    place, _, query = url.partition("?")
    named = parse_qsl(query, keep_blank_values=True)
    namespace = dict(named).get("namespace", _NAMESPACE)
    others = urlencode([each for each in named if each[0] != "namespace"])
    return f"{place}?{others}" if others else place, namespace


class _ChangedError(Exception):
    """The key's data has changed meanwhile."""


def store(cache: Cache, key: str, data: bytes, seconds: float | None) -> bool:
    """Set the data of a key; return whether it is stored.

    Parameters
    ----------
    cache : Cache
    key : str
    data : bytes
    seconds : float or None
        Seconds until it expires; None for never. If not positive, the key is removed, as after a set that has
        expired at once.

    Returns
    -------
    kept : bool
        False if the entry weighs more than the whole cache may. The key is removed then: frameworks accept a
        cache that does not store a value, but not one that returns the old value.
    """
    if seconds is not None and seconds <= 0:
        cache.delete(key)
        return True
    try:
        cache.set(key, data, ttl=math.inf if seconds is None else seconds)  # hot path: `ttl_of`
    except EntryTooLargeError:
        cache.delete(key)
        return False
    return True


def store_many(cache: Cache, data: Mapping[str, bytes], seconds: float | None) -> set[str]:
    """Set the data of many keys in one commit; return the keys that are not stored."""
    if seconds is None or seconds > 0:
        try:
            cache.set_many(data, ttl=ttl_of(seconds))
        except EntryTooLargeError:
            pass  # all others are to be stored
        else:
            return set()
    with cache.store.transaction("store many"):
        return _store_each(cache, data, seconds)


def _store_each(cache: Cache, data: Mapping[str, bytes], seconds: float | None) -> set[str]:
    return {key for key in data if not store(cache, key, data[key], seconds)}


def add(cache: Cache, key: str, data: bytes, seconds: float | None) -> bool:
    """Set the data of a missing key; return whether it was missing and the data is stored."""
    if seconds is not None and seconds <= 0:
        return key not in cache
    try:
        return cache.add(key, data, ttl=ttl_of(seconds))
    except EntryTooLargeError:
        return False


def touch(cache: Cache, key: str, seconds: float | None) -> bool:
    """Let a key expire this many seconds from now; return whether the key exists."""
    if seconds is not None and seconds <= 0:
        return cache.delete(key)
    return cache.touch(key, ttl_of(seconds))


def delete_many(cache: Cache, keys: Iterable[str]) -> None:
    """Delete many keys in one transaction."""
    with cache.store.transaction("delete many"):
        for key in keys:
            cache.delete(key)


def move(cache: Cache, key: str, new_key: str, seconds: float | None) -> bool:
    """Move the data of a key to another key in one commit; return whether there was any."""
    with cache.store.transaction("move"):
        data = cache.get(key)
        if data is None:
            return False
        store(cache, new_key, data, seconds)
        cache.delete(key)
        return True


def replace(cache: Cache, key: str, old: bytes, new: bytes) -> bool:
    """Replace old data by new data, with the same time of expiry; return whether the old data was there."""

    def exchanged(data: bytes) -> bytes:
        if data != old:
            raise _ChangedError
        return new

    try:
        cache.modify(key, exchanged)
    except (KeyError, _ChangedError):
        return False
    return True


def ttl_of(seconds: float | None) -> float:
    """Return the seconds as a ttl of a cache, for which None is its own default."""
    return math.inf if seconds is None else seconds
