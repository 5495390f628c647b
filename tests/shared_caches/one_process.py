"""A cache on a store that processes share, in one of them: its books, its bound, what expires, codecs.

A test module derives from these classes, and has the fixtures `store` and `place`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from latchstore import Cache, CodecError, EntryTooLargeError, StoreEvictEvent
from latchstore.cache.inspection import check, check_idle
from tests.cache.clocks import Clock, worst_of
from tests.cache.test_policies import trace
from tests.shared_caches.cache_process import Place


class CacheContract:
    """What the classes below have in common."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def cache(self, store: Any, clock: Clock) -> Iterator[Cache[Any]]:
        """A cache without a bound; at the end its books are right."""
        with Cache(store, clock=clock) as cache:
            yield cache
            check_idle(cache)


def evicted(cache: Cache[Any]) -> list[str]:
    """Return what is evicted by gets and sets."""
    watch = cache.store.watch(max_buffer=100_000)  # type: ignore[attr-defined]
    for key in trace(1, 600, 80):
        if cache.get(key) is None:
            cache[key] = b""
    events = list(iter(lambda: watch.get(0) if len(watch) else None, None))
    return [event.key for event in events if event.action == "evict"]


class BoundContract(CacheContract):
    def test_the_order_is_that_of_the_memory(self, store: Any) -> None:
        with Cache(store, max_entries=20, codec="raw") as cache:
            assert evicted(cache) == evicted(Cache(max_entries=20, codec="raw"))
            check(cache)

    def test_bytes(self, store: Any) -> None:
        watch = store.watch(max_buffer=10_000)
        with Cache(store, max_bytes=5_000, codec="raw") as cache:
            for number in range(60):
                cache[f"{number % 13}"] = bytes(50 * (number % 9))
                assert cache.stats()["bytes"] <= 5_000
                check(cache)
            assert 3 < len(cache) < 12
        assert worst_of(watch)[1] < 5_000

    def test_what_is_too_heavy(self, store: Any) -> None:
        with Cache(store, max_bytes=1_000, codec="raw") as cache:
            cache["key"] = b"old"
            with pytest.raises(
                EntryTooLargeError, match=r"'key' weighs 1443 bytes, more than max_bytes=1000"
            ):
                cache["key"] = bytes(1_000)
            assert cache["key"] == b"old"
            cache.set("key", bytes(1_000), weight=10)
            assert cache.stats()["bytes"] == 10
            with store.transaction(), pytest.raises(EntryTooLargeError):
                cache["other"] = bytes(1_000)
            assert list(cache) == ["key"]
            assert cache.get_or_load("heavy", lambda key: bytes(1_000)) == bytes(1_000)
            with store.transaction():
                assert cache.get_or_load("heavy", lambda key: bytes(1_000)) == bytes(1_000)
            assert list(cache) == ["key"]
            check(cache)

    def test_many_keys_in_one_commit(self, store: Any) -> None:
        with Cache(store, max_entries=5) as cache:
            cache.set_many({str(number): number for number in range(3)})
            revision = store.info()["revision"]
            cache.set_many({str(number): number for number in range(2, 20)})
            assert store.info()["revision"] == revision + 1
            assert sorted(cache) == ["15", "16", "17", "18", "19"]
            check(cache)

    def test_a_transaction(self, store: Any) -> None:
        with Cache(store, max_entries=3) as cache:
            cache.set_many({"a": 1, "b": 2, "c": 3})
            with store.transaction() as transaction:
                cache["d"] = 4
                transaction.rollback()
            assert sorted(cache) == ["a", "b", "c"]
            for optimistic in (False, True):
                with store.transaction(optimistic=optimistic):
                    cache.set_many({"d": 4, "e": 5})
                    cache.modify("d", lambda value: value + 1)
                    assert cache.pop("c", None) in (3, None)
                check(cache)
                assert sorted(cache)[-2:] == ["d", "e"]

    def test_what_evictions_tell(self, store: Any) -> None:
        heard: list[StoreEvictEvent] = []
        store.event_manager.connect(StoreEvictEvent, heard.append)
        with Cache(store, max_entries=1) as cache:
            cache["a"] = 1
            cache["b"] = 2
            store.flush()
            assert [(event.key, event.cause) for event in heard] == [("a", "size")]

    def test_the_books_of_what_is_there(self, store: Any) -> None:
        for number in range(20):
            store.set(str(number), (b"1", {"it": number}))
        store.from_bytes("\ud800 \0 ü", b"1")
        with Cache(store, max_entries=5, codec="raw") as cache:
            assert len(store) == 5
            check(cache)
            users = cache.namespace("1", max_bytes=10_000)
            check(users)

    def test_what_is_closed_bounds_no_more(self, store: Any) -> None:
        cache = Cache(store, max_entries=2)
        cache.update(a=1, b=2)
        cache.close()
        store.from_bytes("c", b"3")
        assert len(store) == 3
        cache["d"] = 4  # is used again
        assert sorted(cache) == ["c", "d"]
        check(cache)
        del cache
        store.from_bytes("e", b"5")
        assert len(store) == 3

    def test_several_caches_and_namespaces(self, store: Any) -> None:
        with Cache(store, max_entries=10) as cache, Cache(store, max_entries=8) as narrow:
            few, light = cache.namespace("few", max_entries=3), cache.namespace("light", max_bytes=1_400)
            for number in range(8):
                few[str(number)] = light[str(number)] = cache[str(number)] = number
                for each in (cache, narrow, few, light):
                    check(each)
            assert (len(cache), len(light)) == (8, 3)
            assert len(few) <= 3 < few.stats()["evictions"]["size"]

    @pytest.mark.parametrize("policy", ["lru", "s3-fifo"])
    def test_other_policies(self, store: Any, policy: str) -> None:
        with pytest.raises(ValueError, match=f"policy must be 'sieve' on a {type(store).__name__}"):
            Cache(store, policy=policy)


class ExpiryContract(CacheContract):
    def test_what_has_expired_is_evicted_by_the_way(
        self, store: Any, cache: Cache[Any], clock: Clock
    ) -> None:
        cache.set_many({str(number): number for number in range(30)}, ttl=10)
        cache.set("stays", 1, ttl=11)
        clock.now += 10
        assert (len(cache), len(store)) == (1, 31)
        cache["new"] = 1
        assert 2 <= len(store) < 31
        assert cache.sweep() == len(store) + cache.stats()["evictions"]["expired"] - 2 - 16
        assert sorted(store.query_keys()) == ["new", "stays"]
        assert cache.stats()["evictions"]["expired"] == 30
        assert cache.remaining("stays") == 1

    def test_idle(self, store: Any, clock: Clock) -> None:
        with Cache(store, idle=10, clock=clock) as cache:
            cache.update(a=1, b=2)
            cache.set("own", 3, idle=5)
            cache.set("never", 4, idle=math.inf)
            clock.now += 5
            assert (cache.get("a"), cache.get("own")) == (1, None)
            clock.now += 5
            assert sorted(cache) == ["a", "never"]
            assert cache.sweep() == 2
            assert sorted(store.query_keys()) == ["a", "never"]
            assert cache.stats()["evictions"]["idle"] == 2
            check(cache)

    def test_the_idle_time_of_what_others_write_begins_with_the_first_look(
        self, store: Any, clock: Clock
    ) -> None:
        store.from_bytes("before", b"1")
        with Cache(store, idle=10, codec="raw", clock=clock) as cache:
            store.from_bytes("after", b"1")
            clock.now += 100
            assert cache.sweep() == 0
            clock.now += 10
            assert cache.sweep() == 2

    def test_stale_values_are_kept(self, store: Any, cache: Cache[Any], clock: Clock) -> None:
        cache.get_or_load("key", lambda key: "old", ttl=10, stale_on_error=20)
        clock.now += 29
        assert "key" not in cache
        assert cache.sweep() == 0

        def fail(key: str) -> Any:
            raise ValueError(key)

        assert cache.get_or_load("key", fail, stale_on_error=20) == "old"
        clock.now += 1
        assert cache.sweep() == 1

    def test_what_is_being_loaded_is_not_swept(self, cache: Cache[Any], clock: Clock) -> None:
        cache.set("key", "old", ttl=10)
        clock.now += 10

        def load(key: str) -> str:
            cache["other"] = 1
            assert cache.sweep() == 0
            return "new"

        assert cache.get_or_load("key", load) == cache["key"] == "new"

    def test_metadata_of_others(self, store: Any, cache: Cache[Any], clock: Clock) -> None:
        for number, value in enumerate(["soon", True, None, math.inf, math.nan, [1], 10**30, -5, -1.5]):
            store.set(
                str(number), (b"1", dict.fromkeys(["cache_expires", "cache_idle", "cache_weight"], value))
            )
        check(cache)
        assert cache.sweep() == 2


class CodecsContract(CacheContract):
    #: What they can do who could have code run by pickle.
    access: str

    def test_json_is_the_default(self, store: Any, cache: Cache[Any]) -> None:
        cache["key"] = {"a": [1, None]}
        assert cache["key"] == {"a": [1, None]}
        assert store.to_bytes("key") == b'{"a":[1,null]}'
        with pytest.raises(CodecError, match="'bytes'"):
            cache["bytes"] = b"1"

    def test_pickle_is_warned_of(self, store: Any) -> None:
        with pytest.warns(UserWarning, match=f"who can {self.access} can run code") as warned:
            cache = Cache(store, codec="pickle")
        assert [each.filename for each in warned] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            users = cache.namespace("users")
        users["key"] = {1}
        assert cache["users:key"] == {1}
        cache.close()

    def test_references_are_refused(self, store: Any) -> None:
        with pytest.raises(TypeError, match="stores objects in the memory of this process"):
            Cache(store, codec="reference")
        store.from_bytes("key", b"1")  # nothing is left of it

    def test_msgpack(self, store: Any) -> None:
        pytest.importorskip("msgpack", reason="needs latchstore[redis]")
        with Cache(store, codec="msgpack", max_entries=3) as cache:
            cache["key"] = {"a": [1, b"2"]}
            assert cache["key"] == {"a": [1, b"2"]}
            check(cache)


class OpenedAgainContract(CacheContract):
    def test_what_is_there_is_kept_to_by_the_next(self, place: Place, clock: Clock) -> None:
        with place() as store, Cache(store, max_entries=3, clock=clock) as cache:
            cache.update(a=1, b=2, c=3)
        with place() as store, Cache(store, max_entries=3, clock=clock) as cache:
            check(cache)
            assert cache.stats()["evictions"]["size"] == 0
            cache["d"] = 4
            assert sorted(cache) == ["b", "c", "d"]

    def test_who_opens_it_with_another_idle_time(self, store: Any, place: Place, clock: Clock) -> None:
        with Cache(store, idle=10, clock=clock) as cache:
            cache["a"] = 1
            cache.set("b", 1, idle=5)
        with place() as other, Cache(other, idle=20, clock=clock) as cache:
            check(cache)
            cache["c"] = 1
            clock.now += 19
            assert sorted(cache) == ["a", "c"]
            check(cache)
