"""A store with a cache in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import Cache, DictMemoryStore, EventManager
from latchstore.cache.inspection import check
from tests.cache.clocks import TIMEOUT, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    # Who meets a writer is told at once, so that nothing has to be waited for.
    with DictMemoryStore(EventManager(), lock_timeout=0) as store:
        yield store


@pytest.fixture
def cache(store: DictMemoryStore, clock: Clock) -> Iterator[Cache]:
    cache = Cache(store, codec="pickle", max_entries=2, policy="lru", clock=clock)
    cache.update(a=1, b=2)
    store.flush(TIMEOUT)
    yield cache
    store.flush(TIMEOUT)
    check(cache)
    assert len(cache) <= 2
