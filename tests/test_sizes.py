"""Large keys, and many of whatever users make many of, cost in proportion to their size.

What once took the square of it would take minutes here, and meet the tests' time limit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, In, StoreSetEvent, WaitTimeoutError
from latchstore.contract.glob_pattern import LONGEST, matching_keys
from latchstore.delivery.change_buffer import ChangeBuffer, Commit, Interest
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.engine.inspection import check, feed_of, table_of

TIMEOUT = 30.0

#: 10 MB: plain, and of what is special in patterns.
LARGE = {"plain": "k" * 10_000_000, "special": "[*?" * 3_300_000}

USES: dict[str, Callable[[DictMemoryStore, str], object]] = {
    "get": lambda store, key: store.get(key),
    "to_bytes": lambda store, key: store.to_bytes(key),
    "exists": lambda store, key: key in store,
    "get_metadata": lambda store, key: store.get_metadata(key, ["kind"]),
    "multiget": lambda store, key: list(store.multiget([key, key])),
    "set": lambda store, key: store.set(key, (b"", {"kind": "user"})),
    "if_revision": lambda store, key: store.from_bytes(key, b"", if_revision=store.get(key).revision),
    "multiset": lambda store, key: store.multiset([key, key + "2"], [(b"", {})] * 2),
    "query": lambda store, key: list(store.query(kind="user")),
    "prefix": lambda store, key: list(store.glob("k*")),
    "part": lambda store, key: list(store.glob("*?k*")),
    "watch": lambda store, key: store.watch("*?k*"),
    "wait_for_key": lambda store, key: store.wait_for_key(key, TIMEOUT),
    "delete": lambda store, key: store.delete(key),
    "evict": lambda store, key: store.evict(key),
    "cache": lambda store, key: Cache(store).get_or_load(key, lambda key: b""),
    "delete_glob": lambda store, key: Cache(store).delete_glob("k*"),
    "snapshot": lambda store, key: store.snapshot().to_bytes(key),
}


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("use", USES)
def test_a_key_of_10_mb(use: str, kind: str) -> None:
    key = LARGE[kind]
    store = DictMemoryStore(EventManager(), indexes=["kind"], history=1)
    watch = store.watch("*k*")
    heard: list[object] = []
    store.event_manager.connect(StoreSetEvent, heard.append, filter={"key": In([key])})
    store.set(key, (b"", {"kind": "user"}))
    USES[use](store, key)
    for optimistic in (False, True):
        with store.transaction(optimistic=optimistic):
            store.set(key, (b"", {"kind": "user"}))
            USES[use](store, key) if use != "wait_for_key" else None
    store.flush(TIMEOUT)
    assert heard
    assert len(watch) == 0 or kind == "plain"


def test_a_key_of_10_mb_is_saved_and_loaded(tmp_path: Path) -> None:
    store = DictMemoryStore(EventManager())
    store.from_bytes(LARGE["plain"], b"data")
    store.save(tmp_path / "file")
    assert DictMemoryStore.load(tmp_path / "file").to_bytes(LARGE["plain"]) == b"data"


@pytest.mark.parametrize("shape", ["{}", "{}*", "*{}", "*{}*"])
def test_a_pattern_of_10_mb_with_a_star_at_its_ends(shape: str) -> None:
    key = LARGE["plain"]
    store = DictMemoryStore(EventManager())
    watch = store.watch(shape.format(key))
    store.from_bytes(key, b"")
    assert list(store.glob(shape.format(key))) == [key]
    assert len(watch) == 1
    with store.transaction(optimistic=True) as tx:
        assert list(tx.glob(shape.format(key))) == [key]
        tx.delete(key)
    cache: Cache[bytes] = Cache(store)
    cache.set(key, b"")
    assert cache.delete_glob(shape.format(key)) == 1


@pytest.mark.parametrize("special", ["?", "[k]", "*"])
def test_any_other_pattern_is_refused_if_it_is_too_long(special: str) -> None:
    store = DictMemoryStore(EventManager())
    half = "k" * (LONGEST // 2)
    longest = half + special + half[len(special) :]
    assert len(longest) == LONGEST
    assert matching_keys(longest, [half]) == []
    too_long = longest + "k"
    calls: list[Callable[[], object]] = [
        lambda: store.glob(too_long),
        lambda: store.watch(too_long),
        lambda: Cache(store).delete_glob(too_long),
        lambda: store.transaction().__enter__().glob(too_long),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"must have at most 10000 characters if it has \?, \["):
            call()


def test_a_key_that_is_no_pattern_may_be_waited_for_whatever_is_in_it() -> None:
    store = DictMemoryStore(EventManager())
    for key in ("*", "[a]", "a?", "**", ""):
        with pytest.raises(WaitTimeoutError):
            store.wait_for_key(key, 0)
        store.from_bytes("a" + key, b"")
        with pytest.raises(WaitTimeoutError):
            store.wait_for_key(key, 0)
        store.from_bytes(key, b"")
        store.wait_for_key(key, 0)


# -- many ---------------------------------------------------------------------------------------------------


class CountedBuffer(ChangeBuffer):
    """Counts how often it is compared with another one."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedBuffer.compared += 1
        return self is other

    __hash__ = ChangeBuffer.__hash__


def test_many_watches_that_are_dropped_cost_the_next_commit_one_look_each() -> None:
    feed, CountedBuffer.compared = ChangeFeed(0), 0
    buffers = [CountedBuffer(Interest("*", {}), 10, False) for _ in range(1_000)]
    for buffer in buffers:
        feed.add(buffer, 0)
    for buffer in buffers[1:]:
        buffer.close()
    feed.publish(Commit(1, [("a", None, None)], None))
    assert feed.watches == 1
    assert CountedBuffer.compared < 2_000


def test_watches_that_come_and_go_while_nobody_writes_are_let_go_of() -> None:
    store = DictMemoryStore(EventManager())
    kept = [store.watch() for _ in range(100)]
    for _ in range(2_000):
        store.watch()
        with pytest.raises(WaitTimeoutError):
            store.wait_for(lambda: False, 0)
    assert len(feed_of(store).buffers) < 500
    assert store.stats()["watches"] == len(kept)
    store.from_bytes("a", b"")
    assert all(watch.get(0) for watch in kept)


class CountedDict(dict[Any, Any]):
    """Counts the entries that move into it."""

    moved = 0

    def setdefault(self, key: Any, default: Any = None) -> Any:
        CountedDict.moved += 1
        return super().setdefault(key, default)


@pytest.mark.parametrize("order", [1, -1], ids=["oldest first", "newest first"])
def test_many_snapshots_that_are_dropped_cost_the_next_commit_one_move_for_each_entry(order: int) -> None:
    store = DictMemoryStore(EventManager())
    first, views = store.snapshot(), []
    for number in range(1_000):
        store.from_bytes(f"k{number}", b"")
        views.append(store.snapshot())
    layers = table_of(store).preimages.layers
    for layer in layers:
        layer.entries = CountedDict(layer.entries)
    CountedDict.moved = 0
    views = views[::order]
    while views:
        views.pop()
    store.from_bytes("last", b"")
    assert CountedDict.moved < 2_000
    assert len(first) == 0
    assert store.info()["snapshots"] == 1
    check(store)


MANY = 50_000


@pytest.mark.parametrize("optimistic", [False, True])
def test_many_writes_of_one_key_in_a_transaction(optimistic: bool) -> None:
    store = DictMemoryStore(EventManager())
    with store.transaction(optimistic=optimistic) as tx:
        for number in range(MANY):
            tx.from_bytes("a", b"%d" % number)
    assert store.to_bytes("a") == b"%d" % (MANY - 1)


def test_many_values_for_one_key_in_a_multiset() -> None:
    store = DictMemoryStore(EventManager())
    store.multiset_data(["a"] * MANY, [b"first"] * (MANY - 1) + [b"last"])
    assert store.to_bytes("a") == b"last"


def test_many_callbacks_and_inner_blocks_of_one_transaction() -> None:
    store, called = DictMemoryStore(EventManager()), [0]

    def count() -> None:
        called[0] += 1

    with store.transaction() as tx:
        for _ in range(MANY):
            tx.on_commit(count)
        for _ in range(10_000):
            with store.transaction() as inner:
                inner.on_commit(count)
    assert called == [MANY + 10_000]


# -- weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["sieve", "s3-fifo", "lru"])
@pytest.mark.parametrize("max_entries", [None, 10])
def test_weights_beyond_what_an_int_of_64_bits_holds_evict_nothing_without_max_bytes(
    policy: str, max_entries: int | None
) -> None:
    cache: Cache[int] = Cache(max_entries=max_entries, policy=policy)
    for number in range(10):
        cache.set(str(number), number, weight=sys.maxsize)
    assert len(cache) == 10
    assert cache.stats()["bytes"] == 10 * sys.maxsize
