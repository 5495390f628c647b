"""What the log keeps of a change: all that an event has, for a watch that goes on after a revision."""

from __future__ import annotations

import copy
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fcntl")

from latchstore import EventManager, SqliteStore, StoreFormatError, StoreUpdateEvent
from tests.schedules import TIMEOUT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "store", EventManager(), durability="off") as store:
        yield store


def logged(store: SqliteStore, count: int) -> list[Any]:
    """Return the events of the last commits after the first one."""
    with store.watch(since=1) as changes:
        return [changes.get(TIMEOUT) for _ in range(count)]


def test_a_key_that_was_deleted_and_set_again_by_one_commit(store: SqliteStore) -> None:
    store.set("k", (b"1", {"n": 1}))
    before = store.get("k")
    with store.transaction():
        store.delete("k")
        store.set("k", (b"2", {"n": 2}))
    (event,) = logged(store, 1)
    assert (event.action, event.revision) == ("update", 2)
    assert event.value.created == store.get("k").created > event.previous.created == before.created
    assert event.previous.modified == before.modified
    assert (event.previous.revision, event.value.revision) == (1, 2)
    assert (event.previous.metadata, event.value.metadata) == ({"n": 1}, {"n": 2})


def test_a_change_of_metadata_alone(store: SqliteStore) -> None:
    store.set("k", (b"data", {"n": 1}))
    store.update_metadata("k", {"n": 2})
    (event,) = logged(store, 1)
    assert event.previous.data.read() == event.value.data.read() == b"data"
    assert (event.previous.metadata, event.value.metadata) == ({"n": 1}, {"n": 2})
    assert event.previous.created == event.value.created


def test_a_deletion_and_an_eviction_beside_others(store: SqliteStore) -> None:
    store.multiset(["a", "b", "c"], [(b"1", {"n": n}) for n in range(3)])
    created = [store.get(key).created for key in "abc"]
    with store.transaction("both"):
        store.set("a", (b"2", {}))
        store.delete("b")
        store.evict("c", "idle")
    events = logged(store, 3)
    assert [event.key for event in events] == ["a", "b", "c"]
    assert [event.action for event in events] == ["update", "delete", "evict"]
    assert [event.previous.created for event in events] == created
    assert [event.previous.metadata for event in events] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert events[2].cause == "idle"


@pytest.mark.parametrize("count", [1, 2, 33, 34, 35, 67, 68, 200])
def test_each_change_of_a_commit_of_many_is_kept_in_order(store: SqliteStore, count: int) -> None:
    keys = [f"key/{number}" for number in range(count)]
    # Data that is short is written in another form than data that is not; the last key has no data to keep.
    before = [(b"a" * (number % 7 * 300), {"n": number}) for number in range(count - 1)]
    after = [(b"b" * (number % 5 * 500), {"m": number}) for number in range(count)]
    store.multiset(keys[:-1], before) if before else store.set("other", (b"", {}))
    store.multiset(keys, after)
    events = logged(store, count)
    assert [event.key for event in events] == keys
    assert [(event.value.content, event.value.metadata) for event in events] == after
    assert [(event.previous.content, event.previous.metadata) for event in events[:-1]] == before
    assert events[-1].previous is None
    assert list(map(store.to_bytes, keys)) == [data for data, _ in after]


@pytest.mark.parametrize("notes", ["moving", "", "'\"\\\n", "\ud800", "ä\udc80€"])
def test_the_transaction_is_that_of_its_notes(store: SqliteStore, notes: str) -> None:
    store.set("k", (b"1", {}))
    with store.transaction(notes):
        store.multiset(["a", "b"], [(b"1", {})] * 2)
    store.set("k", (b"2", {}))
    first, second, last = logged(store, 3)
    assert first.transaction == second.transaction
    assert first.transaction.notes == notes
    assert last.transaction is None


def test_keys_that_are_no_text(store: SqliteStore) -> None:
    store.set("\ud800", (b"1", {"n": 1}))
    store.set("\ud800", (b"2", {"n": 2}))
    with store.transaction():
        store.delete("\ud800")
        store.set("ä", (b"", {}))
    events = logged(store, 3)
    assert [event.key for event in events] == ["\ud800", "\ud800", "ä"]
    assert events[0].previous.data.read() == b"1"


class TestEntriesOfTheLog:
    """An event of the log has its values decoded when somebody reads them."""

    @pytest.fixture
    def event(self, store: SqliteStore, tmp_path: Path) -> Any:
        """Return the event of an update that another store of the file has made."""
        manager, events = EventManager(), list[Any]()
        manager.connect(StoreUpdateEvent, events.append)
        with SqliteStore(tmp_path / "store", manager, durability="off", poll_interval=TIMEOUT) as other:
            store.set("k", (b"1", {"n": 1, "of": "before"}))
            other.flush()
            store.set("k", (b"22", {"n": 2}))
            with closing(sqlite3.connect(tmp_path / "store", isolation_level=None)) as connection:
                connection.execute(
                    "UPDATE log SET old_metadata = replace(old_metadata, '1', ?)", (self.text,)
                )
            other.flush()
        (event,) = events
        return event

    text = "1"

    def test_values(self, event: Any) -> None:
        assert event.metadata == event.value.metadata == {"n": 2}
        assert event.previous.metadata == {"n": 1, "of": "before"}
        assert (event.value.size, event.value.revision) == (2, 2)
        assert (event.previous.data.read(), event.previous.revision) == (b"1", 1)
        assert "2 bytes, 1 metadata items" in repr(event.value)

    def test_a_copy_for_another_process(self, event: Any) -> None:
        copied = pickle.loads(pickle.dumps(event))
        assert copied.value.metadata == {"n": 2}
        assert copied.previous.metadata == {"n": 1, "of": "before"}
        assert copied.previous.data.read() == b"1"
        assert copy.copy(event).previous.created == event.previous.created


class TestDamagedEntriesOfTheLog(TestEntriesOfTheLog):
    text = "[1"

    def test_values(self, event: Any) -> None:
        assert event.value.metadata == {"n": 2}
        with pytest.raises(StoreFormatError, match="'k'"):
            _ = event.previous.metadata

    def test_a_copy_for_another_process(self, event: Any) -> None:
        with pytest.raises(StoreFormatError, match="'k'"):
            pickle.dumps(event)
