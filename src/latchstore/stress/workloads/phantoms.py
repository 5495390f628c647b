"""Transactions whose writes depend on the result of a query or a glob."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.action import TransactionalWorkload
from latchstore.stress.workloads.calling import EXCLUSIVE, OPTIMISTIC, Calls, has_optimistic_transactions
from latchstore.stress.workloads.calls import Call


class Phantoms(TransactionalWorkload, Calls):
    """Transactions that search keys and then add, change or remove some: no phantoms, so linearizable."""

    name = "phantoms"
    weight: ClassVar[float] = 5
    writes: ClassVar[Sequence[str]] = ("from_bytes", "set_metadata", "update_metadata", "delete")
    reads: ClassVar[Sequence[str]] = ("glob", "query", "query_keys", "exists")
    keys = 3
    in_blocks: ClassVar[float] = 0.9
    registers: ClassVar[bool] = True

    def __init__(self) -> None:
        self.blocks: Sequence[str] = EXCLUSIVE  # type: ignore[misc]

    def prepare(self, store: AbstractStore) -> None:
        """Determine the supported kinds of transactions."""
        super().prepare(store)
        self.attach(store, None)

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Determine the supported kinds of transactions."""
        self.blocks = (*EXCLUSIVE, *OPTIMISTIC) if has_optimistic_transactions(store) else EXCLUSIVE  # type: ignore[misc]

    def calls(
        self, chance: random.Random, group: str, value: str, writes: Sequence[str], reads: Sequence[str]
    ) -> list[Call]:
        """Return one search and one write."""
        names = chance.choice(reads), chance.choice(writes)
        return [list(self.call(chance, group, value, name)) for name in names]

    def metadata(self, chance: random.Random, value: str) -> dict[str, str]:
        """Return an item that a query may select, and the value that identifies the write."""
        return {"colour": chance.choice(("red", "blue")), "by": value}

    def first_metadata(self) -> dict[str, str]:
        """Return an item that a query may select."""
        return {"colour": "red"}

    def terms(self, chance: random.Random) -> dict[str, str]:
        """Return the terms of a query."""
        return chance.choice(({}, {"colour": "red"}))
