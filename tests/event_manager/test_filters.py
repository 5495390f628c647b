"""Filters: which events a listener hears, and which listeners an event is compared with."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest

from latchstore import Above, In
from latchstore.contract.events import BaseEvent, StoreDeleteEvent, StoreEvictEvent, StoreSetEvent
from latchstore.contract.matching import matches
from latchstore.contract.values import entry_from_metadata
from latchstore.delivery.event_manager import EventManager
from tests.event_manager.listeners import Calls, Counter, Owner


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
            ({"value": None}, True),
            ({"key.missing": None}, False),
            ({"key.real": "a"}, False),
            ({"metadata.state": "done"}, True),
            ({"metadata.state": "new"}, False),
            ({"metadata.missing": None}, False),
            ({"metadata.queue.place": 3}, True),
            ({"metadata.owner.name": "ann"}, True),
            ({"metadata.owner.name.missing": "ann"}, False),
            ({"metadata.visits": Above(3)}, True),
            ({"metadata.visits": Above(4)}, False),
            ({"metadata": {"state": "done"}}, False),
            ({"key": "?"}, True),
            ({"key": "[b-z]"}, False),
            ({"key": "a*"}, True),
            ({"key": "*", "metadata.state": In(["done", "failed"])}, True),
        ],
    )
    def test_attributes_must_equal_the_values(
        self, manager: EventManager, calls: Calls, filter: Mapping[str, object], matches: bool
    ) -> None:
        manager.connect(StoreSetEvent, calls.listener("a"), filter)
        metadata = {"state": "done", "queue.place": 3, "owner": {"name": "ann"}, "visits": 4}
        event = StoreSetEvent(SimpleNamespace(name="here"), key="a", revision=3, metadata=metadata)
        manager.emit(event)
        assert calls == ["a"] * matches

    @pytest.mark.parametrize(
        ("filter", "message"),
        [
            ({"metadatta.state": "done"}, "no attribute 'metadatta'.*did you mean 'metadata'"),
            ({"colour": "red"}, "no attribute 'colour'.*choose from action, key, .*metadata"),
            ({"": 1}, "the path '' has an empty part"),
            ({"metadata..state": 1}, "'metadata..state' has an empty part"),
            ({"key": 5}, "'key' must be a str or a pattern, got int 5"),
            ({"key": None}, "'key' must be a str or a pattern, got NoneType None"),
            ({"key": "a?" * 6_000}, "'key' must have at most 10000 characters"),
            ({"action": "delete"}, "has the action 'delete', but one of set, update"),
            ({"metadata": "done"}, "'metadata' is a dict, got str 'done'; name an item of it"),
            (
                {"metadata.state": lambda state: state == "done"},
                "'metadata.state' must be a value or a condition",
            ),
            ({"value.metadata.state": int}, "'value.metadata.state' must be a value or a condition"),
        ],
    )
    def test_one_that_matches_nothing_is_refused(
        self, manager: EventManager, calls: Calls, filter: Mapping[str, object], message: str
    ) -> None:
        gc.collect()  # classes that other tests have derived may have any attributes
        with pytest.raises((TypeError, ValueError), match=message):
            manager.connect(StoreSetEvent, calls.listener("a"), filter)
        assert manager.get_listeners(StoreSetEvent) == []

    def test_attributes_of_subclasses_are_known(self, manager: EventManager, calls: Calls) -> None:
        manager.connect(StoreDeleteEvent, calls.listener("a"), {"cause": "size", "action": "evict"})
        manager.emit(StoreDeleteEvent(key="a"))
        assert calls == []
        manager.emit(StoreEvictEvent(key="a", cause="size"))
        assert calls == ["a"]

    def test_classes_of_users_have_any_attribute(self, manager: EventManager, calls: Calls) -> None:
        class Painted(BaseEvent):
            pass

        manager.connect(Painted, calls.listener("a"), {"colour": "red"})
        manager.connect(BaseEvent, calls.listener("b"), {"colour": "red"})
        manager.emit(Painted(colour="red"))
        assert calls == ["a", "b"]

    def test_a_key_that_has_wildcards_is_named_by_a_condition(
        self, manager: EventManager, calls: Calls
    ) -> None:
        manager.connect(StoreSetEvent, calls.listener("a"), {"key": In(["a[1]*"])})
        manager.emit(StoreSetEvent(key="a1"))
        assert calls == []
        manager.emit(StoreSetEvent(key="a[1]*"))
        assert calls == ["a"]

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

    @pytest.mark.parametrize("path", ["transaction.colour", "key.colour", "source.colour"])
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

    def test_arrays_are_equal_to_nothing_as_in_a_query(self, manager: EventManager, calls: Calls) -> None:
        """Their ``==`` returns an array, and one of one item has a truth value."""

        class Array(list[int]):
            def __eq__(self, other: object) -> Any:
                return [True]

            __hash__ = None

        held = Array([1])
        assert not matches(entry_from_metadata({"numbers": held}), {"numbers": held})
        manager.connect(StoreSetEvent, calls.listener("a"), {"metadata.numbers": held})
        manager.connect(StoreSetEvent, calls.listener("b"), {"metadata.numbers": In([held])})
        manager.emit(StoreSetEvent(key="a", metadata={"numbers": Array([1])}))
        assert calls == []

    def test_comparison_without_end_harms_no_other_listener(
        self, manager: EventManager, calls: Calls
    ) -> None:
        class Endless:
            def __eq__(self, other: object) -> bool:
                return other == self

            __hash__ = None  # type: ignore[assignment]

        manager.connect(StoreSetEvent, calls.listener("a"), {"revision": Endless()})
        manager.connect(StoreSetEvent, calls.listener("b"))
        manager.emit(StoreSetEvent(key="a", revision=Endless()))
        assert calls == ["b"]

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
        values: list[Any] = [f"key {n}" if name == "key" else Owner() for n in range(2_000)]
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
