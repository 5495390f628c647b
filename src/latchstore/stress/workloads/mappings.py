"""The mapping of a store, whose methods are transactions."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads.action import TransactionalWorkload
from latchstore.stress.workloads.calling import Calls

_POPITEM = "mapping: popitem"

#: The pairs of writes of a beginning: one that adds keys, and another that depends on them.
_PAIRS = (
    ("mapping: setdefault", "mapping: pop"),
    ("mapping: setdefault", "mapping: set"),
    ("mapping: set", "mapping: pop"),
    ("mapping: update", "mapping: pop"),
    ("mapping: update", "mapping: clear"),
    ("mapping: update", "mapping: setdefault"),
    ("mapping: setdefault", "mapping: clear"),
    ("mapping: setdefault", _POPITEM),
    ("mapping: set", _POPITEM),
)


class Mappings(TransactionalWorkload, Calls):
    """The mapping of a store: get, set, setdefault, pop, popitem, update, clear; linearizable."""

    name = "mappings"
    weight: ClassVar[float] = 9
    length: ClassVar[int | None] = 4
    writes: ClassVar[Sequence[str]] = (
        "mapping: set",
        "mapping: setdefault",
        "mapping: pop",
        _POPITEM,
        "mapping: update",
        "mapping: clear",
    )
    reads: ClassVar[Sequence[str]] = ("mapping: get", "multiget", "exists", "multiget")
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

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check the keys, each `popitem` as the removal of the key that it has removed."""
        keys = [f"{self._group(0, 0)}/{number}" for number in range(self.keys)]
        operations = [each for operation in history.operations for each in _with_its_key(operation, keys)]
        return super().verdicts(History(operations, history.header))


def _with_its_key(operation: Operation, keys: Sequence[str]) -> Iterator[Operation]:
    """Return a `popitem` under the key that it has removed: under each, if it is not known."""
    if operation.name != _POPITEM or (operation.outcome == "ok" and operation.result is None):
        yield operation
    elif operation.outcome == "ok":
        key, value = operation.result
        yield replace(operation, key=key, result=value)
    elif operation.outcome == "info":
        # No more than one has had an effect; a check that allows several gives no false alarm.
        yield from (replace(operation, key=key) for key in keys)
