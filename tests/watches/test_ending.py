"""A read of a watch ends with a change, with its time or with the watch; a full buffer drops and tells it."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    StoreClosedError,
    StoreUpdateEvent,
    WaitTimeoutError,
    Watch,
    WatchClosedError,
)
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.try_latch import TryLatch
from latchstore.engine.inspection import feed_of
from tests.watches.reading import SHORT, TIMEOUT, T, Ts, commit_of, new_buffer, new_store, read_all

# -- waiting and ending ---------------------------------------------------------------------------


def test_get_waits_for_a_change(store: DictMemoryStore, pool: ThreadPoolExecutor) -> None:
    with store.watch() as changes:
        for timeout in (None, TIMEOUT):
            waiting = pool.submit(changes.get, timeout)
            store.from_bytes("k", b"")
            assert waiting.result(TIMEOUT).key == "k"  # type: ignore[union-attr]


def test_get_gives_up(store: DictMemoryStore) -> None:
    with store.watch("user/*") as changes:
        store.from_bytes("other", b"")
        for timeout in (0, SHORT):
            with pytest.raises(
                WaitTimeoutError, match=rf"no change in {timeout:g} s: <open watch of 'user/\*'"
            ):
                changes.get(timeout)


@pytest.mark.parametrize("end", ["watch", "store"])
def test_iterating_ends_when_it_is_closed_by_another_thread(
    store: DictMemoryStore, pool: ThreadPoolExecutor, end: str
) -> None:
    changes = store.watch()
    first = threading.Event()

    def iterate() -> list[str]:
        keys = []
        for change in changes:
            keys.append(change.key)  # type: ignore[union-attr]
            first.set()
        return keys

    reading = pool.submit(iterate)
    store.from_bytes("k", b"")
    assert first.wait(TIMEOUT)
    changes.close() if end == "watch" else store.close()
    assert reading.result(TIMEOUT) == ["k"]


def test_what_was_committed_before_the_store_was_closed_is_still_given(store: DictMemoryStore) -> None:
    changes = store.watch()
    store.from_bytes("a", b"")
    store.from_bytes("b", b"")
    store.close()
    assert [change.key for change in changes] == ["a", "b"]  # type: ignore[union-attr]
    with pytest.raises(WatchClosedError, match="the store was closed, and all changes have been read"):
        changes.get(0)
    with pytest.raises(StoreClosedError):
        store.watch()


@pytest.mark.parametrize("timeout", [0, TIMEOUT])
def test_what_is_committed_between_a_look_and_the_end_is_still_given(timeout: float) -> None:
    feed, buffer = ChangeFeed(0), new_buffer()
    changes = Watch(None, buffer, "*")
    feed.add(buffer, 0)

    class Looking(TryLatch):
        """The commit comes, and the end, when a reader has found nothing."""

        def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
            buffer.latch = TryLatch()
            found = buffer.latch.during(function, *arguments)
            assert found is None
            feed.publish(commit_of(1))
            feed.end()
            return found

    buffer.latch = Looking()
    assert changes.get(timeout).key == "k0"  # type: ignore[union-attr]
    with pytest.raises(WatchClosedError, match="all changes have been read"):
        changes.get(timeout)
    assert feed.watches == 0


def test_a_closed_watch_refuses_and_is_forgotten(store: DictMemoryStore) -> None:
    changes = store.watch()
    store.from_bytes("a", b"")
    assert store.stats()["watches"] == 1
    changes.close()
    changes.close()
    assert changes.closed
    assert store.stats()["watches"] == 0
    assert list(changes) == []
    assert len(changes) == 0
    with pytest.raises(WatchClosedError, match=r"<closed watch of '\*' in .*is used after it was closed"):
        changes.get()
    with pytest.raises(WatchClosedError), changes:
        pass


def test_a_watch_that_nobody_has_any_more_is_forgotten_at_the_next_commit() -> None:
    store = new_store()
    changes = store.watch()
    (buffer,) = feed_of(store).buffers
    del changes
    gc.collect()
    assert buffer.closed
    store.from_bytes("a", b"")
    assert feed_of(store).buffers == ()
    assert not feed_of(store).active
    assert len(buffer) == 0


def test_readers_of_one_watch_share_its_changes(store: DictMemoryStore, pool: ThreadPoolExecutor) -> None:
    changes = store.watch()
    reading = [pool.submit(lambda: [change.revision for change in changes]) for _ in range(4)]
    for _ in range(500):
        store.from_bytes("k", b"")
    store.close()
    given = [each.result(TIMEOUT) for each in reading]
    assert all(revisions == sorted(revisions) for revisions in given)  # type: ignore[type-var]
    assert sorted(itertools.chain.from_iterable(given)) == list(range(1, 501))  # type: ignore[type-var]


# -- overflow -------------------------------------------------------------------------------------


def test_a_full_buffer_drops_the_oldest_and_says_so_once(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=3) as changes:
        for _ in range(10):
            store.from_bytes("k", b"")
        assert len(changes) == 3
        assert read_all(changes) == [("lost", 1, 7), (8, "k"), (9, "k"), (10, "k")]
        store.from_bytes("k", b"")
        assert read_all(changes) == [(11, "k")]
        assert store.stats()["events_dropped"] == 7


def test_what_is_lost_in_two_goes_is_told_as_one(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=2) as changes:
        for _ in range(4):
            store.from_bytes("k", b"")
        for _ in range(4):
            store.from_bytes("k", b"")
        assert read_all(changes) == [("lost", 1, 6), (7, "k"), (8, "k")]


def test_whole_commits_are_dropped(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=4) as changes:
        store.multiset_data([*"abc"], [b""] * 3)
        store.multiset_data([*"de"], [b""] * 2)
        assert read_all(changes) == [("lost", 1, 1), (2, "d"), (2, "e")]
        store.multiset_data([*"abc"], [b""] * 3)
        assert isinstance(changes.get(0), StoreUpdateEvent)
        store.multiset_data([*"abc"], [b""] * 3)
        assert read_all(changes) == [("lost", 3, 3), (4, "a"), (4, "b"), (4, "c")]


def test_a_commit_that_is_larger_than_the_buffer_is_lost_whole(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=2) as changes:
        store.from_bytes("x", b"")
        store.multiset_data([*"abc"], [b""] * 3)
        assert read_all(changes) == [("lost", 1, 2)]


def test_only_what_it_is_meant_to_have_fills_a_buffer(store: DictMemoryStore) -> None:
    with store.watch("wanted", max_buffer=1) as changes:
        store.from_bytes("wanted", b"")
        for _ in range(10):
            store.from_bytes("other", b"")
        assert read_all(changes) == [(1, "wanted")]


def test_coalescing_keeps_the_net_effect_of_each_key(store: DictMemoryStore) -> None:
    for key in ("changed", "deleted", "again"):
        store.from_bytes(key, b"old")
    with store.watch(max_buffer=2, on_overflow="coalesce") as changes:
        store.from_bytes("changed", b"1")
        store.from_bytes("new", b"1")
        store.from_bytes("changed", b"2")
        store.delete("deleted")
        store.delete("again")
        store.from_bytes("again", b"new")
        store.from_bytes("brief", b"")
        store.delete("brief")
        store.from_bytes("new", b"2")
        given: list[Any] = [changes.get(0) for _ in range(len(changes))]
        assert [(each.key, each.action, each.revision) for each in given] == [
            ("changed", "update", 6),
            ("deleted", "delete", 7),
            ("again", "update", 9),
            ("new", "set", 12),
        ]
        assert given[0].previous.bytes == b"old"
        assert given[0].value.bytes == b"2"
        assert given[3].previous is None
        # Read empty, it is a buffer like others again.
        store.from_bytes("a", b"1")
        store.from_bytes("a", b"2")
        assert [revision for revision, _ in read_all(changes)] == [13, 14]
