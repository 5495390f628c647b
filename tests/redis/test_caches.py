"""Caches on a server: what is a matter of the server. The rest is in tests/shared_caches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import redis

from latchstore import Cache, EventManager, LoadTimeoutError, RedisStore
from latchstore.cache.inspection import check
from tests.cache.clocks import Clock
from tests.cache.conftest import waits
from tests.redis.redis_stores import ONE_SERVER_EACH
from tests.redis.servers import Server
from tests.shared_caches import one_process
from tests.shared_caches import processes as of_processes
from tests.shared_caches.cache_process import TIMEOUT, Place, processes
from tests.shared_caches.loads_inside import LoadsInsideContract

__all__ = ["processes", "waits"]

pytestmark = [pytest.mark.each_server, ONE_SERVER_EACH]


def open_server(url: str, namespace: str) -> RedisStore:
    """Open the store of a namespace."""
    return RedisStore(url, EventManager(), namespace=namespace)


@pytest.fixture
def place(redis_server: Server, namespace: str) -> Place:
    """What opens the store of a test in any process."""
    return partial(open_server, redis_server.url, namespace)


@pytest.fixture
def store(place: Place) -> Iterator[RedisStore]:
    with place() as store:
        yield store


#: Has the time of a key's lease be over.
OVERDUE = """
local held = cmsgpack.unpack(redis.call('HGET', KEYS[1] .. ':l', ARGV[1]))
held[2] = 0
redis.call('HSET', KEYS[1] .. ':l', ARGV[1], cmsgpack.pack(held))
return redis.call('ZADD', KEYS[1] .. ':l:u', 'CH', 0, ARGV[1])
"""


@pytest.fixture
def overdue(redis_server: Server, namespace: str) -> Callable[[str], None]:
    def end(key: str) -> None:
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.eval(OVERDUE, 1, f"{{{namespace}}}", key) == 1

    return end


class TestBound(one_process.BoundContract): ...


class TestExpiry(one_process.ExpiryContract): ...


class TestCodecs(one_process.CodecsContract):
    access = "write to the server"


class TestOpenedAgain(one_process.OpenedAgainContract): ...


class TestLoadsInside(one_process.CacheContract, LoadsInsideContract): ...


class TestBoundOfProcesses(of_processes.BoundContract): ...


class TestExpiryOfProcesses(of_processes.ExpiryContract): ...


class TestLoads(of_processes.LoadsContract): ...


class TestCircles(of_processes.CirclesContract): ...


class TestInvalidation(of_processes.InvalidationContract): ...


def calls_of(server: Server) -> int:
    """Return how many scripts the server has run."""
    with redis.Redis.from_url(server.url) as client:
        calls: int = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    return calls


class TestServer:
    def test_a_load_is_kept_that_is_over_while_another_process_has_a_transaction(
        self, redis_server: Server, store: RedisStore, place: Place
    ) -> None:
        with place() as other, Cache(other) as cache, ThreadPoolExecutor() as pool:
            with store.transaction():
                loaded = pool.submit(cache.get_or_load, "key", lambda key: "loaded")
                before = calls_of(redis_server)
                while calls_of(redis_server) < before + 8:  # it has tried again and again
                    assert not loaded.done()
            assert loaded.result(TIMEOUT) == "loaded"
            assert cache["key"] == "loaded"

    def test_who_waits_for_a_load_asks_the_less_often_the_longer_it_takes(
        self, redis_server: Server, store: RedisStore, place: Place
    ) -> None:
        with place() as other, Cache(other) as cache, Cache(store) as waiting, ThreadPoolExecutor() as pool:

            def load(key: str) -> str:
                before = calls_of(redis_server)
                waits = pool.submit(waiting.get_or_load, key, lambda key: "twice", timeout=0.5)
                with pytest.raises(LoadTimeoutError, match=r"after 0\.\d\d s: by process \d+"):
                    waits.result(TIMEOUT)
                assert 5 < calls_of(redis_server) - before < 60
                return "loaded"

            assert cache.get_or_load("key", load) == "loaded"

    def test_deadlines_are_by_the_clock_of_the_server(
        self, redis_server: Server, store: RedisStore, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = time.time() + 1_000_000
        monkeypatch.setattr("time.time", lambda: wrong)
        with Cache(store) as cache:
            cache.set("key", 1, ttl=1_000)
            with redis.Redis.from_url(redis_server.url) as client:
                now = client.time()[0]
            assert now + 900 < store.get_metadata("key")["cache_expires"] < now + 1_001
            monkeypatch.undo()
            with place() as right, Cache(right) as other:
                assert other["key"] == 1
                assert cache.sweep() == other.sweep() == 0

    def test_a_closed_cache_is_cleared_on_a_server_from_which_all_was_removed(
        self, redis_server: Server, store: RedisStore
    ) -> None:
        with Cache(store) as cache:
            cache["key"] = 1
        with redis.Redis.from_url(redis_server.url) as client:
            client.flushall()
        with store.transaction():
            cache.clear()
            store.from_bytes("key", b"1")
        assert len(store) == 1

    def test_what_is_there_is_booked_and_evicted_in_pages(self, store: RedisStore) -> None:
        keys = [f"{number:04}" for number in range(2_500)]
        store.multiset_data(keys, [b"1"] * len(keys))
        with Cache(store, max_entries=2_200) as cache:
            assert len(store) == 2_200
            assert cache.stats()["evictions"]["size"] == 300
            check(cache)
        with Cache(store, max_entries=7) as cache:
            assert len(store) == 7
            check(cache)

    def test_a_sweep_of_many(self, store: RedisStore) -> None:
        clock = Clock()
        with Cache(store, clock=clock, idle=20) as cache:
            cache.set_many({str(number): number for number in range(2_300)}, ttl=10)
            cache.set_many({f"idle{number}": number for number in range(1_100)})
            clock.now += 10
            revision = store.info()["revision"]
            assert cache.sweep() == 2_300
            assert store.info()["revision"] == revision + 3
            clock.now += 10
            assert cache.sweep() == 1_100
            assert len(store) == 0
            check(cache)

    def test_books_of_a_store_without_a_cache_of_its_own(self, store: RedisStore, place: Place) -> None:
        with Cache(store, codec="raw") as cache, place() as plain:
            plain.set("a", (b"1", {"cache_expires": 5, "it": [1]}))
            plain.from_bytes("\ud800 \0", b"22")
            plain.update_metadata("a", {"it": 2})
            plain.set_metadata("\ud800 \0", {"cache_weight": 7})
            with plain.transaction():
                plain.delete("a")
                plain.from_bytes("b", b"333")
            check(cache)
            assert cache.stats()["bytes"] == 7 + 440 + 4

    def test_books_are_made_again_on_a_server_that_has_lost_all(
        self, redis_server: Server, namespace: str, store: RedisStore
    ) -> None:
        with Cache(store, max_entries=2) as cache:
            cache.update(a=1, b=2)
            with redis.Redis.from_url(redis_server.url) as client:
                client.delete(*client.scan_iter(f"{{{namespace}}}:*"))
            cache.update(c=3, d=4)
            cache["e"] = 5
            assert sorted(cache) == ["d", "e"]
            check(cache)

    def test_evictions_are_made_when_the_server_has_no_memory_left(self) -> None:
        clock = Clock()
        with (
            Server("redis") as server,
            open_server(server.url, "full") as store,
            Cache(store, clock=clock, codec="raw") as cache,
        ):
            cache.set("expires", bytes(1_000), ttl=10)
            cache["other"] = bytes(1_000)
            server.ask("CONFIG SET maxmemory 1")
            with pytest.raises(OSError, match="no memory left"):
                cache["more"] = b"1"
            clock.now += 10
            assert cache.sweep() == 1
            assert cache.delete("other")
            server.ask("CONFIG SET maxmemory 0")
            assert len(store) == 0
            check(cache)
