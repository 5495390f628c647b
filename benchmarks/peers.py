"""What people use today, each behind the same three calls.

A peer is made by a function that imports its library; a library that is not installed is said to be missing
and left out. All of them map a string to bytes, and each is guarded as its documentation says it must be when
threads share it: those that are safe themselves have no lock here.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from readerwriterlock.rwlock import RWLockFair

from latchstore import Cache, DictMemoryStore, EventManager

#: More entries than any benchmark has, so that no cache evicts.
CAPACITY = 10_000_000
#: A folder in memory, where the system has one.
_MEMORY_FOLDER = Path("/dev/shm")

Get = Callable[[str], Any]
Set = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Peer:
    """One store, as the benchmarks use it.

    Attributes
    ----------
    get, set, delete : callable
        They take a key, and bytes. Bound methods of the library where it has them, so that nothing is added
        to what it costs.
    """

    get: Get
    set: Set
    delete: Callable[[str], Any]


class LockedDict:
    """A mapping under a lock, as people write it."""

    def __init__(self, entries: MutableMapping[str, bytes]) -> None:
        # Guards _entries.
        self._lock = threading.Lock()
        self._entries = entries

    def get(self, key: str) -> bytes | None:
        with self._lock:
            return self._entries.get(key)

    def set(self, key: str, data: bytes) -> None:
        with self._lock:
            self._entries[key] = data

    def commit(self, keys: Sequence[str], data: bytes) -> None:
        """Set all of the keys to the same data, seen by others at one instant."""
        with self._lock:
            for key in keys:
                self._entries[key] = data

    def delete(self, key: str) -> None:
        with self._lock:
            del self._entries[key]


class ReadWriteLockedDict:
    """A dict under the fair lock of readerwriterlock."""

    def __init__(self, entries: dict[str, bytes]) -> None:
        # Guards _entries.
        self._lock = RWLockFair()
        self._entries = entries

    def get(self, key: str) -> bytes | None:
        with self._lock.gen_rlock():
            return self._entries.get(key)

    def set(self, key: str, data: bytes) -> None:
        with self._lock.gen_wlock():
            self._entries[key] = data

    def commit(self, keys: Sequence[str], data: bytes) -> None:
        """Set all of the keys to the same data, seen by others at one instant."""
        with self._lock.gen_wlock():
            for key in keys:
                self._entries[key] = data

    def delete(self, key: str) -> None:
        with self._lock.gen_wlock():
            del self._entries[key]


class _ImmutableMap:
    """An immutable map that writers replace under a lock, and readers read without one."""

    def __init__(self) -> None:
        import immutables

        # Guards replacing _entries.
        self._lock = threading.Lock()
        self._entries: Any = immutables.Map()

    def get(self, key: str) -> bytes | None:
        found: bytes | None = self._entries.get(key)
        return found

    def set(self, key: str, data: bytes) -> None:
        with self._lock:
            self._entries = self._entries.set(key, data)

    def delete(self, key: str) -> None:
        with self._lock:
            self._entries = self._entries.delete(key)


class _Lmdb:
    """An LMDB environment in memory, one transaction an operation."""

    def __init__(self) -> None:
        import lmdb

        self._folder = _folder()
        self._environment = lmdb.open(self._folder.name, map_size=1 << 30, sync=False, lock=True)

    def get(self, key: str) -> bytes | None:
        with self._environment.begin() as transaction:
            found: bytes | None = transaction.get(key.encode())
            return found

    def set(self, key: str, data: bytes) -> None:
        with self._environment.begin(write=True) as transaction:
            transaction.put(key.encode(), data)

    def delete(self, key: str) -> None:
        with self._environment.begin(write=True) as transaction:
            transaction.delete(key.encode())


class _Sqlite:
    """One connection to an SQLite database in memory, under a lock."""

    def __init__(self) -> None:
        # Guards the connection's transactions, which its threads would share.
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._database.execute("create table entries (key text primary key, data blob) without rowid")

    def get(self, key: str) -> bytes | None:
        with self._lock:
            row = self._database.execute("select data from entries where key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def set(self, key: str, data: bytes) -> None:
        with self._lock:
            self._database.execute("insert or replace into entries values (?, ?)", (key, data))

    def delete(self, key: str) -> None:
        with self._lock:
            self._database.execute("delete from entries where key = ?", (key,))


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=_MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else None)


def _latchstore() -> Peer:
    store = DictMemoryStore(EventManager())
    return Peer(store.to_bytes, store.from_bytes, store.delete)


def _bare_dict() -> Peer:
    entries: dict[str, bytes] = {}
    return Peer(entries.get, entries.__setitem__, entries.__delitem__)


def _of(store: Any) -> Peer:
    return Peer(store.get, store.set, store.delete)


def _encore() -> Peer:
    from encore.events.event_manager import EventManager as EncoreEventManager
    from encore.storage.dict_memory_store import DictMemoryStore as EncoreStore

    store = EncoreStore()
    store.event_manager = EncoreEventManager()  # to which nobody listens
    return Peer(store.to_bytes, store.from_bytes, store.delete)


def _latchstore_cache(capacity: int) -> Peer:
    cache: Cache[Any] = Cache(max_entries=capacity)
    return Peer(cache.get, cache.set, cache.delete)


def _cachetools(capacity: int = CAPACITY) -> Peer:
    import cachetools

    return _of(LockedDict(cachetools.LRUCache(capacity)))


def _cachebox(capacity: int = CAPACITY) -> Peer:
    import cachebox

    cache: Any = cachebox.LRUCache(capacity)
    return Peer(cache.get, cache.__setitem__, cache.__delitem__)


def _moka(capacity: int = CAPACITY) -> Peer:
    import moka_py

    cache: Any = moka_py.Moka(capacity)
    return Peer(cache.get, cache.set, cache.remove)


def _theine(capacity: int = CAPACITY) -> Peer:
    import theine

    return _of(theine.Cache(capacity))


def _dogpile(capacity: int = CAPACITY) -> Peer:
    from dogpile.cache import make_region

    return _of(make_region().configure("dogpile.cache.memory"))  # which has no bound


def _zict(capacity: int = CAPACITY) -> Peer:
    import zict

    cache: Any = zict.LRU(capacity, {})
    return Peer(cache.get, cache.__setitem__, cache.__delitem__)


def _diskcache() -> Peer:
    import diskcache

    folder = _folder()
    cache: Any = diskcache.Cache(folder.name)
    cache.folder = folder  # kept as long as the cache
    return _of(cache)


#: The library that each peer needs, and how the peer is made. Ours first, the limit last.
_MAKERS: Mapping[str, tuple[str | None, Callable[[], Peer]]] = {
    "latchstore": (None, _latchstore),
    "dict + Lock": (None, lambda: _of(LockedDict({}))),
    "dict + RWLockFair": ("readerwriterlock", lambda: _of(ReadWriteLockedDict({}))),
    "encore": ("encore", _encore),
    "cachetools LRU + Lock": ("cachetools", _cachetools),
    "cachebox LRU": ("cachebox", _cachebox),
    "moka-py": ("moka-py", _moka),
    "theine": ("theine", _theine),
    "dogpile memory": ("dogpile.cache", _dogpile),
    "zict LRU": ("zict", _zict),
    "immutables Map + Lock": ("immutables", lambda: _of(_ImmutableMap())),
    "sqlite :memory: + Lock": (None, lambda: _of(_Sqlite())),
    "lmdb in memory": ("lmdb", lambda: _of(_Lmdb())),
    "diskcache in memory": ("diskcache", _diskcache),
    "dict, unguarded": (None, _bare_dict),
}

#: The same for those that are caches, to be made with a bound.
_CACHES: Mapping[str, tuple[str | None, Callable[[int], Peer]]] = {
    "latchstore Cache": (None, _latchstore_cache),
    "cachetools LRU + Lock": ("cachetools", _cachetools),
    "cachebox LRU": ("cachebox", _cachebox),
    "moka-py": ("moka-py", _moka),
    "theine": ("theine", _theine),
    "dogpile memory": ("dogpile.cache", _dogpile),
    "zict LRU": ("zict", _zict),
}

OURS = "latchstore"
LIMIT = "dict, unguarded"


def peers() -> dict[str, Callable[[], Peer]]:
    """Return what makes each peer that is installed, by name."""
    return {name: make for name, (library, make) in _MAKERS.items() if _version(library) is not None}


def caches() -> dict[str, Callable[[int], Peer]]:
    """Return what makes each cache that is installed, with room for so many entries, by name."""
    return {name: make for name, (library, make) in _CACHES.items() if _version(library) is not None}


def versions() -> str:
    """Say which version of each library is measured, and which libraries are missing."""
    found = {library: _version(library) for library, _ in _MAKERS.values() if library is not None}
    there = [f"{library} {version}" for library, version in found.items() if version is not None]
    missing = [library for library, version in found.items() if version is None]
    said = ", ".join([f"sqlite {sqlite3.sqlite_version}", *there])
    return said + (f". Not installed, so left out: {', '.join(missing)}" if missing else "")


def _version(library: str | None) -> str | None:
    if library is None:
        return ""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
