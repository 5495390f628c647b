"""Events: what each change says, in which order, on which thread, and what listeners may do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from latchstore import (
    AbstractStore,
    BaseEvent,
    DictMemoryStore,
    DispatcherThreadError,
    FlushTimeoutError,
    ProgressEvent,
    StoreClosedError,
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
    StoreTransactionEvent,
    StoreTransactionStartEvent,
    StoreUpdateEvent,
)
from latchstore.delivery import commit_events
from tests.contract.reading import NESTED, fresh_nested, spoil
from tests.contract.stores import TIMEOUT, StoreContract, facts, fill
from tests.contract.streams import RecordingStream, YieldingStream
from tests.contract.transactions import failing_block
from tests.contract.writing import CHANGES, STREAM_WRITES

E = TypeVar("E", bound=BaseEvent)

changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def listen(store: AbstractStore, cls: type[E]) -> list[E]:
    """Return a list that gets every event of the class from now on."""
    heard: list[E] = []
    store.event_manager.connect(cls, heard.append)
    return heard


def told(events: list[Any]) -> list[tuple[str, str]]:
    """Return kind and key of events that have a key, and the kind and state of others."""
    return [(type(event).__name__, getattr(event, "key", getattr(event, "state", ""))) for event in events]


class EventContract(StoreContract):
    """What each change says."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2", c=b"3")
        store.flush()

    # -- one change -------------------------------------------------------------------------------

    def test_a_new_key(self, store: DictMemoryStore) -> None:
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
        self, store: DictMemoryStore, change: Callable[[AbstractStore, str], object]
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
        self, store: DictMemoryStore, change: Callable[[AbstractStore, str], object]
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        change(store, "new")
        store.flush()
        assert told(heard) == [("StoreSetEvent", "new")]
        assert heard[0].metadata == store.get_metadata("new")

    def test_from_file(self, store: DictMemoryStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"data")
        heard = listen(store, StoreModificationEvent)
        store.from_file("new", path)
        store.from_file("a", path)
        store.flush()
        assert told(heard) == [("StoreSetEvent", "new"), ("StoreUpdateEvent", "a")]

    def test_a_deleted_key(self, store: DictMemoryStore) -> None:
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

    def test_metadata_that_is_updated_to_the_same(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        store.update_metadata("a", {})
        store.flush()
        assert told(heard) == [("StoreUpdateEvent", "a")]

    def test_reading_says_nothing(self, store: DictMemoryStore, tmp_path: Path) -> None:
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
        self, store: DictMemoryStore, fail: Callable[[DictMemoryStore], object]
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
    def test_many_keys(self, store: DictMemoryStore, method: str, items: Any) -> None:
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

    def test_many_updates(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        store.multiupdate_metadata(["a", "b", "a"], [{"n": 1}, {"n": 2}, {"m": 3}])
        store.flush()
        assert sorted(told(heard)) == [("StoreUpdateEvent", "a"), ("StoreUpdateEvent", "b")]
        assert {event.key: event.metadata for event in heard}["a"] == {"name": "a", "n": 1, "m": 3}

    def test_a_listener_hears_a_class_and_its_subclasses(self, store: DictMemoryStore) -> None:
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

    def test_filters_and_handled_events(self, store: DictMemoryStore) -> None:
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

    def test_what_an_event_hands_out_is_isolated(self, store: DictMemoryStore) -> None:
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

    def test_an_event_is_of_its_moment(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        for number in range(5):
            store.set("a", (str(number).encode(), {"n": number}))
        store.delete("a")
        store.flush()
        values: list[Any] = [event.value for event in heard[:-1]]
        assert [value.data.read() for value in values] == [b"0", b"1", b"2", b"3", b"4"]
        assert [event.metadata["n"] for event in heard] == [0, 1, 2, 3, 4, 4]

    # -- transactions -----------------------------------------------------------------------------

    def test_the_order_around_a_transaction(self, store: DictMemoryStore) -> None:
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

    def test_the_start_is_told_on_entry(self, store: DictMemoryStore) -> None:
        heard = threading.Event()
        store.event_manager.connect(StoreTransactionStartEvent, lambda event: heard.set())
        # The thread that tells must run already: a block starts it when it ends.
        store.event_manager.connect(StoreSetEvent, lambda event: None)
        store.from_bytes("a", b"x")
        with store.transaction():
            assert heard.wait(TIMEOUT)

    def test_every_event_says_which_transaction(self, store: DictMemoryStore) -> None:
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

    def test_the_revision_of_a_transaction(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        with store.transaction() as transaction:
            store.from_bytes("a", b"x")
            store.delete("b")
        store.flush()
        assert {event.revision for event in heard} == {transaction.revision}

    def test_a_transaction_that_failed(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreEvent)
        with failing_block(store, "some notes"):
            store.from_bytes("a", b"x")
            store.delete("b")
        store.flush()
        assert told(heard) == [("StoreTransactionStartEvent", ""), ("StoreTransactionEndEvent", "failed")]

    def test_a_transaction_that_only_reads(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreEvent)
        with store.transaction():
            facts(store)
        store.flush()
        assert told(heard) == [("StoreTransactionStartEvent", ""), ("StoreTransactionEndEvent", "done")]

    def test_blocks_in_blocks_are_one_transaction(self, store: DictMemoryStore) -> None:
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

    def test_one_net_event_for_each_key(self, store: DictMemoryStore) -> None:
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
    def test_progress(self, store: DictMemoryStore, write: Callable[..., object]) -> None:
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

    def test_progress_says_what_is_to_be_set(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreProgressEvent)
        store.set("a", (RecordingStream(b"data"), fresh_nested()))
        store.flush()
        assert len(heard) >= 3
        assert all(event.metadata == NESTED for event in heard)

    def test_progress_of_a_value_knows_its_size(self, store: DictMemoryStore) -> None:
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

    def test_each_stream_is_an_operation(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreEvent)
        store.multiset_data(["a", "new"], [RecordingStream(b"x"), RecordingStream(b"y")])
        store.flush()
        progress: list[Any] = [event for event in heard if isinstance(event, StoreProgressEvent)]
        assert len({event.operation_id for event in progress}) == 2
        assert list(dict.fromkeys(event.key for event in progress)) == ["a", "new"]
        assert sorted(told(heard[-2:])) == [("StoreSetEvent", "new"), ("StoreUpdateEvent", "a")]

    @pytest.mark.parametrize("write", STREAM_WRITES.values(), ids=STREAM_WRITES)
    def test_progress_of_a_stream_that_fails(
        self, store: DictMemoryStore, write: Callable[..., object]
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

    def test_progress_in_a_transaction(self, store: DictMemoryStore) -> None:
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


class DeliveryContract(StoreContract):
    """How events get to their listeners."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2", c=b"3")
        store.flush()

    def test_one_background_thread_tells_everything(self, store: DictMemoryStore) -> None:
        threads: list[threading.Thread] = []
        store.event_manager.connect(StoreEvent, lambda event: threads.append(threading.current_thread()))
        for _ in range(3):
            with store.transaction():
                store.set_data("a", RecordingStream(b"x"))
            store.delete("a")
            store.flush()
        assert len(threads) >= 12
        assert len(set(threads)) == 1
        assert threads[0] is not threading.current_thread()
        assert threads[0].daemon

    def test_writers_do_not_wait_for_listeners(self, store: DictMemoryStore) -> None:
        listening, go_on = threading.Event(), threading.Event()
        heard: list[str] = []

        def slow(event: StoreSetEvent) -> None:
            listening.set()
            assert go_on.wait(TIMEOUT)
            heard.append(event.key)

        store.event_manager.connect(StoreSetEvent, slow)
        store.from_bytes("a", b"x")
        assert listening.wait(TIMEOUT)
        store.from_bytes("b", b"x")
        with store.transaction():
            store.from_bytes("c", b"x")
        assert store.to_bytes("c") == b"x"
        assert heard == []
        assert store.info()["pending_events"] >= 3
        with pytest.raises(
            FlushTimeoutError, match=r"listener .*slow has had <.*'a'.*> for \d.*, 3 events pending"
        ):
            store.flush(0)
        go_on.set()
        store.flush()
        assert heard == ["a", "b", "c"]
        assert store.info()["pending_events"] == 0

    def test_events_come_in_commit_order(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreModificationEvent)
        start = threading.Barrier(4)

        def write(number: int) -> None:
            start.wait(TIMEOUT)
            for step in range(50):
                store.from_bytes(f"{number}", b"x")
                if step % 10 == 0:
                    with store.transaction():
                        store.from_bytes(f"{number}", b"y")
                        store.from_bytes("shared", b"y")
                if step % 10 == 5:
                    store.delete(f"{number}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        store.flush()
        revisions = [event.revision or 0 for event in heard]
        assert revisions == sorted(revisions)
        assert len(set(revisions)) == 4 * (50 + 5 + 5)
        assert len(heard) == 4 * (50 + 2 * 5 + 5)
        # What each event says was there before is what the one before it left.
        last: dict[str, int | None] = {}
        for event in heard:
            previous: Any = event.previous
            assert (None if previous is None else previous.revision) == last.get(event.key)
            last[event.key] = None if event.value is None else event.revision

    def test_nobody_listens_and_no_event_is_built(
        self, store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built: list[type] = []
        original, original_event_of = BaseEvent.__init__, commit_events.event_of

        def counting(self: BaseEvent, /, *args: Any, **attributes: Any) -> None:
            built.append(type(self))
            original(self, *args, **attributes)

        def counting_event_of(cls: type[StoreModificationEvent], *args: Any) -> StoreModificationEvent:
            built.append(cls)
            return original_event_of(cls, *args)

        def change() -> None:
            for write in CHANGES.values():
                write(store, "a")
            with store.transaction():
                store.set_data("a", RecordingStream(b"x"))
                store.delete("b")
            with failing_block(store):
                store.delete("c")
            store.delete("a")
            fill(store, a=b"1", b=b"2")
            store.flush()

        monkeypatch.setattr(BaseEvent, "__init__", counting)
        monkeypatch.setattr(commit_events, "event_of", counting_event_of)  # which calls no __init__
        change()
        assert built == []
        listen(store, StoreDeleteEvent)
        change()
        assert set(built) == {StoreDeleteEvent}
        listen(store, StoreEvent)
        change()
        assert {StoreTransactionStartEvent, StoreTransactionEndEvent, StoreProgressStepEvent} < set(built)

    def test_what_nobody_listened_to_is_not_told_later(self, store: DictMemoryStore) -> None:
        store.from_bytes("a", b"x")
        heard = listen(store, BaseEvent)
        store.flush()
        assert heard == []
        store.event_manager.disconnect(BaseEvent, heard.append)
        store.from_bytes("a", b"y")
        store.flush()
        assert heard == []

    # -- listeners --------------------------------------------------------------------------------

    @pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
    def test_a_listener_that_raises_does_not_end_delivery(
        self, store: DictMemoryStore, error: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(event: StoreSetEvent) -> None:
            if event.key == "a":
                raise error("broken")

        store.event_manager.connect(StoreSetEvent, broken, priority=1)
        heard = listen(store, StoreSetEvent)
        with caplog.at_level(logging.ERROR, logger="latchstore"):
            store.multiset_data(["a", "b"], [b"x", b"x"])
            store.from_bytes("c", b"x")
            store.flush()
        assert told(heard)[-2:] == [("StoreUpdateEvent", "b"), ("StoreUpdateEvent", "c")]
        assert any(record.name == "latchstore" for record in caplog.records)

    def test_a_listener_that_raises_harms_no_other(
        self, store: DictMemoryStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(event: StoreSetEvent) -> None:
            raise ZeroDivisionError

        before = listen(store, StoreModificationEvent)
        store.event_manager.connect(StoreSetEvent, broken)
        after = listen(store, StoreSetEvent)
        store.from_bytes("a", b"x")
        store.flush()
        assert told(before) == told(after) == [("StoreUpdateEvent", "a")]
        assert "broken" in caplog.text

    def test_listeners_may_write(self, store: DictMemoryStore) -> None:
        def react(event: StoreSetEvent) -> None:
            if event.key == "a":
                store.from_bytes("b", b"reaction")
                with store.transaction("reaction"):
                    store.update_metadata("b", {"because": event.key})
                    store.delete("c")

        store.event_manager.connect(StoreSetEvent, react)
        heard = listen(store, StoreModificationEvent)
        store.from_bytes("a", b"x")
        store.flush()  # until the listener has been called
        store.flush()  # until what it did has been heard
        assert told(heard) == [
            ("StoreUpdateEvent", "a"),
            ("StoreUpdateEvent", "b"),
            ("StoreUpdateEvent", "b"),
            ("StoreDeleteEvent", "c"),
        ]
        assert store.get_metadata("b") == {"name": "b", "because": "a"}

    def test_listeners_may_read_what_they_are_told_of(self, store: DictMemoryStore) -> None:
        seen: list[bytes] = []
        store.event_manager.connect(StoreSetEvent, lambda event: seen.append(store.to_bytes(event.key)))
        with store.transaction():
            store.from_bytes("a", b"x")
        store.flush()
        assert seen == [b"x"]

    def test_listeners_may_connect_others(self, store: DictMemoryStore) -> None:
        late: list[StoreDeleteEvent] = []

        def connect(event: StoreSetEvent) -> None:
            store.event_manager.connect(StoreDeleteEvent, late.append)

        store.event_manager.connect(StoreSetEvent, connect)
        store.from_bytes("a", b"x")
        store.flush()
        store.delete("a")
        store.flush()
        assert told(late) == [("StoreDeleteEvent", "a")]

    @pytest.mark.parametrize(
        "method",
        [
            "flush",
            "close",
        ],
    )
    def test_listeners_must_not_wait_for_themselves(self, store: DictMemoryStore, method: str) -> None:
        caught: list[BaseException] = []

        def listener(event: StoreSetEvent) -> None:
            try:
                getattr(store, method)(0)
            except DispatcherThreadError as error:
                caught.append(error)

        listen(store, StoreSetEvent)
        store.from_bytes("a", b"x")
        store.flush()
        store.event_manager.connect(StoreSetEvent, listener)
        store.from_bytes("a", b"x")
        store.flush()
        assert len(caught) == 1
        # It was refused, so nothing has happened: the store is still open.
        assert store.is_connected()
        store.from_bytes("a", b"y")
        store.flush()
        assert len(caught) == 2

    # -- closing ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("end", ["close", "with"])
    def test_pending_events_are_heard_on_closing(self, store: DictMemoryStore, end: str) -> None:
        listening, go_on = threading.Event(), threading.Event()
        heard: list[str] = []

        def listener(event: StoreSetEvent) -> None:
            listening.set()
            assert go_on.wait(TIMEOUT)
            heard.append(event.key)

        store.event_manager.connect(StoreSetEvent, listener)
        with store:
            for number in range(200):
                store.from_bytes(f"{number}", b"x")
            assert listening.wait(TIMEOUT)
            assert heard == []
            go_on.set()
            if end == "close":
                store.close()
        assert heard == [f"{number}" for number in range(200)]

    def test_closing_ends_the_thread(self, store: DictMemoryStore) -> None:
        threads: list[threading.Thread] = []
        store.event_manager.connect(StoreSetEvent, lambda event: threads.append(threading.current_thread()))
        store.from_bytes("a", b"x")
        store.close()
        (thread,) = threads
        assert not thread.is_alive()
        store.close()
        store.connect()
        store.from_bytes("a", b"y")
        store.flush()
        assert len(threads) == 2
        assert threads[1].is_alive()

    @changes
    def test_a_closed_store_refuses_changes(
        self, store: DictMemoryStore, change: Callable[[AbstractStore, str], object]
    ) -> None:
        heard = listen(store, StoreModificationEvent)
        before = facts(store)
        store.close()
        with pytest.raises(StoreClosedError, match="closed"):
            change(store, "a")
        with pytest.raises(StoreClosedError):
            store.delete("a")
        assert facts(store) == before
        assert heard == []
        assert store.info()["closed"] is True
        store.connect()
        assert store.info()["closed"] is False
        change(store, "a")
        store.flush()
        assert told(heard) == [("StoreUpdateEvent", "a")]

    def test_a_closed_store_can_be_read(self, store: DictMemoryStore) -> None:
        store.close()
        assert store.to_bytes("a") == b"1"
        assert store.get("a").metadata == {"name": "a"}
        assert len(store) == 3
        assert sorted(store.query_keys()) == ["a", "b", "c"]
        assert list(store.query(name="b")) == [("b", {"name": "b"})]
        assert [data.read() for data in store.multiget_data(["c"])] == [b"3"]

    def test_closing_gives_up_after_its_timeout(self, store: DictMemoryStore) -> None:
        listening, go_on = threading.Event(), threading.Event()
        heard: list[str] = []

        def listener(event: StoreSetEvent) -> None:
            listening.set()
            assert go_on.wait(TIMEOUT)
            heard.append(event.key)

        store.event_manager.connect(StoreSetEvent, listener)
        store.from_bytes("a", b"x")
        store.from_bytes("b", b"x")
        assert listening.wait(TIMEOUT)
        with pytest.raises(FlushTimeoutError, match=r"listener .* has had .*, 2 events pending") as caught:
            store.close(0)
        assert caught.value.pending == 2
        assert str(caught.value.listener).endswith("listener")
        with pytest.raises(StoreClosedError):
            store.from_bytes("a", b"y")
        go_on.set()
        store.close()
        assert heard == ["a", "b"]

    def test_listeners_may_write_while_the_store_closes(self, store: DictMemoryStore) -> None:
        listening, go_on = threading.Event(), threading.Event()

        def react(event: StoreSetEvent) -> None:
            if event.key == "a":
                listening.set()
                assert go_on.wait(TIMEOUT)
                store.from_bytes("b", b"reaction")

        store.event_manager.connect(StoreSetEvent, react)
        heard = listen(store, StoreSetEvent)
        store.from_bytes("a", b"x")
        assert listening.wait(TIMEOUT)
        with pytest.raises(FlushTimeoutError):
            store.close(0)
        go_on.set()
        store.close()
        assert store.to_bytes("b") == b"reaction"
        # What was written at the very end is heard by the time of the next closing.
        store.close()
        assert told(heard) == [("StoreUpdateEvent", "a"), ("StoreUpdateEvent", "b")]

    def test_disconnecting_leaves_everything_at_work(self, store: DictMemoryStore) -> None:
        heard = listen(store, StoreTransactionEvent)
        store.disconnect()
        with store.transaction():
            store.from_bytes("a", b"x")
        store.flush()
        assert len(heard) == 2
        assert store.to_bytes("a") == b"x"
