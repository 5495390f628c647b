"""A cache that keeps references, and its store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import Cache, DictMemoryStore, EventManager
from latchstore.cache.inspection import check
from tests.cache.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Iterator[Cache]:
    with Cache(clock=clock) as cache:
        yield cache
        check(cache)


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store
