"""Who is connected, to what, and for how long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import Any

import pytest

from latchstore.contract.events import (
    BaseEvent,
    StoreDeleteEvent,
    StoreEvent,
    StoreKeyEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.delivery.event_manager import EventManager, call_when_connected
from latchstore.delivery.registry import Table
from tests.event_manager.listeners import Calls, OtherEvent, Owner, connection_of, connections_of


class TestConnect:
    def test_listener_is_called_with_the_event(self, manager: EventManager) -> None:
        seen: list[BaseEvent] = []
        manager.connect(StoreSetEvent, seen.append)
        event = StoreSetEvent(key="a")
        assert manager.emit(event) is None
        assert seen == [event]

    def test_listener_hears_subclasses_only(self, manager: EventManager, calls: Calls) -> None:
        manager.connect(StoreSetEvent, calls.listener("set"))
        manager.connect(StoreUpdateEvent, calls.listener("update"))
        manager.emit(StoreUpdateEvent(key="a"))
        manager.emit(StoreSetEvent(key="a"))
        manager.emit(StoreDeleteEvent(key="a"))
        assert calls == ["set", "update", "set"]

    def test_same_function_on_two_classes_is_called_for_both(
        self, manager: EventManager, calls: Calls
    ) -> None:
        listener = calls.listener("a")
        manager.connect(StoreSetEvent, listener)
        manager.connect(StoreEvent, listener)
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["a", "a"]

    def test_order_is_priority_then_connection_over_all_classes(
        self, manager: EventManager, calls: Calls
    ) -> None:
        for number, (cls, priority) in enumerate(
            [
                (BaseEvent, 0),
                (StoreUpdateEvent, 0),
                (StoreSetEvent, 5),
                (StoreKeyEvent, -1),
                (BaseEvent, 5),
                (StoreUpdateEvent, 7),
                (StoreSetEvent, 0),
            ]
        ):
            manager.connect(cls, calls.listener(str(number)), priority=priority)
        manager.emit(StoreUpdateEvent(key="a"))
        assert calls == ["5", "2", "4", "0", "1", "6", "3"]

    def test_order_holds_over_indexed_and_other_listeners(self, manager: EventManager, calls: Calls) -> None:
        source = Owner()
        filters: list[Mapping[str, object] | None] = [
            {"key": "a"},
            None,
            {"source": source},
            {"revision": 1},
            {"key": "a", "source": source},
            {"key": "a"},
            {"source": source},
            None,
        ]
        for number, filter in enumerate(filters):
            manager.connect(StoreSetEvent, calls.listener(str(number)), filter)
        manager.connect(StoreSetEvent, calls.listener("first"), {"key": "a"}, priority=1)
        manager.emit(StoreSetEvent(source, key="a", revision=1))
        assert calls == ["first", "0", "1", "2", "3", "4", "5", "6", "7"]

    def test_again_replaces_filter_and_priority_and_moves_to_the_end(
        self, manager: EventManager, calls: Calls
    ) -> None:
        first, second = calls.listener("first"), calls.listener("second")
        manager.connect(StoreSetEvent, first, {"key": "a"}, priority=1)
        manager.connect(StoreSetEvent, second)
        manager.connect(StoreSetEvent, first)
        manager.emit(StoreSetEvent(key="b"))
        assert calls == ["second", "first"]

    def test_again_replaces_a_bound_method(self, manager: EventManager) -> None:
        owner = Owner()
        manager.connect(StoreSetEvent, owner.on_event, {"key": "a"})
        manager.connect(StoreSetEvent, owner.on_event, {"key": "b"})
        manager.emit(StoreSetEvent(key="a"))
        assert owner.calls == []
        manager.emit(StoreSetEvent(key="b"))
        assert owner.calls == ["on_event"]

    def test_methods_of_equal_objects_are_different_listeners(self, manager: EventManager) -> None:
        class Same(Owner):
            def __eq__(self, other: object) -> bool:
                return True

            def __hash__(self) -> int:
                return 1

        first, second = Same(), Same()
        manager.connect(StoreSetEvent, first.on_event)
        manager.connect(StoreSetEvent, second.on_event)
        manager.emit(StoreSetEvent(key="a"))
        assert (first.calls, second.calls) == (["on_event"], ["on_event"])

    @pytest.mark.parametrize("cls", [int, "StoreSetEvent", None, StoreSetEvent(key="a")])
    def test_class_must_be_an_event_class(self, manager: EventManager, cls: Any) -> None:
        for call in (
            lambda: manager.connect(cls, print),
            lambda: manager.disconnect(cls, print),
            lambda: manager.register(cls),
            lambda: manager.disable(cls),
            lambda: manager.enable(cls),
            lambda: manager.is_enabled(cls),
            lambda: manager.has_listeners(cls),
            lambda: manager.get_event_hierarchy(cls),
        ):
            with pytest.raises(TypeError, match=r"^cls must be .*, got "):
                call()
        assert manager.get_event() == {}

    def test_func_must_be_callable(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^func must be callable, got int 5$"):
            manager.connect(StoreSetEvent, 5)  # type: ignore[arg-type]

    def test_filter_must_be_a_mapping(self, manager: EventManager) -> None:
        with pytest.raises(
            TypeError, match=r"^filter must be a mapping of attribute paths to values, got list \['key'\]$"
        ):
            manager.connect(StoreSetEvent, print, ["key"])  # type: ignore[arg-type]

    def test_filter_must_have_string_keys(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^filter must .*str.*, got int 5$"):
            manager.connect(StoreSetEvent, print, {5: "a"})  # type: ignore[dict-item]

    def test_priority_must_be_an_int(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^priority must be an int, got float 1\.5$"):
            manager.connect(StoreSetEvent, print, priority=1.5)  # type: ignore[arg-type]

    def test_a_refused_connection_changes_nothing(self, manager: EventManager) -> None:
        with pytest.raises(TypeError):
            manager.connect(StoreSetEvent, print, priority="high")  # type: ignore[arg-type]
        assert manager.get_event() == {}


class TestDisconnect:
    def test_is_called_no_more(self, manager: EventManager, calls: Calls) -> None:
        listener = calls.listener("a")
        manager.connect(StoreSetEvent, listener)
        manager.disconnect(StoreSetEvent, listener)
        manager.emit(StoreSetEvent(key="a"))
        assert calls == []

    @pytest.mark.parametrize(
        "filter", [None, {"key": "a"}, {"source": None}, {"revision": None}, {"key": "*"}]
    )
    def test_leaves_the_others(
        self, manager: EventManager, calls: Calls, filter: Mapping[str, object] | None
    ) -> None:
        listeners = [calls.listener(str(number)) for number in range(5)]
        for listener in listeners:
            manager.connect(StoreSetEvent, listener, filter)
        manager.disconnect(StoreSetEvent, listeners[3])
        manager.disconnect(StoreSetEvent, listeners[0])
        expected = [listeners[1], listeners[2], listeners[4]]
        assert manager.get_listeners(StoreSetEvent) == expected

    def test_of_a_bound_method(self, manager: EventManager) -> None:
        owner = Owner()
        manager.connect(StoreSetEvent, owner.on_event)
        manager.disconnect(StoreSetEvent, owner.on_event)
        manager.emit(StoreSetEvent(key="a"))
        assert owner.calls == []

    @pytest.mark.parametrize("name", ["append", "__len__"])
    def test_of_a_builtin_method(self, manager: EventManager, name: str) -> None:
        # Python makes a new object for each access to such a method.
        seen: list[BaseEvent] = []
        manager.connect(StoreSetEvent, getattr(seen, name))
        manager.connect(StoreSetEvent, getattr(seen, name))
        assert len(manager.get_listeners(StoreSetEvent)) == 1
        manager.disconnect(StoreSetEvent, getattr(seen, name))
        assert manager.get_listeners(StoreSetEvent) == []

    def test_of_what_is_not_connected(self, manager: EventManager) -> None:
        owner = Owner()
        with pytest.raises(KeyError, match="print is not connected to StoreSetEvent"):
            manager.disconnect(StoreSetEvent, print)
        manager.connect(StoreSetEvent, owner.on_event)
        with pytest.raises(KeyError):
            manager.disconnect(StoreSetEvent, owner.on_other)
        with pytest.raises(KeyError):
            manager.disconnect(StoreUpdateEvent, owner.on_event)
        assert manager.get_listeners(StoreSetEvent) == [owner.on_event]

    def test_twice(self, manager: EventManager) -> None:
        manager.connect(StoreSetEvent, print)
        manager.disconnect(StoreSetEvent, print)
        with pytest.raises(KeyError):
            manager.disconnect(StoreSetEvent, print)


class TestWeakReferences:
    def test_bound_method_does_not_keep_its_object(self, manager: EventManager) -> None:
        calls: list[str] = []
        owner = Owner(calls)
        watcher = weakref.ref(owner)
        manager.connect(StoreSetEvent, owner.on_event)
        manager.emit(StoreSetEvent(key="a"))
        del owner
        gc.collect()
        assert watcher() is None
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["on_event"]

    @pytest.mark.parametrize("filter", [None, {"key": "a"}, {"source": None}])
    def test_dead_listeners_are_not_returned_and_are_taken_out(
        self, manager: EventManager, filter: Mapping[str, object] | None
    ) -> None:
        owners = [Owner() for _ in range(5)]
        for each in owners:
            manager.connect(StoreSetEvent, each.on_event, filter)
        kept = owners[2]
        del each
        owners.clear()
        gc.collect()
        assert manager.get_listeners(StoreSetEvent) == [kept.on_event]
        assert manager.get_listeners(StoreSetEvent(key="a")) == [kept.on_event]
        assert manager.get_event(StoreSetEvent).listeners == (kept.on_event,)
        manager.connect(OtherEvent, print)
        assert connections_of(Owner) == 1

    def test_emit_takes_the_dead_out(self, manager: EventManager) -> None:
        owner = Owner()
        manager.connect(StoreSetEvent, owner.on_event)
        del owner
        gc.collect()
        manager.emit(OtherEvent())
        assert connections_of(Owner) == 0

    def test_a_listener_that_dies_during_an_emit_is_not_called(
        self, manager: EventManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls: list[str] = []
        owners = [Owner(calls)]

        def drop_owner(event: BaseEvent) -> None:
            owners.clear()
            gc.collect()

        manager.connect(StoreSetEvent, drop_owner)
        manager.connect(StoreSetEvent, owners[0].on_event)
        manager.emit(StoreSetEvent(key="a"))
        assert calls == []
        assert caplog.records == []

    def test_dead_method_is_not_connected(self) -> None:
        # An object at the address of a dead one must not be taken for it, even if the collector
        # has not told the manager yet.
        owner = Owner()
        connection = connection_of(owner)
        table, identity = Table().with_connection(StoreSetEvent, connection, 0), connection.identity
        assert table.connection(StoreSetEvent, identity) is not None
        del owner
        gc.collect()
        assert table.connection(StoreSetEvent, identity) is None

    def test_late_burial_spares_the_successor(self) -> None:
        # A new object may be connected under the identity of a dead one before that is buried.
        owner = Owner()
        old, new = connection_of(owner), connection_of(owner)
        assert old.receiver is not None
        table = Table().with_connection(StoreSetEvent, old, 0).with_connection(StoreSetEvent, new, 0)
        table = table.without_dead([old.receiver])
        table.check()
        assert table.connection(StoreSetEvent, new.identity) is new

    def test_other_callables_are_held_strongly(self, manager: EventManager) -> None:
        calls: list[str] = []

        class Callable_:
            def __call__(self, event: BaseEvent) -> None:
                calls.append("object")

        manager.connect(StoreSetEvent, lambda event: calls.append("lambda"))
        manager.connect(StoreSetEvent, Callable_())
        gc.collect()
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["lambda", "object"]

    def test_method_of_what_cannot_be_weakly_referenced_is_held_strongly(self, manager: EventManager) -> None:
        class Slotted:
            __slots__ = ("calls",)

            def __init__(self, calls: list[str]) -> None:
                self.calls = calls

            def on_event(self, event: BaseEvent) -> None:
                self.calls.append("slotted")

        calls: list[str] = []
        slotted = Slotted(calls)
        manager.connect(StoreSetEvent, slotted.on_event)
        manager.connect(StoreSetEvent, slotted.on_event)
        del slotted
        gc.collect()
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["slotted"]

    def test_builtin_method_is_held_strongly(self, manager: EventManager) -> None:
        class Watched(list[BaseEvent]):
            pass

        seen = Watched()
        watcher = weakref.ref(seen)
        manager.connect(StoreSetEvent, seen.append)
        del seen
        gc.collect()
        assert watcher() is not None

    def test_a_failed_change_does_not_forget_the_dead(self, manager: EventManager) -> None:
        owner = Owner()
        manager.connect(StoreSetEvent, owner.on_event)
        del owner
        gc.collect()
        with pytest.raises(KeyError):
            manager.disconnect(StoreSetEvent, print)
        manager.emit(OtherEvent())
        assert connections_of(Owner) == 0

    def test_many_may_die_at_once(self, manager: EventManager) -> None:
        owners = [Owner() for _ in range(10_000)]
        for number, owner in enumerate(owners):
            manager.connect(StoreSetEvent, owner.on_event, {"key": str(number % 100)})
        del owners, owner
        gc.collect()
        manager.emit(OtherEvent())
        assert connections_of(Owner) == 0


class TestWhenConnected:
    """What is called after a connection, for those who need not do anything before there is one."""

    def test_it_is_called_when_somebody_may_listen_from_then_on(self, manager: EventManager) -> None:
        class Follower:
            def follow(self) -> None:
                found.append((self is follower, manager.has_listeners(StoreSetEvent)))

        found: list[tuple[bool, bool]] = []
        follower = Follower()
        for _ in range(2):
            call_when_connected(manager, follower.follow)
        manager.connect(StoreSetEvent, print)
        assert found == [(True, True)]
        manager.disable(StoreEvent)
        manager.disconnect(StoreSetEvent, print)
        assert found == [(True, True)]
        manager.enable(StoreEvent)
        assert found == [(True, True), (True, False)]

    def test_its_object_is_held_weakly(self, manager: EventManager) -> None:
        class Follower:
            def follow(self) -> None:
                found.append(self)

        found: list[Follower] = []
        gone, kept = Follower(), Follower()
        call_when_connected(manager, gone.follow)
        call_when_connected(manager, kept.follow)
        watcher = weakref.ref(gone)
        del gone
        gc.collect()
        assert watcher() is None
        manager.connect(StoreSetEvent, print)
        assert found == [kept]
