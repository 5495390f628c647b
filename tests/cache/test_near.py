"""Near caches: their options, and stores that cannot have them; ``tests/contract/near.py`` has the rest."""

from __future__ import annotations

import gc
import math
from datetime import timedelta
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, NearCache
from latchstore.cache.near import Copies
from latchstore.engine.observing import Observers


def test_options() -> None:
    near = NearCache(staleness=timedelta(milliseconds=20))
    assert (near.max_entries, near.staleness) == (10_000, 0.02)
    assert repr(NearCache(max_entries=5)) == "NearCache(max_entries=5, staleness=0.05)"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_entries": 0}, ValueError, "max_entries"),
        ({"max_entries": "many"}, TypeError, "max_entries"),
        ({"staleness": 0}, ValueError, "staleness must be positive"),
        ({"staleness": -1.0}, ValueError, "staleness must be positive"),
        ({"staleness": math.inf}, ValueError, "staleness must be a finite number of seconds, got inf"),
        ({"staleness": math.nan}, ValueError, "staleness"),
        ({"staleness": "1"}, TypeError, "staleness"),
        ({"staleness": None}, ValueError, "staleness must be a finite number of seconds, got None"),
    ],
)
def test_wrong_options(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NearCache(**options)


@pytest.mark.parametrize("store", [None, DictMemoryStore(EventManager())])
def test_memory_needs_none(store: DictMemoryStore | None) -> None:
    with pytest.raises(TypeError, match="near= needs a store that processes share"):
        Cache(store, near=NearCache())


def test_observers_are_looked_for_each_time() -> None:
    observers, near = Observers(), NearCache(staleness=4)
    assert not observers
    assert observers.interval(10.0) == 10.0
    first, second = Copies(near), Copies(NearCache(staleness=0.000_001))
    for _ in range(2):
        observers.add(first)
    observers.add(second)
    assert list(observers) == [first, second]
    assert observers.interval(10.0) == 0.000_5
    observers.discard(second)
    observers.discard(second)
    assert observers.interval(10.0) == 1.0
    del first
    gc.collect()
    assert not observers
    assert observers.interval(0.1) == 0.1
