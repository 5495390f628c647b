"""Delivery of events: on which thread, and what `flush` and `close` wait for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    BaseEvent,
    DispatcherThreadError,
    FlushTimeoutError,
    StoreClosedError,
    StoreDeleteEvent,
    StoreEvent,
    StoreModificationEvent,
    StoreProgressStepEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    StoreTransactionEvent,
    StoreTransactionStartEvent,
)
from latchstore.delivery import commit_events
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.listeners import changes, listen, told
from tests.contract.stores import TIMEOUT, StoreContract, facts, fill, one_process
from tests.contract.streams import RecordingStream
from tests.contract.transactions import failing_block
from tests.contract.writing import CHANGES


class DeliveryContract(StoreContract):
    """How events get to their listeners."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2", c=b"3")
        store.flush()

    def test_one_background_thread_tells_everything(self, store: TransactionalStore) -> None:
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

    @one_process
    def test_writers_do_not_wait_for_listeners(self, store: TransactionalStore) -> None:
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

    def test_events_come_in_commit_order(self, store: TransactionalStore) -> None:
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
        self, store: TransactionalStore, monkeypatch: pytest.MonkeyPatch
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

    def test_what_nobody_listened_to_is_not_told_later(self, store: TransactionalStore) -> None:
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
        self, store: TransactionalStore, error: type[BaseException], caplog: pytest.LogCaptureFixture
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
        self, store: TransactionalStore, caplog: pytest.LogCaptureFixture
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

    def test_listeners_may_write(self, store: TransactionalStore) -> None:
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

    def test_listeners_may_read_what_they_are_told_of(self, store: TransactionalStore) -> None:
        seen: list[bytes] = []
        store.event_manager.connect(StoreSetEvent, lambda event: seen.append(store.to_bytes(event.key)))
        with store.transaction():
            store.from_bytes("a", b"x")
        store.flush()
        assert seen == [b"x"]

    def test_listeners_may_connect_others(self, store: TransactionalStore) -> None:
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
    def test_listeners_must_not_wait_for_themselves(self, store: TransactionalStore, method: str) -> None:
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
    def test_pending_events_are_heard_on_closing(self, store: TransactionalStore, end: str) -> None:
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

    def test_closing_ends_the_thread(self, store: TransactionalStore) -> None:
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
        self, store: TransactionalStore, change: Callable[[AbstractStore, str], object]
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

    def test_a_closed_store_can_be_read(self, store: TransactionalStore) -> None:
        store.close()
        assert store.to_bytes("a") == b"1"
        assert store.get("a").metadata == {"name": "a"}
        assert len(store) == 3
        assert sorted(store.query_keys()) == ["a", "b", "c"]
        assert list(store.query(name="b")) == [("b", {"name": "b"})]
        assert [data.read() for data in store.multiget_data(["c"])] == [b"3"]

    @one_process
    def test_closing_gives_up_after_its_timeout(self, store: TransactionalStore) -> None:
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

    def test_listeners_may_write_while_the_store_closes(self, store: TransactionalStore) -> None:
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

    def test_disconnecting_leaves_everything_at_work(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreTransactionEvent)
        store.disconnect()
        with store.transaction():
            store.from_bytes("a", b"x")
        store.flush()
        assert len(heard) == 2
        assert store.to_bytes("a") == b"x"
