"""Watches: every change once and in order, from a revision on, and what a full buffer does."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    CompactedError,
    EventsLost,
    StoreClosedError,
    StoreDeleteEvent,
    StoreSetEvent,
    StoreUpdateEvent,
    WaitTimeoutError,
    Watch,
    WatchClosedError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import TIMEOUT, StoreContract

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.02


def read_all(watch: Watch) -> list[Any]:
    """Return what is there now, in short: revision and key, or the revisions that were lost."""
    short: list[Any] = []
    while True:
        try:
            change = watch.get(0)
        except (WaitTimeoutError, WatchClosedError):
            return short
        if isinstance(change, EventsLost):
            short.append(("lost", change.first_revision, change.last_revision))
        else:
            short.append((change.revision, change.key))


class WatchStoreContract(StoreContract):
    """What the contracts of watches share; the store has the last 100 commits at least."""

    @pytest.fixture
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(4) as pool:
            yield pool

    def read(self, store: TransactionalStore, watch: Watch) -> list[Any]:
        """Return what was committed and not read, in short: revision and key, or the revisions of a gap."""
        store.flush()  # after which all is published, by whatever thread or process it was committed
        return read_all(watch)


class WatchContract(WatchStoreContract):
    """What a watch gives, and when it ends."""

    def test_each_change_is_given_as_listeners_hear_it(self, store: TransactionalStore) -> None:
        store.set("old", (b"0", {"n": 0}))
        with store.watch() as changes:
            store.set("a", (b"1", {"n": 1}))
            store.from_bytes("a", b"2")
            store.delete("old")
            created, updated, deleted = (changes.get(TIMEOUT) for _ in range(3))
        assert isinstance(created, StoreSetEvent)
        assert isinstance(updated, StoreUpdateEvent)
        assert isinstance(deleted, StoreDeleteEvent)
        assert [(each.revision, each.key, each.action) for each in (created, updated, deleted)] == [
            (2, "a", "set"),
            (3, "a", "update"),
            (4, "old", "delete"),
        ]
        value, previous = updated.value, updated.previous
        assert isinstance(updated, StoreUpdateEvent)
        assert value is not None
        assert previous is not None
        assert (value.bytes, previous.bytes) == (b"2", b"1")  # type: ignore[attr-defined]
        assert updated.metadata == {"n": 1}
        assert deleted.value is None
        assert deleted.metadata == {"n": 0}
        assert created.source is store
        assert created.transaction is None

    def test_a_transaction_gives_its_net_effect_and_a_rollback_nothing(
        self, store: TransactionalStore
    ) -> None:
        with store.watch() as changes:
            with store.transaction("several") as tx:
                store.from_bytes("a", b"1")
                store.from_bytes("a", b"2")
                store.from_bytes("b", b"1")
                store.from_bytes("gone", b"")
                store.delete("gone")
                assert len(changes) == 0
            with store.transaction() as failed:
                store.from_bytes("never", b"")
                failed.doom()
            with pytest.raises(KeyError):
                store.delete("missing")
            given: list[Any] = [changes.get(TIMEOUT) for _ in range(2)]
            assert self.read(store, changes) == []
        assert [(each.revision, each.key, each.action) for each in given] == [
            (tx.revision, "a", "set"),
            (tx.revision, "b", "set"),
        ]
        assert all(each.transaction.notes == "several" for each in given)

    @pytest.mark.parametrize(
        ("glob", "keys"),
        [
            ("*", ["user/1", "user/2", "x*", "xy"]),
            ("user/*", ["user/1", "user/2"]),
            ("user/1", ["user/1"]),
            ("*[12]", ["user/1", "user/2"]),
            ("x[*]", ["x*"]),
            ("none", []),
            ("", []),
        ],
    )
    def test_glob(self, store: TransactionalStore, glob: str, keys: list[str]) -> None:
        with store.watch(glob) as changes:
            for key in ("user/1", "user/2", "x*", "xy"):
                store.from_bytes(key, b"")
            assert [key for _, key in self.read(store, changes)] == keys

    def test_a_filter_is_matched_before_or_after_the_change(self, store: TransactionalStore) -> None:
        with store.watch(filter={"kind": "a"}) as changes:
            store.set("k", (b"", {"kind": "b"}))
            store.set("k", (b"", {"kind": "a"}))
            store.set("k", (b"", {"kind": "c"}))
            store.set("k", (b"", {"kind": "d"}))
            store.set("k", (b"", {"kind": "a"}))
            store.delete("k")
            store.set("other", (b"", {}))
            assert [revision for revision, _ in self.read(store, changes)] == [2, 3, 5, 6]

    def test_a_filter_is_isolated_from_the_caller(self, store: TransactionalStore) -> None:
        wanted = {"tags": ["a"]}
        with store.watch(filter=wanted) as changes:
            wanted["tags"].append("b")
            store.set("k", (b"", {"tags": ["a"]}))
            assert self.read(store, changes) == [(1, "k")]

    def test_the_past_comes_before_the_present_and_is_filtered_too(self, store: TransactionalStore) -> None:
        store.multiset_data(["user/1", "x", "user/2"], [b""] * 3)
        store.from_bytes("user/1", b"")
        with store.watch("user/*", since=0) as changes:
            store.from_bytes("user/3", b"")
            assert self.read(store, changes) == [(1, "user/1"), (1, "user/2"), (2, "user/1"), (3, "user/3")]

    def test_watches_opened_while_others_write_have_every_commit_once(
        self, store: TransactionalStore, pool: ThreadPoolExecutor
    ) -> None:
        barrier = threading.Barrier(4)

        def write(number: int) -> None:
            barrier.wait(TIMEOUT)
            for _ in range(30):
                store.from_bytes(f"k{number}", b"")

        writing = [pool.submit(write, number) for number in range(3)]
        barrier.wait(TIMEOUT)
        opened: list[tuple[int, Watch]] = []
        chance = random.Random(1)
        while not all(each.done() for each in writing):
            revision = store.info()["revision"]
            since = chance.choice([0, revision // 2, revision])
            opened.append((since, store.watch(since=since)))
            if len(opened) > 50:
                opened.pop(chance.randrange(50))[1].close()
        store.close()
        for since, changes in opened:
            assert [change.revision for change in changes] == list(range(since + 1, 91))

    def test_a_watch_can_be_opened_beside_an_open_transaction(
        self, store: TransactionalStore, pool: ThreadPoolExecutor
    ) -> None:
        with store.transaction():
            store.from_bytes("k", b"")
            changes = pool.submit(store.watch).result(TIMEOUT)
        assert self.read(store, changes) == [(1, "k")]

    def test_a_slow_listener_does_not_hold_up_a_watch(self, store: TransactionalStore) -> None:
        go_on = threading.Event()
        store.event_manager.connect(StoreSetEvent, lambda event: go_on.wait(TIMEOUT))
        with store.watch() as changes:
            store.from_bytes("a", b"")
            store.from_bytes("b", b"")
            given: list[Any] = [changes.get(TIMEOUT) for _ in range(2)]
            assert [(each.revision, each.key) for each in given] == [(1, "a"), (2, "b")]
        go_on.set()

    def test_get_waits_for_a_change(self, store: TransactionalStore, pool: ThreadPoolExecutor) -> None:
        with store.watch() as changes:
            for timeout in (None, TIMEOUT):
                waiting = pool.submit(changes.get, timeout)
                store.from_bytes("k", b"")
                assert waiting.result(TIMEOUT).key == "k"  # type: ignore[union-attr]

    def test_get_gives_up(self, store: TransactionalStore) -> None:
        with store.watch("user/*") as changes:
            store.from_bytes("other", b"")
            for timeout in (0, SHORT):
                with pytest.raises(
                    WaitTimeoutError, match=rf"no change in {timeout:g} s: <open watch of 'user/\*'"
                ):
                    changes.get(timeout)

    @pytest.mark.parametrize("end", ["watch", "store"])
    def test_iterating_ends_when_it_is_closed_by_another_thread(
        self, store: TransactionalStore, pool: ThreadPoolExecutor, end: str
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

    def test_what_was_committed_before_the_store_was_closed_is_still_given(
        self, store: TransactionalStore
    ) -> None:
        changes = store.watch()
        store.from_bytes("a", b"")
        store.from_bytes("b", b"")
        store.close()
        assert [change.key for change in changes] == ["a", "b"]  # type: ignore[union-attr]
        with pytest.raises(WatchClosedError, match="the store was closed, and all changes have been read"):
            changes.get(0)
        with pytest.raises(StoreClosedError):
            store.watch()

    def test_a_closed_watch_refuses_and_is_forgotten(self, store: TransactionalStore) -> None:
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

    def test_readers_of_one_watch_share_its_changes(
        self, store: TransactionalStore, pool: ThreadPoolExecutor
    ) -> None:
        changes = store.watch()
        reading = [pool.submit(lambda: [change.revision for change in changes]) for _ in range(4)]
        for _ in range(100):
            store.from_bytes("k", b"")
        store.close()
        given = [each.result(TIMEOUT) for each in reading]
        assert all(revisions == sorted(revisions) for revisions in given)  # type: ignore[type-var]
        assert sorted(itertools.chain.from_iterable(given)) == list(range(1, 101))  # type: ignore[type-var]

    # -- the past ---------------------------------------------------------------------------------

    def test_since_begins_after_a_revision(self, store: TransactionalStore) -> None:
        for number in range(5):
            store.from_bytes(f"k{number}", b"")
        for since, revisions in ((0, [1, 2, 3, 4, 5]), (3, [4, 5]), (4, [5]), (5, [])):
            with store.watch(since=since) as changes:
                assert [revision for revision, _ in self.read(store, changes)] == revisions
        with pytest.raises(ValueError, match="since must not be above the last commit's revision, 5, got 6"):
            store.watch(since=6)
        assert store.stats()["watches"] == 0

    def test_a_watch_that_goes_on_where_another_has_ended_misses_nothing(
        self, store: TransactionalStore
    ) -> None:
        given: list[Any] = []
        last = 0
        for number in range(10):
            store.multiset_data([f"k{number}", "shared"], [b"1", b"%d" % number])
            with store.watch(since=last) as changes:
                store.from_bytes("shared", b"again")
                given += (found := self.read(store, changes))
            last = found[-1][0]
        assert given == [
            each
            for number in range(10)
            for each in (
                (2 * number + 1, f"k{number}"),
                (2 * number + 1, "shared"),
                (2 * number + 2, "shared"),
            )
        ]

    def test_what_is_compacted_cannot_be_had(self, compacting_store: TransactionalStore) -> None:
        store = compacting_store
        for _ in range(1_000):
            store.from_bytes("k", b"")
        with pytest.raises(CompactedError, match="since=0: the history begins with revision") as caught:
            store.watch(since=0)
        oldest = caught.value.oldest_revision
        assert caught.value.since == 0
        assert 1 < oldest <= 1_001
        with pytest.raises(CompactedError):
            store.watch(since=oldest - 2)
        with store.watch(since=oldest - 1) as changes:
            assert [revision for revision, _ in self.read(store, changes)] == list(range(oldest, 1_001))
        assert store.stats()["watches"] == 0

    @pytest.fixture
    def compacting_store(self) -> Iterator[TransactionalStore]:
        """A store as `store` is, that has fewer than the last 1,000 commits. To be overridden."""
        raise NotImplementedError


class FullBufferContract(WatchStoreContract):
    """What a watch drops whose buffer is full, and how it tells."""

    def test_a_full_buffer_drops_the_oldest_and_says_so_once(self, store: TransactionalStore) -> None:
        with store.watch(max_buffer=3) as changes:
            for _ in range(10):
                store.from_bytes("k", b"")
            store.flush()
            assert len(changes) == 3
            assert self.read(store, changes) == [("lost", 1, 7), (8, "k"), (9, "k"), (10, "k")]
            store.from_bytes("k", b"")
            assert self.read(store, changes) == [(11, "k")]
            assert store.stats()["events_dropped"] == 7

    def test_what_is_lost_in_two_goes_is_told_as_one(self, store: TransactionalStore) -> None:
        with store.watch(max_buffer=2) as changes:
            for _ in range(4):
                store.from_bytes("k", b"")
            for _ in range(4):
                store.from_bytes("k", b"")
            assert self.read(store, changes) == [("lost", 1, 6), (7, "k"), (8, "k")]

    def test_whole_commits_are_dropped(self, store: TransactionalStore) -> None:
        with store.watch(max_buffer=4) as changes:
            store.multiset_data([*"abc"], [b""] * 3)
            store.multiset_data([*"de"], [b""] * 2)
            assert self.read(store, changes) == [("lost", 1, 1), (2, "d"), (2, "e")]
            store.multiset_data([*"abc"], [b""] * 3)
            assert isinstance(changes.get(TIMEOUT), StoreUpdateEvent)
            store.multiset_data([*"abc"], [b""] * 3)
            assert self.read(store, changes) == [("lost", 3, 3), (4, "a"), (4, "b"), (4, "c")]

    def test_a_commit_that_is_larger_than_the_buffer_is_lost_whole(self, store: TransactionalStore) -> None:
        with store.watch(max_buffer=2) as changes:
            store.from_bytes("x", b"")
            store.multiset_data([*"abc"], [b""] * 3)
            assert self.read(store, changes) == [("lost", 1, 2)]

    def test_only_what_it_is_meant_to_have_fills_a_buffer(self, store: TransactionalStore) -> None:
        with store.watch("wanted", max_buffer=1) as changes:
            store.from_bytes("wanted", b"")
            for _ in range(10):
                store.from_bytes("other", b"")
            assert self.read(store, changes) == [(1, "wanted")]

    def test_coalescing_keeps_the_net_effect_of_each_key(self, store: TransactionalStore) -> None:
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
            store.flush()
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
            assert [revision for revision, _ in self.read(store, changes)] == [13, 14]
