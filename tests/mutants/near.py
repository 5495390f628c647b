"""Ways to break near caches, on whatever store processes share.

Thread safety: the package is broken before there are threads.
"""

from __future__ import annotations

from math import inf
from typing import Any

from latchstore.cache.near import Copies, Copy
from latchstore.contract.values import Entry
from latchstore.engine.bounded import BoundedStore
from latchstore.engine.observing import Observers
from tests.mutants.mutant import replaces


def fill_unguarded() -> None:
    """Have a near cache keep what was read, whatever was committed or read meanwhile."""

    @replaces(Copies, "read")
    def read(original: Any, self: Any, key: str, bounded: BoundedStore) -> Entry | None:
        if bounded.current_transaction() is not None:
            return original(self, key, bounded)  # type: ignore[no-any-return]
        entry = bounded.entry(key)
        # Is no mistake alone, but others have longer to come in between.
        for _ in range(5):
            bounded.entry(key)
        if entry is not None:
            self.copies[key] = copy = Copy(key, entry)
            copy.until = 0.0
        return entry


def serve_beside_a_silent_log() -> None:
    """Have a near cache serve what it has, however long ago the log was looked at."""

    @replaces(Copies, "proved")
    def proved(original: Any, self: Copies, time: float) -> None:
        self.fresh_until = inf

    # Is no mistake alone: what may be too old is read in the store then.
    @replaces(Observers, "interval")
    def interval(original: Any, self: Observers, default: float) -> float:
        return 0.1
