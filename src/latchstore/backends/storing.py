"""What the backends share: the frameworks' ways with timeouts, and with values that are too heavy.

Thread safety: that of the cache. All values are bytes here: each backend makes them of objects, and objects
of them, outside every lock.
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
    """Return a cache that a backend was given, if it takes bytes as they are.

    Raises
    ------
    TypeError
        If it is no `Cache`.
    ValueError
        If it has another codec: bytes would be encoded once more, or not at all.
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must be a latchstore.Cache, got {describe(cache)}")
    if not isinstance(cache.codec, RawCodec):
        raise ValueError(
            f"cache must have the codec 'raw', as the framework makes bytes of values itself, "
            f"got {describe(cache.codec)}; make it with Cache(codec='raw')"
        )
    return cache


#: What URLs of servers begin with.
_URLS = ("redis://", "rediss://", "unix://")

#: The namespace of a cache on a server whose URL names none.
_NAMESPACE = "latchstore"


def is_url(place: str | os.PathLike[str]) -> bool:
    """Tell whether a place is the URL of a server, and no path."""
    return isinstance(place, str) and place.startswith(_URLS)


def cache_in(path: str | os.PathLike[str], **options: Any) -> Cache:
    """Return a cache on a store in a file or on a server, which all processes that are given it share.

    A loss of power may take the last changes of a file with it, which a cache can bear, and spares each of
    them the wait for the disk.

    Parameters
    ----------
    path : str or os.PathLike
        Of a file; or the URL of a Redis or Valkey server, as `RedisStore` takes it, with the namespace as one
        of its parameters: ``redis://host:6379/0?namespace=pages``, ``latchstore`` if it is not there.
    **options
        Of the `Cache`.
    """
    # Not loaded for caches in memory.
    if is_url(path):
        from latchstore.redis import RedisStore

        url, namespace = _parts_of(str(path))
        return Cache(RedisStore(url, EventManager(), namespace=namespace), codec="raw", **options)
    from latchstore.sqlite import SqliteStore

    return Cache(SqliteStore(path, EventManager(), durability="normal"), codec="raw", **options)


def _parts_of(url: str) -> tuple[str, str]:
    """Return a URL without the namespace, and that."""
    place, _, query = url.partition("?")
    named = parse_qsl(query, keep_blank_values=True)
    namespace = dict(named).get("namespace", _NAMESPACE)
    others = urlencode([each for each in named if each[0] != "namespace"])
    return f"{place}?{others}" if others else place, namespace


class _ChangedError(Exception):
    """There is other data under the key by now."""


def store(cache: Cache, key: str, data: bytes, seconds: float | None) -> bool:
    """Put data under a key; return whether it is kept.

    Parameters
    ----------
    cache : Cache
    key : str
    data : bytes
    seconds : float or None
        After which it expires; None for never. If there are none left the key is removed, which is what
        setting it for no time comes to.

    Returns
    -------
    kept : bool
        False if it weighs more than the whole cache may. The key is removed then: the frameworks take a
        cache that does not keep what it is given, but none that goes on giving what was there before.
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
    """Put data under many keys in one commit; return the keys that are not kept."""
    if seconds is None or seconds > 0:
        try:
            cache.set_many(data, ttl=ttl_of(seconds))
        except EntryTooLargeError:
            pass  # all but that one are to be kept
        else:
            return set()
    with cache.store.transaction("store many"):
        return _store_each(cache, data, seconds)


def _store_each(cache: Cache, data: Mapping[str, bytes], seconds: float | None) -> set[str]:
    return {key for key in data if not store(cache, key, data[key], seconds)}


def add(cache: Cache, key: str, data: bytes, seconds: float | None) -> bool:
    """Put data under a key that is missing; return whether it was, and the data is kept."""
    if seconds is not None and seconds <= 0:
        return key not in cache
    try:
        return cache.add(key, data, ttl=ttl_of(seconds))
    except EntryTooLargeError:
        return False


def touch(cache: Cache, key: str, seconds: float | None) -> bool:
    """Have a key expire so many seconds from now; return whether it is there."""
    if seconds is not None and seconds <= 0:
        return cache.delete(key)
    return cache.touch(key, ttl_of(seconds))


def delete_many(cache: Cache, keys: Iterable[str]) -> None:
    """Delete many keys in one transaction."""
    with cache.store.transaction("delete many"):
        for key in keys:
            cache.delete(key)


def move(cache: Cache, key: str, new_key: str, seconds: float | None) -> bool:
    """Put the data of a key under another one, in one commit; return whether there was any."""
    with cache.store.transaction("move"):
        data = cache.get(key)
        if data is None:
            return False
        store(cache, new_key, data, seconds)
        cache.delete(key)
        return True


def replace(cache: Cache, key: str, old: bytes, new: bytes) -> bool:
    """Put data in the place of other data, with what is left of its time; return whether that was there."""

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
    """Return the same for a cache, which takes None for its own default."""
    return math.inf if seconds is None else seconds
