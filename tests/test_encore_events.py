"""Encore's own tests of its event manager, run on ours; and our events, emitted by encore's."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from latchstore.contract import event_manager, events
from latchstore.delivery.event_manager import EventManager

pytest.importorskip("encore")
encore_tests: Any = importlib.import_module("encore.events.tests.test_event_manager")
encore_manager: Any = importlib.import_module("encore.events.event_manager")


@pytest.fixture(autouse=True)
def our_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put our names in the place of those that encore's test module has imported."""
    monkeypatch.setattr(encore_tests, "EventManager", EventManager)
    monkeypatch.setattr(encore_tests, "BaseEvent", events.BaseEvent)
    monkeypatch.setattr(encore_tests, "BaseEventManager", event_manager.BaseEventManager)
    monkeypatch.setattr(encore_tests, "get_event_manager", event_manager.get_event_manager)
    monkeypatch.setattr(encore_tests, "set_event_manager", event_manager.set_event_manager)
    # Its test of the default event manager resets `package_globals._event_manager`.
    monkeypatch.setattr(encore_tests, "package_globals", event_manager)
    monkeypatch.setattr(event_manager, "_event_manager", None)


class TestEncoreEventManager(encore_tests.TestEventManager):  # type: ignore[misc]
    def test_runs_on_ours(self) -> None:
        assert type(self.evt_mgr) is EventManager


class TestEncoreTracing(encore_tests.TracingTests):  # type: ignore[misc]
    def test_runs_on_ours(self) -> None:
        assert type(self.evt_mgr) is EventManager


def test_encore_emits_our_events() -> None:
    manager = encore_manager.EventManager()
    calls: list[tuple[str, object]] = []

    def first(event: events.StoreSetEvent) -> None:
        calls.append(("first", event.key))
        event.mark_as_handled()

    def second(event: events.StoreSetEvent) -> None:
        calls.append(("second", event.key))

    manager.connect(events.StoreSetEvent, first, filter={"key": "a"})
    manager.connect(events.StoreEvent, second)
    manager.emit(events.StoreUpdateEvent(key="a"))
    manager.emit(events.StoreUpdateEvent(key="b"))
    assert calls == [("first", "a"), ("second", "b")]


def test_encore_takes_our_progress() -> None:
    manager = encore_manager.EventManager()
    seen: list[type] = []
    manager.connect(events.ProgressEvent, lambda event: seen.append(type(event)))
    with events.ProgressManager(manager) as progress:
        progress()
    assert seen == [events.ProgressStartEvent, events.ProgressStepEvent, events.ProgressEndEvent]
