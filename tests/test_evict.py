"""Evicting in a `DictMemoryStore`: one more kind of change, told as such wherever changes are told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    DictMemoryStore,
    EventManager,
    RevisionMismatchError,
    StoreDeleteEvent,
    StoreEvictEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
    TransactionConflictError,
    Watch,
)
from tests.contract.listeners import listen
from tests.contract.stores import TIMEOUT, fill

Told = tuple[str, str, str | None]


def told(events: list[Any]) -> list[Told]:
    """Return what was done to which key, and why."""
    return [(event.action, event.key, getattr(event, "cause", None)) for event in events]


def read(watch: Watch) -> list[Any]:
    """Return what a watch has."""
    return [watch.get(0) for _ in range(len(watch))]


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager(), history=100) as store:
        fill(store, a=b"1", b=b"2", c=b"3")
        yield store


class TestEvent:
    def test_what_it_says(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        revision = store.get("a").revision
        store.evict("a", "expired")
        store.flush()
        (event,) = heard
        assert type(event) is StoreEvictEvent
        assert isinstance(event, StoreDeleteEvent)
        assert (event.action, event.cause) == ("evict", "expired")
        assert event.source is store
        assert event.key == "a"
        assert event.metadata == {"name": "a"}
        assert event.value is None
        previous: Any = event.previous
        assert (previous.data.read(), previous.revision) == (b"1", revision)
        assert event.revision == store.info()["revision"]
        assert event.transaction is None

    def test_the_cause_is_size_if_nothing_is_said(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreEvictEvent)
        store.evict("a")
        store.flush()
        assert told(heard) == [("evict", "a", "size")]

    def test_those_who_listen_to_deletions_hear_it(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreDeleteEvent)
        store.evict("a", "idle")
        store.delete("b")
        store.flush()
        assert told(heard) == [("evict", "a", "idle"), ("delete", "b", None)]

    def test_those_who_listen_to_evictions_alone(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreEvictEvent)
        store.delete("b")
        store.evict("a", "idle")
        store.flush()
        assert told(heard) == [("evict", "a", "idle")]

    def test_by_cause(self, store: DictMemoryStore) -> None:
        heard: list[Any] = []
        store.event_manager.connect(StoreEvictEvent, heard.append, {"cause": "size"})
        store.evict("a", "idle")
        store.evict("b", "size")
        store.flush()
        assert told(heard) == [("evict", "b", "size")]

    def test_in_order_with_the_rest(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        barrier = threading.Barrier(8)

        def run(number: int) -> None:
            barrier.wait(TIMEOUT)
            for each in range(25):
                store.from_bytes(f"{number}/{each}", b"")
                store.evict(f"{number}/{each}", "size")
                with store.transaction():
                    store.from_bytes(f"{number}/{each}", b"")
                    store.from_bytes(f"{number}/more", b"")
                store.delete(f"{number}/{each}")

        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(run, number) for number in range(8)]:
                future.result(TIMEOUT)
        store.flush()
        revisions = [event.revision or 0 for event in heard]
        assert revisions == sorted(revisions)
        assert len(heard) == 8 * 25 * 5
        assert sum(type(event) is StoreEvictEvent for event in heard) == 8 * 25

    @pytest.mark.parametrize("cause", [None, 5, b"size"])
    def test_a_cause_that_is_no_string(self, store: DictMemoryStore, cause: Any) -> None:
        with pytest.raises(TypeError, match="cause"):
            store.evict("a", cause)
        assert "a" in store

    def test_none_for_what_was_not_evicted(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        with pytest.raises(KeyError):
            store.evict("missing", "size")
        with pytest.raises(RevisionMismatchError):
            store.evict("a", "size", if_revision=0)
        store.flush()
        assert heard == []


#: What is done in one block, by which methods with which arguments, and what is told of it.
BLOCKS: dict[str, tuple[list[tuple[Any, ...]], list[Told]]] = {
    "evicted": ([("evict", "a", "idle")], [("evict", "a", "idle")]),
    "evicted, then set": ([("evict", "a", "idle"), ("from_bytes", "a", b"")], [("update", "a", None)]),
    "set, then evicted": ([("from_bytes", "a", b""), ("evict", "a", "idle")], [("evict", "a", "idle")]),
    "evicted, set, then deleted": (
        [("evict", "a", "idle"), ("from_bytes", "a", b""), ("delete", "a")],
        [("delete", "a", None)],
    ),
    "deleted, set, then evicted": (
        [("delete", "a"), ("from_bytes", "a", b""), ("evict", "a", "idle")],
        [("evict", "a", "idle")],
    ),
    "evicted, set, evicted for another reason": (
        [("evict", "a", "idle"), ("from_bytes", "a", b""), ("evict", "a", "size")],
        [("evict", "a", "size")],
    ),
    "a new key, evicted": ([("from_bytes", "new", b""), ("evict", "new", "size")], []),
    "three keys": (
        [("evict", "a", "idle"), ("delete", "c"), ("evict", "b", "expired")],
        [("evict", "a", "idle"), ("delete", "c", None), ("evict", "b", "expired")],
    ),
}


def run(store: AbstractStore, block: list[tuple[Any, ...]]) -> None:
    for name, *arguments in block:
        getattr(store, name)(*arguments)


blocks = pytest.mark.parametrize(("block", "expected"), BLOCKS.values(), ids=BLOCKS)
kinds = pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])


class TestTransactions:
    @blocks
    @kinds
    def test_the_net_effect(
        self,
        store: DictMemoryStore,
        block: list[tuple[Any, ...]],
        expected: list[Told],
        optimistic: bool,
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.watch() as watch:
            with store.transaction("block", optimistic=optimistic):
                run(store, block)
            store.flush()
            assert told(heard) == told(read(watch)) == expected
        assert {event.revision for event in heard} <= {store.info()["revision"]}
        assert {getattr(event.transaction, "notes", None) for event in heard} <= {"block"}

    @blocks
    def test_by_the_transactions_own_methods(
        self, store: DictMemoryStore, block: list[tuple[Any, ...]], expected: list[Told]
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.transaction() as transaction:
            run(transaction, block)
        store.flush()
        assert told(heard) == expected

    @kinds
    def test_with_a_condition(self, store: DictMemoryStore, optimistic: bool) -> None:
        heard = listen(store, StoreModificationEvent)
        revision = store.get("a").revision
        with store.transaction(optimistic=optimistic):
            store.evict("a", "idle", if_revision=revision)
        store.flush()
        assert told(heard) == [("evict", "a", "idle")]

    def test_with_a_condition_of_ones_own_write(self, store: DictMemoryStore) -> None:
        # The commit has another revision than the block has seen, as somebody else has written meanwhile.
        heard = listen(store, StoreModificationEvent)
        with store.transaction(optimistic=True), ThreadPoolExecutor(1) as pool:
            store.from_bytes("a", b"")
            store.evict("a", "idle", if_revision=store.get("a").revision)
            pool.submit(store.from_bytes, "other", b"").result(TIMEOUT)
        store.flush()
        assert told(heard) == [("set", "other", None), ("evict", "a", "idle")]

    @blocks
    @kinds
    def test_rolled_back(
        self,
        store: DictMemoryStore,
        block: list[tuple[Any, ...]],
        expected: list[Told],
        optimistic: bool,
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.transaction(optimistic=optimistic) as transaction:
            run(store, block)
            transaction.doom()
        store.flush()
        assert heard == []
        assert sorted(store.query_keys()) == ["a", "b", "c"]

    @blocks
    @kinds
    def test_a_savepoint_gives_back_the_cause(
        self,
        store: DictMemoryStore,
        block: list[tuple[Any, ...]],
        expected: list[Told],
        optimistic: bool,
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.transaction(optimistic=optimistic):
            run(store, block)
            with store.transaction("inner") as inner:
                for key in ("a", "b", "c"):
                    store.from_bytes(key, b"again")
                    store.evict(key, "a cause that is taken back")
                inner.doom()
        store.flush()
        assert told(heard) == expected

    @kinds
    def test_what_an_inner_block_evicts_goes_with_the_outer_one(
        self, store: DictMemoryStore, optimistic: bool
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.transaction(optimistic=optimistic):
            with store.transaction():
                store.evict("a", "idle")
            with store.transaction() as inner:
                store.evict("b", "idle")
                inner.doom()
            assert "b" in store
        store.flush()
        assert told(heard) == [("evict", "a", "idle")]

    def test_others_see_it_at_the_end(self, store: DictMemoryStore) -> None:
        with store.transaction(), ThreadPoolExecutor(1) as pool:
            store.evict("a", "size")
            assert pool.submit(store.to_bytes, "a").result(TIMEOUT) == b"1"
        assert "a" not in store

    def test_is_a_read_to_an_optimistic_transaction(self, store: DictMemoryStore) -> None:
        def evict() -> None:
            with store.transaction(optimistic=True):
                store.evict("a", "size")
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(store.from_bytes, "a", b"in use").result(TIMEOUT)

        with pytest.raises(TransactionConflictError, match="'a'"):
            evict()
        assert store.to_bytes("a") == b"in use"

    def test_is_a_conflict_with_who_has_read_the_key(self, store: DictMemoryStore) -> None:
        def copy() -> None:
            with store.transaction(optimistic=True):
                store.from_bytes("b", store.to_bytes("a"))
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(store.evict, "a", "size").result(TIMEOUT)

        with pytest.raises(TransactionConflictError, match="'a'"):
            copy()


class TestWatches:
    def test_live(self, store: DictMemoryStore) -> None:
        with store.watch("a") as watch:
            store.evict("b", "idle")
            store.evict("a", "idle")
            (event,) = read(watch)
            assert type(event) is StoreEvictEvent
            assert told([event]) == [("evict", "a", "idle")]

    def test_from_the_history(self, store: DictMemoryStore) -> None:
        since = store.info()["revision"]
        store.evict("a", "idle")
        store.from_bytes("a", b"again")
        store.delete("a")
        with store.watch(since=since) as watch:
            events = read(watch)
        assert told(events) == [("evict", "a", "idle"), ("set", "a", None), ("delete", "a", None)]
        assert [event.revision for event in events] == [since + 1, since + 2, since + 3]

    def test_coalesced(self, store: DictMemoryStore) -> None:
        with store.watch(max_buffer=1, on_overflow="coalesce") as watch:
            store.evict("a", "idle")
            store.from_bytes("a", b"again")
            store.evict("a", "size")
            store.evict("b", "idle")
            store.from_bytes("b", b"again")
            events = read(watch)
        assert told(events) == [("evict", "a", "size"), ("update", "b", None)]
        assert events[0].previous.data.read() == b"1"

    def test_one_that_waits_for_a_key(self, store: DictMemoryStore) -> None:
        started = threading.Event()

        def gone() -> bool:
            started.set()
            return "a" not in store

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.wait_for, gone, TIMEOUT)
            assert started.wait(TIMEOUT)
            store.evict("a", "size")
            assert waiting.result(TIMEOUT)


class TestElsewhere:
    def test_a_snapshot_keeps_it(self, store: DictMemoryStore) -> None:
        with store.snapshot() as snapshot:
            store.evict("a", "size")
            assert snapshot.to_bytes("a") == b"1"
            assert "a" not in store

    def test_an_index_forgets_it(self) -> None:
        with DictMemoryStore(EventManager(), indexes=["name"]) as store:
            fill(store, a=b"1", b=b"2")
            store.evict("a", "size")
            assert list(store.query_keys(name="a")) == []
            assert list(store.query_keys(name="b")) == ["b"]

    def test_a_closed_store(self, store: DictMemoryStore) -> None:
        store.close()
        with pytest.raises(RuntimeError, match="evict: the store is closed"):
            store.evict("a", "size")

    def test_a_store_that_knows_no_conditions(self) -> None:
        class Old(DictMemoryStore):
            def delete(self, key: str) -> None:  # type: ignore[override]
                super().delete(key)

            evict = AbstractStore.evict

        with Old(EventManager()) as store:
            heard = listen(store, StoreModificationEvent)
            fill(store, a=b"1")
            store.evict("a", "size")
            store.flush()
            assert [type(event) for event in heard] == [StoreSetEvent, StoreDeleteEvent]

    def test_the_classes_are_told_apart(self) -> None:
        assert issubclass(StoreEvictEvent, StoreDeleteEvent)
        assert not issubclass(StoreEvictEvent, StoreUpdateEvent)
