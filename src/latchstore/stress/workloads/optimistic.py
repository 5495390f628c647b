"""Optimistic transactions on a few keys, once and in attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.calling import OPTIMISTIC, Calls, has_optimistic_transactions


class Optimistic(Calls):
    """Optimistic transactions, attempts and transactional functions that read and write: linearizable."""

    name = "optimistic"
    weight: ClassVar[float] = 3
    writes: ClassVar[Sequence[str]] = ("set", "set_data", "update_metadata", "delete")
    reads: ClassVar[Sequence[str]] = ("get", "to_bytes", "get_metadata", "exists", "multiget")
    blocks: ClassVar[Sequence[str]] = OPTIMISTIC
    in_blocks: ClassVar[float] = 0.8
    registers: ClassVar[bool] = True

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has optimistic transactions."""
        return has_optimistic_transactions(store)
