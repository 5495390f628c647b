"""Several processes commit to one store: what each of them sees, and is told."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    Above,
    CompactedError,
    DictMemoryStore,
    EventManager,
    EventsLost,
    LockTimeoutError,
    Ordered,
    SqliteStore,
    StoreDeleteEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    StoreTransactionStartEvent,
    StoreUpdateEvent,
    TransactionConflictError,
)
from tests.sqlite.other_process import TIMEOUT, OtherProcess


def listen(store: SqliteStore) -> list[Any]:
    """Return the list that the changes of a store go to."""
    heard: list[Any] = []
    store.event_manager.connect(StoreModificationEvent, heard.append)
    return heard


class TestEvents:
    def test_changes_of_another_process(self, store: SqliteStore, other: OtherProcess) -> None:
        heard = listen(store)
        other.call("set", "a", (b"1", {"it": 1}))
        other.call("update_metadata", "a", {"it": (2, b"x")})
        other.call("delete", "a")
        store.flush()
        assert [(type(event), event.key, event.revision) for event in heard] == [
            (StoreSetEvent, "a", 1),
            (StoreUpdateEvent, "a", 2),
            (StoreDeleteEvent, "a", 3),
        ]
        new, updated, deleted = heard
        assert new.previous is None
        assert (new.value.data.read(), new.value.metadata) == (b"1", {"it": 1})
        assert updated.previous.metadata == {"it": 1}
        assert (updated.value.metadata, updated.value.revision) == ({"it": (2, b"x")}, 2)
        assert deleted.value is None
        assert deleted.previous.revision == 2

    def test_in_the_order_of_commits_with_those_of_this_process(
        self, store: SqliteStore, other: OtherProcess
    ) -> None:
        heard = listen(store)
        for number in range(5):
            other.call("from_bytes", "a", b"%d" % number)
            store.from_bytes("b", b"%d" % number)
        store.flush()
        assert [(event.key, event.revision) for event in heard] == [
            ("ab"[number % 2], number + 1) for number in range(10)
        ]

    def test_they_come_without_a_call(self, store: SqliteStore, other: OtherProcess) -> None:
        came = threading.Event()
        store.event_manager.connect(StoreSetEvent, lambda event: came.set())
        other.call("from_bytes", "a", b"1")
        assert came.wait(TIMEOUT)

    def test_a_manager_that_cannot_be_asked(self, path: Path, other: OtherProcess) -> None:
        came = threading.Event()

        class Manager(EventManager):
            def emit(self, event: Any, block: bool = True) -> None:
                came.set()

        with SqliteStore(path, Manager(), durability="off"):
            other.call("from_bytes", "a", b"1")
            assert came.wait(TIMEOUT)

    def test_what_was_committed_before_is_not_heard(self, store: SqliteStore, other: OtherProcess) -> None:
        other.call("from_bytes", "a", b"1")
        heard = listen(store)
        other.call("from_bytes", "b", b"1")
        store.from_bytes("c", b"1")
        store.flush()
        assert [event.key for event in heard] == ["b", "c"]

    def test_nor_while_nobody_listened(self, store: SqliteStore, other: OtherProcess) -> None:
        heard = listen(store)
        store.event_manager.disconnect(StoreModificationEvent, heard.append)
        other.call("from_bytes", "a", b"1")
        store.event_manager.connect(StoreModificationEvent, heard.append)
        other.call("from_bytes", "b", b"1")
        store.flush()
        assert [event.key for event in heard if event.key != "a"] == ["b"]

    def test_transactions_of_another_process(self, store: SqliteStore, other: OtherProcess) -> None:
        heard = listen(store)
        ends: list[object] = []
        for kind in (StoreTransactionStartEvent, StoreTransactionEndEvent):
            store.event_manager.connect(kind, ends.append)
        other.begin_block("move")
        other.call("from_bytes", "a", b"1")
        other.call("from_bytes", "b", b"1")
        other.commit()
        store.flush()
        assert [(event.key, event.revision) for event in heard] == [("a", 1), ("b", 1)]
        (info,) = {event.transaction for event in heard}
        assert info.notes == "move"
        assert str(other.pid) in info.thread
        assert ends == []

    def test_evictions_of_another_process(self, store: SqliteStore, other: OtherProcess) -> None:
        heard = listen(store)
        other.call("from_bytes", "a", b"1")
        other.call("evict", "a", "expired")
        store.flush()
        assert [getattr(event, "cause", None) for event in heard] == [None, "expired"]


class TestWatches:
    def test_a_watch(self, store: SqliteStore, other: OtherProcess) -> None:
        with store.watch("a*") as changes:
            other.call("from_bytes", "b", b"1")
            other.call("from_bytes", "ab", b"1")
            change = changes.get(TIMEOUT)
            assert isinstance(change, StoreSetEvent)
            assert (change.key, change.revision) == ("ab", 2)

    def test_since_a_revision(self, store: SqliteStore, other: OtherProcess) -> None:
        for number in range(4):
            other.call("from_bytes", f"k{number}", b"1")
        with store.watch(since=2) as changes:
            other.call("from_bytes", "k4", b"1")
            found = [changes.get(TIMEOUT) for _ in range(3)]
        assert [getattr(change, "key", None) for change in found] == ["k2", "k3", "k4"]

    def test_since_before_the_history(self, store: SqliteStore, other: OtherProcess, path: Path) -> None:
        other.open(path, history=1)
        other.fill(200)
        with pytest.raises(CompactedError):
            store.watch(since=1)
        with store.watch(since=199) as changes:
            assert getattr(changes.get(0), "revision", None) == 200

    def test_a_gap(self, path: Path, other: OtherProcess, caplog: pytest.LogCaptureFixture) -> None:
        other.open(path, history=1)
        with (
            SqliteStore(path, EventManager(), durability="off", poll_interval=1_000) as store,
            store.watch() as changes,
        ):
            heard = listen(store)
            other.fill(250)
            store.flush()
            lost = changes.get(0)
            assert isinstance(lost, EventsLost)
            assert (lost.first_revision, lost.last_revision) == (1, 199)
            assert getattr(changes.get(0), "revision", None) == 200
            assert [event.revision for event in heard] == list(range(200, 251))
        assert "199 commits" in caplog.text

    def test_waiting_for_a_key(self, store: SqliteStore, other: OtherProcess) -> None:
        found: list[bytes] = []
        waiter = threading.Thread(target=lambda: found.append(store.wait_for_key("a", TIMEOUT).data.read()))
        waiter.start()
        other.call("from_bytes", "a", b"here")
        waiter.join(TIMEOUT)
        assert found == [b"here"]


class TestWriters:
    def test_a_block_keeps_the_writers_of_others_waiting(self, path: Path, other: OtherProcess) -> None:
        with SqliteStore(path, EventManager(), durability="off", lock_timeout=0.2) as store:
            other.begin_block("long")
            other.call("from_bytes", "a", b"1")
            assert list(store.query_keys()) == []
            with pytest.raises(LockTimeoutError):
                store.from_bytes("b", b"1")
            other.commit()
            store.from_bytes("b", b"1")
            assert sorted(store.query_keys()) == ["a", "b"]

    def test_a_writer_goes_on_when_the_block_has_ended(self, store: SqliteStore, other: OtherProcess) -> None:
        other.begin_block("short")
        writer = threading.Thread(target=lambda: store.from_bytes("b", b"1"))
        writer.start()
        other.call("from_bytes", "a", b"1")
        other.commit()
        writer.join(TIMEOUT)
        assert [store.get(key).revision for key in "ab"] == [1, 2]

    def test_a_conflict_with_another_process(self, store: SqliteStore, other: OtherProcess) -> None:
        store.from_bytes("a", b"1")
        with store.transaction(optimistic=True) as transaction:
            store.from_bytes("b", store.to_bytes("a"))
            other.call("from_bytes", "a", b"2")
            with pytest.raises(TransactionConflictError) as caught:
                transaction.commit()
        assert caught.value.keys == ("a",)
        assert list(store.query_keys()) == ["a"]

    def test_a_conflict_that_the_log_has_forgotten(
        self, store: SqliteStore, other: OtherProcess, path: Path
    ) -> None:
        other.open(path, history=1)
        store.from_bytes("filled3", b"1")
        with store.transaction(optimistic=True) as transaction:
            store.from_bytes("b", store.to_bytes("filled3"))
            other.fill(250)
            with pytest.raises(TransactionConflictError) as caught:
                transaction.commit()
        assert caught.value.keys == ("filled3",)

    def test_a_snapshot_stays(self, store: SqliteStore, other: OtherProcess) -> None:
        store.set("a", (b"1", {"it": 1}))
        with store.snapshot() as snapshot:
            other.call("set", "a", (b"2", {"it": 2}))
            other.call("from_bytes", "b", b"2")
            assert snapshot.to_bytes("a") == b"1"
            assert list(snapshot.query_keys()) == ["a"]
            assert store.to_bytes("a") == b"2"

    def test_a_process_that_is_killed_in_a_block(self, store: SqliteStore, path: Path) -> None:
        with OtherProcess() as victim:
            victim.open(path)
            victim.call("from_bytes", "a", b"1")
            victim.begin_block("never ends")
            victim.call("from_bytes", "b", b"1")
            victim.kill()
            store.from_bytes("c", b"1")
        assert sorted(store.query_keys()) == ["a", "c"]


class TestFiles:
    def test_what_is_left_when_all_have_closed(self, path: Path, other: OtherProcess) -> None:
        with SqliteStore(path, EventManager()) as store:
            store.set("a", (b"1", {"it": (1, b"x")}))
            other.call("from_bytes", "b", b"2")
        other.close()
        assert sorted(os.listdir(path.parent)) == ["store", "store-writer"]
        loaded = DictMemoryStore.load(path)
        assert {key: loaded.get_metadata(key) for key in loaded.query_keys()} == {
            "a": {"it": (1, b"x")},
            "b": {},
        }
        assert loaded.info()["revision"] == 2

    def test_a_file_that_a_store_in_memory_has_saved(self, path: Path) -> None:
        memory = DictMemoryStore(EventManager())
        memory.set("a", (b"1", {"it": {"$tuple": [1]}}))
        memory.set("\ud800", (b"2", {}))
        memory.save(path)
        with SqliteStore.load(path, EventManager(), indexes=["it"]) as store:
            assert store.info()["revision"] == 2
            assert store.get_metadata("a") == {"it": {"$tuple": [1]}}
            assert store.to_bytes("\ud800") == b"2"
            store.delete("\ud800")
            assert [event.revision for event in [store.watch(since=2).get(0)] if event] == [3]
            with pytest.raises(CompactedError):
                store.watch(since=1)

    def test_a_file_that_is_in_use_is_not_loaded_into_memory(self, store: SqliteStore, path: Path) -> None:
        """The last commits may be in the log beside it alone."""
        store.from_bytes("a", b"1")
        with pytest.raises(OSError, match="is being changed by another program"):
            DictMemoryStore.load(path)
        store.close()
        assert DictMemoryStore.load(path).to_bytes("a") == b"1"

    def test_saving(self, store: SqliteStore, path: Path, tmp_path: Path) -> None:
        store.set("a", (b"1", {"it": 1}))
        store.save(tmp_path / "copy")
        with pytest.raises(ValueError, match="the file of the store itself"):
            store.save(path)
        for kind in (DictMemoryStore, SqliteStore):
            copy = kind.load(tmp_path / "copy", EventManager())
            assert copy.to_bytes("a") == b"1"
            assert copy.get("a").created == store.get("a").created
            copy.close()

    def test_a_closed_store_can_be_read(self, path: Path) -> None:
        with SqliteStore(path, EventManager()) as store:
            store.from_bytes("a", b"1")
        assert store.to_bytes("a") == b"1"
        assert sorted(os.listdir(path.parent)) == ["store", "store-writer"]


class TestIndexes:
    def test_an_index_of_another_process(self, store: SqliteStore, other: OtherProcess) -> None:
        store.set("a", (b"", {"it": 1}))
        other.call("add_index", Ordered("it"))
        assert store.info()["indexes"] == [Ordered("it")]
        store.set("b", (b"", {"it": 2}))
        store.update_metadata("a", {"it": 3})
        assert list(store.query_keys(it=Above(0), order_by="it")) == ["b", "a"]
        store.delete("b")
        assert other.call("info")["indexes"] == [Ordered("it")]
        assert list(store.query_keys(order_by="it", limit=1)) == ["a"]
        store.remove_index(Ordered("it"))
        with pytest.raises(KeyError):
            other.call("remove_index", Ordered("it"))
        assert list(store.query_keys(it=3)) == ["a"]


class TestLifetime:
    def test_the_follower_ends_with_the_store(self, path: Path) -> None:
        store = SqliteStore(path, EventManager())
        listen(store)
        (follower,) = [thread for thread in threading.enumerate() if thread.name == "latchstore-follower"]
        gone = weakref.ref(store)
        del store
        gc.collect()
        assert gone() is None
        follower.join(TIMEOUT)
        assert not follower.is_alive()

    def test_the_follower_ends_when_nobody_listens(self, store: SqliteStore) -> None:
        heard = listen(store)
        (follower,) = [thread for thread in threading.enumerate() if thread.name == "latchstore-follower"]
        store.event_manager.disconnect(StoreModificationEvent, heard.append)
        follower.join(TIMEOUT)
        assert not follower.is_alive()
