"""The mapping of a store, whose methods are transactions."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.action import TransactionalWorkload
from latchstore.stress.workloads.calling import Calls

#: The pairs of writes of a beginning: one that adds keys, and another that depends on them.
_PAIRS = (
    ("mapping: setdefault", "mapping: pop"),
    ("mapping: setdefault", "mapping: set"),
    ("mapping: set", "mapping: pop"),
    ("mapping: update", "mapping: pop"),
    ("mapping: update", "mapping: clear"),
    ("mapping: setdefault", "mapping: clear"),
)


class Mappings(TransactionalWorkload, Calls):
    """The mapping of a store: get, set, setdefault, pop, update, clear; linearizable."""

    name = "mappings"
    weight: ClassVar[float] = 6
    length: ClassVar[int | None] = 4
    writes: ClassVar[Sequence[str]] = (
        "mapping: set",
        "mapping: setdefault",
        "mapping: pop",
        "mapping: update",
        "mapping: clear",
    )
    reads: ClassVar[Sequence[str]] = ("mapping: get", "multiget", "exists")
    # The answers of `setdefault` and `pop` tell what they have met.
    reading_of: ClassVar[Sequence[float]] = (0.6, 0.1, 0.1)
    # A mapping covers the whole store.
    one_group = True
    # `setdefault` sets the other key.
    first_keys = 1

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has transactions, and a mapping."""
        return super().supports(store) and callable(getattr(store, "mapping", None))

    def few_writes(self, chance: random.Random) -> Sequence[str]:
        """Return two of the writing methods."""
        return chance.choice(_PAIRS)

    def first_data(self) -> str:
        """Return data that the codec can decode: otherwise pops, and most calls of setdefault, only fail."""
        return json.dumps("initial")
