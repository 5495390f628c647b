"""The registry of listeners: who is called, in which order, and that no thread can upset it."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, SimpleNamespace
from typing import Any
from unittest.mock import ANY

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
    StoreDeleteEvent,
    StoreEvent,
    StoreKeyEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreUpdateEvent,
)
from latchstore.delivery.event_manager import EventInfo, EventManager
from latchstore.delivery.registry import Connection, Receiver, Table, identity_of

TIMEOUT = 30


class OtherEvent(BaseEvent):
    """An event that is no store event."""


class Calls(list[str]):
    """A list of the names of listeners, in the order of their calls."""

    def listener(self, name: str) -> Callable[[BaseEvent], None]:
        def call(event: BaseEvent) -> None:
            self.append(name)

        call.__qualname__ = name
        return call


class Owner:
    """An object with listener methods."""

    def __init__(self, calls: list[str] | None = None) -> None:
        self.calls: list[str] = [] if calls is None else calls

    def on_event(self, event: BaseEvent) -> None:
        self.calls.append("on_event")

    def on_other(self, event: BaseEvent) -> None:
        self.calls.append("on_other")


def connections_of(cls: type[Owner]) -> int:
    """Return how many connections of the methods of a class there are, the dead ones included."""
    functions = {cls.on_event, cls.on_other}
    return sum(type(each) is Connection and each.function in functions for each in gc.get_objects())


def connection_of(owner: Owner) -> Connection:
    """Return a connection of an object's listener to `StoreSetEvent`."""
    identity = identity_of(owner.on_event)
    receiver = Receiver(owner)
    receiver.cls, receiver.identity = StoreSetEvent, identity
    return Connection(identity, Owner.on_event, receiver, ())


class Counter:
    """Equal to what it is told to be equal to; counts the comparisons."""

    def __init__(self, equal: object = None) -> None:
        self.equal = equal
        self.comparisons = 0

    def __eq__(self, other: object) -> bool:
        self.comparisons += 1
        return other == self.equal

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def manager() -> Iterator[EventManager]:
    manager = EventManager()
    yield manager
    manager.check()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_manager, "_event_manager", None)


def run_in_threads(*functions: Callable[[], object]) -> None:
    """Run functions at once, each in a thread; fail if one fails or does not come to an end."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        try:
            barrier.wait(TIMEOUT)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


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
            with pytest.raises(TypeError, match=r"^cls must be .*, not "):
                call()
        assert manager.get_event() == {}

    def test_func_must_be_callable(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^func must be callable, not 5$"):
            manager.connect(StoreSetEvent, 5)  # type: ignore[arg-type]

    def test_filter_must_be_a_mapping(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^filter must be a mapping, not \['key'\]$"):
            manager.connect(StoreSetEvent, print, ["key"])  # type: ignore[arg-type]

    def test_filter_must_have_string_keys(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^filter must .*str.*, not 5$"):
            manager.connect(StoreSetEvent, print, {5: "a"})  # type: ignore[dict-item]

    def test_priority_must_be_an_int(self, manager: EventManager) -> None:
        with pytest.raises(TypeError, match=r"^priority must be an int, not 1\.5$"):
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

    @pytest.mark.parametrize("filter", [None, {"key": "a"}, {"source": None}, {"revision": None}, {"key": 5}])
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


class TestFilters:
    @pytest.mark.parametrize(
        ("filter", "matches"),
        [
            ({}, True),
            ({"key": "a"}, True),
            ({"key": "b"}, False),
            ({"revision": 3}, True),
            ({"revision": 4}, False),
            ({"key": "a", "revision": 3}, True),
            ({"key": "a", "revision": 4}, False),
            ({"key": "b", "revision": 3}, False),
            ({"source.name": "here"}, True),
            ({"source.name": "there"}, False),
            ({"source.place.name": "here"}, False),
            ({"missing": None}, False),
            ({"key.missing": None}, False),
            ({"key": 5}, False),
            ({"key": None}, False),
            ({"key.real": "a"}, False),
        ],
    )
    def test_attributes_must_equal_the_values(
        self, manager: EventManager, calls: Calls, filter: Mapping[str, object], matches: bool
    ) -> None:
        manager.connect(StoreSetEvent, calls.listener("a"), filter)
        manager.emit(StoreSetEvent(SimpleNamespace(name="here"), key="a", revision=3))
        assert calls == ["a"] * matches

    def test_is_copied(self, manager: EventManager, calls: Calls) -> None:
        filter = {"key": "a"}
        manager.connect(StoreSetEvent, calls.listener("a"), filter)
        filter["key"] = "b"
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["a"]

    def test_key_and_source_together(self, manager: EventManager, calls: Calls) -> None:
        here, there = Owner(), Owner()
        manager.connect(StoreSetEvent, calls.listener("a"), {"key": "a", "source": here})
        manager.emit(StoreSetEvent(there, key="a"))
        manager.emit(StoreSetEvent(here, key="b"))
        assert calls == []
        manager.emit(StoreSetEvent(here, key="a"))
        assert calls == ["a"]

    def test_on_events_without_a_key(self, manager: EventManager, calls: Calls) -> None:
        manager.connect(BaseEvent, calls.listener("a"), {"key": "a"})
        manager.emit(BaseEvent())
        assert calls == []

    def test_key_of_another_type_is_compared(self, manager: EventManager, calls: Calls) -> None:
        class Key(str):
            def __eq__(self, other: object) -> bool:
                return isinstance(other, str) and self.lower() == other.lower()

            __hash__ = str.__hash__

        # On the side of the event, and on the side of the filter.
        manager.connect(StoreSetEvent, calls.listener("plain"), {"key": "a"})
        manager.emit(StoreSetEvent(key=Key("A")))
        assert calls == ["plain"]
        manager.connect(StoreSetEvent, calls.listener("own"), {"key": Key("A")})
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["plain", "plain", "own"]

    def test_source_with_its_own_equality_is_compared(self, manager: EventManager, calls: Calls) -> None:
        # On the side of the filter, and on the side of the event.
        source = Owner()
        manager.connect(StoreSetEvent, calls.listener("counter"), {"source": Counter(source)})
        manager.emit(StoreSetEvent(source, key="a"))
        assert calls == ["counter"]
        manager.connect(StoreSetEvent, calls.listener("owner"), {"source": source})
        manager.emit(StoreSetEvent(Counter(source), key="a"))
        assert calls == ["counter", "counter", "owner"]

    @pytest.mark.parametrize("path", ["colour", "key.colour", "source.colour"])
    def test_missing_attribute_does_not_even_match_what_equals_everything(
        self, manager: EventManager, calls: Calls, path: str
    ) -> None:
        manager.connect(StoreSetEvent, calls.listener("missing"), {path: ANY})
        manager.connect(StoreSetEvent, calls.listener("there"), {"revision": ANY})
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["there"]

    def test_unhashable_values(self, manager: EventManager, calls: Calls) -> None:
        manager.connect(StoreSetEvent, calls.listener("a"), {"key": ["a"]})
        manager.connect(StoreSetEvent, calls.listener("b"), {"source": ["here"]})
        manager.emit(StoreSetEvent(["here"], key=["a"]))
        assert calls == ["a", "b"]

    def test_comparison_that_raises_is_no_match(
        self, manager: EventManager, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Ambiguous:
            def __eq__(self, other: object) -> bool:
                raise ValueError("neither true nor false")

            __hash__ = None  # type: ignore[assignment]

        caplog.set_level(logging.DEBUG, logger="latchstore")
        manager.connect(StoreSetEvent, calls.listener("a"), {"revision": Ambiguous()})
        manager.connect(StoreSetEvent, calls.listener("b"))
        manager.emit(StoreSetEvent(key="a"))
        assert calls == ["b"]
        assert [record.levelno for record in caplog.records] == [logging.DEBUG]
        assert "neither true nor false" in caplog.text

    @pytest.mark.parametrize("name", ["key", "source", "colour"])
    def test_attribute_that_raises_is_no_match(
        self, manager: EventManager, calls: Calls, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        def fail(event: BaseEvent) -> None:
            raise ValueError("no such luck")

        # An assignment of the constructor's must not fail, so the property has a setter.
        cls = type("BrokenEvent", (BaseEvent,), {name: property(fail, lambda *_: None)})
        caplog.set_level(logging.DEBUG, logger="latchstore")
        manager.connect(cls, calls.listener("a"), {name: "a"})
        manager.connect(cls, calls.listener("b"), {name: None})
        manager.connect(cls, calls.listener("c"))
        manager.emit(cls())
        assert calls == ["c"]
        assert {record.levelno for record in caplog.records} == {logging.DEBUG}
        assert "no such luck" in caplog.text

    def test_comparison_interrupt_passes(self, manager: EventManager) -> None:
        class Interrupting:
            def __eq__(self, other: object) -> bool:
                raise KeyboardInterrupt

            __hash__ = None  # type: ignore[assignment]

        manager.connect(StoreSetEvent, print, {"revision": Interrupting()})
        with pytest.raises(KeyboardInterrupt):
            manager.emit(StoreSetEvent(key="a"))

    @pytest.mark.parametrize("name", ["key", "source"])
    def test_only_listeners_with_this_key_or_source_are_tried(
        self, manager: EventManager, calls: Calls, name: str
    ) -> None:
        values: list[Any] = [f"key {n}" if name == "key" else Owner() for n in range(10_000)]
        # The counter is the first condition: whoever is tried at all makes it count.
        counter = Counter(equal=3)
        for number, value in enumerate(values):
            listener = calls.listener(str(number))
            manager.connect(StoreSetEvent, listener, {"revision": counter, name: value})
        manager.emit(StoreSetEvent(**{name: values[77], "revision": 3}))
        assert calls == ["77"]
        assert counter.comparisons == 1
        assert manager.get_listeners(StoreSetEvent(**{name: "another", "revision": 3})) == []

    def test_key_is_looked_up_whatever_the_source(self, manager: EventManager, calls: Calls) -> None:
        # A source that compares in its own way must not cost the key its index.
        counter = Counter(equal=3)
        for number in range(100):
            filter = {"revision": counter, "key": str(number)}
            manager.connect(StoreSetEvent, calls.listener(str(number)), filter)
        manager.emit(StoreSetEvent(Counter(), key="77", revision=3))
        assert calls == ["77"]
        assert counter.comparisons == 1


class TestEmit:
    def test_needs_an_event(self, manager: EventManager) -> None:
        for block in (True, False):
            with pytest.raises(TypeError, match=r"^event must be a BaseEvent, not 5$"):
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
        with pytest.raises(TypeError, match=r"^func must be callable or None, not 5$"):
            manager.set_trace(5)  # type: ignore[arg-type]


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


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


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
    emission = manager.emission(event)
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
        with pytest.raises(TypeError, match=r"^manager must have an emit method, got "):
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
