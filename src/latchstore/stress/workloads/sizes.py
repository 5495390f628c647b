"""How many keys there are, while transactions add and remove some."""

from __future__ import annotations

from typing import Any

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.action import TransactionalWorkload
from latchstore.stress.workloads.calling import EXCLUSIVE, Calls


class Sizes(TransactionalWorkload, Calls):
    """``len``, while keys come and go alone and in transactions: linearizable, nothing uncommitted counts."""

    name = "sizes"
    writes = ("from_bytes", "delete", "set_metadata", "multiset")
    reads = ("len",)
    blocks = EXCLUSIVE
    keys = 3
    one_group = True

    def supports(self, store: AbstractStore) -> bool:
        """Tell whether there are transactions, and a length."""
        return super().supports(store) and hasattr(store, "__len__")

    def finish(self, store: AbstractStore) -> Any:
        """Return what the keys have in the end, and how many others there are."""
        found = super().finish(store)
        return {**found, "others": len(list(store.query_keys())) - len(found)}
