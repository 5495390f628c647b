"""Events: what each change says, in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    BaseEvent,
    ProgressEvent,
    StoreDeleteEvent,
    StoreEvent,
    StoreKeyEvent,
    StoreModificationEvent,
    StoreProgressEndEvent,
    StoreProgressEvent,
    StoreProgressStartEvent,
    StoreProgressStepEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    StoreTransactionStartEvent,
    StoreUpdateEvent,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.listeners import changes, listen, told
from tests.contract.reading import NESTED, fresh_nested, spoil
from tests.contract.stores import TIMEOUT, StoreContract, facts, fill, one_process
from tests.contract.streams import RecordingStream, YieldingStream
from tests.contract.transactions import failing_block
from tests.contract.writing import CHANGES, STREAM_WRITES


class EventContract(StoreContract):
    """What each change says."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2", c=b"3")
        store.flush()

    # -- one change -------------------------------------------------------------------------------

    def test_a_new_key(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreKeyEvent)
        store.set("new", (b"data", {"n": 1}))
        store.flush()
        (event,) = heard[-1:]
        assert type(event) is StoreSetEvent
        assert event.action == "set"
        assert event.source is store
        assert event.key == "new"
        assert event.metadata == {"n": 1}
        assert event.previous is None
        assert isinstance(event.revision, int)
        assert event.revision == store.get("new").revision
        assert event.transaction is None
        value: Any = event.value
        assert (value.data.read(), value.metadata, value.revision) == (b"data", {"n": 1}, event.revision)
        assert value.created == store.get("new").created

    @changes
    def test_a_key_that_was_there(
        self, store: TransactionalStore, change: Callable[[AbstractStore, str], object]
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        before = store.get("a")
        change(store, "a")
        store.flush()
        (event,) = heard
        assert type(event) is StoreUpdateEvent
        assert isinstance(event, StoreSetEvent)
        assert event.action == "update"
        assert event.source is store
        assert event.key == "a"
        assert event.metadata == store.get_metadata("a")
        value: Any = event.value
        previous: Any = event.previous
        assert value.data.read() == store.to_bytes("a")
        assert value.modified == store.get("a").modified
        assert (previous.data.read(), previous.metadata) == (b"1", {"name": "a"})
        assert previous.revision == before.revision
        assert event.revision == store.get("a").revision
        assert event.transaction is None

    @pytest.mark.parametrize(
        "change",
        [change for name, change in CHANGES.items() if "update" not in name],
        ids=[name for name in CHANGES if "update" not in name],
    )
    def test_every_method_that_makes_a_key(
        self, store: TransactionalStore, change: Callable[[AbstractStore, str], object]
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        change(store, "new")
        store.flush()
        assert told(heard) == [("StoreSetEvent", "new")]
        assert heard[0].metadata == store.get_metadata("new")

    def test_from_file(self, store: TransactionalStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"data")
        heard = listen(store, StoreModificationEvent)
        store.from_file("new", path)
        store.from_file("a", path)
        store.flush()
        assert told(heard) == [("StoreSetEvent", "new"), ("StoreUpdateEvent", "a")]

    def test_a_deleted_key(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreKeyEvent)
        store.set("a", (b"data", fresh_nested()))
        revision = store.info()["revision"]
        heard.clear()
        store.flush()
        heard.clear()
        store.delete("a")
        store.flush()
        (event,) = heard
        assert type(event) is StoreDeleteEvent
        assert event.action == "delete"
        assert event.source is store
        assert event.key == "a"
        assert event.metadata == NESTED
        assert event.value is None
        previous: Any = event.previous
        assert (previous.data.read(), previous.revision) == (b"data", revision)
        assert event.revision == revision + 1
        assert event.transaction is None

    def test_metadata_that_is_updated_to_the_same(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        store.update_metadata("a", {})
        store.flush()
        assert told(heard) == [("StoreUpdateEvent", "a")]

    def test_reading_says_nothing(self, store: TransactionalStore, tmp_path: Path) -> None:
        heard = listen(store, BaseEvent)
        facts(store)
        store.to_file("a", tmp_path / "file")
        assert "a" in store
        assert len(store) == 3
        store.flush()
        assert heard == []

    @pytest.mark.parametrize(
        "fail",
        [
            lambda store: store.delete("nowhere"),
            lambda store: store.update_metadata("nowhere", {}),
            lambda store: store.set("a", (YieldingStream([b"some", KeyError("stream")]), {})),
            lambda store: store.multiupdate_metadata(["a", "nowhere"], [{}, {}]),
            lambda store: store.multiset_data(["a", 5], [b"x", b"y"]),
            lambda store: store.set_metadata("a", 5),
        ],
        ids=["delete", "update", "stream", "multiupdate", "multiset_data", "bad"],
    )
    def test_what_fails_says_nothing(
        self, store: TransactionalStore, fail: Callable[[TransactionalStore], object]
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        with pytest.raises((KeyError, TypeError)):
            fail(store)
        store.flush()
        assert heard == []

    @pytest.mark.parametrize(
        ("method", "items"),
        [
            ("multiset", [(b"x", {"n": 1}), (b"y", {"n": 2}), (b"z", {"n": 3})]),
            ("multiset_data", [b"x", b"y", b"z"]),
            ("multiset_metadata", [{"n": 1}, {"n": 2}, {"n": 3}]),
        ],
    )
    def test_many_keys(self, store: TransactionalStore, method: str, items: Any) -> None:
        heard = listen(store, StoreModificationEvent)
        getattr(store, method)(["a", "new", "c"], items)
        store.flush()
        assert sorted(told(heard)) == [
            ("StoreSetEvent", "new"),
            ("StoreUpdateEvent", "a"),
            ("StoreUpdateEvent", "c"),
        ]
        assert {event.revision for event in heard} == {store.info()["revision"]}
        for event in heard:
            assert event.metadata == store.get_metadata(event.key)

    def test_many_updates(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        store.multiupdate_metadata(["a", "b", "a"], [{"n": 1}, {"n": 2}, {"m": 3}])
        store.flush()
        assert sorted(told(heard)) == [("StoreUpdateEvent", "a"), ("StoreUpdateEvent", "b")]
        assert {event.key: event.metadata for event in heard}["a"] == {"name": "a", "n": 1, "m": 3}

    def test_a_listener_hears_a_class_and_its_subclasses(self, store: TransactionalStore) -> None:
        sets, updates = listen(store, StoreSetEvent), listen(store, StoreUpdateEvent)
        deletes, all_of_them = listen(store, StoreDeleteEvent), listen(store, BaseEvent)
        store.from_bytes("new", b"x")
        store.from_bytes("new", b"y")
        store.delete("new")
        store.flush()
        assert told(sets) == [("StoreSetEvent", "new"), ("StoreUpdateEvent", "new")]
        assert told(updates) == [("StoreUpdateEvent", "new")]
        assert told(deletes) == [("StoreDeleteEvent", "new")]
        assert told(all_of_them) == [*told(sets), *told(deletes)]

    def test_filters_and_handled_events(self, store: TransactionalStore) -> None:
        heard: list[str] = []

        def first(event: StoreSetEvent) -> None:
            heard.append(f"first {event.key}")
            if event.key == "b":
                event.mark_as_handled()

        store.event_manager.connect(StoreSetEvent, lambda event: heard.append(f"last {event.key}"))
        store.event_manager.connect(StoreSetEvent, first, priority=1)
        store.event_manager.connect(
            StoreSetEvent, lambda event: heard.append("only c"), filter={"key": "c", "source": store}
        )
        store.multiset_data(["a", "b", "c"], [b"", b"", b""])
        store.flush()
        assert heard == ["first a", "last a", "first b", "first c", "last c", "only c"]

    # -- isolation --------------------------------------------------------------------------------

    def test_what_an_event_hands_out_is_isolated(self, store: TransactionalStore) -> None:
        def spoil_all(event: Any) -> None:
            spoil(event.metadata)
            spoil(event.value.metadata)
            event.value.data.write(b"spoilt")
            if event.previous is not None and event.previous.metadata:
                spoil(event.previous.metadata)

        store.set("nested", (b"data", fresh_nested()))
        store.flush()
        value = store.get("nested")
        store.event_manager.connect(StoreSetEvent, spoil_all)
        store.set_data("nested", b"more")
        store.set("other", (b"data", fresh_nested()))
        store.flush()
        assert store.get_metadata("nested") == store.get_metadata("other") == NESTED
        assert (store.to_bytes("nested"), store.to_bytes("other")) == (b"more", b"data")
        assert value.metadata == NESTED

    def test_an_event_is_of_its_moment(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        for number in range(5):
            store.set("a", (str(number).encode(), {"n": number}))
        store.delete("a")
        store.flush()
        values: list[Any] = [event.value for event in heard[:-1]]
        assert [value.data.read() for value in values] == [b"0", b"1", b"2", b"3", b"4"]
        assert [event.metadata["n"] for event in heard] == [0, 1, 2, 3, 4, 4]

    # -- transactions -----------------------------------------------------------------------------

    @one_process
    def test_the_order_around_a_transaction(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreEvent)
        with store.transaction("some notes"):
            store.from_bytes("a", b"x")
            store.from_bytes("new", b"x")
            store.delete("c")
        store.flush()
        assert told(heard[:2]) == [("StoreTransactionStartEvent", ""), ("StoreTransactionEndEvent", "done")]
        assert sorted(told(heard[2:])) == [
            ("StoreDeleteEvent", "c"),
            ("StoreSetEvent", "new"),
            ("StoreUpdateEvent", "a"),
        ]

    @one_process
    def test_the_start_is_told_on_entry(self, store: TransactionalStore) -> None:
        heard = threading.Event()
        store.event_manager.connect(StoreTransactionStartEvent, lambda event: heard.set())
        # The thread that tells must run already: a block starts it when it ends.
        store.event_manager.connect(StoreSetEvent, lambda event: None)
        store.from_bytes("a", b"x")
        with store.transaction():
            assert heard.wait(TIMEOUT)

    @one_process
    def test_every_event_says_which_transaction(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreEvent)
        for notes in ("first", "second"):
            with store.transaction(notes):
                store.from_bytes("a", b"x")
                store.from_bytes("b", b"x")
        store.flush()
        assert len(heard) == 8
        infos: list[Any] = [event.transaction for event in heard]
        assert [info.notes for info in infos] == ["first"] * 4 + ["second"] * 4
        assert {info.thread for info in infos} == {threading.current_thread().name}
        first, second = infos[0].number, infos[4].number
        assert first < second
        assert [info.number for info in infos] == [first] * 4 + [second] * 4
        assert all(event.source is store for event in heard)

    def test_the_revision_of_a_transaction(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.transaction() as transaction:
            store.from_bytes("a", b"x")
            store.delete("b")
        store.flush()
        assert {event.revision for event in heard} == {transaction.revision}

    @one_process
    def test_a_transaction_that_failed(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreEvent)
        with failing_block(store, "some notes"):
            store.from_bytes("a", b"x")
            store.delete("b")
        store.flush()
        assert told(heard) == [("StoreTransactionStartEvent", ""), ("StoreTransactionEndEvent", "failed")]

    @one_process
    def test_a_transaction_that_only_reads(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreEvent)
        with store.transaction():
            facts(store)
        store.flush()
        assert told(heard) == [("StoreTransactionStartEvent", ""), ("StoreTransactionEndEvent", "done")]

    @one_process
    def test_blocks_in_blocks_are_one_transaction(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreEvent)
        with store.transaction("outer"):
            with store.transaction("inner"):
                store.from_bytes("a", b"x")
            with failing_block(store, "failing"):
                store.from_bytes("b", b"x")
                store.from_bytes("a", b"y")
        store.flush()
        assert told(heard) == [
            ("StoreTransactionStartEvent", ""),
            ("StoreTransactionEndEvent", "done"),
            ("StoreUpdateEvent", "a"),
        ]
        event: Any = heard[-1]
        assert event.value.data.read() == b"x"
        assert event.transaction.notes == "outer"

    def test_one_net_event_for_each_key(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.transaction():
            # New, and changed: set.
            store.set("new", (b"first", {"n": 1}))
            store.set("new", (b"last", {"n": 2}))
            # Changed twice: update.
            store.from_bytes("a", b"first")
            store.update_metadata("a", {"n": 2})
            # Deleted and set again: update.
            store.delete("b")
            store.from_bytes("b", b"again")
            # Changed and deleted: delete.
            store.from_bytes("c", b"first")
            store.delete("c")
            # New, and deleted: nothing.
            store.from_bytes("short-lived", b"x")
            store.delete("short-lived")
        store.flush()
        assert sorted(told(heard)) == [
            ("StoreDeleteEvent", "c"),
            ("StoreSetEvent", "new"),
            ("StoreUpdateEvent", "a"),
            ("StoreUpdateEvent", "b"),
        ]
        events: dict[str, Any] = {event.key: event for event in heard}
        assert events["new"].value.data.read() == b"last"
        assert events["new"].metadata == {"n": 2}
        assert events["new"].previous is None
        assert events["a"].metadata == {"name": "a", "n": 2}
        assert events["a"].previous.data.read() == b"1"
        assert events["b"].metadata == {}
        assert events["b"].previous.metadata == {"name": "b"}
        assert events["c"].metadata == {"name": "c"}
        assert events["c"].previous.data.read() == b"3"

    # -- progress ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("write", STREAM_WRITES.values(), ids=STREAM_WRITES)
    def test_progress(self, store: TransactionalStore, write: Callable[..., object]) -> None:
        heard = listen(store, StoreEvent)
        write(store, "a", RecordingStream(b"0123456789"), 4)
        store.flush()
        start, *steps, end, update = heard
        assert type(start) is StoreProgressStartEvent
        assert start.steps == -1
        assert {type(step) for step in steps} == {StoreProgressStepEvent}
        assert [step.step for step in steps[:3]] == [4, 8, 10]  # type: ignore[attr-defined]
        assert type(end) is StoreProgressEndEvent
        assert end.exit_state == "normal"
        assert type(update) is StoreUpdateEvent
        progress: list[Any] = [start, *steps, end]
        assert len({event.operation_id for event in progress}) == 1
        for event in progress:
            assert isinstance(event, StoreProgressEvent)
            assert isinstance(event, ProgressEvent)
            assert (event.key, event.source) == ("a", store)
            assert "a" in event.message

    def test_progress_says_what_is_to_be_set(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreProgressEvent)
        store.set("a", (RecordingStream(b"data"), fresh_nested()))
        store.flush()
        assert len(heard) >= 3
        assert all(event.metadata == NESTED for event in heard)

    def test_progress_of_a_value_knows_its_size(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreProgressEvent)
        store.set("new", store.get("a"))
        value = store.get("b")
        value.data.seek(0)
        store.set("newer", value)
        store.flush()
        starts = [event.steps for event in heard if isinstance(event, StoreProgressStartEvent)]
        ends = [event.exit_state for event in heard if isinstance(event, StoreProgressEndEvent)]
        assert starts == [1, 1]
        assert ends == ["normal", "normal"]

    def test_each_stream_is_an_operation(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreEvent)
        store.multiset_data(["a", "new"], [RecordingStream(b"x"), RecordingStream(b"y")])
        store.flush()
        progress: list[Any] = [event for event in heard if isinstance(event, StoreProgressEvent)]
        assert len({event.operation_id for event in progress}) == 2
        assert list(dict.fromkeys(event.key for event in progress)) == ["a", "new"]
        assert sorted(told(heard[-2:])) == [("StoreSetEvent", "new"), ("StoreUpdateEvent", "a")]

    @pytest.mark.parametrize("write", STREAM_WRITES.values(), ids=STREAM_WRITES)
    def test_progress_of_a_stream_that_fails(
        self, store: TransactionalStore, write: Callable[..., object]
    ) -> None:
        heard = listen(store, StoreEvent)
        with pytest.raises(OSError, match="disk full"):
            write(store, "a", YieldingStream([b"some", OSError("disk full")]))
        store.flush()
        start, *steps, end = heard
        assert type(start) is StoreProgressStartEvent
        assert [type(step) for step in steps] == [StoreProgressStepEvent]
        assert type(end) is StoreProgressEndEvent
        assert end.exit_state == "exception"
        assert end.message == "disk full"

    def test_progress_in_a_transaction(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreEvent)
        with failing_block(store):
            store.set_data("a", RecordingStream(b"data"))
        store.flush()
        kinds = list(dict.fromkeys(type(event) for event in heard))
        assert kinds == [
            StoreTransactionStartEvent,
            StoreProgressStartEvent,
            StoreProgressStepEvent,
            StoreProgressEndEvent,
            StoreTransactionEndEvent,
        ]
