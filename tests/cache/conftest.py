"""Fixtures of the tests of caches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Cache
from latchstore.cache.inspection import check_idle
from latchstore.cache.loading import LoadTable
from tests.cache.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Iterator[Cache]:
    """A cache without a bound; at the end its books are right, and nothing is left of loads."""
    with Cache(clock=clock) as cache:
        yield cache
        check_idle(cache)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Is released each time a thread is about to wait for another's load."""
    waiting = threading.Semaphore(0)
    refuse_circle = LoadTable.refuse_circle

    def told(self: LoadTable, *arguments: Any) -> None:
        refuse_circle(self, *arguments)
        waiting.release()

    monkeypatch.setattr(LoadTable, "refuse_circle", told)
    return waiting
