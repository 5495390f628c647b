"""`DictMemoryStore.call_later`: what the store's own thread calls when its time has come."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    DispatcherThreadError,
    EventManager,
    StoreSetEvent,
    StoreTransactionEndEvent,
)
from latchstore.engine.inspection import dispatcher_of
from tests.fork.children import in_child, needs_fork

#: Seconds after which a wait in a test has failed.
TIMEOUT = 20.0


class Clock:
    """The dispatcher's seconds, which go by only when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, store: DictMemoryStore, seconds: float) -> None:
        """Let time go by, and have the store's thread see that: it looks up twice, once for each flush."""
        self.now += seconds
        store.flush(TIMEOUT)
        store.flush(TIMEOUT)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(
        "latchstore.delivery.dispatcher.time", SimpleNamespace(monotonic=clock.monotonic, sleep=time.sleep)
    )
    return clock


@pytest.fixture
def store(clock: Clock) -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


class Calls:
    """Notes what was called, and by which thread."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, name: str) -> Callable[[], None]:
        def call() -> None:
            self.names.append(name)
            self.threads.add(threading.current_thread())

        return call


@pytest.fixture
def calls() -> Calls:
    return Calls()


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


class TestCancelling:
    def test_before_it_is_due(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        timer = store.call_later(1.0, calls("a"))
        store.call_later(1.0, calls("b"))
        timer.cancel()
        assert not timer.active
        clock.pass_by(store, 2.0)
        assert calls.names == ["b"]

    def test_twice_and_too_late(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        timer = store.call_later(1.0, calls("a"))
        clock.pass_by(store, 1.0)
        timer.cancel()
        timer.cancel()
        assert calls.names == ["a"]

    def test_by_another_timer_of_the_same_time(
        self, store: DictMemoryStore, clock: Clock, calls: Calls
    ) -> None:
        timers: list[Any] = []
        store.call_later(1.0, lambda: timers[0].cancel())
        timers.append(store.call_later(1.0, calls("a")))
        store.call_later(1.0, calls("b"))
        clock.pass_by(store, 1.0)
        assert calls.names == ["b"]

    def test_by_itself(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        timers: list[Any] = []

        def call() -> None:
            timers[0].cancel()
            calls("a")()

        timers.append(store.call_later(1.0, call))
        clock.pass_by(store, 1.0)
        assert calls.names == ["a"]

    @pytest.mark.parametrize("cancelled", [False, True])
    def test_what_was_to_be_called_is_freed(
        self, store: DictMemoryStore, clock: Clock, cancelled: bool
    ) -> None:
        class Held:
            def call(self) -> None: ...

        held = Held()
        reference = weakref.ref(held)
        timer = store.call_later(1.0 if not cancelled else 1e6, held.call)
        del held
        store.flush(TIMEOUT)
        assert reference() is not None
        if cancelled:
            timer.cancel()
        clock.pass_by(store, 1.0)
        gc.collect()
        assert reference() is None


class TestCancelledTimersAreFreed:
    """They do not stay until they are due."""

    def test_when_they_are_more_than_half(self, store: DictMemoryStore) -> None:
        timers = [store.call_later(1e6, print) for _ in range(1_000)]
        store.flush(TIMEOUT)
        for timer in timers[400:]:
            timer.cancel()
        store.flush(TIMEOUT)
        store.flush(TIMEOUT)
        assert 400 <= len(dispatcher_of(store).timers) <= 600
        assert [timer.active for timer in timers] == [True] * 400 + [False] * 600

    def test_while_a_listener_is_at_work(self, store: DictMemoryStore) -> None:
        entered, leave = threading.Event(), threading.Event()

        def listener(event: Any) -> None:
            entered.set()
            assert leave.wait(TIMEOUT)

        store.event_manager.connect(StoreSetEvent, listener)
        store.from_bytes("key", b"")
        assert entered.wait(TIMEOUT)
        for _ in range(1_000):
            store.call_later(1e6, print).cancel()
        assert len(dispatcher_of(store).timers) == 0
        assert dispatcher_of(store).marks <= 1
        leave.set()

    def test_while_the_store_is_closed(self, store: DictMemoryStore) -> None:
        store.close()
        for _ in range(1_000):
            store.call_later(1e6, print).cancel()
        assert len(dispatcher_of(store).timers) == 0
        assert dispatcher_of(store).marks == dispatcher_of(store).pending == 0

    def test_the_others_are_called(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        for number in range(400):
            store.call_later(1.0 + number % 7, calls(str(number)))
        store.flush(TIMEOUT)
        for _ in range(1_000):
            store.call_later(1e6, print)
        cancelled = [store.call_later(2.0, calls("cancelled")) for _ in range(2_000)]
        store.flush(TIMEOUT)
        for timer in cancelled:
            timer.cancel()
        clock.pass_by(store, 7.0)
        assert sorted(calls.names, key=int) == [str(number) for number in range(400)]
        assert len(dispatcher_of(store).timers) < 2_000


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


class TestClosing:
    def test_a_closed_store_calls_it_when_it_is_open_again(
        self, store: DictMemoryStore, clock: Clock, calls: Calls
    ) -> None:
        timer = store.call_later(1.0, calls("a"))
        store.call_later(5.0, calls("b"))
        store.close()
        assert not dispatcher_of(store).running
        clock.now += 1.0
        assert timer.active
        assert calls.names == []
        store.connect()
        store.flush(TIMEOUT)
        store.flush(TIMEOUT)
        assert calls.names == ["a"]
        clock.pass_by(store, 4.0)
        assert calls.names == ["a", "b"]

    def test_one_that_is_made_while_the_store_is_closed(
        self, store: DictMemoryStore, clock: Clock, calls: Calls
    ) -> None:
        store.close()
        timer = store.call_later(0.0, calls("a"))
        cancelled = store.call_later(0.0, calls("b"))
        cancelled.cancel()
        assert not dispatcher_of(store).running
        store.flush(TIMEOUT)
        assert timer.active
        assert calls.names == []
        store.connect()
        clock.pass_by(store, 0.0)
        assert calls.names == ["a"]

    def test_none_is_called_while_it_closes(
        self, store: DictMemoryStore, clock: Clock, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entered, leave, begun = threading.Event(), threading.Event(), threading.Event()
        hold_timers = dispatcher_of(store).hold_timers

        def hold() -> None:
            hold_timers()
            begun.set()

        def listener(event: object) -> None:
            entered.set()
            assert leave.wait(TIMEOUT)

        def call_again() -> None:
            calls("timer")()
            store.call_later(0.0, call_again)

        store.event_manager.connect(StoreTransactionEndEvent, listener)
        store.call_later(1.0, call_again)
        with store.transaction():
            store.from_bytes("a", b"")
        assert entered.wait(TIMEOUT)
        monkeypatch.setattr(dispatcher_of(store), "hold_timers", hold)
        closing = threading.Thread(target=store.close)
        closing.start()
        clock.now += 1.0
        assert begun.wait(TIMEOUT)
        leave.set()
        closing.join(TIMEOUT)
        assert calls.names == []
        assert not dispatcher_of(store).running

    def test_a_store_that_is_dropped(self, clock: Clock, calls: Calls) -> None:
        store = DictMemoryStore(EventManager())
        timer = store.call_later(1.0, calls("a"))
        store.flush(TIMEOUT)
        thread = dispatcher_of(store).thread
        assert thread is not None
        references: list[weakref.ref[Any]] = [weakref.ref(store), weakref.ref(dispatcher_of(store))]
        del store
        gc.collect()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        gc.collect()
        assert [reference() for reference in references] == [None, None]
        assert not timer.active
        timer.cancel()
        assert calls.names == []


@needs_fork
class TestFork:
    def test_timers_are_the_parents(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        timer = store.call_later(1.0, calls("parent"))
        store.flush(TIMEOUT)

        def child() -> None:
            assert not timer.active
            store.call_later(1.0, calls("child"))
            store.flush(TIMEOUT)
            clock.pass_by(store, 1.0)
            assert calls.names == ["child"]

        assert in_child(child) == ""
        assert timer.active
        clock.pass_by(store, 1.0)
        assert calls.names == ["parent"]

    def test_one_that_a_closed_store_holds_back(
        self, store: DictMemoryStore, clock: Clock, calls: Calls
    ) -> None:
        store.close()
        timer = store.call_later(0.0, calls("parent"))

        def child() -> None:
            assert not timer.active
            store.connect()
            clock.pass_by(store, 1.0)
            assert calls.names == []

        assert in_child(child) == ""
        store.connect()
        clock.pass_by(store, 1.0)
        assert calls.names == ["parent"]

    def test_a_function_that_forks(self, store: DictMemoryStore, clock: Clock, calls: Calls) -> None:
        told: list[str] = []

        def child() -> None:
            calls("child")()
            store.from_bytes("child", b"")
            assert "child" in store

        def fork() -> None:
            told.append(in_child(child))

        store.call_later(1.0, fork)
        store.call_later(1.0, calls("parent"))
        clock.pass_by(store, 1.0)
        assert told == [""]
        assert calls.names == ["parent"]
        assert "child" not in store
