"""A cache in transactions: what it shows inside, whom evicting spares, and what comes out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import (
    Cache,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    StoreDeleteEvent,
    StoreEvictEvent,
    StoreModificationEvent,
    TransactionConflictError,
)
from latchstore.cache.inspection import check
from tests.cache.clocks import TIMEOUT, Clock, worst_of
from tests.cache.transactions.blocks import elsewhere, kinds

THREADS = 8


class Rollback(Exception):
    """Ends a block without a commit."""


def use(cache: Cache, how: str) -> None:
    """Have the open transaction use the key "a", which is the next to go."""
    if how == "read":
        assert cache.store.to_bytes("a")
    else:
        cache.store.update_metadata("a", {"used": True})


uses = pytest.mark.parametrize("how", ["read", "written"])


class TestWhatIsInUse:
    @uses
    def test_an_exclusive_transaction_keeps_it_from_eviction(
        self, store: DictMemoryStore, cache: Cache, how: str
    ) -> None:
        with store.transaction("at work"):
            use(cache, how)
            with pytest.raises(LockTimeoutError, match="at work"):
                elsewhere(cache.set, "c", 3)
            assert "a" in store
        assert sorted(cache) == ["a", "b"]
        elsewhere(cache.set, "c", 3)
        assert "c" in cache

    @uses
    def test_an_exclusive_transaction_keeps_it_from_the_sweep(
        self, store: DictMemoryStore, cache: Cache, clock: Clock, how: str
    ) -> None:
        cache.set("a", 1, ttl=5.0)
        with store.transaction("at work"):
            use(cache, how)
            clock.now += 5.0
            with pytest.raises(LockTimeoutError, match="at work"):
                elsewhere(cache.sweep)
            assert "a" in store
            assert "a" not in cache  # expired entries are not shown inside, either
        assert "a" in store
        clock.now += 1.0  # what could not be swept is looked at again
        cache.sweep()
        assert "a" not in store

    @uses
    def test_to_evict_it_is_a_conflict_with_an_optimistic_transaction(
        self, store: DictMemoryStore, cache: Cache, how: str
    ) -> None:
        runs = 0
        for attempt in store.attempts("at work"):
            with attempt:
                runs += 1
                if runs == 1:
                    use(cache, how)
                    elsewhere(cache.set, "c", 3)
                    assert "a" in store  # as it was in the beginning
                if "a" in store:
                    store.from_bytes("d", b"ours")
        assert runs == 2
        assert "d" not in store
        assert "a" not in store

    def test_to_evict_what_an_optimistic_transaction_replaces(
        self, store: DictMemoryStore, cache: Cache
    ) -> None:
        """It has room for what it replaces, and not for one more."""

        def replace() -> None:
            with store.transaction(optimistic=True):
                cache["a"] = 10
                elsewhere(cache.set, "c", 3)
                elsewhere(cache.set, "d", 4)

        with pytest.raises(TransactionConflictError, match="'a'"):
            replace()
        assert dict(cache) == {"c": 3, "d": 4}

    def test_expiry_is_a_conflict_with_an_optimistic_transaction(
        self, store: DictMemoryStore, cache: Cache, clock: Clock
    ) -> None:
        cache.set("a", 1, ttl=5.0)

        def copy() -> None:
            with store.transaction(optimistic=True):
                cache["b"] = cache["a"]
                clock.now += 5.0
                assert elsewhere(cache.sweep) == 1

        with pytest.raises(TransactionConflictError, match="'a'"):
            copy()
        assert cache["b"] == 2

    def test_what_was_touched_in_a_transaction_outlives_its_old_time(
        self, store: DictMemoryStore, cache: Cache, clock: Clock
    ) -> None:
        cache.set("a", 1, ttl=5.0)
        with store.transaction():
            assert cache.touch("a", 50.0)
            clock.now += 6.0
            assert cache["a"] == 1
        assert cache.sweep() == 0
        assert cache.remaining("a") == 44.0

    def test_what_was_touched_and_rolled_back_does_not(
        self, store: DictMemoryStore, cache: Cache, clock: Clock
    ) -> None:
        cache.set("a", 1, ttl=5.0)
        with store.transaction() as transaction:
            assert cache.touch("a", 50.0)
            transaction.doom()
        clock.now += 6.0
        assert "a" not in cache
        assert cache.sweep() == 1


class TestInside:
    @kinds
    def test_it_shows_what_the_transaction_sees(
        self, store: DictMemoryStore, cache: Cache, optimistic: bool
    ) -> None:
        with store.transaction(optimistic=optimistic):
            cache["c"] = 3
            assert dict(cache) == {"b": 2, "c": 3}
            assert len(cache) == 2
            assert "a" not in cache
            assert cache.get("a") is None
            assert elsewhere(dict, store.mapping()) == {"a": 1, "b": 2}
            assert elsewhere(cache.get, "a") == 1
            assert elsewhere(cache.get, "c") is None
        assert dict(cache) == {"b": 2, "c": 3}

    @kinds
    def test_evictions_go_with_the_commit(
        self, store: DictMemoryStore, cache: Cache, optimistic: bool
    ) -> None:
        with store.watch() as watch:
            with store.transaction("more", optimistic=optimistic):
                cache["c"] = 3
            events: list[Any] = [watch.get(0) for _ in range(len(watch))]
        assert sorted((event.action, event.key) for event in events) == [("evict", "a"), ("set", "c")]
        assert len({event.revision for event in events}) == 1
        assert {event.transaction.notes for event in events} == {"more"}
        assert cache.stats()["evictions"]["size"] == 1

    @kinds
    def test_a_rollback_brings_back_what_was_evicted(
        self, store: DictMemoryStore, cache: Cache, optimistic: bool
    ) -> None:
        with store.watch() as watch:
            with store.transaction(optimistic=optimistic) as transaction:
                cache.update(c=3, d=4)
                assert dict(cache) == {"c": 3, "d": 4}
                transaction.doom()
            assert not len(watch)
        assert dict(cache) == {"a": 1, "b": 2}
        assert cache.stats()["evictions"]["size"] == 0
        cache["c"] = 3  # and it can be evicted as before
        assert len(cache) == 2

    @kinds
    def test_a_savepoint_brings_back_what_was_evicted_after_it(
        self, store: DictMemoryStore, cache: Cache, optimistic: bool
    ) -> None:
        with store.transaction(optimistic=optimistic):
            cache["c"] = 3
            with store.transaction() as inner:
                cache["d"] = 4
                cache["e"] = 5
                assert dict(cache) == {"d": 4, "e": 5}
                inner.doom()
            assert dict(cache) == {"b": 2, "c": 3}
        assert dict(cache) == {"b": 2, "c": 3}

    @kinds
    def test_more_than_there_is_room_for(
        self, store: DictMemoryStore, cache: Cache, optimistic: bool
    ) -> None:
        with store.watch() as watch:
            with store.transaction(optimistic=optimistic):
                for number in range(10):
                    cache[f"key{number}"] = number
                    assert len(cache) <= 2
            assert len(cache) == 2
            assert worst_of_from({"a", "b"}, watch) <= 2

    @kinds
    def test_an_expired_entry_that_is_set_again(
        self, store: DictMemoryStore, cache: Cache, clock: Clock, optimistic: bool
    ) -> None:
        cache.set("a", 1, ttl=5.0)
        clock.now += 5.0
        with store.transaction(optimistic=optimistic):
            assert cache.setdefault("a", 10) == 10
            assert cache["a"] == 10
        assert cache["a"] == 10
        assert cache.remaining("a") is None
        assert cache.sweep() == 0


def worst_of_from(keys: set[str], watch: Any) -> int:
    """Replay a watch on top of keys; return how many there were at the end of a commit at the most."""
    worst, revision = 0, None
    while len(watch):
        event = watch.get(0)
        if event.revision != revision:
            worst, revision = max(worst, 0 if revision is None else len(keys)), event.revision
        (keys.discard if isinstance(event, StoreDeleteEvent) else keys.add)(event.key)
    return max(worst, len(keys))


KEYS = st.sampled_from("abcde")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["set", "get", "pop", "begin", "end", "roll back"]), KEYS),
        st.tuples(st.just("set with a ttl"), KEYS),
        st.tuples(st.just("wait"), KEYS),
    ),
    max_size=30,
)


class TestAnyBlocks:
    @pytest.mark.parametrize("policy", ["sieve", "s3-fifo", "lru"])
    @kinds
    def test_of_any_depth(self, policy: str, optimistic: bool) -> None:
        @given(STEPS)
        def run(steps: list[tuple[str, str]]) -> None:
            clock = Clock()
            with DictMemoryStore(EventManager()) as store:
                watch = store.watch()
                cache = Cache(store, codec="pickle", max_entries=3, policy=policy, clock=clock)
                remaining = iter(steps)
                self.block(cache, clock, remaining, 0, optimistic)
                store.flush(TIMEOUT)
                check(cache)
                entries, _ = worst_of(watch)
                assert entries <= 3

        run()

    def block(
        self, cache: Cache, clock: Clock, steps: Iterator[tuple[str, str]], depth: int, optimistic: bool
    ) -> None:
        """Do steps until the block ends; what the cache shows is what its store has, and has not expired."""
        for step, key in steps:
            if step == "begin":
                inner = cache.store.transaction("block", optimistic=optimistic)  # type: ignore[call-arg]
                with contextlib.suppress(Rollback), inner:
                    self.block(cache, clock, steps, depth + 1, optimistic)
            elif step == "end" and depth:
                return
            elif step == "roll back" and depth:
                raise Rollback
            elif step == "wait":
                clock.now += 1.0
            elif step.startswith("set"):
                cache.set(key, key * 2, ttl=1.5 if "ttl" in step else None)
                assert cache[key] == key * 2
            elif step == "pop":
                assert cache.pop(key, None) in (None, key * 2)
                assert key not in cache
            elif step == "get":
                live = cache.store.exists(key) and not self.is_over(cache, key, clock)
                assert cache.get(key) == (key * 2 if live else None)
            expected = [key for key in cache.store.query_keys() if not self.is_over(cache, key, clock)]
            assert sorted(cache) == sorted(expected)
            assert len(cache) == len(expected)

    @staticmethod
    def is_over(cache: Cache, key: str, clock: Clock) -> bool:
        expires = cache.store.get_metadata(key).get("cache_expires")
        return expires is not None and expires <= clock.now


class TestOptimisticRoom:
    def test_what_it_has_evicted_itself_and_others_have_set_again(self, store: DictMemoryStore) -> None:
        """It is not there to be evicted a second time, though it counts."""
        cache = Cache(store, max_entries=1, codec="pickle")

        def block() -> None:
            with store.transaction(optimistic=True):
                cache.update(a=1, b=2)
                assert list(cache) == ["b"]
                elsewhere(cache.set, "a", 3)
                cache.set("c", 4)
                assert list(cache) == ["c"]

        with pytest.raises(TransactionConflictError):
            block()
        assert dict(cache) == {"a": 3}


class TestEvents:
    @pytest.mark.parametrize("policy", ["sieve", "s3-fifo", "lru"])
    def test_in_the_order_of_revisions(self, policy: str) -> None:
        """Over sets, evictions and expiries of eight threads; replayed, they give what is there."""
        heard: list[Any] = []
        clock = Clock()
        barrier = threading.Barrier(THREADS)
        with DictMemoryStore(EventManager()) as store:
            store.event_manager.connect(StoreModificationEvent, heard.append)
            cache = Cache(store, codec="pickle", max_entries=20, policy=policy, clock=clock)

            def run(number: int) -> None:
                barrier.wait(TIMEOUT)
                for each in range(60):
                    cache.set(f"key{(number * 7 + each) % 40}", each, ttl=1.0 if each % 3 else None)
                    with store.transaction():
                        cache[f"pair{number}"] = each
                        cache[f"key{each % 40}"] = number
                    if each % 10 == 0:
                        clock.now += 0.3
                        cache.sweep()

            with ThreadPoolExecutor(THREADS) as pool:
                for future in [pool.submit(run, number) for number in range(THREADS)]:
                    future.result(TIMEOUT)
            cache.set("last", 0, ttl=1.0)
            clock.now += 1.0
            cache.sweep()
            store.flush(TIMEOUT)
            revisions = [event.revision for event in heard]
            assert revisions == sorted(revisions)
            assert set(revisions) == set(range(1, store.info()["revision"] + 1))
            causes = {event.cause for event in heard if isinstance(event, StoreEvictEvent)}
            assert causes == {"size", "expired"}
            held: set[str] = set()
            for event in heard:
                (held.remove if isinstance(event, StoreDeleteEvent) else held.add)(event.key)
            assert held == set(store.query_keys())
            check(cache)
            counted = cache.stats()["evictions"]
            told = {cause: sum(getattr(event, "cause", "") == cause for event in heard) for cause in causes}
            assert counted["expired"] == told["expired"]
            # What a transaction evicts and then sets again itself is told of as an update.
            assert counted["size"] >= told["size"]
