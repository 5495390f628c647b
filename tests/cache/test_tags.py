"""What is invalidated by a tag: all that was set with it and nothing else, in one commit, by the index."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, StoreDeleteEvent, StoreEvictEvent
from latchstore.cache.inspection import check
from latchstore.engine.table import Table
from tests.cache.clocks import Clock
from tests.schedules import in_another_thread, run_threads


class Undone(Exception):
    """Rolls a block back."""


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache() as cache:
        yield cache
        check(cache)


def store_of(cache: Cache) -> Any:
    return cache.store


def test_only_what_has_the_tag(cache: Cache) -> None:
    cache.set("both", 1, tags=["a", "b"])
    cache.set("a", 1, tags=["a"])
    cache.set("b", 1, tags={"b"})
    cache.set("ab", 1, tags=["ab"])
    cache.set("none", 1)
    assert cache.invalidate_tag("a") == 2
    assert sorted(cache) == ["ab", "b", "none"]
    assert cache.invalidate_tag("a") == cache.invalidate_tag("never used") == 0


def test_in_one_commit(cache: Cache) -> None:
    cache.set_many(dict.fromkeys("abcdef", 1), tags=["tag"])
    watch = store_of(cache).watch()
    assert cache.invalidate_tag("tag") == 6
    events = [watch.get(0) for _ in range(6)]
    assert len(watch) == 0
    assert {event.key for event in events} == set("abcdef")
    assert len({event.revision for event in events}) == 1
    assert all(type(event) is StoreDeleteEvent and type(event) is not StoreEvictEvent for event in events)


@pytest.mark.parametrize("inside", [False, True])
def test_without_a_scan(cache: Cache, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    cache.set_many({f"k{number}": 1 for number in range(1_000)})
    cache.set_many({f"t{number}": 1 for number in range(5)}, tags=["tag"])
    store = store_of(cache)
    candidates = Table.candidates
    found: list[int] = []

    def counted(table: Any, terms: Any) -> Any:
        listed = list(candidates(table, terms))
        found.append(len(listed))
        return listed

    monkeypatch.setattr(Table, "candidates", counted)
    with store.transaction() if inside else contextlib.nullcontext():
        assert cache.invalidate_tag("tag") == 5
    assert found == [5]


@pytest.mark.parametrize("many", [False, True])
def test_of_what_is_loaded(cache: Cache, many: bool) -> None:
    if many:
        cache.get_many_or_load(["key"], lambda keys: dict.fromkeys(keys, 1), tags=["tag"])
    else:
        cache.get_or_load("key", lambda key: 1, tags=["tag"])
    assert cache.invalidate_tag("tag") == 1
    assert "key" not in cache


def test_what_is_set_again_has_the_tags_of_the_last_time(cache: Cache) -> None:
    cache.set("key", 1, tags=["old"])
    cache.set("key", 2, tags=["new"])
    assert cache.invalidate_tag("old") == 0
    cache.touch("key", 10.0)  # which keeps them
    assert cache.invalidate_tag("new") == 1
    cache.set("key", 1, tags=["tag"])
    cache["key"] = 2
    assert cache.invalidate_tag("tag") == 0


def test_in_a_transaction(cache: Cache) -> None:
    cache.set("before", 1, tags=["tag"])
    with contextlib.suppress(Undone), cache.store.transaction():
        cache.set("inside", 1, tags=["tag"])
        assert cache.invalidate_tag("tag") == 2
        assert len(cache) == 0
        assert in_another_thread(lambda: cache["before"]) == 1
        raise Undone
    assert dict(cache) == {"before": 1}
    with cache.store.transaction():
        cache.set("inside", 1, tags=["tag"])
        cache.invalidate_tag("tag")
        cache.set("after", 1, tags=["tag"])
    assert dict(cache) == {"after": 1}


def test_the_first_tags_inside_a_transaction(cache: Cache) -> None:
    """There is no index then, which makes it slower and not wrong."""
    with cache.store.transaction():
        cache.set("key", 1, tags=["tag"])
    assert cache.invalidate_tag("tag") == 1


def test_what_has_expired_is_removed(cache: Cache) -> None:
    clock = Clock()
    with Cache(clock=clock) as cache:
        cache.set("key", 1, ttl=1.0, tags=["tag"])
        clock.now += 1
        cache.invalidate_tag("tag")
        assert len(cache.store) == 0
        check(cache)


def test_two_caches_on_one_store() -> None:
    with DictMemoryStore(EventManager()) as store:
        first, second = Cache(store, codec="pickle"), Cache(store, codec="pickle")
        first.set("key", 1, tags=["tag"])
        assert second.invalidate_tag("tag") == 1
        assert "key" not in first


def test_many_threads(cache: Cache) -> None:
    """What was set before an invalidation began is gone after it."""

    def body(number: int) -> None:
        for turn in range(30):
            keys = [f"{number}-{turn}-{item}" for item in range(3)]
            for key in keys:
                cache.set(key, 1, tags=["all", f"of {number}"])
            assert cache.invalidate_tag(["all", f"of {number}"][turn % 2]) <= 3 * 8
            assert not any(key in cache for key in keys)

    run_threads(lambda number=number: body(number) for number in range(8))  # type: ignore[misc]
    assert len(cache) == 0


def test_tags_are_checked(cache: Cache) -> None:
    with pytest.raises(TypeError, match="tag"):
        cache.invalidate_tag(1)  # type: ignore[arg-type]
