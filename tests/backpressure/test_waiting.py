"""Writers wait for room before they take any lock, and go on when there is some."""

from __future__ import annotations

import functools
import io
import threading

import pytest

from latchstore import (
    BackpressureError,
    DictMemoryStore,
    EventManager,
    FlushTimeoutError,
    StoreClosedError,
    StoreProgressEvent,
    StoreSetEvent,
)
from latchstore.delivery import dispatcher as dispatcher_module
from latchstore.engine.inspection import dispatcher_of, table_of
from tests.backpressure.crowds import SHORT, TIMEOUT, WRITES, Crowd, changes_nothing


@pytest.mark.parametrize("write", WRITES)
def test_every_write_waits_and_is_refused(write: str) -> None:
    with Crowd(1, lock_timeout=SHORT) as crowd:
        crowd.write(1)
        with changes_nothing(crowd.store), pytest.raises(BackpressureError):
            WRITES[write](crowd.store)
        crowd.listener.permit(1)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == ["k0"]
        # And it is as if it had not been tried: tried again, it succeeds.
        WRITES[write](crowd.store)
        crowd.listener.permit(2)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == ["k0", *(["a", "b"] if write == "multiset_data" else ["k0"])]


@pytest.mark.parametrize("write", WRITES)
def test_a_waiting_writer_holds_no_lock(write: str) -> None:
    """Others read, open snapshots and add indexes meanwhile; the last is the owner."""
    with Crowd(1) as crowd:
        crowd.write(1)
        store = crowd.store
        revision = store.info()["revision"]
        writing = crowd.start(lambda: WRITES[write](store))
        assert table_of(store).latches.writer.claim is None
        assert store.to_bytes("k0") == b""
        assert list(store.query_keys()) == ["k0"]
        assert len(store) == 1
        with store.snapshot() as view:
            assert view.to_bytes("k0") == b""
        store.add_index("n")
        assert store.info()["revision"] == revision
        assert not writing.done()
        crowd.listener.permit(10)
        writing.result(TIMEOUT)
        assert store.info()["revision"] == revision + 1


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_listener_may_open_a_transaction_while_a_writer_waits(optimistic: bool) -> None:
    with Crowd(1) as crowd:
        store = crowd.store
        in_the_block = threading.Event()

        def listener(event: StoreSetEvent) -> None:
            with store.transaction(optimistic=optimistic, timeout=0):
                store.from_bytes("from the listener", b"")
                in_the_block.set()

        crowd.manager.connect(StoreSetEvent, listener, {"key": "k0"}, priority=-1)
        crowd.write(1)
        writing = crowd.start(lambda: store.from_bytes("from the writer", b""))
        crowd.listener.permit(1)
        assert in_the_block.wait(TIMEOUT)
        crowd.listener.permit(10)
        writing.result(TIMEOUT)
        store.flush(TIMEOUT)
        assert store.stats()["listener_errors"] == 0
        assert crowd.listener.heard == ["k0", "from the listener", "from the writer"]


def test_what_listeners_write_never_waits() -> None:
    """One event leads to many, far beyond the limit, with no time to wait at all."""
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=0)
    heard: list[str] = []
    errors: list[BaseException] = []

    def listener(event: StoreSetEvent) -> None:
        heard.append(event.key)
        if event.key != "cause":
            return
        try:
            for number in range(10):
                store.from_bytes(f"{number} alone", b"")
                store.set(f"{number} by stream", (io.BytesIO(b"data"), {}))
                store.multiset_data([f"{number} first", f"{number} second"], [b"", b""])
                for optimistic in (False, True):
                    with store.transaction(optimistic=optimistic):
                        store.from_bytes(f"{number} in a block, {optimistic}", b"")
        except BaseException as error:
            errors.append(error)

    store.event_manager.connect(StoreSetEvent, listener)
    store.from_bytes("cause", b"")
    store.flush(TIMEOUT)
    store.flush(TIMEOUT)
    assert errors == []
    assert len(heard) == len(set(heard)) == 61
    store.close(TIMEOUT)


def test_a_transaction_that_was_let_in_does_not_wait_again() -> None:
    """Its own progress events fill the queue, and it goes on: it is the owner that others wait for."""
    with Crowd(1, lock_timeout=SHORT) as crowd:
        crowd.manager.connect(StoreProgressEvent, crowd.listener.listen)
        with crowd.store.transaction():
            for number in range(3):
                crowd.store.set(f"k{number}", (io.BytesIO(b"data"), {}))
                with crowd.store.transaction():
                    crowd.store.from_bytes(f"inner {number}", b"")
            assert crowd.store.stats()["events_pending"] >= 6
        assert len(crowd.store) == 6


def test_a_stream_is_not_begun_while_there_is_no_room() -> None:
    with Crowd(1, lock_timeout=SHORT) as crowd:
        crowd.manager.connect(StoreProgressEvent, crowd.listener.listen)
        crowd.write(1)
        stream = io.BytesIO(b"data")
        with changes_nothing(crowd.store), pytest.raises(BackpressureError, match=r"the stream of 'k'"):
            crowd.store.set("k", (stream, {}))
        assert stream.tell() == 0


def test_several_writers_wait_and_all_go_on() -> None:
    with Crowd(1) as crowd:
        crowd.write(1)
        names = [f"late {number}" for number in range(4)]
        writing = [crowd.start(functools.partial(crowd.store.from_bytes, name, b"")) for name in names]
        crowd.listener.permit(5)
        for each in writing:
            each.result(TIMEOUT)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard[0] == "k0"
        assert sorted(crowd.listener.heard[1:]) == names


def test_a_writer_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look by itself only after the test has failed."""
    monkeypatch.setattr(dispatcher_module, "LOOK_AGAIN", 10 * TIMEOUT)
    with Crowd(1, lock_timeout=10 * TIMEOUT) as crowd:
        crowd.write(1)
        writing = crowd.start(lambda: crowd.store.from_bytes("late", b""))
        crowd.listener.permit(2)
        writing.result(TIMEOUT)


def test_a_wake_up_that_is_missed_is_survived() -> None:
    """It looks by itself, long before its time is over."""
    with Crowd(1, lock_timeout=10 * TIMEOUT, deaf=True) as crowd:
        crowd.write(1)
        writing = crowd.start(lambda: crowd.store.from_bytes("late", b""))
        crowd.listener.permit(2)
        writing.result(TIMEOUT)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == ["k0", "late"]


def test_a_door_that_was_left_shut_opens() -> None:
    """The mark of a full queue stands though all has been heard: the next writer takes it back."""
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=0)
    dispatcher_of(store).throttled = True
    store.from_bytes("k", b"")
    assert not dispatcher_of(store).throttled
    store.close(TIMEOUT)


def test_a_closed_store_is_told_at_once() -> None:
    with Crowd(1) as crowd:
        crowd.write(1)
        with pytest.raises(FlushTimeoutError):
            crowd.store.close(SHORT)
        with pytest.raises(StoreClosedError):
            crowd.store.from_bytes("k", b"")
