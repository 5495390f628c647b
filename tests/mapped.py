"""What a mapping of the tests is a view of."""

from __future__ import annotations

from typing import Any

from latchstore import AbstractReadOnlyStore, StoreView


def store_of(mapping: StoreView[Any]) -> Any:
    """Return the store that a mapping reads, or that a cache is on."""
    return next(each for each in vars(mapping).values() if isinstance(each, AbstractReadOnlyStore))
