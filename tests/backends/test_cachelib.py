"""The cachelib backend, beside cachelib's own tests (test_suites.py): what those do not look at."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("cachelib", reason="needs latchstore[flask]")

from cachelib.serializers import JSONSerializer

from latchstore import Cache, DictMemoryStore
from latchstore.backends.cachelib import LatchstoreCache

THREADS = 16
TIMEOUT = 30


class TestOptions:
    def test_bounds(self) -> None:
        assert LatchstoreCache().cache.max_entries == 500
        assert LatchstoreCache(threshold=0).cache.max_entries == 500
        cache = LatchstoreCache(None, max_bytes=1_000, policy="lru").cache
        assert (cache.max_entries, cache.max_bytes) == (None, 1_000)

    def test_the_bound_is_kept(self) -> None:
        cache = LatchstoreCache(threshold=3)
        for number in range(10):
            cache.set(str(number), number)
            assert len(cache.cache) <= 3
        assert cache.get("9") == 9

    def test_a_cache_that_is_given_is_used(self) -> None:
        shared = Cache(codec="raw")
        first, second = LatchstoreCache(cache=shared), LatchstoreCache(cache=shared)
        first.set("key", 1)
        assert second.get("key") == 1

    def test_a_misspelt_one_is_refused_by_name(self) -> None:
        wrong = r"^LatchstoreCache\(\) has no parameter 'thresold'; did you mean 'threshold'\?$"
        with pytest.raises(TypeError, match=wrong):
            LatchstoreCache(thresold=3)  # type: ignore[call-arg]

    def test_a_cache_and_options_for_another_are_refused(self) -> None:
        with pytest.raises(TypeError, match="give either cache or max_bytes, not both"):
            LatchstoreCache(cache=Cache(codec="raw"), max_bytes=1000)

    def test_a_cache_with_another_codec_is_refused(self) -> None:
        with pytest.raises(ValueError, match="must have the codec 'raw'"):
            LatchstoreCache(cache=Cache(codec="json"))


class TestTimeouts:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def cache(self, clock: list[float]) -> LatchstoreCache:
        return LatchstoreCache(default_timeout=100, clock=lambda: clock[0])

    def test_default_and_for_ever(self, clock: list[float], cache: LatchstoreCache) -> None:
        cache.set("default", 1)
        cache.set("ever", 1, timeout=0)
        cache.set("delta", 1, timeout=timedelta(seconds=200))
        cache.inc("counter")
        clock[0] = 99.9
        assert cache.get_many("default", "ever", "delta", "counter") == [1, 1, 1, 1]
        clock[0] = 100.0
        assert cache.get_many("default", "ever", "delta", "counter") == [None, 1, 1, None]
        clock[0] = 1e9
        assert cache.get_many("ever", "delta") == [1, None]

    def test_negative_is_no_time_at_all(self, cache: LatchstoreCache) -> None:
        cache.set("key", "old")
        assert cache.set("key", "new", timeout=-1)
        assert not cache.has("key")

    def test_inc_leaves_the_time_as_it_is(self, clock: list[float], cache: LatchstoreCache) -> None:
        cache.set("key", 1, timeout=10)
        clock[0] = 9.0
        assert cache.inc("key") == 2
        assert cache.cache.remaining("key") == 1.0


class TestValues:
    def test_a_value_that_is_too_heavy_is_not_kept_nor_is_the_one_before(self) -> None:
        cache = LatchstoreCache(max_bytes=1_000)
        cache.set("key", "light")
        assert not cache.set("key", "x" * 2_000)
        assert cache.get("key") is None
        assert not cache.add("key", "x" * 2_000)
        assert cache.set_many({"light": 1, "heavy": "x" * 2_000}) == ["light"]

    def test_what_cannot_be_serialized_changes_nothing(self) -> None:
        cache = LatchstoreCache()
        cache.serializer = JSONSerializer()
        cache.set("key", "value")
        assert not cache.set("key", b"bytes")
        assert not cache.add("other", b"bytes")
        assert cache.set_many({"a": 1, "key": b"bytes"}) == ["a"]
        assert cache.get("key") == "value"

    def test_many_is_one_commit(self) -> None:
        cache = LatchstoreCache()
        store = cache.cache.store
        assert isinstance(store, DictMemoryStore)
        numbers = {str(number): number for number in range(50)}
        assert cache.set_many(numbers) == list(numbers)
        assert cache.delete_many(*numbers, "missing") == [*numbers, "missing"]
        assert store.stats()["commits"] == 2


def test_no_increment_is_lost_nor_the_first_one_made_twice() -> None:
    cache = LatchstoreCache()
    barrier = threading.Barrier(THREADS)

    def increase(_: int) -> list[Any]:
        barrier.wait(TIMEOUT)
        return [cache.inc("counter") for _ in range(100)]

    with ThreadPoolExecutor(THREADS) as pool:
        results = [result for results in pool.map(increase, range(THREADS)) for result in results]
    assert sorted(results) == list(range(1, 100 * THREADS + 1))
    assert cache.dec("counter", 100 * THREADS) == 0
