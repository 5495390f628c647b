"""What the backends share: the frameworks' ways with timeouts, and with values that are too heavy.

Thread safety: that of the cache. All values are bytes here: each backend makes them of objects, and objects
of them, outside every lock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from latchstore.cache.shared import Cache
from latchstore.contract.errors import EntryTooLargeError


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
        cache.set(key, data, ttl=ttl_of(seconds))
    except EntryTooLargeError:
        cache.delete(key)
        return False
    return True


def store_many(cache: Cache, data: Mapping[str, bytes], seconds: float | None) -> set[str]:
    """Put data under many keys in one transaction; return the keys that are not kept."""
    with cache.store.transaction("store many"):
        return _not_kept(cache, data, seconds)


def _not_kept(cache: Cache, data: Mapping[str, bytes], seconds: float | None) -> set[str]:
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


def ttl_of(seconds: float | None) -> float:
    """Return what says so to a cache, which takes None for its own default."""
    return math.inf if seconds is None else seconds
