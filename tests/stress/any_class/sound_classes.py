"""Sound classes of others, and ours: none of them may give an alarm."""

from __future__ import annotations

import functools
import queue
import threading
from typing import Any

import cachetools

from latchstore import Cache, DictMemoryStore, EventManager
from latchstore.stress import REFUSED, Test, operation

KEYS = ["a", "b", "c"]

#: What the cache loads.
LOADED = 0


class Sound(Test):
    """What these tests have in common."""

    __test__ = False
    seconds = 100.0
    schedules = 30


class QueueTest(Sound):
    def make(self) -> Any:
        return queue.Queue(2)

    @operation(item=[1, 2, 3])
    def put(self, subject: Any, item: int) -> None:
        subject.put(item)

    @operation()
    def get(self, subject: Any) -> Any:
        return subject.get()

    @operation()
    def put_nowait(self, subject: Any) -> None:
        subject.put_nowait(0)

    @operation()
    def get_nowait(self, subject: Any) -> Any:
        return subject.get_nowait()

    @operation()
    def qsize(self, subject: Any) -> int:
        return int(subject.qsize())


class SimpleQueueTest(Sound):
    """Written in C, so native threads use it."""

    def make(self) -> Any:
        return queue.SimpleQueue()

    @operation(item=[1, 2, 3])
    def put(self, subject: Any, item: int) -> None:
        subject.put(item)

    @operation()
    def get_nowait(self, subject: Any) -> Any:
        return subject.get_nowait()

    @operation()
    def qsize(self, subject: Any) -> int:
        return int(subject.qsize())


class LockedLRU:
    """A cache of cachetools, used as its documentation has it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cache: cachetools.LRUCache[str, int] = cachetools.LRUCache(2)

    def get(self, key: str) -> int | None:
        with self.lock:
            value: int | None = self.cache.get(key)
            return value

    def put(self, key: str, value: int) -> None:
        with self.lock:
            self.cache[key] = value


class LockedLRUTest(Sound):
    modules = (__name__, "cachetools")

    def make(self) -> Any:
        return LockedLRU()

    @operation(key=KEYS, value=[1, 2])
    def put(self, cache: Any, key: str, value: int) -> None:
        cache.put(key, value)

    @operation(key=KEYS)
    def get(self, cache: Any, key: str) -> Any:
        return cache.get(key)


class MemoizedTest(Sound):
    """`functools.lru_cache`, which is written in C and calls Python."""

    def make(self) -> Any:
        return functools.lru_cache(2)(lambda number: number * 2)

    @operation(number=[1, 2, 3])
    def call(self, subject: Any, number: int) -> int:
        return int(subject(number))

    @operation()
    def clear(self, subject: Any) -> None:
        subject.cache_clear()


class StoreTest(Sound):
    """Our store: single keys, several at once, transactions, conditions."""

    def make(self) -> Any:
        return DictMemoryStore(EventManager())

    @operation(key=KEYS, value=[b"1", b"2"])
    def set(self, store: Any, key: str, value: bytes) -> None:
        store.from_bytes(key, value)

    @operation(key=KEYS)
    def get(self, store: Any, key: str) -> bytes:
        return bytes(store.to_bytes(key))

    @operation(key=KEYS)
    def delete(self, store: Any, key: str) -> None:
        store.delete(key)

    @operation()
    def everything(self, store: Any) -> Any:
        return {key: value.data.read() for key, value in zip("abc", store.multiget(list("abc")), strict=True)}

    @operation(optimistic=[False, True])
    def move(self, store: Any, optimistic: bool) -> None:
        # A single optimistic transaction may meet a conflict, which no order of whole calls gives.
        for attempt in store.attempts("move") if optimistic else [store.transaction("move")]:
            with attempt:
                store.from_bytes("b", store.to_bytes("a"))
                store.delete("a")

    def state(self, store: Any) -> object:
        return {key: store.to_bytes(key) for key in store.query_keys()}

    def teardown(self, store: Any) -> None:
        store.close()


class CacheModel:
    """A cache of two entries, which may evict any of them at any time; the state is what was written last.

    Which one it evicts is no part of the model: a policy takes a hit into account with the next commit, so
    the hit of a `pop` may count where its removal does not yet.
    """

    initial: frozenset[tuple[str, int]] = frozenset()

    def step(self, state: frozenset[tuple[str, int]], call: Any, answer: Any) -> Any:
        if call.name == "size":
            return state if 0 <= answer <= min(2, len(state)) else REFUSED
        values = dict(state)
        key = call.arguments["key"]
        held = values.pop(key, None)
        if call.name == "set":
            values[key] = call.arguments["value"]
        elif call.name == "get_or_load":
            if answer not in (held, LOADED):
                return REFUSED
            values[key] = answer
        elif answer not in (held, None):  # pop
            return REFUSED
        return frozenset(values.items())


class CacheTest(Sound):
    """Our cache of two entries."""

    model = CacheModel()

    def make(self) -> Any:
        return Cache(max_entries=2, policy="lru")

    @operation(key=KEYS, value=[1, 2])
    def set(self, cache: Any, key: str, value: int) -> None:
        cache[key] = value

    @operation(key=KEYS)
    def get_or_load(self, cache: Any, key: str) -> Any:
        return cache.get_or_load(key, lambda key: LOADED)

    @operation(key=KEYS)
    def pop(self, cache: Any, key: str) -> Any:
        return cache.pop(key, None)

    @operation()
    def size(self, cache: Any) -> int:
        return len(cache)

    def state(self, cache: Any) -> object:
        return None

    def teardown(self, cache: Any) -> None:
        cache.store.close()


SOUND = (QueueTest, SimpleQueueTest, LockedLRUTest, MemoizedTest, StoreTest, CacheTest)
