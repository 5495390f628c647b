"""Data and stores that are written to files and read from them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.calling import Calls
from latchstore.stress.workloads.calls import METHODS

#: The writes and the read of a beginning. A saved store is torn by a commit of several keys, a file by new
#: data; and new data and new metadata of one key by each other.
_FIRST = (
    (("multiset",), "save"),
    (("multiset", "delete"), "save"),
    (("from_file", "update_metadata"), "to_file"),
    (("from_file", "update_metadata"), "to_file"),
    (("from_file", "set"), "to_file"),
    (("multiset", "from_file"), "to_file"),
)


class Files(Calls):
    """``to_file``, ``from_file``, ``save`` while others write: a file has the entries of one instant."""

    name = "files"
    weight: ClassVar[float] = 9
    length: ClassVar[int | None] = 3
    in_tasks = False
    writes: ClassVar[Sequence[str]] = ("from_file", "set", "update_metadata", "multiset", "delete")
    reads: ClassVar[Sequence[str]] = ("to_file", "save")
    one_group = True

    def _few(self, chance: random.Random) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        # One kind of read, as each takes long, and writes that it can be torn by.
        writes, read = chance.choice(_FIRST)
        return writes, [read], ()

    def prepare(self, store: AbstractStore) -> None:
        """Set the first keys; import the modules for saving and loading, before faults begin."""
        super().prepare(store)
        METHODS["save"].make(store, self.name, None)

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store can be saved."""
        return all(callable(getattr(store, name, None)) for name in ("save", "to_file", "from_file"))
