"""The Django backend, beside Django's own tests (test_suites.py): what those do not look at."""

from __future__ import annotations

import asyncio
import pickle
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("django", reason="needs latchstore[django]")

from django.core.cache import CacheHandler
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured

from latchstore import Cache, DictMemoryStore
from latchstore.backends import django as backend
from latchstore.backends.django import LatchstoreCache
from tests.fork.children import in_child, needs_fork

BACKEND = "latchstore.backends.django.LatchstoreCache"
THREADS = 16
TIMEOUT = 30


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def no_caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    caches: dict[str, tuple[Cache, dict[str, Any]]] = {}
    monkeypatch.setattr(backend, "_caches", caches)
    yield
    for cache, _ in caches.values():
        cache.close()


@pytest.fixture
def cache(clock: Clock) -> LatchstoreCache:
    """Return a backend whose cache has the clock of the test."""
    options = {"max_entries": 300}
    backend._caches["clocked"] = (Cache(codec="raw", clock=clock, **options), options)  # type: ignore[arg-type]
    return LatchstoreCache("clocked", {})


def new(location: str = "", **options: Any) -> LatchstoreCache:
    return LatchstoreCache(location, {"OPTIONS": options})


def store_of(cache: LatchstoreCache) -> DictMemoryStore:
    store = cache.cache.store
    assert isinstance(store, DictMemoryStore)
    return store


class TestSettings:
    def test_a_location_is_one_cache_and_another_is_another(self) -> None:
        first, same, other = new("a"), new("a"), new("b")
        first.set("key", 1)
        assert same.get("key") == 1
        assert other.get("key") is None

    def test_all_threads_of_a_process_share_it(self) -> None:
        caches = CacheHandler({"default": {"BACKEND": BACKEND, "LOCATION": "shared"}})
        caches["default"].set("key", "value")
        with ThreadPoolExecutor(1) as pool:
            instance, value = pool.submit(lambda: (caches["default"], caches["default"].get("key"))).result()
        assert instance is not caches["default"]
        assert value == "value"

    def test_threads_that_ask_first_at_once_get_the_same(self) -> None:
        barrier = threading.Barrier(THREADS)

        def ask(_: int) -> Cache:
            barrier.wait(TIMEOUT)
            return new("raced").cache

        with ThreadPoolExecutor(THREADS) as pool:
            assert len({id(cache) for cache in pool.map(ask, range(THREADS))}) == 1

    def test_bounds(self) -> None:
        assert (new("default").cache.max_entries, new("default").cache.max_bytes) == (300, None)
        bounded = new("bytes", max_bytes=1_000, policy="lru", idle=5.0).cache
        assert (bounded.max_entries, bounded.max_bytes) == (None, 1_000)
        both = new("both", max_bytes=1_000, MAX_ENTRIES=7, CULL_FREQUENCY=2).cache
        assert (both.max_entries, both.max_bytes) == (7, 1_000)

    def test_the_bound_is_kept(self) -> None:
        cache = new(MAX_ENTRIES=10)
        for number in range(100):
            cache.set(str(number), number)
            assert len(cache.cache) <= 10
        assert cache.get("99") == 99

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"MAX_ENTRY": 1}, "unknown OPTIONS MAX_ENTRY of"),
            ({"MAX_ENTRIES": 0}, "max_entries must be at least 1, got 0"),
            ({"MAX_ENTRIES": "many"}, "max_entries must be an int"),
            ({"policy": "random"}, "policy must be one of"),
        ],
    )
    def test_options_that_cannot_be_right(self, options: dict[str, Any], told: str) -> None:
        with pytest.raises(ImproperlyConfigured, match=told):
            new(**options)

    def test_one_location_with_different_options(self) -> None:
        new("same", MAX_ENTRIES=10)
        with pytest.raises(ImproperlyConfigured, match="LOCATION 'same' already"):
            new("same", MAX_ENTRIES=20)

    def test_prefix_and_version_keep_apart_what_shares_a_location(self) -> None:
        plain = LatchstoreCache("", {})
        prefixed = LatchstoreCache("", {"KEY_PREFIX": "site", "VERSION": 2})
        prefixed.set("key", 1)
        assert plain.get("key") is None
        assert list(plain.cache) == ["site:2:key"]

    def test_close_which_ends_each_request_closes_nothing(self) -> None:
        cache = new()
        cache.set("key", 1)
        cache.close()
        assert cache.get("key") == 1


class TestTimeouts:
    def test_default(self, clock: Clock, cache: LatchstoreCache) -> None:
        cache.set("key", 1)
        clock.now = 299.9
        assert cache.get("key") == 1
        clock.now = 300.0
        assert cache.get("key") is None

    @pytest.mark.parametrize("timeout", [0, -1, -0.5])
    def test_no_time_at_all(self, cache: LatchstoreCache, timeout: float) -> None:
        cache.set("key", "old")
        cache.set("key", "new", timeout)
        assert not cache.has_key("key")
        assert cache.add("key", 1, timeout)
        assert cache.get("key") is None
        cache.set("key", 2)
        assert not cache.add("key", 3, timeout)
        assert cache.get("key") == 2
        assert cache.touch("key", timeout)
        assert cache.get("key") is None
        assert not cache.touch("key", timeout)
        assert cache.set_many({"key": 1}, timeout) == []
        assert cache.get_or_set("key", lambda: 5, timeout) == 5
        assert cache.get("key") is None

    def test_none_is_for_ever(self, clock: Clock, cache: LatchstoreCache) -> None:
        cache.set("set", 1, None)
        cache.add("added", 1, None)
        cache.get_or_set("loaded", 1, None)
        cache.set("touched", 1, 5)
        cache.touch("touched", None)
        clock.now = 1e9
        assert sorted(cache.get_many(["set", "added", "loaded", "touched"])) == [
            "added",
            "loaded",
            "set",
            "touched",
        ]

    def test_incr_leaves_the_time_as_it_is(self, clock: Clock, cache: LatchstoreCache) -> None:
        cache.set("key", 1, 10)
        clock.now = 9.0
        cache.incr("key")
        assert cache.cache.remaining(cache.make_key("key")) == 1.0

    def test_get_or_set(self, clock: Clock, cache: LatchstoreCache) -> None:
        cache.get_or_set("key", 1, 10)
        clock.now = 10.0
        assert cache.get_or_set("key", 2, 10) == 2


class TestThreads:
    def test_no_increment_is_lost(self) -> None:
        cache = new()
        cache.set("counter", 0)
        barrier = threading.Barrier(THREADS)

        def increase(_: int) -> list[int]:
            barrier.wait(TIMEOUT)
            return [cache.incr("counter") for _ in range(100)]

        with ThreadPoolExecutor(THREADS) as pool:
            results = [result for results in pool.map(increase, range(THREADS)) for result in results]
        assert cache.get("counter") == 100 * THREADS
        assert sorted(results) == list(range(1, 100 * THREADS + 1))

    def test_one_of_many_adds_wins(self) -> None:
        cache = new()
        barrier = threading.Barrier(THREADS)

        def add(number: int) -> bool:
            barrier.wait(TIMEOUT)
            return cache.add("key", number)

        with ThreadPoolExecutor(THREADS) as pool:
            added = list(pool.map(add, range(THREADS)))
        assert added.count(True) == 1
        assert cache.get("key") == added.index(True)

    def test_get_or_set_calls_once_for_all_who_ask(self) -> None:
        cache = new()
        calls: list[str] = []
        # The callable waits until all others are on their way, so that none finds the value by being late.
        barrier = threading.Barrier(THREADS)

        def load() -> str:
            calls.append(threading.current_thread().name)
            return "loaded"

        def ask(_: int) -> Any:
            barrier.wait(TIMEOUT)
            return cache.get_or_set("key", load)

        with ThreadPoolExecutor(THREADS) as pool:
            assert set(pool.map(ask, range(THREADS))) == {"loaded"}
        assert len(calls) == 1

    def test_incr_version_is_one_step(self) -> None:
        cache = new()
        cache.set("key", "value")
        with store_of(cache).watch() as watch:
            assert cache.incr_version("key") == 2
            changes = [watch.get(timeout=TIMEOUT) for _ in range(2)]
        assert changes[0].revision == changes[1].revision
        assert (cache.get("key"), cache.get("key", version=2)) == (None, "value")

    def test_coroutines_lose_no_increment_either(self) -> None:
        cache = new()
        cache.set("counter", 0)

        async def increase() -> None:
            await asyncio.gather(*(cache.aincr("counter") for _ in range(50)))
            await cache.adecr("counter", 8)

        asyncio.run(increase())
        assert cache.get("counter") == 42

    def test_coroutines(self) -> None:
        cache = new()

        async def use() -> None:
            assert await cache.aset_many({"a": 1, "b": 2}) == []
            assert await cache.aget_many(["a", "b", "c"]) == {"a": 1, "b": 2}
            assert await cache.aincr_version("a") == 2
            await cache.adelete_many(["b"])
            assert await cache.aget_many(["a", "b"]) == {}
            assert await cache.aget_or_set("c", lambda: 3) == 3
            assert await cache.aget_or_set("c", lambda: 4) == 3
            assert await cache.aget_or_set("d", coroutine) == 5
            assert await cache.aget_or_set("e", 6) == await cache.aget("e") == 6
            await cache.aset("f", [1], timeout=100)
            assert await cache.aget("f") == [1]
            assert await cache.ahas_key("f")
            assert await cache.atouch("f", 50)
            assert not await cache.aadd("f", 2)
            assert await cache.aadd("g", 2)
            assert await cache.adelete("g")
            assert not await cache.adelete("g")
            assert await cache.aincr("d", 2) == 7
            with pytest.raises(ValueError, match="'none' not found"):
                await cache.aincr("none")
            await cache.aclear()
            assert not await cache.ahas_key("f")

        async def coroutine() -> int:
            return 5

        asyncio.run(use())

    def test_coroutines_need_no_thread_where_nothing_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = new()

        def refuse(function: Any) -> Any:
            raise AssertionError(f"{function} was to be called in a thread")

        async def use() -> None:
            monkeypatch.setattr(backend, "sync_to_async", refuse)
            await cache.aset("a", 1)
            assert await cache.aincr("a") == 2
            assert await cache.aset_many({"b": 2}) == []
            assert await cache.aget_many(["a", "b"]) == {"a": 2, "b": 2}
            assert await cache.aget_or_set("a", 0) == 2
            assert await cache.aget_or_set("d", 4) == await cache.aget("d") == 4
            assert await cache.aget_or_set("e", coroutine) == 5
            assert await cache.aadd("c", 3)
            assert await cache.ahas_key("c")
            assert await cache.atouch("c", 50)
            assert await cache.adecr("c") == 2
            assert await cache.aincr_version("c") == 2
            assert await cache.adecr_version("c", version=2) == 1
            with pytest.raises(ValueError, match="'none' not found"):
                await cache.aincr_version("none")
            assert await cache.adelete("c")
            await cache.adelete_many(["a", "d"])
            await cache.aclear()
            await cache.aclose()

        async def coroutine() -> int:
            return 5

        asyncio.run(use())

    def test_a_coroutine_that_has_to_wait_for_a_writer_does_so_in_a_thread(self) -> None:
        cache = new()
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with store_of(cache).transaction():
                entered.set()
                leave.wait(TIMEOUT)

        async def use() -> None:
            writing = asyncio.create_task(cache.aset("a", 1))
            await asyncio.sleep(0)
            assert await cache.aget("a") is None, "the loop goes on, and so do reads"
            leave.set()
            await writing
            assert await cache.aget("a") == 1

        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(hold)
            entered.wait(TIMEOUT)
            asyncio.run(use())
            held.result(TIMEOUT)


@needs_fork
class TestFork:
    def test_a_child_begins_with_what_there_is_and_goes_on_by_itself(self) -> None:
        cache = new("forked", MAX_ENTRIES=10)
        cache.set("key", "parent's")
        stop, began = threading.Event(), threading.Event()

        def write() -> None:
            while not stop.is_set():
                cache.incr("counter")
                began.set()

        cache.set("counter", 0)
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            assert began.wait(TIMEOUT)

            def use() -> None:
                worker = new("forked", MAX_ENTRIES=10)
                assert worker.cache is cache.cache
                assert worker.get("key") == "parent's"
                counted = worker.get("counter")
                assert [worker.incr("counter") for _ in range(3)] == [counted + 1, counted + 2, counted + 3]
                assert worker.get_or_set("loaded", lambda: "child's") == "child's"
                worker.set_many({str(number): number for number in range(20)})
                assert len(worker.cache) == 10
                worker.clear()
                assert worker.get("key") is None

            assert [in_child(use) for _ in range(10)] == [""] * 10
        finally:
            stop.set()
            for thread in threads:
                thread.join(TIMEOUT)
        assert cache.get("key") == "parent's"
        assert cache.get("loaded") is None


class TestValues:
    def test_get_or_set_that_asks_for_its_own_key(self) -> None:
        cache = new()
        depth: list[int] = []

        def load() -> int:
            depth.append(1)
            return 7 if len(depth) > 1 else cache.get_or_set("key", load) + 1

        assert cache.get_or_set("key", load) in (7, 8)
        assert cache.get("key") in (7, 8)

    def test_get_or_set_that_fails_is_told_and_not_kept(self) -> None:
        cache = new()

        def fail() -> None:
            raise LookupError("no such user")

        with pytest.raises(LookupError, match="no such user"):
            cache.get_or_set("key", fail)
        assert cache.get_or_set("key", 1) == 1

    def test_a_value_that_is_too_heavy_is_not_kept_nor_is_the_one_before(self) -> None:
        cache = new(max_bytes=1_000)
        cache.set("key", "light")
        cache.set("key", "x" * 2_000)
        assert cache.get("key") is None
        assert not cache.add("key", "x" * 2_000)
        assert cache.set_many({"light": 1, "heavy": "x" * 2_000}) == ["heavy"]
        assert cache.get_or_set("key", "x" * 2_000) == "x" * 2_000
        assert cache.get_many(["light", "heavy", "key"]) == {"light": 1}

    def test_what_cannot_be_pickled_changes_nothing(self) -> None:
        cache = new()
        cache.set_many({"a": 1, "b": 2})
        with pytest.raises((pickle.PickleError, AttributeError, TypeError)):
            cache.set_many({"a": 3, "b": threading.Lock()})
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}

    def test_incr_of_what_is_missing_or_no_number(self) -> None:
        cache = new()
        with pytest.raises(ValueError, match="Key 'missing' not found"):
            cache.incr("missing")
        cache.set("text", "one")
        with pytest.raises(TypeError):
            cache.incr("text")
        assert cache.get("text") == "one"

    def test_each_write_is_one_commit(self) -> None:
        cache = new(max_bytes=100_000)

        def commits() -> int:
            commits: int = store_of(cache).stats()["commits"]
            return commits

        for number, write in enumerate(
            [
                lambda: cache.set_many({str(number): number for number in range(50)}),
                lambda: cache.set_many({"1": 7, "heavy": "x" * 200_000}),
                lambda: cache.incr("1"),
                lambda: cache.touch("1", 100),
                lambda: cache.incr_version("2"),
                lambda: cache.delete_many(str(number) for number in range(50)),
            ],
            1,
        ):
            before = commits()
            write()
            assert commits() == before + 1, number

    @pytest.mark.parametrize("key", ["", "a" * 250, "a\x7fb", "a b", "a\nb", "\x00", "ü", "\x80", "a\u3000b"])
    def test_keys_are_warned_of_as_by_django(self, key: str) -> None:
        caches = new(), LocMemCache("", {})
        warned = []
        for cache in caches:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                cache.set(key, 1)
            warned.append([str(each.message) for each in found])
        assert warned[0] == warned[1]
