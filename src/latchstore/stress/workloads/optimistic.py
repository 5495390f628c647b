"""Optimistic transactions on a few keys, once and in attempts."""

from __future__ import annotations

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.calling import OPTIMISTIC, Calls, has_optimistic_transactions


class Optimistic(Calls):
    """Optimistic transactions, attempts and transactional functions that read and write: linearizable."""

    name = "optimistic"
    writes = ("set", "set_data", "update_metadata", "delete")
    reads = ("get", "to_bytes", "get_metadata", "exists", "multiget")
    blocks = OPTIMISTIC
    in_blocks = 0.8

    def supports(self, store: AbstractStore) -> bool:
        """Tell whether there are optimistic transactions."""
        return has_optimistic_transactions(store)
