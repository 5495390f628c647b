"""A backend of dogpile.cache: ``make_region().configure("latchstore.memory")``.

Thread safety: that of the cache. The region serializes and deserializes with no lock held. The mutexes are
not in the lock order of locks.py: dogpile holds one while it calls a creator function, which may do anything.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from latchstore.backends import storing
from latchstore.cache.shared import Cache
from latchstore.contract.extras import missing_extra

try:
    from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex
    from dogpile.util import NameRegistry
except ImportError as error:
    raise missing_extra("latchstore.backends.dogpile", "dogpile.cache", "dogpile", error) from error

#: Arguments of a region that are options of the cache.
_OPTIONS = ("max_entries", "max_bytes", "idle", "policy", "path")

#: All known arguments, and options of `Cache` that a region cannot choose.
_KNOWN = (*_OPTIONS, "cache", "ttl")
_FIXED = frozenset({"store", "codec", "sizeof", "clock"})

#: Similarity, from 0 to 1, above which an unknown name counts as a misspelling.
_ALIKE = 0.65


class LatchstoreBackend(BytesBackend):
    """Stores the values of a dogpile.cache region in a `latchstore.Cache`.

    Regions with the same cache also share its mutexes: of all their threads, only one at a time creates the
    value of a key. Of several processes that share a file, one thread of each may.

    Parameters
    ----------
    arguments : mapping
        ``cache``: a cache for the values. Otherwise options of a new cache: ``max_entries``, ``max_bytes``,
        ``idle``, ``policy``; and ``path``, a file or the URL of a Redis or Valkey server, as
        ``redis://host:6379/0?namespace=pages``, for a cache that all processes with the same path share. With
        either, ``ttl``: seconds after which values are removed; after the region's expiration_time they are
        created again, but not removed. Other arguments are ignored, unless they look like a misspelling.

    Attributes
    ----------
    cache : Cache
        The serialized values.

    Raises
    ------
    TypeError
        If an argument is misspelt, or both a cache and options of a new one are given.
    ValueError
        If the given cache has another codec than ``"raw"``.

    Thread safety
    -------------
    Any thread may use it. Values are serialized with no lock held.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        options = {name: arguments[name] for name in _OPTIONS if name in arguments}
        given = arguments.get("cache")
        _refuse_misspelt(arguments)
        if given is None:
            given = storing.cache_in(**options) if "path" in options else Cache(codec="raw", **options)
        elif options:
            raise TypeError(f"give either cache or {', '.join(options)}, not both")
        self.cache: Cache = storing.checked_cache(given)
        self._ttl: float | None = arguments.get("ttl")
        self._mutexes = _mutexes_of(given)

    def get_mutex(self, key: str) -> CacheMutex:
        mutex: CacheMutex = self._mutexes.get(key)
        return mutex

    def get_serialized(self, key: str) -> Any:
        return self.cache.get(key, NO_VALUE)

    def get_serialized_multi(self, keys: Iterable[str]) -> list[Any]:
        return [self.cache.get(key, NO_VALUE) for key in keys]

    def set_serialized(self, key: str, value: bytes) -> None:
        storing.store(self.cache, key, value, self._ttl)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        storing.store_many(self.cache, mapping, self._ttl)

    def delete(self, key: str) -> None:
        self.cache.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        storing.delete_many(self.cache, list(keys))


def _refuse_misspelt(arguments: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument that looks like a misspelling; ignore other unknown ones."""
    for name in arguments:
        if name in _KNOWN:
            continue
        meant = get_close_matches(str(name), _KNOWN, 1, _ALIKE)
        if meant:
            raise TypeError(f"latchstore.memory has no argument {name!r}; did you mean {meant[0]!r}?")
        if name in _FIXED:
            raise TypeError(
                f"latchstore.memory has no argument {name!r}; to set it, make the cache yourself with "
                f"codec='raw', and pass it as arguments={{'cache': cache}}"
            )


class KeyMutex(CacheMutex):
    """The mutex of a thread that creates the value of a key; another thread may release it.

    Parameters
    ----------
    key : str

    Thread safety
    -------------
    Any thread may acquire it; the thread that acquired it releases it.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        # Guards no state of this package: dogpile holds it while it calls a creator function.
        self._lock = threading.Lock()
        self._holder: int | None = None
        _mutexes.add(self)

    def acquire(self, wait: bool = True) -> bool:
        if not self._lock.acquire(wait):
            return False
        self._holder = threading.get_ident()
        return True

    def release(self) -> None:
        self._holder = None
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def renew_in_child(self) -> None:
        """Release the mutex in a forked child, unless the forking thread holds it."""
        if self._holder != threading.get_ident():
            self._lock, self._holder = threading.Lock(), None

    def __repr__(self) -> str:
        return f"<KeyMutex of {self._key!r}{', held' if self.locked() else ''}>"


#: All live mutexes, for forked children.
_mutexes: weakref.WeakSet[KeyMutex] = weakref.WeakSet()

#: The mutexes of each cache, by the cache's identity, as caches compare equal by their contents.
_registries: dict[int, NameRegistry] = {}


def _mutexes_of(cache: Cache) -> NameRegistry:
    """Return the registry of a cache's mutexes, which keeps a mutex for as long as a thread uses it."""
    identity = id(cache)
    registry = NameRegistry(KeyMutex)
    known = _registries.setdefault(identity, registry)
    if known is registry:
        weakref.finalize(cache, _registries.pop, identity, None)
    return known


def _renew_mutexes_in_child() -> None:
    for registry in list(_registries.values()):
        registry._mutex = threading.RLock()
    for mutex in list(_mutexes):
        mutex.renew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_mutexes_in_child)
