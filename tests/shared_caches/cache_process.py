"""Another process that has a cache on a store which processes share, and calls functions with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest

from latchstore import Cache
from tests.processes import TIMEOUT, Call, CallingProcess

__all__ = ["TIMEOUT", "CacheProcess", "Call", "Place", "processes"]

#: Opens the store of a test, in any process.
Place = Callable[[], Any]


class CacheProcess(CallingProcess):
    """A process with one cache at a time."""

    def open(self, place: Place, **options: Any) -> Self:
        """Open a cache, with options of its own, on a store."""
        self.enter(_opened, place, options)
        return self


@contextmanager
def _opened(place: Place, options: dict[str, Any]) -> Iterator[Cache[Any]]:
    with place() as store, Cache(store, **options) as cache:
        yield cache


@pytest.fixture(scope="module")
def processes() -> Iterator[list[CacheProcess]]:
    """Two other processes, for the tests of a module."""
    with CacheProcess() as first, CacheProcess() as second:
        yield [first, second]
