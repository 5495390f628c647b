"""`Cache.modify`, and that what is set is encoded with no lock held."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Cache, Contains, EntryTooLargeError
from latchstore.cache.inspection import check

THREADS = 16
TIMEOUT = 30


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def cache(clock: list[float]) -> Iterator[Cache]:
    with Cache(codec="pickle", clock=lambda: clock[0], max_bytes=10_000) as cache:
        yield cache
        check(cache)


class TestModify:
    def test_returns_what_the_function_has_returned_and_keeps_it(self, cache: Cache) -> None:
        cache["key"] = 41
        assert cache.modify("key", lambda value: value + 1) == 42
        assert cache["key"] == 42

    def test_of_a_missing_key(self, cache: Cache) -> None:
        with pytest.raises(KeyError, match="key"):
            cache.modify("key", lambda value: value + 1)
        assert cache.modify("key", lambda value: value + 1, default=0, ttl=5.0) == 1
        assert cache.remaining("key") == 5.0

    def test_of_an_expired_key(self, clock: list[float], cache: Cache) -> None:
        cache.set("key", 41, ttl=1.0)
        clock[0] = 1.0
        with pytest.raises(KeyError):
            cache.modify("key", lambda value: value + 1)
        assert cache.modify("key", lambda value: value, default="new") == "new"

    def test_keeps_what_the_entry_has(self, clock: list[float], cache: Cache) -> None:
        cache.set("key", 1, ttl=10.0, weight=77, tags=["tag"], metadata={"of": "ours"})
        clock[0] = 4.0
        cache.modify("key", lambda value: value + 1, ttl=100.0)
        assert cache.remaining("key") == 6.0
        assert cache.stats()["bytes"] == 77
        assert cache.store.get_metadata("key")["of"] == "ours"
        assert cache.invalidate_tag("tag") == 1

    def test_a_function_that_fails_changes_nothing(self, cache: Cache) -> None:
        cache["key"] = "text"
        with pytest.raises(TypeError):
            cache.modify("key", lambda value: value + 1)
        assert cache["key"] == "text"

    def test_what_becomes_too_heavy_changes_nothing(self, cache: Cache) -> None:
        cache["key"] = "light"
        with pytest.raises(EntryTooLargeError):
            cache.modify("key", lambda value: "x" * 20_000)
        assert cache["key"] == "light"

    def test_the_function_is_called_again_if_the_entry_was_changed_meanwhile(self, cache: Cache) -> None:
        cache["key"] = 1
        seen: list[int] = []

        def double(value: int) -> int:
            seen.append(value)
            if len(seen) == 1:
                cache["key"] = 10
            return 2 * value

        assert cache.modify("key", double) == 20
        assert seen == [1, 10]

    def test_and_if_it_was_deleted_or_set_for_another_time(self, cache: Cache) -> None:
        cache["key"] = 1
        seen: list[Any] = []

        def changed(value: Any) -> Any:
            seen.append(value)
            if len(seen) == 1:
                del cache["key"]
            if len(seen) == 2:
                cache.set("key", None, ttl=5.0)
            if len(seen) == 3:
                cache.touch("key", 50.0)
            return "changed"

        cache.modify("key", changed, default="default")
        assert seen == [1, "default", None, None]
        assert cache.remaining("key") == 50.0

    def test_a_load_that_is_under_way_does_not_put_an_older_value_in_its_place(self, cache: Cache) -> None:
        def load(key: str) -> str:
            cache.modify(key, lambda value: value, default="modified")
            return "loaded"

        assert cache.get_or_load("key", load) == "modified"
        assert cache["key"] == "modified"

    def test_inside_a_transaction(self, cache: Cache) -> None:
        cache["key"] = 1
        with cache.store.transaction("outer") as transaction:
            assert cache.modify("key", lambda value: value + 1) == 2
            assert cache.modify("key", lambda value: value + 1) == 3
            transaction.doom()
        assert cache["key"] == 1

    def test_of_many_threads_no_change_is_lost(self, cache: Cache) -> None:
        cache["key"] = 0
        barrier = threading.Barrier(THREADS)

        def increase(_: int) -> list[int]:
            barrier.wait(TIMEOUT)
            return [cache.modify("key", lambda value: value + 1) for _ in range(100)]

        with ThreadPoolExecutor(THREADS) as pool:
            results = [result for results in pool.map(increase, range(THREADS)) for result in results]
        assert sorted(results) == list(range(1, 100 * THREADS + 1))


class TestEncoding:
    """Values say, when they are pickled, whether a transaction was open."""

    class Value:
        def __init__(self, cache: Cache) -> None:
            self.cache = cache
            self.seen: list[bool] = []

        def __reduce__(self) -> tuple[type[str], tuple[str]]:
            self.seen.append(self.cache.store.current_transaction() is not None)  # type: ignore[attr-defined]
            return str, ("pickled",)

    @pytest.fixture
    def value(self, cache: Cache) -> Value:
        return self.Value(cache)

    def test_no_lock_is_held(self, cache: Cache, value: Value) -> None:
        cache.set("set", value)
        cache.set_many({"many": value})
        assert cache.add("added", value)
        cache.modify("set", lambda before: value)
        assert value.seen == [False] * 4
        assert cache.get_many(["set", "many", "added"]) == dict.fromkeys(["set", "many", "added"], "pickled")

    def test_what_cannot_be_encoded_keeps_all_of_many_from_being_set(self, cache: Cache) -> None:
        with pytest.raises(Exception, match="'lock'"):
            cache.set_many({"key": 1, "lock": threading.Lock()})
        assert len(cache) == 0

    def test_many_share_their_options(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2}, ttl=5.0, tags=["tag"])
        assert (cache.remaining("a"), cache.remaining("b")) == (5.0, 5.0)
        assert set(cache.store.query_keys(cache_tags=Contains("tag"))) == {"a", "b"}


def test_bounds_are_told() -> None:
    assert (Cache().max_entries, Cache().max_bytes) == (None, None)
    assert (Cache(max_entries=3).max_entries, Cache(max_bytes=3).max_bytes) == (3, 3)


def test_stats_tell_what_loads_have_taken(cache: Cache) -> None:
    assert cache.stats()["load_seconds"] == 0
    cache.get_or_load("key", lambda key: 1)
    stats = cache.stats()
    assert stats["load_seconds"] == stats["mean_load_seconds"] > 0
