"""Transactions over several keys, some nested and some failing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History
from latchstore.stress.verdict import VALID, Verdict
from latchstore.stress.workloads.action import (
    TransactionalWorkload,
    chance_of,
    facts_of,
    final_reads,
    operations_of,
)
from latchstore.stress.workloads.groups import GroupRead, Groups, GroupWrite, check_groups


class Transactions(TransactionalWorkload):
    """Transactions over several keys, nested and failing: no reader sees part of one.

    Parameters
    ----------
    groups, size : int
        Number of groups of keys, and number of keys of each. Each transaction writes all keys of a group.
    """

    name = "transactions"
    weight: ClassVar[float] = 2
    each_key_alone = True

    def __init__(self, groups: int = 2, size: int = 3) -> None:
        self._groups = Groups(self.name, groups, size)

    def prepare(self, store: AbstractStore) -> None:
        self._groups.prepare(store)

    def actions(self, thread: int, seed: int) -> Iterator[GroupWrite | GroupRead]:
        """Yield random writes and reads of groups; every written value is unique."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        while True:
            number += 1
            if chance.random() < 0.5:
                yield self._groups.write(chance, f"{thread}.{number}")
            else:
                yield self._groups.read(chance)

    def finish(self, store: AbstractStore) -> Any:
        return self._groups.finish(store)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each group."""
        return verdicts_of_groups(self.name, history)


def verdicts_of_groups(name: str, history: History) -> dict[str, Verdict]:
    """Check the groups of a workload, with their final values."""
    found = dict(facts_of(name, history) or {})
    left = found.pop("left", [])
    last = final_reads("final read", history, found)
    verdicts = check_groups([*operations_of(name, history), *last])
    reason = f"at the end there are {left}, which only rolled-back transactions have written"
    return {**verdicts, "nothing left": Verdict("invalid", reason) if left else VALID}
