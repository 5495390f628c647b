"""A store with a clock of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.timers.clocks import Calls, Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(
        "latchstore.delivery.dispatcher.time", SimpleNamespace(monotonic=clock.monotonic, sleep=time.sleep)
    )
    return clock


@pytest.fixture
def store(clock: Clock) -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


@pytest.fixture
def calls() -> Calls:
    return Calls()
