"""A manager that is checked after each test, and what else its tests begin with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from latchstore.contract import event_manager as default_manager
from latchstore.delivery.event_manager import EventManager
from tests.event_manager.listeners import Calls


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


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
