"""The number of keys, while transactions add and remove some."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.workloads.action import TransactionalWorkload
from latchstore.stress.workloads.calling import EXCLUSIVE, Calls, data_of
from latchstore.stress.workloads.calls import Call


class Sizes(TransactionalWorkload, Calls):
    """``len`` while keys are added and removed, also in transactions: linearizable, no uncommitted ones."""

    name = "sizes"
    weight: ClassVar[float] = 9
    length: ClassVar[int | None] = 6
    writes: ClassVar[Sequence[str]] = ("from_bytes", "delete", "set_metadata", "multiset")
    reads: ClassVar[Sequence[str]] = ("len",)
    # Most are committed: a length that is counted key by key shows nothing of those that are not.
    blocks: ClassVar[Sequence[str]] = (*EXCLUSIVE, "transaction", "transaction")
    # As many as a count of one key after the other needs to be interrupted often.
    keys = 6
    # So that a first block of either kind changes their number.
    first_keys = 3
    in_blocks: ClassVar[float] = 0.9
    # The first thread counts, and the others seldom do.
    in_blocks_of: ClassVar[Sequence[float]] = (0.0, 1.0, 1.0)
    reading_of: ClassVar[Sequence[float]] = (0.95, 0.1, 0.1)
    one_group = True

    def few_writes(self, chance: random.Random) -> Sequence[str]:
        """Return a method that removes keys, as only missing keys can be added, and another."""
        return "delete", chance.choice(self.writes)

    def calls(
        self, chance: random.Random, group: str, value: str, writes: Sequence[str], reads: Sequence[str]
    ) -> list[Call]:
        """Return calls after which there are as many keys as before, in most cases others.

        So any other length is wrong. Some leave all keys, or none.
        """
        keys = [f"{group}/{number}" for number in range(self.keys)]
        chance.shuffle(keys)
        left = chance.choices((self.first_keys, self.keys, 0), (6, 1, 1))[0]
        calls: list[Call] = [["from_bytes", key, data_of(value)] for key in keys[:left]]
        calls += [["delete", key, None] for key in keys[left:]]
        chance.shuffle(calls)
        return calls

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has transactions, and a length."""
        return super().supports(store) and hasattr(store, "__len__")

    def finish(self, store: AbstractStore) -> Any:
        """Return the final entries of the keys, and the number of other keys."""
        found = super().finish(store)
        return {**found, "others": len(list(store.query_keys())) - len(found)}
