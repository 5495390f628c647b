"""Queries that an index answers, while what they look for changes, and the indexes do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.calling import Calls

_INDEX = "colour"


class Indexes(Calls):
    """Queries by metadata items that have an index, made and removed meanwhile: linearizable."""

    name = "indexes"
    writes = ("set", "set_metadata", "update_metadata", "delete")
    reads = ("query", "query_keys", "add_index", "remove_index")
    keys = 3

    def supports(self, store: AbstractStore) -> bool:
        """Tell whether there are indexes."""
        return all(callable(getattr(store, name, None)) for name in ("add_index", "remove_index"))

    def prepare(self, store: Any) -> None:
        """Make the index."""
        store.add_index(_INDEX)

    def _few(self, chance: random.Random) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        # Without a query nothing is known of indexes.
        writes, _, blocks = super()._few(chance)
        changes = chance.choice(((), ("add_index", "remove_index")))
        return writes, (chance.choice(self.reads[:2]), *changes), blocks

    def call(self, chance: random.Random, group: str, value: str, method: str) -> tuple[str, Any, Any]:
        """Return a call of a method."""
        if method in ("add_index", "remove_index"):
            return method, group, _INDEX
        return super().call(chance, group, value, method)

    def metadata(self, chance: random.Random, value: str) -> dict[str, str]:
        """Return a colour, and by whom."""
        return {_INDEX: chance.choice(("red", "blue")), "by": value}

    def terms(self, chance: random.Random) -> dict[str, str]:
        """Return a colour."""
        return {_INDEX: chance.choice(("red", "blue"))}
