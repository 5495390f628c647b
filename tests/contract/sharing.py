"""Stores that share what they hold: the commits of one come to the other at any time."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    EventsLost,
    LockTimeoutError,
    StoreDeleteEvent,
    StoreEvent,
    StoreModificationEvent,
    StoreSetEvent,
    TransactionConflictError,
    WatchClosedError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.listeners import listen, told
from tests.contract.stores import TIMEOUT, StoreContract
from tests.schedules import Actor, run_threads


def keys_of(events: list[Any]) -> list[tuple[int, str]]:
    """Return revision and key of each event."""
    return [(event.revision, event.key) for event in events]


class SharingContract(StoreContract):
    """Two stores over the same entries, each with an event manager of its own, as two processes have them."""

    @pytest.fixture
    def beside(self, store: TransactionalStore) -> Iterator[TransactionalStore]:
        """A second store over what `store` holds. To be overridden."""
        raise NotImplementedError

    # -- reading and writing ----------------------------------------------------------------------

    def test_each_reads_what_the_other_has_committed(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        for number in range(5):
            store.set("a", (b"%d" % number, {"n": number}))
            assert (beside.to_bytes("a"), beside.get_metadata("a")) == (b"%d" % number, {"n": number})
            beside.from_bytes("b", b"%d" % number)
            assert [value.revision for value in store.multiget(["a", "b"])] == [
                2 * number + 1,
                2 * number + 2,
            ]
        beside.delete("a")
        assert not store.exists("a")
        assert store.info()["revision"] == beside.info()["revision"] == 11
        assert (len(store), len(beside)) == (1, 1)

    def test_a_block_keeps_the_writers_of_the_other_waiting(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        begun = threading.Event()

        def write() -> bytes:
            begun.set()
            beside.update_metadata("a", {"after": True})
            return beside.to_bytes("a")

        store.from_bytes("a", b"0")
        with ThreadPoolExecutor(1) as pool:
            with store.transaction("the long one"):
                store.from_bytes("a", b"1")
                with (
                    pytest.raises(LockTimeoutError, match="the long one"),
                    beside.transaction("the other one", timeout=0),
                ):
                    raise AssertionError("the block has begun")
                waiting = pool.submit(write)
                assert begun.wait(TIMEOUT)
                assert beside.to_bytes("a") == b"0"
            assert waiting.result(TIMEOUT) == b"1"
        assert store.get_metadata("a") == {"after": True}

    def test_a_conflict_with_the_other(self, store: TransactionalStore, beside: TransactionalStore) -> None:
        store.from_bytes("a", b"0")
        with pytest.raises(TransactionConflictError) as caught, store.transaction(optimistic=True):
            store.to_bytes("a")
            list(store.glob("b*"))
            beside.from_bytes("a", b"1")
            beside.from_bytes("b1", b"1")
            store.from_bytes("mark", b"")
        assert sorted(caught.value.keys) == ["a", "b1"]
        assert not store.exists("mark")

    def test_a_snapshot_stays(self, store: TransactionalStore, beside: TransactionalStore) -> None:
        store.from_bytes("a", b"0")
        with store.snapshot() as view:
            beside.from_bytes("a", b"1")
            beside.from_bytes("b", b"1")
            assert (view.to_bytes("a"), view.exists("b"), len(view), view.revision) == (b"0", False, 1, 1)
        assert store.to_bytes("a") == b"1"

    # -- events -----------------------------------------------------------------------------------

    def test_each_hears_all_commits_in_their_order(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        heard = [listen(each, StoreModificationEvent) for each in (store, beside)]

        def write(each: TransactionalStore, name: str) -> None:
            for number in range(30):
                with each.transaction(name, optimistic=bool(number % 2)):
                    each.from_bytes(name, b"%d" % number)
                    each.from_bytes("shared", name.encode())
                each.delete(name)

        run_threads([lambda: write(store, "a"), lambda: write(beside, "b"), lambda: write(beside, "c")])
        for each, events in zip((store, beside), heard, strict=True):
            each.flush()
            revisions: list[Any] = [event.revision for event in events]
            assert revisions == sorted(revisions)
            assert sorted(set(revisions)) == list(range(1, 181))
            assert len(events) == 270
            assert {event.source for event in events} == {each}
            last: dict[str, Any] = {}
            for event in events:
                previous: Any = event.previous
                assert (None if previous is None else previous.revision) == last.get(event.key)
                last[event.key] = None if event.value is None else event.revision
        assert keys_of(heard[0]) == keys_of(heard[1])

    def test_commits_of_the_other_are_heard_without_a_call(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        heard = threading.Event()
        store.event_manager.connect(StoreDeleteEvent, lambda event: heard.set())
        beside.from_bytes("a", b"")
        beside.delete("a")
        assert heard.wait(TIMEOUT)

    def test_transactions_are_events_of_the_one_that_runs_them(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        here, there = listen(store, StoreEvent), listen(beside, StoreEvent)
        with store.transaction("some notes"):
            store.from_bytes("a", b"")
        for each in (store, beside):
            each.flush()
        assert told(here) == [
            ("StoreTransactionStartEvent", ""),
            ("StoreTransactionEndEvent", "done"),
            ("StoreSetEvent", "a"),
        ]
        assert told(there) == [("StoreSetEvent", "a")]
        infos: list[Any] = [each[-1].transaction for each in (here, there)]
        assert [info.notes for info in infos] == ["some notes", "some notes"]
        assert infos[0].number == infos[1].number

    def test_what_was_committed_before_somebody_listens_is_not_heard(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        beside.from_bytes("before", b"")
        heard = listen(store, StoreSetEvent)
        beside.from_bytes("meanwhile", b"")
        store.flush()
        store.event_manager.disconnect(StoreSetEvent, heard.append)
        beside.from_bytes("unheard", b"")
        store.flush()
        store.event_manager.connect(StoreSetEvent, heard.append)
        beside.from_bytes("again", b"")
        store.flush()
        assert keys_of(heard) == [(2, "meanwhile"), (4, "again")]

    def test_what_was_committed_while_a_class_was_disabled_is_not_heard(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        heard = listen(store, StoreSetEvent)
        store.event_manager.disable(StoreSetEvent)
        beside.from_bytes("disabled", b"")
        store.flush()
        store.event_manager.enable(StoreSetEvent)
        beside.from_bytes("enabled", b"")
        store.flush()
        assert keys_of(heard) == [(2, "enabled")]

    def test_flushing_up_to_a_commit_of_the_other(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        with beside.transaction() as tx:
            beside.from_bytes("a", b"")
            beside.from_bytes("b", b"")
        assert tx.revision is not None
        store.flush(revision=tx.revision)
        assert keys_of(heard) == [(1, "a"), (1, "b")]

    # -- watches ----------------------------------------------------------------------------------

    def test_a_watch_has_the_commits_of_both(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        store.from_bytes("before", b"")
        with store.watch() as changes, store.watch(since=0) as all_changes:
            beside.from_bytes("a", b"")
            store.from_bytes("b", b"")
            beside.multiset_data(["a", "c"], [b"1", b"1"])
            given: list[Any] = [changes.get(TIMEOUT) for _ in range(4)]
            past: list[Any] = [all_changes.get(TIMEOUT) for _ in range(5)]
        assert keys_of(given) == [(2, "a"), (3, "b"), (4, "a"), (4, "c")]
        assert keys_of(past) == [(1, "before"), *keys_of(given)]

    def test_waiting_for_the_other(self, store: TransactionalStore, beside: TransactionalStore) -> None:
        asked = threading.Event()

        def ask() -> bool:
            asked.set()
            return len(store) == 2

        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(store.wait_for, ask, TIMEOUT)
            assert asked.wait(TIMEOUT)
            key = pool.submit(store.wait_for_key, "b", TIMEOUT)
            beside.from_bytes("a", b"1")
            beside.from_bytes("b", b"2")
            assert waiting.result(TIMEOUT) is True
            assert key.result(TIMEOUT).data.read() == b"2"

    def test_a_full_buffer_tells_what_it_has_lost_of_both(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        with store.watch(max_buffer=2) as changes:
            for number in range(5):
                (beside if number % 2 else store).from_bytes("k", b"%d" % number)
            store.flush()
            lost, *given = [changes.get(0) for _ in range(3)]
        assert isinstance(lost, EventsLost)
        assert (lost.first_revision, lost.last_revision) == (1, 3)
        assert keys_of(given) == [(4, "k"), (5, "k")]

    # -- closing ----------------------------------------------------------------------------------

    def test_what_the_other_commits_while_a_store_is_closed_is_not_heard(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        changes = store.watch()
        beside.from_bytes("before", b"")
        store.close()
        assert keys_of(heard) == [(1, "before")]
        assert keys_of(list(changes)) == [(1, "before")]
        with pytest.raises(WatchClosedError):
            changes.get(0)
        beside.from_bytes("meanwhile", b"")
        assert store.to_bytes("meanwhile") == b""
        store.connect()
        beside.from_bytes("after", b"")
        store.flush()
        assert keys_of(heard) == [(1, "before"), (3, "after")]
        with store.watch(since=1) as again:
            given: list[Any] = [again.get(TIMEOUT) for _ in range(2)]
        assert keys_of(given) == [(2, "meanwhile"), (3, "after")]

    def test_closing_one_leaves_the_other_at_work(
        self, store: TransactionalStore, beside: TransactionalStore
    ) -> None:
        heard = listen(beside, StoreModificationEvent)
        with Actor(beside) as actor:
            actor.begin("open while the other closes")
            store.close(timeout=TIMEOUT)
            actor.do(lambda: beside.from_bytes("a", b""))
            actor.commit()
        store.connect()
        store.from_bytes("b", b"")
        beside.flush()
        assert keys_of(heard) == [(1, "a"), (2, "b")]
