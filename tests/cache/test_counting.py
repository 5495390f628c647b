"""What a cache has done is counted by each thread for itself, and none of it is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from latchstore import Cache, StoreEvictEvent
from latchstore.cache.counting import CountRegister, Counts, ThreadCounts
from latchstore.cache.inspection import check, register_of
from latchstore.engine.entry_facts import OVERHEAD
from tests.cache.clocks import Clock
from tests.schedules import in_another_thread, run_threads


class Undone(Exception):
    """Rolls a block back."""


@pytest.fixture
def cache(clock: Clock) -> Iterator[Cache]:
    with Cache(clock=clock, max_entries=3) as cache:
        yield cache
        check(cache)


def evictions(cache: Cache) -> dict[str, int]:
    """Return how many there were, by those causes that there were."""
    return {cause: count for cause, count in cache.stats()["evictions"].items() if count}


def test_nothing_yet(cache: Cache) -> None:
    assert cache.stats() == {
        "hits": 0,
        "near_hits": 0,
        "misses": 0,
        "hit_ratio": None,
        "loads": 0,
        "load_failures": 0,
        "load_seconds": 0.0,
        "mean_load_seconds": None,
        "undecodable": 0,
        "stale_served": 0,
        "evictions": {"size": 0, "expired": 0, "idle": 0},
        "entries": 0,
        "bytes": 0,
    }


def test_hits_and_misses(cache: Cache, clock: Clock) -> None:
    cache.set("key", 1, ttl=10.0)
    cache.get("key"), cache["key"], cache.get("missing"), cache.get_many(["key", "other"])
    with pytest.raises(KeyError):
        cache["missing"]
    clock.now += 10
    cache.get("key")
    stats = cache.stats()
    assert (stats["hits"], stats["misses"], stats["hit_ratio"]) == (3, 4, 3 / 7)


def test_loads(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def load(key: str) -> str:
        now[0] += 2.0
        return key

    def fail(key: str) -> None:
        now[0] += 1.0
        raise Undone

    cache.get_or_load("a", load)
    cache.get_or_load("a", load)
    with pytest.raises(Undone):
        cache.get_or_load("b", fail)
    cache.get_many_or_load(["a", "b", "c"], lambda keys: {key: load(key) for key in keys})
    stats = cache.stats()
    assert (stats["loads"], stats["load_failures"]) == (2, 1)
    assert stats["load_seconds"] == 2.0 + 1.0 + 4.0
    assert stats["mean_load_seconds"] == 7.0 / 3


def test_threads_that_have_ended(cache: Cache) -> None:
    cache["key"] = 1
    for _ in range(20):
        in_another_thread(lambda: cache["key"])
        in_another_thread(lambda: cache.get("missing"))
    cache["key"]
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (21, 20)
    # And they are not kept: they are summed when another comes.
    assert len(register_of(cache)) <= 2


def test_threads_at_once(cache: Cache) -> None:
    cache["key"] = 1

    def body() -> None:
        for _ in range(500):
            cache["key"]

    run_threads([body] * 16)
    assert cache.stats()["hits"] == 16 * 500


def test_a_thread_that_ends_while_others_begin_is_counted_once() -> None:
    register = CountRegister()
    counts = ThreadCounts(register)

    def body() -> None:
        counts.mine.hits += 1
        # Others begin and end while this one is alive.
        thread = threading.Thread(target=lambda: setattr(counts.mine, "hits", 1))
        thread.start()
        thread.join()
        assert register.total().hits >= 2

    run_threads([body] * 8)
    assert register.total().hits == 16


def test_counts_are_added() -> None:
    one, two = Counts(), Counts()
    for number, name in enumerate(Counts.__slots__):
        setattr(one, name, number)
        setattr(two, name, 10 * number)
    one.add(two)
    assert [getattr(one, name) for name in Counts.__slots__] == [11 * n for n in range(len(Counts.__slots__))]


def test_entries_and_bytes() -> None:
    with Cache(codec="raw") as cache:
        cache["key"] = b"1234"
        cache.set("other", b"", weight=100)
        assert (cache.stats()["entries"], cache.stats()["bytes"]) == (2, OVERHEAD + 107)
        cache.delete("other")
        cache["key"] = b"12"
        assert (cache.stats()["entries"], cache.stats()["bytes"]) == (1, OVERHEAD + 5)


class TestEvictions:
    """They are counted when they are committed, each by its cause."""

    def causes(self, watch: Any) -> dict[str, int]:
        events = [watch.get(0) for _ in range(len(watch))]
        return dict(Counter(event.cause for event in events if isinstance(event, StoreEvictEvent)))

    def fill(self, cache: Cache, clock: Clock) -> None:
        for number in range(5):
            cache[f"k{number}"] = 1
        cache.set("expiring", 1, ttl=1.0)
        cache.set("idle", 1, idle=2.0)
        clock.now += 1
        cache.sweep()
        clock.now += 1

    def test_by_cause(self, cache: Cache, clock: Clock) -> None:
        watch = cache.store.watch()  # type: ignore[attr-defined]
        self.fill(cache, clock)
        cache.sweep()
        assert evictions(cache) == self.causes(watch) == {"size": 4, "expired": 1, "idle": 1}

    def test_deleting_is_none(self, cache: Cache) -> None:
        cache["key"] = 1
        cache.delete("key")
        cache.clear()
        assert evictions(cache) == {}

    def test_in_a_transaction(self, cache: Cache, clock: Clock) -> None:
        watch = cache.store.watch()  # type: ignore[attr-defined]
        cache.set("expiring", 1, ttl=1.0)
        clock.now += 1
        with contextlib.suppress(Undone), cache.store.transaction():
            cache.sweep()
            raise Undone
        assert evictions(cache) == self.causes(watch) == {}
        with cache.store.transaction():
            cache.sweep()
        assert evictions(cache) == self.causes(watch) == {"expired": 1}
        for key in "abc":
            cache[key] = 1
        with cache.store.transaction():
            cache["d"] = 1
        assert cache.stats()["evictions"]["size"] == self.causes(watch)["size"] == 1

    def test_many_at_a_time(self) -> None:
        with Cache(max_entries=1_000, codec="raw") as cache:
            watch = cache.store.watch(max_buffer=100_000)  # type: ignore[attr-defined]
            for number in range(3_000):
                cache[f"k{number}"] = b""
            assert evictions(cache) == self.causes(watch)
            assert cache.stats()["evictions"]["size"] >= 2_000

    def test_by_threads(self) -> None:
        with Cache(max_entries=5, codec="raw") as cache:
            watch = cache.store.watch(max_buffer=100_000)  # type: ignore[attr-defined]

            def body(first: int) -> None:
                for number in range(200):
                    cache[f"k{(first * number) % 23}"] = b""

            run_threads(lambda first=first: body(first) for first in range(1, 9))  # type: ignore[misc]
            assert evictions(cache) == self.causes(watch)


def test_what_a_block_evicts_and_sets_again_is_not_counted() -> None:
    """No event tells of it."""
    cache = Cache(max_entries=2)
    cache.update(a=1, b=2)
    with cache.store.transaction():
        cache["c"] = 3  # a goes
        cache["a"] = 4  # and comes again, so that b or c goes
    assert cache["a"] == 4
    assert cache.stats()["evictions"]["size"] == 3 - len(cache)
