"""What can be asked of a manager, and what a trace function is told."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from latchstore.contract.event_manager import (
    BaseEventManager,
)
from latchstore.contract.events import (
    BaseEvent,
    StoreDeleteEvent,
    StoreEvent,
    StoreKeyEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.delivery.event_manager import EventInfo, EventManager
from tests.event_manager.listeners import Calls, OtherEvent, Owner, run_in_threads


class TestHasListeners:
    def test_of_the_class_and_its_bases(self, manager: EventManager) -> None:
        assert not manager.has_listeners(StoreSetEvent)
        manager.connect(StoreSetEvent, print)
        assert manager.has_listeners(StoreSetEvent)
        assert manager.has_listeners(StoreUpdateEvent)
        assert not manager.has_listeners(StoreModificationEvent)
        assert not manager.has_listeners(StoreDeleteEvent)
        manager.disconnect(StoreSetEvent, print)
        assert not manager.has_listeners(StoreSetEvent)

    def test_considers_what_is_disabled(self, manager: EventManager) -> None:
        manager.connect(BaseEvent, print)
        manager.disable(StoreSetEvent)
        assert not manager.has_listeners(StoreUpdateEvent)
        assert manager.has_listeners(StoreDeleteEvent)
        manager.enable(StoreSetEvent)
        assert manager.has_listeners(StoreUpdateEvent)

    def test_does_not_count_the_dead(self, manager: EventManager) -> None:
        first, second = Owner(), Owner()
        manager.connect(StoreSetEvent, first.on_event)
        manager.connect(BaseEvent, second.on_event)
        assert manager.has_listeners(StoreSetEvent)
        del first
        gc.collect()
        assert manager.has_listeners(StoreSetEvent)
        del second
        gc.collect()
        assert not manager.has_listeners(StoreSetEvent)

    def test_disregards_filters(self, manager: EventManager) -> None:
        manager.connect(StoreSetEvent, print, {"key": "a"})
        assert manager.has_listeners(StoreSetEvent)

    def test_passes_over_the_dead_without_taking_them_out(self, manager: EventManager) -> None:
        owner = Owner()
        manager.connect(StoreSetEvent, owner.on_event)
        manager.connect(OtherEvent, print)
        del owner
        gc.collect()
        answers: list[bool] = []
        run_in_threads(lambda: answers.extend(map(manager.has_listeners, [StoreSetEvent, OtherEvent])))
        assert answers == [False, True]


class TestLookingIn:
    def test_register(self, manager: EventManager) -> None:
        manager.register(StoreSetEvent)
        assert set(manager.get_event()) == {StoreSetEvent}
        with pytest.raises(ValueError, match="StoreSetEvent"):
            manager.register(StoreSetEvent)

    @pytest.mark.parametrize(
        "action",
        [
            lambda manager: manager.connect(StoreSetEvent, print),
            lambda manager: manager.disable(StoreSetEvent),
            lambda manager: manager.enable(StoreSetEvent),
        ],
    )
    def test_use_registers(self, manager: EventManager, action: Callable[[EventManager], None]) -> None:
        action(manager)
        with pytest.raises(ValueError, match="StoreSetEvent"):
            manager.register(StoreSetEvent)

    def test_get_event(self, manager: EventManager, calls: Calls) -> None:
        first, second = calls.listener("first"), calls.listener("second")
        manager.connect(StoreSetEvent, first, {"key": "a"})
        manager.connect(StoreSetEvent, second, priority=1)
        manager.connect(BaseEvent, print)
        info = manager.get_event(StoreSetEvent)
        assert isinstance(info, EventInfo)
        assert info.cls is StoreSetEvent
        assert info.enabled is True
        assert info.listeners == (second, first)
        assert repr(info) == "<EventInfo StoreSetEvent: enabled, 2 listeners>"
        manager.disable(StoreSetEvent)
        assert manager.get_event(StoreSetEvent).enabled is False
        assert info.enabled is True

    @pytest.mark.parametrize("filter", [None, {"key": "a"}, {"source": None}])
    def test_what_is_published_does_not_change(
        self, manager: EventManager, calls: Calls, filter: Mapping[str, object] | None
    ) -> None:
        first, second, third = map(calls.listener, ["first", "second", "third"])
        manager.connect(StoreSetEvent, first, filter)
        manager.connect(StoreSetEvent, second, filter)
        info = manager.get_event(StoreSetEvent)
        manager.connect(StoreSetEvent, third, filter, priority=1)
        manager.disconnect(StoreSetEvent, first)
        manager.connect(StoreSetEvent, second)
        manager.check()
        assert info.listeners == (first, second)

    def test_event_info_is_read_only(self, manager: EventManager) -> None:
        manager.register(StoreSetEvent)
        info = manager.get_event(StoreSetEvent)
        for name in ("cls", "enabled", "listeners"):
            with pytest.raises(AttributeError):
                setattr(info, name, None)

    def test_get_event_of_an_unknown_class(self, manager: EventManager) -> None:
        with pytest.raises(KeyError):
            manager.get_event(StoreSetEvent)

    def test_get_event_of_all_is_a_snapshot(self, manager: EventManager) -> None:
        manager.register(StoreSetEvent)
        infos = manager.get_event()
        infos.clear()
        assert set(manager.get_event()) == {StoreSetEvent}

    def test_get_listeners(self, manager: EventManager, calls: Calls) -> None:
        first, second, third = map(calls.listener, ["first", "second", "third"])
        manager.connect(StoreSetEvent, first, {"key": "a"})
        manager.connect(BaseEvent, second)
        manager.connect(StoreUpdateEvent, third, priority=1)
        assert manager.get_listeners(StoreUpdateEvent) == [third, first, second]
        assert manager.get_listeners(StoreSetEvent) == [first, second]
        assert manager.get_listeners(StoreUpdateEvent(key="a")) == [third, first, second]
        assert manager.get_listeners(StoreUpdateEvent(key="b")) == [third, second]
        assert manager.get_listeners(StoreUpdateEvent(key="a"), StoreSetEvent) == [first, second]
        assert manager.get_listeners(StoreUpdateEvent(key="b"), StoreSetEvent) == [second]
        assert manager.get_listeners(StoreUpdateEvent, BaseEvent) == [second]
        assert calls == []

    def test_get_listeners_keeps_nobody_from_dying(self, manager: EventManager) -> None:
        owner = Owner()
        watcher = weakref.ref(owner)
        manager.connect(StoreSetEvent, owner.on_event)
        info = manager.get_event(StoreSetEvent)
        assert manager.get_listeners(StoreSetEvent) == [owner.on_event]
        del owner
        gc.collect()
        assert watcher() is None
        assert info.listeners == ()

    def test_event_hierarchy_ends_with_base_event(self, manager: EventManager) -> None:
        class Mixin:
            pass

        class Left(Mixin, StoreSetEvent):
            pass

        class Right(OtherEvent, Mixin):
            pass

        assert manager.get_event_hierarchy(BaseEvent) == (BaseEvent,)
        assert manager.get_event_hierarchy(Left) == (
            Left,
            Mixin,
            StoreSetEvent,
            StoreModificationEvent,
            StoreKeyEvent,
            StoreEvent,
            BaseEvent,
        )
        assert manager.get_event_hierarchy(Right) == (Right, OtherEvent, BaseEvent)


class TestTrace:
    def test_is_told_of_every_action(self, manager: EventManager, calls: Calls) -> None:
        traced: list[tuple[str, object, tuple[Any, ...]]] = []
        manager.set_trace(lambda *action: traced.append(action))
        listener = calls.listener("a")
        event = StoreSetEvent(key="a")
        manager.connect(StoreSetEvent, listener, {"key": "a"}, 3)
        manager.emit(event)
        manager.disconnect(StoreSetEvent, listener)
        assert traced == [
            ("connect", manager.connect, (StoreSetEvent, listener, {"key": "a"}, 3)),
            ("emit", manager.emit, (event,)),
            ("listen", listener, (event,)),
            ("disconnect", manager.disconnect, (StoreSetEvent, listener)),
        ]
        assert calls == ["a"]

    def test_is_given_bound_methods_as_they_are(self, manager: EventManager) -> None:
        owner = Owner()
        manager.connect(StoreSetEvent, owner.on_event)
        manager.set_trace(lambda name, method, args: method == owner.on_event)
        manager.emit(StoreSetEvent(key="a"))
        assert owner.calls == []

    @pytest.mark.parametrize("veto", ["connect", "disconnect", "emit", "listen"])
    def test_vetoes(self, manager: EventManager, calls: Calls, veto: str) -> None:
        class HookedEvent(BaseEvent):
            def pre_emit(self) -> None:
                calls.append("pre")

        listener = calls.listener("a")
        manager.connect(HookedEvent, calls.listener("b"))
        manager.set_trace(lambda name, method, args: name == veto)
        manager.connect(HookedEvent, listener)
        manager.emit(HookedEvent())
        if veto != "connect":
            manager.disconnect(HookedEvent, listener)
        assert (
            calls
            == {
                "connect": ["pre", "b"],
                "disconnect": ["pre", "b", "a"],
                "emit": [],
                "listen": ["pre"],
            }[veto]
        )
        assert len(manager.get_listeners(HookedEvent)) == (2 if veto == "disconnect" else 1)

    def test_veto_of_one_listener_lets_the_next_listen(self, manager: EventManager, calls: Calls) -> None:
        first = calls.listener("first")
        manager.connect(StoreSetEvent, first)
        manager.connect(StoreSetEvent, calls.listener("second"))
        manager.set_trace(lambda name, method, args: method is first)
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["second"]

    def test_none_removes_it(self, manager: EventManager, calls: Calls) -> None:
        manager.connect(StoreSetEvent, calls.listener("a"))
        manager.set_trace(lambda name, method, args: True)
        manager.set_trace(None)
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["a"]

    def test_must_be_callable(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^func must be callable or None, got int 5$"):
            manager.set_trace(5)  # type: ignore[arg-type]


class TestBaseEventManager:
    def test_cannot_be_instantiated(self) -> None:
        with pytest.raises(TypeError):
            BaseEventManager()  # type: ignore[abstract]

    def test_minimal_subclass(self) -> None:
        class Minimal(BaseEventManager):
            def connect(self, *arguments: Any) -> None: ...
            def disconnect(self, *arguments: Any) -> None: ...
            def emit(self, *arguments: Any) -> None: ...
            def disable(self, *arguments: Any) -> None: ...
            def enable(self, *arguments: Any) -> None: ...
            def is_enabled(self, *arguments: Any) -> bool:
                return True

        manager = Minimal()
        assert manager.has_listeners(StoreSetEvent)
        assert manager.get_event_hierarchy(BaseEvent) == (BaseEvent,)
        for call in (
            lambda: manager.register(StoreSetEvent),
            lambda: manager.get_event(),
            lambda: manager.get_listeners(StoreSetEvent),
            lambda: manager.set_trace(None),
        ):
            with pytest.raises(NotImplementedError, match="Minimal"):
                call()
