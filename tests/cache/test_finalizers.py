"""What objects that a cache keeps by reference do as they are freed: no lock is held then."""

# The blocks of transactions that are to fail have bodies.
# ruff: noqa: PT012

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore import (
    Cache,
    DictMemoryStore,
    EntryTooLargeError,
    EventManager,
    StoreModificationEvent,
    TransactionConflictError,
)
from latchstore.cache.inspection import check
from tests.cache.clocks import TIMEOUT, Clock
from tests.schedules import in_another_thread


class Plain:
    pass


def store_of(cache: Cache) -> Any:
    return cache.store


class Finalized:
    """Uses a cache as it is freed, in one of two ways."""

    def __init__(self, cache: Cache, calls: list[Any]) -> None:
        self.cache = cache
        self.calls = calls

    def __del__(self) -> None:
        try:
            assert self.cache.get("other") in ("kept", "written")
            self.cache["other"] = "written"
            self.cache.store.set_metadata("other", {"by": "a finalizer"})
            self.cache.stats()
            self.calls.append(None)
        except BaseException as error:
            self.calls.append(error)


def evicted(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    for number in range(10):
        cache.get("other")
        cache[f"key{number}"] = number


def overwritten(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    cache["key"] = 1


def overwritten_with_others(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    cache.set_many({"key": 1, "more": 2})


def overwritten_by_the_store(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    cache.store.from_bytes("key", b"")


def overwritten_in_a_transaction(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    with store_of(cache).transaction():
        cache["key"] = make()
        assert cache["key"] is not None
        cache["key"] = 1
        assert cache["key"] == 1


def deleted(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    del cache["key"]


def deleted_by_the_store(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    cache.store.delete("key")


def popped(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    cache.pop("key")


def modified(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    cache.modify("key", lambda value: 1)


def invalidated(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache.set("key", make(), tags=["tag"])
    cache.invalidate_tag("tag")


def matched(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    cache.delete_glob("ke*")


def swept(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache.set("key", make(), ttl=1.0)
    clock.now += 2.0
    assert cache.sweep() == 1


def swept_by_another_commit(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache.set("key", make(), ttl=1.0)
    clock.now += 2.0
    cache["more"] = 1


def rolled_back(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError), store_of(cache).transaction():
        cache["key"] = make()
        raise ZeroDivisionError


def rolled_back_inside(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    with store_of(cache).transaction():
        cache["more"] = 1
        with pytest.raises(ZeroDivisionError), store_of(cache).transaction():
            cache["key"] = make()
            cache["key"]
            cache["last"] = make()
            raise ZeroDivisionError
        assert "last" not in cache


def in_conflict(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = 1
    with pytest.raises(TransactionConflictError), store_of(cache).transaction(optimistic=True):
        cache.get("key")
        in_another_thread(lambda: cache.set("key", 2))
        cache["key"] = make()


def abandoned(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    def block() -> Iterator[None]:
        with store_of(cache).transaction():
            cache["key"] = make()
            yield

    generator = block()
    next(generator)
    del generator


def refused(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    with pytest.raises(EntryTooLargeError):
        cache.set("key", make(), weight=1_000_000)


def seen_by_a_snapshot(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache["key"] = make()
    with store_of(cache).snapshot():
        with store_of(cache).snapshot():
            cache["key"] = 1
        cache["key"] = 2


def dropped_by_a_watch(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    with store_of(cache).watch(max_buffer=2):
        cache["key"] = make()
        for number in range(5):
            cache["key"] = number


def coalesced_by_a_watch(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    with store_of(cache).watch(max_buffer=2, on_overflow="coalesce"):
        cache["key"] = 0
        cache["key"] = make()
        for number in range(5):
            cache["key"] = number


def read_from_a_watch(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    with store_of(cache).watch() as changes:
        cache["key"] = make()
        cache["key"] = 1
        while len(changes):
            changes.get(0)


def heard_of(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    seen = threading.Event()
    store_of(cache).event_manager.connect(StoreModificationEvent, lambda event: seen.set())
    cache["key"] = make()
    del cache["key"]
    assert seen.wait(TIMEOUT)
    cache.store.flush(TIMEOUT)


def loaded(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    cache.get_or_load("key", lambda key: make())
    cache["key"] = 1


def kept_out(cache: Cache, make: Callable[[], object], clock: Clock) -> None:
    def load(key: str) -> object:
        cache[key] = 1
        return make()

    cache.get_or_load("key", load)


@pytest.mark.parametrize("how", ["a finalizer", "a weak reference"])
@pytest.mark.parametrize(
    "free",
    [
        evicted, overwritten, overwritten_with_others, overwritten_by_the_store, overwritten_in_a_transaction,
        deleted, deleted_by_the_store, popped, modified, invalidated, matched, swept, swept_by_another_commit,
        rolled_back, rolled_back_inside, in_conflict, abandoned, refused, seen_by_a_snapshot,
        dropped_by_a_watch, coalesced_by_a_watch, read_from_a_watch, heard_of, loaded, kept_out,
    ],
)  # fmt: skip
def test_what_is_freed_may_use_the_cache(
    free: Callable[[Cache, Callable[[], object], Clock], None], how: str, clock: Clock
) -> None:
    """Its finalizer runs with no lock held: a write of its own waits for none, and is not lost."""
    calls: list[Any] = []
    kept: list[Any] = []

    def make() -> object:
        if how == "a finalizer":
            return Finalized(used, calls)
        value = Plain()
        kept.append(weakref.ref(value, lambda _: Finalized(used, calls) and None))
        return value

    store = DictMemoryStore(EventManager(), lock_timeout=5.0)
    with Cache(store, codec="reference", max_entries=4, max_bytes=100_000, clock=clock) as used, store:
        used["other"] = "kept"
        free(used, make, clock)
        store.flush(TIMEOUT)
        assert calls
        assert calls == [None] * len(calls)
        assert used.get("other", "evicted") in ("written", "evicted")
        check(used)
        assert in_another_thread(lambda: used.set("after", 1)) is None


def test_what_a_history_has_no_more_may_use_the_cache() -> None:
    calls: list[Any] = []
    with DictMemoryStore(EventManager(), lock_timeout=5.0, history=2) as store:
        used = Cache(store, codec="reference")
        used["other"] = "kept"
        used["key"] = Finalized(used, calls)
        del used["key"]
        assert calls == []
        used["more"] = 1
        used["more"] = 2
        assert calls == [None]
        check(used)


def test_what_a_finalizer_writes_in_a_block_can_be_rolled_back(cache: Cache) -> None:
    """It runs when the savepoint has been reached, so that what it writes belongs to the block around."""
    calls: list[Any] = []
    cache["other"] = "kept"
    with pytest.raises(ZeroDivisionError), store_of(cache).transaction():
        cache["more"] = 1
        with pytest.raises(KeyError), store_of(cache).transaction():
            cache["first"] = Finalized(cache, calls)
            cache["second"] = Finalized(cache, calls)
            raise KeyError
        assert calls == [None, None]
        assert cache["other"] == "written"
        with store_of(cache).transaction() as inner:
            cache["third"] = 1
            inner.rollback()
        assert cache["other"] == "written"
        assert sorted(cache) == ["more", "other"]
        raise ZeroDivisionError
    assert dict(cache) == {"other": "kept"}
