"""While a listener is slow or fails: flush, close, what stats count, and what is logged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from encore.events.event_manager import EventManager as EncoreEventManager

from latchstore import (
    DictMemoryStore,
    DispatcherThreadError,
    EventManager,
    FlushTimeoutError,
    StoreClosedError,
    StoreSetEvent,
)
from latchstore.engine.inspection import dispatcher_of
from tests.backpressure.crowds import SHORT, TIMEOUT, Permitted


@pytest.fixture
def slow() -> Iterator[Permitted]:
    listener = Permitted()
    yield listener
    listener.permit(10_000)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def full_store(slow: Permitted, limit: int | None, **options: Any) -> DictMemoryStore:
    """Return a store as many of whose events are pending as may be."""
    store = DictMemoryStore(EventManager(), max_pending_events=limit, **options)
    store.event_manager.connect(StoreSetEvent, slow.listen)
    for number in range(limit or 0):
        store.from_bytes(f"k{number}", b"")
    return store


# -- flush ----------------------------------------------------------------------------------------


def test_a_flush_waits_for_a_commit_that_can_be_seen_and_is_not_queued_yet(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, go_on = threading.Event(), threading.Event()
    heard: list[str] = []

    store = DictMemoryStore(EventManager())
    submit = dispatcher_of(store).submit

    def stopping(delivery: Any) -> None:
        stopped.set()
        assert go_on.wait(TIMEOUT)
        submit(delivery)

    monkeypatch.setattr(dispatcher_of(store), "submit", stopping)
    store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    writing = pool.submit(store.from_bytes, "k", b"")
    assert stopped.wait(TIMEOUT)
    assert store.exists("k")
    with pytest.raises(
        FlushTimeoutError, match=r"flush: the table was not free in 0\.05 s, held by thread .*\(from_bytes\)"
    ):
        store.flush(SHORT)
    flushing = pool.submit(store.flush, TIMEOUT)
    go_on.set()
    flushing.result(TIMEOUT)
    assert heard == ["k"]
    writing.result(TIMEOUT)


# -- stats and errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_listener_that_raises_is_counted_and_harms_no_other(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    store = DictMemoryStore(EventManager())
    heard: list[str] = []

    def failing(event: StoreSetEvent) -> None:
        raise error("on purpose")

    store.event_manager.connect(StoreSetEvent, failing, priority=1)
    store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    with store:
        store.from_bytes("a", b"")
        store.from_bytes("b", b"")
        store.flush()
        assert heard == ["a", "b"]
        stats = store.stats()
    assert stats["listener_errors"] == 2
    assert stats["events_delivered"] == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all("failing failed on <StoreSetEvent key=" in record.getMessage() for record in caplog.records)


def test_stats(slow: Permitted) -> None:
    store = DictMemoryStore(EventManager())
    assert store.stats() == {
        "commits": 0,
        "revision": 0,
        "events_delivered": 0,
        "events_pending": 0,
        "events_dropped": 0,
        "listener_errors": 0,
        "slowest_listener": None,
        "slowest_listener_seconds": 0.0,
        "watches": 0,
    }
    store.event_manager.connect(StoreSetEvent, slow.listen)
    changes = store.watch(max_buffer=1)
    store.multiset_data(["a", "b"], [b"", b""])
    store.from_bytes("c", b"")
    slow.wait_until_begun(1)
    stats = store.stats()
    assert (stats["commits"], stats["revision"], stats["events_pending"]) == (2, 2, 3)
    assert (stats["events_dropped"], stats["watches"]) == (2, 1)
    slow.permit(10_000)
    store.flush()
    stats = store.stats()
    assert (stats["events_delivered"], stats["events_pending"]) == (3, 0)
    assert "Permitted" in stats["slowest_listener"]
    assert stats["slowest_listener_seconds"] > 0
    changes.close()
    assert store.stats()["events_dropped"] == 2


def test_a_foreign_event_manager_counts_as_one_listener(caplog: pytest.LogCaptureFixture) -> None:
    store = DictMemoryStore(EncoreEventManager())
    heard: list[str] = []
    store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    with store:
        store.from_bytes("a", b"")
        store.flush()
        assert heard == ["a"]
        assert store.stats()["events_delivered"] == 1
        assert "emit" in store.stats()["slowest_listener"]


def test_nothing_is_logged_that_the_caller_is_told(slow: Permitted, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = full_store(slow, 1, lock_timeout=0)
    errors: list[type[BaseException]] = []
    for call in (
        lambda: store.from_bytes("k", b""),
        lambda: store.flush(0),
        lambda: store.to_bytes("missing"),
        lambda: store.watch(since=0),
        lambda: store.wait_for(lambda: False, 0),
        lambda: store.watch(max_buffer=0),
    ):
        try:
            call()
        except Exception as error:
            errors.append(type(error))
    assert len(errors) == 6
    assert caplog.records == []


def test_listeners_must_not_flush_up_to_a_revision_either() -> None:
    store = DictMemoryStore(EventManager())
    refused: list[BaseException] = []

    def listener(event: StoreSetEvent) -> None:
        try:
            store.flush(revision=0)
        except DispatcherThreadError as error:
            refused.append(error)

    store.event_manager.connect(StoreSetEvent, listener)
    with store:
        store.from_bytes("k", b"")
    assert len(refused) == 1


def test_a_commit_that_nobody_listened_to_is_heard_as_soon_as_a_later_one_begins(slow: Permitted) -> None:
    """A flush up to a revision does not wait for a later one's listener."""
    store = DictMemoryStore(EventManager())
    store.event_manager.connect(StoreSetEvent, slow.listen, filter={"key": "heard"})
    store.from_bytes("unheard", b"")
    store.from_bytes("heard", b"")
    slow.wait_until_begun(1)
    store.flush(0, revision=1)
    with pytest.raises(FlushTimeoutError):
        store.flush(0, revision=2)


def test_nobody_writes_after_close_has_returned(
    slow: Permitted, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even who was let in before, and has only been waiting since."""
    store = DictMemoryStore(EventManager(), max_pending_events=1)
    store.event_manager.connect(StoreSetEvent, slow.listen)
    store.from_bytes("first", b"")
    at_the_door, closed = threading.Event(), threading.Event()
    wait_for_room = dispatcher_of(store).wait_for_room

    def wait_longer(purpose: str, timeout: float | None) -> None:
        at_the_door.set()
        wait_for_room(purpose, timeout)
        assert closed.wait(TIMEOUT)

    monkeypatch.setattr(dispatcher_of(store), "wait_for_room", wait_longer)
    calls: list[Callable[[], object]] = [
        lambda: store.from_bytes("late", b""),
        lambda: store.multiset_data(["late"], [b""]),
    ]
    writing = []
    for call in calls:
        writing.append(pool.submit(call))
        assert at_the_door.wait(TIMEOUT)
        at_the_door.clear()
    slow.permit(10_000)
    store.close(TIMEOUT)
    closed.set()
    for each in writing:
        with pytest.raises(StoreClosedError, match="the store is closed"):
            each.result(TIMEOUT)
    assert list(store.query_keys()) == ["first"]
    store.connect()
    store.from_bytes("again", b"")  # nobody is the owner


def test_close_waits_for_the_transaction_that_is_open(pool: ThreadPoolExecutor) -> None:
    store = DictMemoryStore(EventManager())
    heard: list[str] = []
    store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    inside, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with store.transaction("long"):
            store.from_bytes("k", b"")
            inside.set()
            assert go_on.wait(TIMEOUT)

    writing = pool.submit(write)
    assert inside.wait(TIMEOUT)
    with pytest.raises(FlushTimeoutError, match=r"close: .* \(transaction 'long'\)"):
        store.close(0)
    closing = pool.submit(store.close, TIMEOUT)
    go_on.set()
    writing.result(TIMEOUT)
    closing.result(TIMEOUT)
    assert heard == ["k"]
