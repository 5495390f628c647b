"""What the event contracts listen with."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from latchstore import AbstractStore, BaseEvent
from tests.contract.writing import CHANGES

E = TypeVar("E", bound=BaseEvent)

changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def listen(store: AbstractStore, cls: type[E]) -> list[E]:
    """Return a list that gets every event of the class from now on."""
    heard: list[E] = []
    store.event_manager.connect(cls, heard.append)
    return heard


def told(events: list[Any]) -> list[tuple[str, str]]:
    """Return kind and key of events that have a key, and the kind and state of others."""
    return [(type(event).__name__, getattr(event, "key", getattr(event, "state", ""))) for event in events]
