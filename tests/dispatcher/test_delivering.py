"""The dispatcher delivers everything, in order, on one thread of its own."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from latchstore import DictMemoryStore, StoreSetEvent
from latchstore.delivery.dispatcher import EventDispatcher
from tests.dispatcher.calls import TIMEOUT, Blocking, Call, submit

# -- delivery -------------------------------------------------------------------------------------


def test_deliveries_are_made_in_order_by_one_daemon_thread(dispatcher: EventDispatcher) -> None:
    heard: list[int] = []
    threads: list[threading.Thread] = []
    for number in range(100):
        submit(dispatcher, lambda number=number: heard.append(number))  # type: ignore[misc]
        submit(dispatcher, lambda: threads.append(threading.current_thread()))
    dispatcher.flush(TIMEOUT)
    assert heard == list(range(100))
    (thread,) = set(threads)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "latchstore-events"


def test_the_thread_is_named_as_told() -> None:
    dispatcher = EventDispatcher("by another name")
    names: list[str] = []
    submit(dispatcher, lambda: names.append(threading.current_thread().name))
    dispatcher.stop(TIMEOUT)
    assert names == ["by another name"]


def test_nothing_runs_before_it_is_needed() -> None:
    before = threading.active_count()
    dispatcher = EventDispatcher()
    dispatcher.submit(Call(lambda: None))
    assert not dispatcher.running
    assert dispatcher.pending == 1
    assert threading.active_count() == before
    dispatcher.stop(TIMEOUT)


def test_a_flush_of_nothing_starts_no_thread() -> None:
    dispatcher = EventDispatcher()
    dispatcher.flush(0)
    dispatcher.stop(0)
    assert not dispatcher.running


def test_a_flush_delivers_what_was_queued_and_never_started(dispatcher: EventDispatcher) -> None:
    heard: list[int] = []
    dispatcher.submit(Call(lambda: heard.append(1)))
    dispatcher.flush(TIMEOUT)
    assert heard == [1]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_delivery_raises_is_logged_and_the_next_is_made(
    dispatcher: EventDispatcher, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    def fail() -> None:
        raise error("on purpose")

    submit(dispatcher, lambda: heard.append(1))
    submit(dispatcher, fail)
    submit(dispatcher, lambda: heard.append(2))
    dispatcher.flush(TIMEOUT)
    assert heard == [1, 2]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.name == "latchstore"
    assert record.getMessage() == "the delivery of <a call> failed repeatedly and was skipped"
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def test_pending_counts_what_waits_and_what_is_under_way(dispatcher: EventDispatcher) -> None:
    slow = Blocking()
    assert dispatcher.pending == 0
    dispatcher.submit(slow)
    dispatcher.ensure_running()
    assert slow.begun.wait(TIMEOUT)
    assert dispatcher.pending == 1
    dispatcher.submit(Call(lambda: None))
    dispatcher.submit(Call(lambda: None))
    assert dispatcher.pending == 3
    slow.let_go.set()
    dispatcher.stop(TIMEOUT)
    assert dispatcher.pending == 0


# -- who is slow ----------------------------------------------------------------------------------


class Clock:
    """Stands in for the module ``time``."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now


def test_the_slowest_listener_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("latchstore.delivery.calls.time", clock)
    dispatcher = EventDispatcher(listener_name=str)
    for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 2.0), ("d", 3.0)):
        dispatcher.calling = (name, StoreSetEvent(key="k"), clock.now)  # type: ignore[assignment]
        assert dispatcher.describe().startswith(f"listener {name} has had <StoreSetEvent key='k'")
        clock.now += seconds
        assert dispatcher.returned(failed=name == "c") == clock.now
    assert dispatcher.slowest == ("b", 3.0)
    assert dispatcher.listener_errors == 1
    assert dispatcher.describe() == "0 events pending"


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
def test_errors_that_encore_keeps_to_itself_are_not_known(caplog: pytest.LogCaptureFixture) -> None:
    """It logs them; what it lets through is counted and logged here."""
    encore: Any = pytest.importorskip("encore.events.event_manager")
    manager = encore.EventManager()
    store = DictMemoryStore(manager)

    def fail(event: StoreSetEvent) -> None:
        raise {"a": ValueError, "b": SystemExit}[event.key]("on purpose")

    manager.connect(StoreSetEvent, fail)
    store.from_bytes("a", b"")
    store.flush(TIMEOUT)
    assert store.stats()["listener_errors"] == 0
    assert [record.name for record in caplog.records] == ["encore.events.event_manager"]
    store.from_bytes("b", b"")
    store.close(TIMEOUT)
    assert store.stats()["listener_errors"] == 1
    assert store.stats()["events_delivered"] == 2
    assert [record.name for record in caplog.records[1:]] == ["latchstore"]
    slowest = store.stats()["slowest_listener"]
    assert slowest == "encore.events.event_manager.EventManager.emit"
