"""Many snapshots at once, and what `info()` tells of them."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, Snapshot
from tests.schedules import in_another_thread
from tests.snapshots.reads import assert_nothing_pinned, change_everything, whole

# -- many of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_snapshots_of_different_moments_closed_in_any_order(order: tuple[int, ...]) -> None:
    with DictMemoryStore(EventManager()) as store:
        views: dict[int, Snapshot] = {}
        copies: dict[int, dict[str, Any]] = {}
        for number in range(4):
            store.set("always", (b"%d" % number, {}))
            store.from_bytes(f"key {number}", b"")
            if number >= 2:
                store.delete(f"key {number - 2}")
            views[number], copies[number] = store.snapshot(), whole(store)
        store.multiset_data(["always", "key 1", "key 3"], [b"last"] * 3)
        store.delete("key 2")
        for closed in order:
            for number, view in views.items():
                assert whole(view) == copies[number], number
            views.pop(closed).close()
            store.set("always", (b"after %d" % closed, {}))
            assert store.info()["snapshots"] == len(views)
        assert_nothing_pinned(store)


def test_many_snapshots_at_random(store: DictMemoryStore) -> None:
    chance = random.Random(7)
    keys = [f"k{number}" for number in range(12)]
    open_views: list[tuple[Snapshot, dict[str, Any]]] = []
    for _ in range(1_500):
        match chance.randrange(5):
            case 0:
                open_views.append((store.snapshot(), whole(store)))
            case 1 if open_views:
                view, _ = open_views.pop(chance.randrange(len(open_views)))
                view.close()
            case 2:
                key = chance.choice(keys)
                if store.exists(key):
                    store.delete(key)
            case _:
                with store.transaction():
                    for key in chance.sample(keys, chance.randint(1, 4)):
                        store.set(key, (chance.randbytes(2), {"n": chance.randrange(3)}))
        if open_views:
            view, copy = chance.choice(open_views)
            assert whole(view) == copy
    for view, copy in open_views:
        assert whole(view) == copy
        view.close()
    assert_nothing_pinned(store)


def test_snapshots_of_one_moment_share_what_they_pin(store: DictMemoryStore) -> None:
    before = whole(store)
    views = [store.snapshot() for _ in range(5)]
    change_everything(store)
    facts = store.info()
    assert (facts["snapshots"], facts["pinned_entries"]) == (5, 3)
    for view in views[1:]:
        view.close()
        assert whole(views[0]) == before
    assert (store.info()["snapshots"], store.info()["pinned_entries"]) == (1, 3)
    views[0].close()
    assert_nothing_pinned(store)


# -- info() ------------------------------------------------------------------------------------------------


def test_info_tells_what_snapshots_pin(store: DictMemoryStore) -> None:
    def facts() -> tuple[int, int, int]:
        info = store.info()
        return info["snapshots"], info["pinned_entries"], info["pinned_bytes"]

    assert facts() == (0, 0, 0)
    first = store.snapshot()
    assert facts() == (1, 0, 0), "nothing has changed, so nothing is pinned"
    store.from_bytes("doc/1", b"1234567")
    assert facts() == (1, 1, 3)
    store.from_bytes("doc/1", b"")
    assert facts() == (1, 1, 3), "what came between is not needed"
    store.from_bytes("new", b"123456")
    assert facts() == (1, 1, 3), "that there was no such key costs no entry"
    second = store.snapshot()
    store.delete("new")
    store.delete("doc/1")
    assert facts() == (2, 3, 3 + 6 + 0)
    first.close()
    assert facts() == (1, 2, 6)
    second.close()
    assert facts() == (0, 0, 0)


def test_info_leaves_to_older_snapshots_what_they_need(store: DictMemoryStore) -> None:
    older = store.snapshot()
    store.from_bytes("new", b"")
    newer = store.snapshot()
    store.from_bytes("doc/1", b"")
    store.from_bytes("new", b"changed")
    assert store.info()["pinned_entries"] == 2
    newer.close()
    assert store.info()["pinned_entries"] == 1, "doc/1, of which the newer one has kept the old entry"
    assert older.to_bytes("doc/1") == b"one"
    assert not older.exists("new")
    older.close()
    assert_nothing_pinned(store)


def test_info_tells_the_age_of_the_oldest(store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("latchstore.engine.preimages.time.monotonic", lambda: now)
    first = store.snapshot()
    now = 103.0
    store.from_bytes("a", b"")
    second = store.snapshot()
    now = 110.0
    assert store.info()["oldest_snapshot"] == 10.0
    first.close()
    assert store.info()["oldest_snapshot"] == 7.0
    second.close()
    assert store.info()["oldest_snapshot"] == 0.0


def test_an_optimistic_transaction_is_counted_as_a_snapshot(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True):
        assert in_another_thread(store.info)["snapshots"] == 1
    assert_nothing_pinned(store)
