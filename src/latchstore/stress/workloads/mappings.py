"""The mapping of a store, whose methods are transactions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.action import TransactionalWorkload
from latchstore.stress.workloads.calling import Calls


class Mappings(TransactionalWorkload, Calls):
    """The mapping of a store: get, set, setdefault, pop, update, clear; linearizable."""

    name = "mappings"
    weight: ClassVar[float] = 3
    writes: ClassVar[Sequence[str]] = (
        "mapping: set",
        "mapping: setdefault",
        "mapping: pop",
        "mapping: update",
        "mapping: clear",
    )
    reads: ClassVar[Sequence[str]] = ("mapping: get", "multiget", "exists")
    # A mapping covers the whole store.
    one_group = True
    # `setdefault` sets the other key.
    first_keys = 1

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has transactions, and a mapping."""
        return super().supports(store) and callable(getattr(store, "mapping", None))

    def first_data(self) -> str:
        """Return data that the codec can decode: otherwise pops, and most calls of setdefault, only fail."""
        return json.dumps("initial")
