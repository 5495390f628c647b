"""The bound holds at each commit, whoever writes what how; and the books say afterwards what is there."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from latchstore import Cache, DictMemoryStore, EntryTooLargeError, EventManager
from tests.cache.clocks import Clock, check, worst_of
from tests.schedules import run_threads


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    """Threads change at nearly every bytecode."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Undone(Exception):
    """Rolls a block back."""


def worker(cache: Cache, seed: int, calls: int, keys: int, size: int) -> Callable[[], None]:
    """Return what one thread does: a bit of everything that writes."""
    source = random.Random(seed)
    store: Any = cache.store

    def key() -> str:
        return f"k{source.randrange(keys)}"

    def value() -> bytes:
        return bytes(source.randrange(size))

    def block(optimistic: bool, undone: bool) -> None:
        def body() -> None:
            cache[key()] = value()
            try:
                with store.transaction():
                    cache[key()] = value()
                    cache.delete(key())
                    if source.random() < 0.5:
                        raise Undone
            except Undone:
                pass
            cache.get(key())
            cache[key()] = value()
            if undone:
                raise Undone

        try:
            if optimistic:
                for attempt in store.attempts("writing", tries=10_000):
                    with attempt:
                        body()
            else:
                with store.transaction():
                    body()
        except Undone:
            pass

    def run() -> None:
        for _ in range(calls):
            what = source.random()
            if what < 0.5:
                cache[key()] = value()
            elif what < 0.65:
                cache.get(key())
            elif what < 0.75:
                cache.delete(key())
            elif what < 0.85:
                cache.set_many({key(): value() for _ in range(2)})
            else:
                block(what < 0.9, source.random() < 0.3)

    return run


@pytest.mark.parametrize(
    ("bound", "keys"), [({"max_entries": n}, keys) for n, keys in ((1, 3), (2, 6), (3, 6), (20, 100))]
)
@pytest.mark.parametrize("policy", ["sieve", "s3-fifo", "lru"])
def test_never_more_than_one_entry_too_much(bound: dict[str, int], keys: int, policy: str) -> None:
    cache = Cache(codec="raw", policy=policy, **bound)  # type: ignore[arg-type]
    watch = cache.store.watch(max_buffer=10**9)  # type: ignore[attr-defined]
    run_threads(worker(cache, seed, 25, keys, 10) for seed in range(16))
    entries, _ = worst_of(watch)
    assert entries <= bound["max_entries"] + 1
    check(cache)
    assert len(cache) <= bound["max_entries"]
    cache.close()


@pytest.mark.parametrize(("max_bytes", "keys"), [(60, 6), (500, 60)])
def test_never_more_bytes_than_one_entry_too_much(max_bytes: int, keys: int) -> None:
    size = 50
    cache = Cache(codec="raw", max_bytes=max_bytes)
    watch = cache.store.watch(max_buffer=10**9)  # type: ignore[attr-defined]
    run_threads(worker(cache, seed, 25, keys, size) for seed in range(16))
    _, weight = worst_of(watch)
    assert weight <= max_bytes + size + len("k00")
    check(cache)
    assert cache.stats()["bytes"] <= max_bytes
    cache.close()


@pytest.mark.parametrize("max_entries", [1, 2, 20])
def test_without_exclusive_transactions_nothing_is_too_much(max_entries: int) -> None:
    """Sets, gets and deletes: what has no room makes some first."""
    cache = Cache(codec="raw", max_entries=max_entries)
    watch = cache.store.watch(max_buffer=10**9)  # type: ignore[attr-defined]

    def body(seed: int) -> Callable[[], None]:
        source = random.Random(seed)

        def run() -> None:
            for _ in range(60):
                key = f"k{source.randrange(3 * max_entries)}"
                if source.random() < 0.7:
                    cache[key] = b""
                else:
                    cache.delete(key)

        return run

    run_threads(body(seed) for seed in range(16))
    assert worst_of(watch)[0] <= max_entries
    check(cache)
    cache.close()


def test_one_thread_is_never_above_the_bound() -> None:
    cache = Cache(codec="raw", max_entries=3, max_bytes=100)
    watch = cache.store.watch(max_buffer=10**9)  # type: ignore[attr-defined]
    worker(cache, 1, 500, 8, 60)()
    entries, weight = worst_of(watch)
    assert entries <= 3
    assert weight <= 100 + 62
    check(cache)


def test_an_entry_of_no_weight_counts_as_one() -> None:
    cache = Cache(max_entries=2)
    for key in "abc":
        cache.set(key, 1, weight=0)
    assert len(cache) == 2
    assert cache.stats()["bytes"] == 0
    check(cache)


def test_what_is_too_heavy_changes_nothing() -> None:
    cache = Cache(max_bytes=20, codec="raw")
    cache["k"] = b"1" * 19
    with pytest.raises(EntryTooLargeError, match="'k' weighs 21 bytes, more than max_bytes=20"):
        cache["k"] = b"1" * 20
    assert cache["k"] == b"1" * 19
    with pytest.raises(EntryTooLargeError):
        cache.touch("k", ttl=60)  # when it expires counts, too
    check(cache)


def test_touching_makes_room_for_what_it_adds() -> None:
    cache = Cache(max_bytes=100, codec="raw")
    for key in "abcd":
        cache[key] = bytes(20)
    watch = cache.store.watch()  # type: ignore[attr-defined]
    for key in "abcd":
        if key in cache:
            assert cache.touch(key, ttl=1000)
    assert cache.stats()["bytes"] <= 100
    assert len(watch) == 4  # two evicted, two touched
    check(cache)


def test_a_key_that_is_set_often_in_one_block_takes_one_place() -> None:
    cache = Cache(max_entries=3)
    for key in "abc":
        cache[key] = key
    with cache.store.transaction():
        for number in range(10):
            cache["d"] = number
    assert len(cache) == 3
    assert cache["d"] == 9
    check(cache)


def test_a_block_with_more_than_there_is_room_for_keeps_the_latest() -> None:
    cache = Cache(max_entries=3)
    cache["before"] = 0
    cache.set_many({f"k{number}": number for number in range(10)})
    assert sorted(cache) == ["k7", "k8", "k9"]
    check(cache)


def test_a_rolled_back_block_brings_back_what_it_evicted() -> None:
    cache = Cache(max_entries=2)
    cache.set_many({"a": 1, "b": 2})
    with contextlib.suppress(Undone), cache.store.transaction():
        cache["c"] = 3
        assert len(cache) == 2
        raise Undone
    assert dict(cache) == {"a": 1, "b": 2}
    check(cache)
    cache["d"] = 4  # and what came back can go
    cache["e"] = 5
    assert dict(cache) == {"d": 4, "e": 5}


def test_an_optimistic_block_holds_up_nobody_and_conflicts() -> None:
    """What it has written or is going to evict can be evicted by others: then it is tried again."""
    cache = Cache(max_entries=2)
    cache.set_many({"a": 1, "b": 2})
    store: Any = cache.store
    tries = 0
    for attempt in store.attempts("a long one"):
        with attempt:
            tries += 1
            cache["c"] = 3
            cache["a"] = "again"
            if tries == 1:
                run_threads([lambda: cache.set_many({"x": 1, "y": 2})])
                run_threads([lambda: cache.set("z", 3)])
    assert tries == 2
    assert len(cache) == 2
    assert dict(cache) == {"c": 3, "a": "again"}
    check(cache)


def test_an_exclusive_block_that_holds_all_is_waited_for() -> None:
    cache = Cache(max_entries=1)
    cache["a"] = 1
    with cache.store.transaction(timeout=0):  # type: ignore[call-arg]
        cache["a"] = 2
        assert cache["a"] == 2
    run_threads([lambda key=key: cache.set(key, key) for key in "abcdef"])  # type: ignore[misc]
    assert len(cache) == 1
    check(cache)


# -- any history ----------------------------------------------------------------------------------

KEYS = ("a", "b", "c", "d")


class CacheAgainstModel(RuleBasedStateMachine):
    """A cache, and a dict of what was set last: what the cache has is in there, and has not expired."""

    @initialize(
        entries=st.sampled_from((None, 1, 2, 3)),
        weight=st.sampled_from((None, 60, 120)),
        idle=st.sampled_from((None, 7.0)),
        policy=st.sampled_from(("sieve", "s3-fifo", "lru")),
    )
    def begin(self, entries: int | None, weight: int | None, idle: float | None, policy: str) -> None:
        self.clock = Clock()
        self.bounds = entries, weight
        self.cache = Cache(
            DictMemoryStore(EventManager()) if entries == 2 else None,
            max_entries=entries,
            max_bytes=weight,
            idle=idle,
            policy=policy,
            codec="raw",
            clock=self.clock,
        )
        self.idle = idle
        self.model: dict[str, tuple[bytes, float]] = {}
        self.used: dict[str, float] = {}
        self.blocks: list[tuple[Any, dict[str, tuple[bytes, float]], dict[str, float]]] = []

    def expired(self, key: str) -> bool:
        return self.model[key][1] <= self.clock.now or (
            self.idle is not None and not self.blocks and self.used[key] + self.idle <= self.clock.now
        )

    @rule(key=st.sampled_from(KEYS), size=st.integers(0, 40), ttl=st.sampled_from((None, 3.0, 10.0)))
    def set_key(self, key: str, size: int, ttl: float | None) -> None:
        data = bytes([len(self.model)]) * size
        try:
            self.cache.set(key, data, ttl=ttl)
        except EntryTooLargeError:
            return
        self.model[key] = data, self.clock.now + (ttl or 1e9)
        self.used[key] = self.clock.now

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: str) -> None:
        found = self.cache.get(key)
        if found is not None:
            assert key in self.model
            assert not self.expired(key)
            assert found == self.model[key][0]
            self.used[key] = self.clock.now
        elif key in self.model and None in self.bounds and self.bounds == (None, None) and not self.idle:
            assert self.expired(key)

    @rule(key=st.sampled_from(KEYS))
    def ask(self, key: str) -> None:
        there = key in self.cache
        if there:
            assert not self.expired(key)
            self.used[key] = self.clock.now

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        self.cache.delete(key)
        self.model.pop(key, None)

    @rule(key=st.sampled_from(KEYS), ttl=st.sampled_from((2.0, 20.0)))
    def touch(self, key: str, ttl: float) -> None:
        try:
            if self.cache.touch(key, ttl):
                assert not self.expired(key)
                self.model[key] = self.model[key][0], self.clock.now + ttl
                self.used[key] = self.clock.now
        except EntryTooLargeError:
            self.used[key] = self.clock.now

    @rule(seconds=st.sampled_from((0.5, 2.0, 5.0)))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def sweep(self) -> None:
        self.cache.sweep()

    @rule()
    def enter(self) -> None:
        if len(self.blocks) < 2:
            block = self.cache.store.transaction("block")
            block.__enter__()
            self.blocks.append((block, dict(self.model), dict(self.used)))

    @rule(undone=st.booleans())
    def leave(self, undone: bool) -> None:
        if self.blocks:
            block, model, used = self.blocks.pop()
            if undone:
                self.model, self.used = model, {**self.used, **used}
                block.__exit__(Undone, Undone(), None)
            else:
                block.__exit__(None, None, None)

    @invariant()
    def bound_holds(self) -> None:
        entries, weight = self.bounds
        live = list(self.cache)
        assert len(live) == len(self.cache) == len(self.cache.items())
        assert not any(self.model[key][1] <= self.clock.now for key in live)
        if not self.blocks:
            if entries is not None:
                assert len(self.cache.store) <= entries
            if weight is not None:
                assert self.cache.stats()["bytes"] <= weight
            self.cache.store.flush()
            check(self.cache)

    def teardown(self) -> None:
        while self.blocks:
            self.leave(False)
        self.cache.close()


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
