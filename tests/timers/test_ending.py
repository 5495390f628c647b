"""Timers that are cancelled, and stores that are closed, dropped or forked."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreSetEvent, StoreTransactionEndEvent
from latchstore.engine.inspection import dispatcher_of
from tests.fork.children import in_child, needs_fork
from tests.timers.clocks import TIMEOUT, Calls, Clock


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
        assert 400 <= dispatcher_of(store).timers <= 600
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
        assert dispatcher_of(store).timers == 0
        assert dispatcher_of(store).marks <= 1
        leave.set()

    def test_while_the_store_is_closed(self, store: DictMemoryStore) -> None:
        store.close()
        for _ in range(1_000):
            store.call_later(1e6, print).cancel()
        assert dispatcher_of(store).timers == 0
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
        assert dispatcher_of(store).timers < 2_000


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
