"""`DictMemoryStore.call_later`: when it calls, and what it calls may do."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from latchstore import DictMemoryStore, DispatcherThreadError, EventManager, StoreSetEvent
from tests.timers.clocks import TIMEOUT, Calls, Clock


class TestTime:
    def test_is_called_once_when_it_is_due(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        timer = store.call_later(3.0, calls("a"))
        clock.pass_by(store, 2.9)
        assert calls.names == []
        assert timer.active
        clock.pass_by(store, 0.2)
        assert calls.names == ["a"]
        assert not timer.active
        clock.pass_by(store, 10.0)
        assert calls.names == ["a"]

    def test_on_the_stores_own_thread(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        store.event_manager.connect(StoreSetEvent, lambda event: calls("event")())
        store.call_later(1.0, calls("timer"))
        store.from_bytes("key", b"")
        store.flush(TIMEOUT)  # else the timer may be due before the thread has come to the event
        clock.pass_by(store, 1.0)
        assert calls.names == ["event", "timer"]
        (thread,) = calls.threads
        assert thread is not threading.current_thread()

    def test_in_the_order_of_their_times(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        for name, seconds in {"d": 5.0, "a": 1.0, "e": 5.0, "c": 4.0, "f": 5.0, "b": 1.0}.items():
            store.call_later(seconds, calls(name))
        store.flush(TIMEOUT)
        clock.pass_by(store, 4.5)
        assert calls.names == ["a", "b", "c"]
        clock.pass_by(store, 0.5)
        assert calls.names == ["a", "b", "c", "d", "e", "f"]

    def test_with_time_that_goes_by_itself(self) -> None:
        # Nothing is queued that would wake the thread.
        with DictMemoryStore(EventManager()) as store:
            called = threading.Event()
            store.call_later(0.01, called.set)
            assert called.wait(TIMEOUT)

    def test_at_once(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        store.call_later(0, calls("a"))
        clock.pass_by(store, 0.0)
        assert calls.names == ["a"]

    @pytest.mark.parametrize("seconds", [float("inf"), 1e300, 2**80])
    def test_never(self, store: DictMemoryStore, clock: Clock, calls: Calls, seconds: float) -> None:
        assert store.call_later(seconds, calls("a")).active
        clock.pass_by(store, 1_000.0)
        assert calls.names == []

    def test_between_two_events(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        """A timer that becomes due while a listener is at work comes before the next event."""

        def listener(event: Any) -> None:
            calls(event.key)()
            if event.key == "first":
                entered.set()
                assert leave.wait(TIMEOUT)

        entered, leave = threading.Event(), threading.Event()
        store.event_manager.connect(StoreSetEvent, listener)
        store.call_later(1.0, calls("timer"))
        store.from_bytes("first", b"")
        assert entered.wait(TIMEOUT)
        store.from_bytes("second", b"")
        clock.now += 1.0
        leave.set()
        store.flush(TIMEOUT)
        assert calls.names == ["first", "timer", "second"]

    @pytest.mark.parametrize(
        ("seconds", "error"),
        [
            (-1, ValueError),
            (float("nan"), ValueError),
            ("1", TypeError),
            (None, TypeError),
            (True, TypeError),
        ],
    )
    def test_bad_seconds(self, store: DictMemoryStore, seconds: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="seconds"):
            store.call_later(seconds, print)

    def test_what_cannot_be_called(self, store: DictMemoryStore) -> None:
        with pytest.raises(TypeError, match="function must be callable, got None"):
            store.call_later(1.0, None)  # type: ignore[arg-type]


class TestUsingTheStore:
    def test_from_a_listener(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        store.event_manager.connect(StoreSetEvent, lambda event: store.call_later(1.0, calls(event.key)))
        store.from_bytes("a", b"")
        store.from_bytes("b", b"")
        store.flush(TIMEOUT)
        assert calls.names == []
        clock.pass_by(store, 1.0)
        assert calls.names == ["a", "b"]

    def test_a_function_that_writes(self, store: DictMemoryStore, clock: Clock) -> None:
        heard: list[Any] = []
        store.event_manager.connect(StoreSetEvent, heard.append)

        def write() -> None:
            store.from_bytes("a", b"")
            with store.transaction("of a timer"):
                store.from_bytes("b", b"")

        store.call_later(1.0, write)
        clock.pass_by(store, 1.0)
        assert [event.key for event in heard] == ["a", "b"]

    def test_a_function_that_calls_itself_later(
        self, store: DictMemoryStore, clock: Clock, calls: Calls
    ) -> None:
        def call() -> None:
            calls(str(clock.now))()
            store.call_later(1.0, call)

        store.call_later(1.0, call)
        for _ in range(3):
            clock.pass_by(store, 1.0)
        assert calls.names == ["1001.0", "1002.0", "1003.0"]

    def test_one_that_is_due_at_once_each_time_holds_up_no_event(
        self, store: DictMemoryStore, clock: Clock, calls: Calls
    ) -> None:
        heard: list[Any] = []
        store.event_manager.connect(StoreSetEvent, heard.append)

        def call() -> None:
            if not heard:
                store.call_later(0.0, call)

        store.call_later(0.0, call)
        store.from_bytes("a", b"")
        store.flush(TIMEOUT)
        assert len(heard) == 1

    def test_in_a_transaction_that_is_rolled_back(
        self, store: DictMemoryStore, clock: Clock, calls: Calls
    ) -> None:
        with store.transaction() as transaction:
            store.call_later(1.0, calls("a"))
            transaction.doom()
        clock.pass_by(store, 1.0)
        assert calls.names == ["a"]

    @pytest.mark.parametrize("name", ["flush", "close"])
    def test_a_function_that_would_wait_for_itself(
        self, store: DictMemoryStore, clock: Clock, calls: Calls, name: str
    ) -> None:
        errors: list[BaseException] = []

        def call() -> None:
            try:
                getattr(store, name)()
            except DispatcherThreadError as error:
                errors.append(error)

        store.call_later(1.0, call)
        clock.pass_by(store, 1.0)
        assert len(errors) == 1

    def test_from_many_threads(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        barrier = threading.Barrier(8)

        def run(number: int) -> None:
            barrier.wait(TIMEOUT)
            for each in range(50):
                timer = store.call_later(1.0, calls(f"{number}/{each}"))
                if each % 2:
                    timer.cancel()

        threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        store.flush(TIMEOUT)
        clock.pass_by(store, 1.0)
        assert sorted(calls.names) == sorted(
            f"{number}/{each}" for number in range(8) for each in range(0, 50, 2)
        )


class TestFailures:
    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
    def test_what_it_raises_is_logged(
        self,
        store: DictMemoryStore,
        clock: Clock,
        calls: Calls,
        caplog: pytest.LogCaptureFixture,
        error: type[BaseException],
    ) -> None:
        def fail() -> None:
            raise error("the reason")

        heard: list[Any] = []
        store.event_manager.connect(StoreSetEvent, heard.append)
        store.call_later(1.0, fail)
        store.call_later(1.0, calls("next"))
        with caplog.at_level(logging.ERROR, "latchstore"):
            clock.pass_by(store, 1.0)
        (record,) = caplog.records
        assert "fail" in record.getMessage()
        assert "the reason" in str(record.exc_info)
        assert calls.names == ["next"]
        store.from_bytes("a", b"")
        store.flush(TIMEOUT)
        assert len(heard) == 1
