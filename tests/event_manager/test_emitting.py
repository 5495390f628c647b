"""Who is called, in which order, by an emit and by a store's dispatcher."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from latchstore.contract.events import (
    BaseEvent,
    StoreDeleteEvent,
    StoreEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.delivery.commit_events import emission_of
from latchstore.delivery.event_manager import EventManager
from tests.event_manager.listeners import TIMEOUT, Calls, OtherEvent, Owner


class TestEmit:
    def test_needs_an_event(self, manager: EventManager) -> None:
        for block in (True, False):
            with pytest.raises(TypeError, match=r"^event must be a BaseEvent, got int 5$"):
                manager.emit(5, block)  # type: ignore[arg-type]

    def test_mark_as_handled_stops_later_listeners(self, manager: EventManager, calls: Calls) -> None:
        def handle(event: BaseEvent) -> None:
            calls.append("handle")
            event.mark_as_handled()

        manager.connect(StoreSetEvent, calls.listener("before"), priority=2)
        manager.connect(BaseEvent, handle, priority=1)
        manager.connect(StoreSetEvent, calls.listener("after"))
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["before", "handle"]

    def test_hooks_frame_the_listeners(self, manager: EventManager, calls: Calls) -> None:
        class HookedEvent(BaseEvent):
            def pre_emit(self) -> None:
                calls.append("pre")

            def post_emit(self) -> None:
                calls.append("post")

        def handle(event: BaseEvent) -> None:
            calls.append("handle")
            event.mark_as_handled()

        manager.emit(HookedEvent())
        manager.connect(HookedEvent, handle)
        manager.emit(HookedEvent())
        manager.disable(HookedEvent)
        manager.emit(HookedEvent())
        assert calls == ["pre", "post", "pre", "handle", "post"]

    def test_listener_that_raises_is_logged_and_the_next_is_called(
        self, manager: EventManager, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(event: BaseEvent) -> None:
            raise ValueError("bad luck")

        manager.connect(StoreSetEvent, fail)
        manager.connect(StoreSetEvent, calls.listener("next"))
        manager.emit(StoreSetEvent(key="a", data=b"secret"))
        assert calls == ["next"]
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("latchstore", logging.ERROR)
        assert "fail" in record.message
        assert "<StoreSetEvent key='a' action='set'>" in record.message
        assert "bad luck" in caplog.text
        assert "secret" not in caplog.text

    def test_listener_without_a_name_that_raises(
        self, manager: EventManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Failing:
            def __call__(self, event: BaseEvent) -> None:
                raise ValueError("bad luck")

            def __repr__(self) -> str:
                raise AssertionError("the listener has been shown")

        manager.connect(StoreSetEvent, Failing())
        manager.emit(StoreSetEvent(key="a"))
        assert "Failing" in caplog.records[0].message

    def test_other_exceptions_pass(
        self, manager: EventManager, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        def interrupt(event: BaseEvent) -> None:
            raise KeyboardInterrupt

        manager.connect(StoreSetEvent, interrupt)
        manager.connect(StoreSetEvent, calls.listener("next"))
        with pytest.raises(KeyboardInterrupt):
            manager.emit(StoreSetEvent(key="a"))
        assert calls == []
        assert caplog.records == []

    def test_without_blocking(self, manager: EventManager) -> None:
        go_on = threading.Event()
        names: list[str] = []

        def wait(event: BaseEvent) -> None:
            assert go_on.wait(TIMEOUT)
            names.append(threading.current_thread().name)

        manager.connect(StoreSetEvent, wait)
        emission = manager.emit(StoreSetEvent(key="a"), block=False)
        assert emission is not None
        assert emission.is_alive()
        assert emission.daemon
        assert names == []
        go_on.set()
        emission.join(timeout=TIMEOUT)
        assert not emission.is_alive()
        assert names == ["latchstore emit StoreSetEvent"]


class TestEnabling:
    def test_disabled_class_is_silent_and_so_are_its_subclasses(
        self, manager: EventManager, calls: Calls
    ) -> None:
        manager.connect(BaseEvent, calls.listener("a"))
        manager.disable(StoreSetEvent)
        manager.emit(StoreSetEvent(key="a"))
        manager.emit(StoreUpdateEvent(key="a"))
        assert calls == []
        manager.emit(StoreDeleteEvent(key="a"))
        assert calls == ["a"]
        manager.enable(StoreSetEvent)
        manager.emit(StoreUpdateEvent(key="a"))
        assert calls == ["a", "a"]

    def test_is_enabled_considers_bases(self, manager: EventManager) -> None:
        manager.disable(StoreSetEvent)
        assert manager.is_enabled(StoreModificationEvent)
        assert not manager.is_enabled(StoreSetEvent)
        assert not manager.is_enabled(StoreUpdateEvent)
        manager.enable(StoreUpdateEvent)
        assert not manager.is_enabled(StoreUpdateEvent)
        manager.enable(StoreSetEvent)
        assert manager.is_enabled(StoreUpdateEvent)

    def test_keeps_listeners(self, manager: EventManager, calls: Calls) -> None:
        listener = calls.listener("a")
        manager.connect(StoreSetEvent, listener)
        manager.disable(StoreSetEvent)
        assert manager.get_listeners(StoreSetEvent) == [listener]
        manager.connect(StoreSetEvent, calls.listener("b"))
        assert not manager.is_enabled(StoreSetEvent)


class Observer:
    """Writes down what it is told of listeners, and checks that it comes in pairs."""

    def __init__(self) -> None:
        self.told: list[tuple[object, BaseEvent, bool]] = []
        self.calls: list[tuple[object, BaseEvent]] = []
        self.begun: list[float] = []

    @property
    def calling(self) -> Any:
        return self.calls[-1] if self.calls else None

    @calling.setter
    def calling(self, called: Any) -> None:
        assert not self.calls
        self.calls.append(called[:2])
        self.begun.append(called[2])

    def returned(self, failed: bool) -> float:
        listener, event = self.calls.pop()
        self.told.append((listener, event, failed))
        return float(len(self.told))


def deliver(manager: EventManager, event: BaseEvent, observer: Observer) -> None:
    """Emit an event as a store's dispatcher does."""
    emission = emission_of(manager, event)
    if emission is not None:
        emission.run(observer)


class TestDeliver:
    """What a store's dispatcher calls: as emit, but that no listener ends its thread."""

    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_whatever_a_listener_raises_is_logged_and_the_rest_hear_it(
        self,
        manager: EventManager,
        calls: Calls,
        caplog: pytest.LogCaptureFixture,
        error: type[BaseException],
    ) -> None:
        def fail(event: BaseEvent) -> None:
            calls.append("fail")
            raise error("on purpose")

        before, after = calls.listener("before"), calls.listener("after")
        for listener in (before, fail, after):
            manager.connect(StoreSetEvent, listener)
        observer, event = Observer(), StoreSetEvent(key="a")
        deliver(manager, event, observer)
        assert calls == ["before", "fail", "after"]
        assert observer.told == [(before, event, False), (fail, event, True), (after, event, False)]
        assert observer.calls == []
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("latchstore", logging.ERROR)
        assert record.getMessage().endswith(".fail failed on <StoreSetEvent key='a' action='set'>")
        assert record.exc_info is not None
        assert record.exc_info[0] is error

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    def test_an_emit_is_ended_by_what_ends_threads(
        self, manager: EventManager, calls: Calls, error: type[BaseException]
    ) -> None:
        def fail(event: BaseEvent) -> None:
            raise error

        manager.connect(StoreSetEvent, fail)
        manager.connect(StoreSetEvent, calls.listener("after"))
        with pytest.raises(error):
            manager.emit(StoreSetEvent(key="a"))
        assert calls == []

    def test_a_listener_is_called_when_the_one_before_it_has_returned(
        self, manager: EventManager, calls: Calls
    ) -> None:
        """So one reading of the clock is enough for both."""
        for name in "abc":
            manager.connect(StoreSetEvent, calls.listener(name))
        observer, before = Observer(), time.monotonic()
        deliver(manager, StoreSetEvent(key="a"), observer)
        first, *others = observer.begun
        assert before <= first <= time.monotonic()
        assert others == [1.0, 2.0]

    def test_the_observer_knows_who_is_called_while_it_is(self, manager: EventManager) -> None:
        observer, event = Observer(), StoreSetEvent(key="a")
        known: list[object] = []

        def listener(event: BaseEvent) -> None:
            known.extend(observer.calls)

        manager.connect(StoreSetEvent, listener)
        deliver(manager, event, observer)
        assert known == [(listener, event)]

    def test_only_those_that_are_called_are_told_of(self, manager: EventManager, calls: Calls) -> None:
        """Not those of other events and keys, the dead, the vetoed, nor those after a handled one."""

        def handle(event: BaseEvent) -> None:
            event.mark_as_handled()

        vetoed, other, matching = map(calls.listener, ["vetoed", "other", "matching"])
        manager.connect(StoreSetEvent, Owner(calls).on_event)
        manager.connect(OtherEvent, other)
        manager.connect(StoreSetEvent, other, {"key": "b"})
        manager.connect(StoreSetEvent, vetoed)
        manager.connect(StoreSetEvent, matching, {"key": "a"})
        manager.connect(StoreSetEvent, handle)
        manager.connect(StoreEvent, calls.listener("after"))
        manager.set_trace(lambda name, method, args: name == "listen" and method is vetoed)
        observer, event = Observer(), StoreSetEvent(key="a")
        deliver(manager, event, observer)
        assert calls == ["matching"]
        assert observer.told == [(matching, event, False), (handle, event, False)]

    def test_the_event_is_told_of_its_beginning_and_end(self, manager: EventManager, calls: Calls) -> None:
        class Telling(StoreSetEvent):
            def pre_emit(self) -> None:
                calls.append("pre")

            def post_emit(self) -> None:
                calls.append("post")

        def fail(event: BaseEvent) -> None:
            calls.append("fail")
            raise SystemExit

        manager.connect(StoreSetEvent, fail)
        deliver(manager, Telling(key="a"), Observer())
        assert calls == ["pre", "fail", "post"]

    def test_a_disabled_class_is_not_delivered(self, manager: EventManager, calls: Calls) -> None:
        manager.connect(StoreSetEvent, calls.listener("a"))
        manager.disable(StoreEvent)
        observer = Observer()
        deliver(manager, StoreSetEvent(key="a"), observer)
        manager.enable(StoreEvent)
        manager.set_trace(lambda name, method, args: name == "emit")
        deliver(manager, StoreSetEvent(key="a"), observer)
        assert (calls, observer.told) == ([], [])
