"""No thread, finalizer or signal handler can upset a manager; the default of the process."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from latchstore.contract import event_manager as default_manager
from latchstore.contract.event_manager import (
    BaseEventManager,
    get_event_manager,
    set_default_class,
    set_event_manager,
)
from latchstore.contract.events import (
    BaseEvent,
    StoreEvent,
    StoreSetEvent,
)
from latchstore.delivery.event_manager import EventManager
from latchstore.delivery.registry import Table
from tests.event_manager.listeners import (
    TIMEOUT,
    Calls,
    Counter,
    OtherEvent,
    Owner,
    connections_of,
    run_in_threads,
)


class TestReentrancy:
    def test_emit_calls_those_that_were_connected_when_it_began(
        self, manager: EventManager, calls: Calls
    ) -> None:
        first, late = calls.listener("first"), calls.listener("late")

        def change(event: BaseEvent) -> None:
            manager.disconnect(StoreSetEvent, first)
            manager.connect(StoreSetEvent, late)

        manager.connect(StoreSetEvent, change)
        manager.connect(StoreSetEvent, first)
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["first"]
        assert manager.get_listeners(StoreSetEvent) == [change, late]

    def test_listeners_may_call_everything(self, manager: EventManager, calls: Calls) -> None:
        def listener(event: StoreSetEvent) -> None:
            manager.emit(OtherEvent())
            manager.disable(OtherEvent)
            manager.emit(OtherEvent())
            manager.enable(OtherEvent)
            manager.set_trace(None)
            assert manager.has_listeners(OtherEvent)
            assert manager.get_listeners(event) == [listener]
            manager.disconnect(StoreSetEvent, listener)

        manager.connect(OtherEvent, calls.listener("other"))
        manager.connect(StoreSetEvent, listener)
        run_in_threads(lambda: manager.emit(StoreSetEvent(key="a")))
        assert calls == ["other"]
        assert manager.get_listeners(StoreSetEvent) == []

    def test_filters_may_call_everything(self, manager: EventManager, calls: Calls) -> None:
        class Reentrant:
            def __eq__(self, other: object) -> bool:
                manager.connect(OtherEvent, calls.listener("other"))
                return True

            __hash__ = None  # type: ignore[assignment]

        manager.connect(StoreSetEvent, calls.listener("a"), {"revision": Reentrant()})
        run_in_threads(lambda: manager.emit(StoreSetEvent(key="a")))
        assert calls == ["a"]
        assert manager.has_listeners(OtherEvent)

    def test_trace_may_call_everything(self, manager: EventManager, calls: Calls) -> None:
        def trace(name: str, method: object, args: object) -> None:
            manager.set_trace(None)
            manager.connect(StoreSetEvent, calls.listener("traced"))

        manager.set_trace(trace)
        run_in_threads(lambda: manager.connect(StoreSetEvent, calls.listener("a")))
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["traced", "a"]


class TestNoUserCodeUnderTheLock:
    def test_what_was_published_last_is_read_wherever_one_begins(
        self, manager: EventManager, calls: Calls
    ) -> None:
        """Whoever is slow to publish may put the place to begin some steps back."""
        listener = calls.listener("a")

        def look(frame: FrameType, event: str, called: Any) -> None:
            # The next table is there; where to begin is assigned after this.
            if event == "c_return" and called.__name__ == "setdefault":
                sys.setprofile(None)
                manager.connect(OtherEvent, print)
                manager.disconnect(OtherEvent, print)
                noted.append("slow")

        noted: list[str] = []
        sys.setprofile(look)
        try:
            manager.connect(StoreSetEvent, listener)
        finally:
            sys.setprofile(None)
        assert noted == ["slow"]
        event = StoreSetEvent(key="a")
        assert manager.has_listeners(StoreSetEvent)
        assert not manager.has_listeners(OtherEvent)
        manager.emit(event)
        assert calls == ["a"]
        assert manager.get_listeners(event) == [listener]
        assert manager.is_enabled(StoreSetEvent)
        assert set(manager.get_event()) == {StoreSetEvent, OtherEvent}
        manager.connect(OtherEvent, print)
        assert manager.get_listeners(StoreSetEvent) == [listener]
        assert manager.get_listeners(OtherEvent) == [print]

    def test_a_change_from_a_finalizer_in_the_middle_of_a_change_is_kept(
        self, manager: EventManager, monkeypatch: pytest.MonkeyPatch, calls: Calls
    ) -> None:
        first, second = calls.listener("a"), calls.listener("b")
        in_a_change(monkeypatch, lambda: manager.connect(StoreSetEvent, second))
        manager.connect(StoreSetEvent, first)
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["b", "a"]

    def test_user_code_runs_where_it_should(self, manager: EventManager) -> None:
        ran: list[str] = []
        check = ran.append

        class Filter(dict[str, object]):
            def items(self) -> Any:
                check("filter")
                return super().items()

        class Key(Counter):
            def __eq__(self, other: object) -> bool:
                check("compare")
                return True

        manager.set_trace(lambda name, method, args: check(f"trace {name}"))
        manager.connect(StoreSetEvent, lambda event: check("listener"), Filter(key=Key()))
        manager.emit(StoreSetEvent(key="a"))
        assert ran == [
            "filter",
            "trace connect",
            "trace emit",
            "compare",
            "trace listen",
            "listener",
        ]

    def test_neither_listeners_nor_filter_values_are_compared_or_hashed_to_connect(
        self, manager: EventManager
    ) -> None:
        class Touchy:
            def __eq__(self, other: object) -> bool:
                raise AssertionError("compared")

            def __hash__(self) -> int:
                raise AssertionError("hashed")

            def __call__(self, event: BaseEvent) -> None:
                pass

            def on_event(self, event: BaseEvent) -> None:
                pass

        first, second, value = Touchy(), Touchy(), Touchy()
        for _ in range(2):
            for listener in (first, second, first.on_event, second.on_event):
                manager.connect(StoreSetEvent, listener, {"key": value, "source": value})
        for listener in (first, second, first.on_event, second.on_event):
            manager.disconnect(StoreSetEvent, listener)
        assert not manager.has_listeners(StoreSetEvent)

    def test_listener_may_die_in_another_thread(self, manager: EventManager) -> None:
        owners = [Owner()]
        manager.connect(StoreSetEvent, owners[0].on_event)

        def drop() -> None:
            owners.clear()
            gc.collect()

        run_in_threads(drop)
        assert manager.get_listeners(StoreSetEvent) == []

    def test_listener_may_die_while_a_change_is_built(
        self, manager: EventManager, monkeypatch: pytest.MonkeyPatch, calls: Calls
    ) -> None:
        owners = [Owner()]
        manager.connect(StoreSetEvent, owners[0].on_event)
        in_a_change(monkeypatch, owners.clear)
        listener = calls.listener("a")
        run_in_threads(lambda: manager.connect(StoreSetEvent, listener))
        assert manager.get_listeners(StoreSetEvent) == [listener]
        manager.connect(OtherEvent, print)
        assert manager.get_event(StoreSetEvent).listeners == (listener,)

    def test_finalizer_may_change_the_manager_while_a_change_is_built(
        self, manager: EventManager, monkeypatch: pytest.MonkeyPatch, calls: Calls
    ) -> None:
        # What a finalizer or a signal handler does in the middle of a change must not be lost.
        old, new, late = map(calls.listener, ["old", "new", "late"])
        manager.connect(StoreSetEvent, old)

        def finalize() -> None:
            manager.connect(StoreSetEvent, new)
            manager.disconnect(StoreSetEvent, old)

        in_a_change(monkeypatch, finalize)
        run_in_threads(lambda: manager.connect(StoreSetEvent, late))
        assert manager.get_listeners(StoreSetEvent) == [new, late]

    def test_finalizers_run_by_the_collector_at_any_allocation(
        self, manager: EventManager, calls: Calls
    ) -> None:
        finalized: list[Callable[[BaseEvent], None]] = []
        lambdas = [calls.listener(str(number)) for number in range(300)]

        class Garbage:
            def __init__(self) -> None:
                self.cycle = self

            def on_event(self, event: BaseEvent) -> None:
                pass

            def __del__(self) -> None:
                listener = calls.listener("late")
                manager.connect(StoreSetEvent, listener)
                manager.disconnect(StoreSetEvent, listener)
                finalized.append(listener)

        def work() -> None:
            thresholds = gc.get_threshold()
            try:
                gc.set_threshold(1, 1, 1)
                for listener in lambdas:
                    manager.connect(StoreSetEvent, Garbage().on_event)
                    manager.connect(StoreSetEvent, listener)
                    manager.emit(StoreSetEvent(key="a"))
            finally:
                gc.set_threshold(*thresholds)

        run_in_threads(work)
        gc.collect()
        assert len(finalized) == 300
        assert manager.get_listeners(StoreSetEvent) == lambdas

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_lock_is_free_after_a_fork(self, manager: EventManager) -> None:
        """Whatever line of setting the default another thread is in."""
        places = itertools.count(1)
        while (status := status_of_child_forked_at(next(places), manager)) is not None:
            assert status == 0
        assert next(places) > 6


def status_of_child_forked_at(place: int, manager: EventManager) -> int | None:
    """Fork a child while a thread is at the n-th line of setting the default; None if there is none."""
    lines = itertools.count(1)
    at_place, go_on = threading.Event(), threading.Event()

    def look(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != default_manager.__file__:
            return None
        if event == "line" and next(lines) == place:
            at_place.set()
            assert go_on.wait(TIMEOUT)
        return look

    def set_default() -> None:
        sys.settrace(look)
        try:
            set_event_manager(manager)
        finally:
            sys.settrace(None)

    with pytest.MonkeyPatch.context() as patches, ThreadPoolExecutor(1) as pool:
        patches.setattr(default_manager, "_event_manager", None)
        setting = pool.submit(set_default)
        while not at_place.wait(0.01):
            if setting.done():
                return None
        try:
            return status_of_child(manager)
        finally:
            go_on.set()


def status_of_child(manager: EventManager) -> int:
    """Fork a child that uses an event manager and the default; return how it ends."""
    with warnings.catch_warnings():
        # Forking beside other threads is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            # Should the child hang after all, the alarm ends it.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(TIMEOUT)
            try:
                manager.connect(StoreSetEvent, print)
                get_event_manager()
                os._exit(0)
            finally:
                os._exit(1)
    return os.waitpid(child, 0)[1]


def in_a_change(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Have an action run once in the middle of the next change: when the table before it has been read."""
    with_connection = Table.with_connection
    actions = [action]

    def interrupted(table: Table, *arguments: Any) -> Table:
        while actions:
            actions.pop()()
        return with_connection(table, *arguments)

    monkeypatch.setattr(Table, "with_connection", interrupted)


@pytest.mark.usefixtures("frequent_switches")
class TestThreads:
    def test_no_connection_is_lost(self, manager: EventManager, calls: Calls) -> None:
        listeners = [[calls.listener(f"{t} {n}") for n in range(200)] for t in range(4)]

        def connect(number: int) -> None:
            for listener in listeners[number]:
                manager.connect(StoreSetEvent, listener)

        run_in_threads(*[lambda number=number: connect(number) for number in range(4)])
        connected = manager.get_listeners(StoreSetEvent)
        assert len(connected) == 800
        for own in listeners:
            assert [each for each in connected if each in own] == own

    def test_connect_disconnect_and_emit_at_once(self, manager: EventManager) -> None:
        heard: list[tuple[int | None, str]] = []
        manager.connect(StoreSetEvent, lambda event: heard.append((event.revision, "first")))
        manager.connect(StoreEvent, lambda event: heard.append((event.revision, "last")), priority=-1)

        def come_and_go() -> None:
            owner = Owner()
            for number in range(200):
                manager.connect(StoreSetEvent, owner.on_event, {"key": str(number % 3)})
                manager.connect(BaseEvent, Owner().on_event)
                manager.disable(OtherEvent)
                manager.disconnect(StoreSetEvent, owner.on_event)
                manager.enable(OtherEvent)

        def emit(start: int) -> None:
            for number in range(start, start + 200):
                assert manager.has_listeners(StoreSetEvent)
                manager.emit(StoreSetEvent(key="1", revision=number))

        run_in_threads(come_and_go, come_and_go, lambda: emit(0), lambda: emit(200))
        # Whoever was connected all the time has heard every event once, and in order.
        assert len(heard) == 800
        assert {revision for revision, _ in heard} == set(range(400))
        for revision in range(400):
            assert [name for number, name in heard if number == revision] == ["first", "last"]
        gc.collect()
        manager.emit(OtherEvent())
        assert len(manager.get_listeners(StoreSetEvent)) == 2
        assert connections_of(Owner) == 0

    def test_each_disconnect_succeeds_once(self, manager: EventManager) -> None:
        outcomes: list[bool] = []

        def disconnect() -> None:
            for listener in listeners:
                try:
                    manager.disconnect(StoreSetEvent, listener)
                except KeyError:
                    outcomes.append(False)
                else:
                    outcomes.append(True)

        listeners = [Calls().listener(str(number)) for number in range(200)]
        for listener in listeners:
            manager.connect(StoreSetEvent, listener)
        run_in_threads(disconnect, disconnect, disconnect)
        assert outcomes.count(True) == 200
        assert outcomes.count(False) == 400


@pytest.mark.usefixtures("no_default")
class TestDefault:
    def test_is_made_once(self) -> None:
        manager = get_event_manager()
        assert isinstance(manager, BaseEventManager)
        assert get_event_manager() is manager

    def test_can_be_set_once(self, manager: EventManager) -> None:
        set_event_manager(manager)
        assert get_event_manager() is manager
        with pytest.raises(ValueError, match="already"):
            set_event_manager(manager)
        with pytest.raises(ValueError, match="already"):
            set_event_manager(EventManager())
        assert get_event_manager() is manager

    def test_cannot_be_set_after_get_has_made_one(self, manager: EventManager) -> None:
        default = get_event_manager()
        with pytest.raises(ValueError, match="already"):
            set_event_manager(manager)
        assert get_event_manager() is default

    @pytest.mark.parametrize("manager", [None, 5, SimpleNamespace(emit=print), EventManager])
    def test_must_be_of_a_type_with_emit(self, manager: Any) -> None:
        with pytest.raises(TypeError, match=r"^manager must have a method emit, got "):
            set_event_manager(manager)

    def test_threads_that_come_first_at_once_get_the_same(self) -> None:
        barrier = threading.Barrier(2)

        class SlowManager(EventManager):
            def __init__(self) -> None:
                super().__init__()
                # Both threads have found that there is no manager yet.
                barrier.wait(TIMEOUT)

        found: list[BaseEventManager] = []
        set_default_class(SlowManager)
        try:
            run_in_threads(*[lambda: found.append(get_event_manager())] * 2)
        finally:
            set_default_class(EventManager)
        assert found[0] is found[1]
