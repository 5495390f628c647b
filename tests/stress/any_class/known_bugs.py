"""Races of public packages, from their issue trackers: the defect alone, in a few lines written anew.

Each class names where it was reported.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from typing import Any

import cachetools

from latchstore.stress import Test, operation

KEYS = ["a", "b", "c"]


class Known(Test):
    """What these tests have in common."""

    __test__ = False
    seconds = 100.0
    schedules = 3_000


class ClockCache:
    """github.com/repoze/repoze.lru/issues/6: `clear` rebuilds the list of slots while `get` indexes it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self.data: dict[str, tuple[int, int]] = {}
        self.slots: list[dict[str, Any]] = []
        for _ in range(self.size):
            self.slots.append({"key": None, "used": False})
        self.hand = 0

    def get(self, key: str) -> int | None:
        found = self.data.get(key)
        if found is None:
            return None
        place, value = found
        self.slots[place]["used"] = True
        return value

    def put(self, key: str, value: int) -> None:
        with self.lock:
            if key in self.data:
                self.data[key] = (self.data[key][0], value)
                return
            while self.slots[self.hand]["used"]:
                self.slots[self.hand]["used"] = False
                self.hand = (self.hand + 1) % self.size
            evicted = self.slots[self.hand]["key"]
            self.data.pop(evicted, None)
            self.slots[self.hand] = {"key": key, "used": False}
            self.data[key] = (self.hand, value)
            self.hand = (self.hand + 1) % self.size


class ClockCacheTest(Known):
    def make(self) -> Any:
        return ClockCache(2)

    @operation(key=KEYS, value=[1, 2])
    def put(self, cache: Any, key: str, value: int) -> None:
        cache.put(key, value)

    @operation(key=KEYS)
    def get(self, cache: Any, key: str) -> Any:
        return cache.get(key)

    @operation()
    def clear(self, cache: Any) -> None:
        cache.clear()


class LinkedLRU:
    """github.com/mahmoud/boltons/issues/52: two threads evict the same oldest key."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: OrderedDict[str, int] = OrderedDict()

    def put(self, key: str, value: int) -> None:
        if key not in self.items and len(self.items) >= self.size:
            oldest = next(iter(self.items))
            del self.items[oldest]
        self.items[key] = value


class LinkedLRUTest(Known):
    def make(self) -> Any:
        return LinkedLRU(1)

    @operation(key=KEYS, value=[1, 2])
    def put(self, cache: Any, key: str, value: int) -> None:
        cache.put(key, value)

    def state(self, cache: Any) -> object:
        return dict(cache.items)


class Pools:
    """github.com/urllib3/urllib3/pull/204: of two pools for a host the first is closed, yet returned."""

    class Pool:
        def __init__(self) -> None:
            self.is_open = True

    def __init__(self) -> None:
        self.pools: dict[str, Pools.Pool] = {}
        self.lock = threading.RLock()

    def _get(self, host: str) -> Pools.Pool | None:
        with self.lock:
            return self.pools.get(host)

    def _set(self, host: str, pool: Pools.Pool) -> None:
        with self.lock:
            replaced = self.pools.get(host)
            self.pools[host] = pool
            if replaced is not None:
                replaced.is_open = False

    def pool_of(self, host: str) -> Pools.Pool:
        pool = self._get(host)
        if pool is None:
            pool = Pools.Pool()
            self._set(host, pool)
        return pool


class PoolsTest(Known):
    def make(self) -> Any:
        return Pools()

    @operation(host=KEYS)
    def is_open(self, pools: Any, host: str) -> bool:
        return bool(pools.pool_of(host).is_open)


class Connections:
    """github.com/cqlengine/cqlengine/pull/155: looks whether there is a connection, then takes one."""

    def __init__(self) -> None:
        self.free: queue.Queue[int] = queue.Queue()
        self.free.put(1)

    def take(self) -> int:
        if self.free.empty():
            return 0  # a new one
        return self.free.get(block=False)


class ConnectionsTest(Known):
    def make(self) -> Any:
        return Connections()

    @operation()
    def take(self, connections: Any) -> int:
        return int(connections.take())

    @operation()
    def give_back(self, connections: Any) -> None:
        connections.free.put(1)


class SizedPool:
    """github.com/mozilla-services/ldappool/issues/10: the size is looked at outside of the lock."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.connections: list[int] = []
        self.lock = threading.Lock()

    def connect(self) -> int:
        if len(self.connections) >= self.size:
            raise RuntimeError("no connection is free")
        with self.lock:
            self.connections.append(1)
            return len(self.connections)


class SizedPoolTest(Known):
    def make(self) -> Any:
        return SizedPool(2)

    @operation()
    def connect(self, pool: Any) -> int:
        return int(pool.connect())


class SimpleCache:
    """github.com/pallets-eco/flask-caching/issues/572: iterates over a dict that others change."""

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.cache: dict[str, tuple[int, int]] = {}
        self.now = 0

    def _prune(self) -> None:
        if len(self.cache) > self.threshold:
            expired = [key for key, (expires, _) in self.cache.items() if expires < self.now]
            for key in expired:
                self.cache.pop(key, None)

    def set(self, key: str, value: int) -> None:
        self._prune()
        self.cache[key] = (1, value)

    def delete(self, key: str) -> bool:
        return self.cache.pop(key, None) is not None


class SimpleCacheTest(Known):
    def make(self) -> Any:
        return SimpleCache(1)

    @operation(key=KEYS, value=[1])
    def set(self, cache: Any, key: str, value: int) -> None:
        cache.set(key, value)

    @operation(key=KEYS)
    def delete(self, cache: Any, key: str) -> bool:
        return bool(cache.delete(key))


class MemoryStorage:
    """github.com/alisaifee/limits/pull/352: two threads start one timer."""

    class Timer:
        def __init__(self) -> None:
            self.started = False

        def start(self) -> None:
            if self.started:
                raise RuntimeError("threads can only be started once")
            self.started = True

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.lock = threading.Lock()
        self.timer = MemoryStorage.Timer()

    def increment(self, key: str) -> int:
        if not self.timer.started:
            self.timer.start()
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.counts[key]


class MemoryStorageTest(Known):
    def make(self) -> Any:
        return MemoryStorage()

    @operation(key=KEYS)
    def increment(self, storage: Any, key: str) -> int:
        return int(storage.increment(key))


class UnlockedCachetoolsTest(Known):
    """github.com/tkem/cachetools/issues/115 and many more: the package itself, used without a lock."""

    modules = ("cachetools",)

    def make(self) -> Any:
        return cachetools.LRUCache(2)

    @operation(key=KEYS, value=[1, 2])
    def put(self, cache: Any, key: str, value: int) -> None:
        cache[key] = value

    @operation(key=KEYS)
    def get(self, cache: Any, key: str) -> Any:
        return cache.get(key)


RACY = (
    ClockCacheTest,
    LinkedLRUTest,
    PoolsTest,
    ConnectionsTest,
    SizedPoolTest,
    SimpleCacheTest,
    MemoryStorageTest,
    UnlockedCachetoolsTest,
)
