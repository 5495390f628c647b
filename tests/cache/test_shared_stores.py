"""A cache of a store that others use, too, or of another kind; saved, loaded, dropped; not pickled."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, StoreEvictEvent
from latchstore.cache.inspection import bounded_of, check
from latchstore.engine.entry_facts import OVERHEAD
from latchstore.engine.inspection import table_of
from tests.cache.clocks import TIMEOUT, Clock
from tests.contract.reference_store import ReferenceStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


def heard(*caches: Cache) -> None:
    """Wait until the caches have heard of all that was written, and of what they have evicted for it."""
    store = caches[0].store
    revision = None
    while revision != (revision := store.info()["revision"]):
        store.flush(TIMEOUT)
        store.flush(TIMEOUT)  # an eviction on the store's thread is itself heard of
    for cache in caches:
        check(cache)


class TestOthersWrite:
    def test_what_is_there_already_counts(self, store: DictMemoryStore) -> None:
        store.mapping().update({f"key{number}": number for number in range(10)})
        cache = Cache(store, codec="pickle", max_entries=4)
        assert len(cache) == len(store) == 4
        heard(cache)
        assert cache.stats()["evictions"]["size"] == 6

    def test_what_is_set_is_seen_and_bounded(self, store: DictMemoryStore) -> None:
        cache = Cache(store, codec="pickle", max_entries=4)
        for number in range(10):
            store.mapping()[f"key{number}"] = number
            assert cache.get(f"key{number}") in (number, None)
        heard(cache)
        assert len(store) == 4
        assert cache.stats()["entries"] == 4

    def test_what_is_set_in_one_commit(self, store: DictMemoryStore) -> None:
        cache = Cache(store, max_bytes=1_000, codec="raw")
        store.mapping("raw").update({f"key{number}": bytes(20) for number in range(10)})
        heard(cache)
        assert 0 < cache.stats()["bytes"] <= 1_000

    def test_what_is_replaced_weighs_anew(self, store: DictMemoryStore) -> None:
        cache = Cache(store, codec="raw")
        cache["a"] = bytes(10)
        store.from_bytes("a", bytes(50))
        heard(cache)
        assert cache.stats()["bytes"] == OVERHEAD + 51
        assert cache["a"] == bytes(50)

    def test_what_is_deleted_is_forgotten(self, store: DictMemoryStore) -> None:
        cache = Cache(store, codec="pickle", max_entries=2)
        cache.update(a=1, b=2)
        store.delete("a")
        assert "a" not in cache
        heard(cache)
        cache["c"] = 3
        assert dict(cache) == {"b": 2, "c": 3}
        assert cache.stats()["evictions"]["size"] == 0

    def test_what_says_when_it_expires(self, store: DictMemoryStore, clock: Clock) -> None:
        cache = Cache(store, clock=clock, codec="raw")
        store.set("a", (b"1", {"cache_expires": clock.now + 5.0}))
        assert cache.get("a") == b"1"
        clock.now += 5.0
        assert cache.get("a") is None
        heard(cache)
        cache.sweep()
        assert "a" not in store

    def test_what_is_rolled_back_does_not_count(self, store: DictMemoryStore) -> None:
        cache = Cache(store, codec="pickle", max_entries=2)
        cache.update(a=1, b=2)
        with store.transaction() as transaction:
            store.mapping().update(c=3, d=4)
            transaction.doom()
        heard(cache)
        assert dict(cache) == {"a": 1, "b": 2}

    def test_by_many_threads(self, store: DictMemoryStore) -> None:
        cache = Cache(store, codec="pickle", max_entries=30)
        barrier = threading.Barrier(8)

        def run(number: int) -> None:
            barrier.wait(TIMEOUT)
            for each in range(100):
                key = f"key{(number * 13 + each) % 60}"
                if number % 2:
                    store.mapping()[key] = each
                else:
                    cache[key] = each
                if each % 7 == 0:
                    cache.pop(key, None)

        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(run, number) for number in range(8)]:
                future.result(TIMEOUT)
        heard(cache)
        assert len(store) <= 30


class TestTwoCaches:
    def test_each_sees_what_the_other_has_done(self, store: DictMemoryStore) -> None:
        first, second = Cache(store, codec="pickle"), Cache(store, codec="pickle")
        first["a"] = 1
        assert second["a"] == 1
        second["a"] = 2
        assert first["a"] == 2
        del second["a"]
        assert "a" not in first
        heard(first, second)

    def test_the_narrower_bound_holds_for_both(self, store: DictMemoryStore) -> None:
        wide, narrow = (
            Cache(store, codec="pickle", max_entries=50),
            Cache(store, codec="pickle", max_entries=5),
        )
        wide.update({f"key{number}": number for number in range(40)})
        heard(wide, narrow)
        assert len(wide) == len(narrow) == 5

    def test_expiry(self, store: DictMemoryStore, clock: Clock) -> None:
        first, second = Cache(store, codec="pickle", clock=clock), Cache(store, codec="pickle", clock=clock)
        first.set("a", 1, ttl=5.0)
        second.touch("a", 50.0)
        clock.now += 6.0
        assert first["a"] == second["a"] == 1
        heard(first, second)
        assert first.sweep() == second.sweep() == 0
        clock.now += 50.0
        assert first.get("a") is second.get("a") is None
        first.sweep()
        second.sweep()
        heard(first, second)
        assert "a" not in store

    def test_a_closed_one_follows_no_more(self, store: DictMemoryStore) -> None:
        first, second = Cache(store, codec="pickle", max_entries=2), Cache(store, codec="pickle")
        first.close()
        second.update({f"key{number}": number for number in range(5)})
        heard(second)
        assert len(store) == 5


class TestOtherStores:
    def test_a_store_that_cannot_bound_itself_is_refused(self, store: DictMemoryStore) -> None:
        for other in (ReferenceStore(EventManager()), store.transaction()):
            with pytest.raises(
                TypeError, match=r"in its own commits.* a (ReferenceStore|Transaction) cannot"
            ):
                Cache(other)

    def test_a_store_of_encores_is_refused(self) -> None:
        memory = pytest.importorskip("encore.storage.dict_memory_store")
        with pytest.raises(TypeError, match="store must be an AbstractStore or None"):
            Cache(memory.DictMemoryStore())


class TestSaving:
    def test_what_is_loaded_expires_by_the_same_clock(self, clock: Clock, tmp_path: Path) -> None:
        path = tmp_path / "cache"
        with Cache(clock=clock) as cache:
            cache.set("short", 1, ttl=5.0)
            cache.set("long", 2, ttl=50.0)
            cache.set("for ever", 3, idle=math.inf, tags=["old"])
            cache.store.save(path)  # type: ignore[attr-defined]
        clock.now += 10.0
        with DictMemoryStore.load(path, EventManager()) as store:
            gone: list[Any] = []
            store.event_manager.connect(StoreEvictEvent, gone.append)
            cache = Cache(store, codec="reference", clock=clock, max_entries=10)
            assert dict(cache) == {"long": 2, "for ever": 3}
            assert cache.remaining("long") == 40.0
            assert cache.remaining("for ever") is None
            cache.sweep()
            heard(cache)
            assert [(event.key, event.cause) for event in gone] == [("short", "expired")]
            assert dict(cache) == {"long": 2, "for ever": 3}
            assert cache.invalidate_tag("old") == 1
            assert dict(cache) == {"long": 2}


def unused(cache: Cache) -> list[weakref.ref[Any]]:
    """Return references to what has to go with a cache."""
    cache.set("a", 1, ttl=1_000.0)
    cache.get_or_load("b", lambda key: 2)
    cache.store.flush(TIMEOUT)
    return [weakref.ref(cache), weakref.ref(bounded_of(cache))]


class TestDropping:
    def test_one_with_a_store_of_its_own(self) -> None:
        cache = Cache(max_entries=10)
        references = [*unused(cache), weakref.ref(cache.store)]
        del cache
        gc.collect()
        assert [reference() for reference in references] == [None] * 3

    def test_one_of_a_shared_store(self, store: DictMemoryStore) -> None:
        cache = Cache(store, codec="pickle", max_entries=10)
        references = unused(cache)
        del cache
        gc.collect()
        assert [reference() for reference in references] == [None] * 2
        store.mapping().update({f"key{number}": number for number in range(20)})
        store.flush(TIMEOUT)
        assert len(store) == 22
        assert table_of(store).bounds == ()

    @pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_no_copies(self, copied: Callable[[Cache], object]) -> None:
        with Cache() as cache, pytest.raises(TypeError, match="a cache cannot be pickled or copied"):
            copied(cache)
