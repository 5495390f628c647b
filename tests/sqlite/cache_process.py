"""Another process that has a cache on a store in a file, and calls functions of the tests with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from latchstore import Cache, EventManager, SqliteStore
from tests.processes import Call, CallingProcess

__all__ = ["CacheProcess", "Call"]


class CacheProcess(CallingProcess):
    """A process with one cache at a time."""

    def open(self, path: Path, **options: Any) -> Self:
        """Open a cache, with options of its own, on the store of a file."""
        self.enter(_opened, path, options)
        return self


@contextmanager
def _opened(path: Path, options: dict[str, Any]) -> Iterator[Cache[Any]]:
    with SqliteStore(path, EventManager(), durability="off") as store, Cache(store, **options) as cache:
        yield cache
