"""What tests put in the place of parts of a table."""

from __future__ import annotations

from typing import Any

from latchstore import DictMemoryStore


def with_entries(store: DictMemoryStore, entries: dict[str, Any]) -> None:
    """Have a store keep its entries in another dict, which has to hold what the old one does."""
    table = store._table
    store._entries = table.entries = table.preimages.base = entries
