"""Data and stores that are written to files and read from them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.calling import Calls
from latchstore.stress.workloads.calls import METHODS


class Files(Calls):
    """``to_file``, ``from_file``, ``save`` while others write: a file has the entries of one instant."""

    name = "files"
    weight: ClassVar[float] = 7
    in_tasks = False
    writes: ClassVar[Sequence[str]] = ("from_file", "set", "update_metadata", "multiset", "delete")
    reads: ClassVar[Sequence[str]] = ("to_file", "save")
    one_group = True

    def _few(self, chance: random.Random) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        # One kind of read, as each takes long; and a write that changes data, among others.
        writes, reads, blocks = super()._few(chance)
        return (chance.choice(("from_file", "set", "multiset")), *writes[1:]), reads[:1], blocks

    def prepare(self, store: AbstractStore) -> None:
        """Set the first keys; import the modules for saving and loading, before faults begin."""
        super().prepare(store)
        METHODS["save"].make(store, self.name, None)

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store can be saved."""
        return all(callable(getattr(store, name, None)) for name in ("save", "to_file", "from_file"))
