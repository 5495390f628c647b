"""Several keys, read alone and changed in transactions, checked as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.models import StoreModel
from latchstore.stress.revision_order import changes, check_revision_order
from latchstore.stress.verdict import Verdict, all_of
from latchstore.stress.workloads.action import (
    POOL,
    RolledBackError,
    TransactionalWorkload,
    chance_of,
    operations_of,
    revision_of,
    text_of,
)

#: Number of actions after which a thread changes to other keys, to limit the length of searches.
_GENERATION = 8


class SeveralAction:
    """Steps on several keys: all in one transaction, or a single read outside of one."""

    __slots__ = ("argument", "key", "name", "revision")

    def __init__(self, name: str, key: str, steps: list[list[Any]]) -> None:
        self.name: str = name
        self.key: str | None = key
        self.argument: list[list[Any]] = steps
        self.revision: int | None = None

    def run(self, store: AbstractStore) -> list[Any]:
        """Run the steps; return the result of each."""
        if self.name == "read one":
            return self._steps(store)
        with store.transaction(self.name) as transaction:
            results = self._steps(store)
            if self.name == "roll back several":
                raise RolledBackError
        self.revision = revision_of(transaction)
        return results

    def _steps(self, store: AbstractStore) -> list[Any]:
        return [_step(store, *step) for step in self.argument]


def _step(store: AbstractStore, name: str, key: str, argument: str | None) -> Any:
    match name:
        case "get":
            return text_of(store, key)
        case "exists":
            return store.exists(key)
        case "delete":
            try:
                store.delete(key)
            except KeyError:
                return False
            return True
        case _:
            store.from_bytes(key, (argument or "").encode())
            return None


class SeveralKeys(TransactionalWorkload):
    """Transactions on several keys, and reads of one: the store as a whole is linearizable.

    Parameters
    ----------
    keys : int
        Number of keys of a group; a transaction uses the keys of one group.
    """

    name = "several-keys"
    weight: ClassVar[float] = 0.5

    def __init__(self, keys: int = 3) -> None:
        self._keys = keys

    def actions(self, thread: int, seed: int) -> Iterator[SeveralAction]:
        """Yield random actions; every written value is unique."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        while True:
            group = f"{self.name}/{thread // POOL}.{number // _GENERATION}"
            number += 1
            keys = chance.sample(range(self._keys), min(self._keys, chance.randrange(1, 4)))
            if chance.random() < 0.4:
                step = [chance.choice(("get", "get", "exists")), f"{group}/{keys[0]}", None]
                yield SeveralAction("read one", group, [step])
                continue
            steps: list[list[Any]] = []
            for key in keys:
                name = chance.choice(("get", "set", "set", "delete", "exists"))
                value = f"{thread}.{number}" if name == "set" else None
                steps.append([name, f"{group}/{key}", value])
            name = "roll back several" if chance.random() < 0.15 else "transaction of several"
            yield SeveralAction(name, group, steps)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each group by a search; and by the revisions of the commits, if they are known."""
        groups: dict[str | None, list[Operation]] = {}
        for operation in operations_of(self.name, history):
            groups.setdefault(operation.key, []).append(operation)
        verdicts = {
            "linearizable": all_of(check_linearizable(each, StoreModel()) for each in groups.values())
        }
        if _revisions_are_known(history, self.name):
            verdicts["order of revisions"] = all_of(check_revision_order(each) for each in groups.values())
        return verdicts


def _revisions_are_known(history: History, name: str) -> bool:
    """Return whether the store reports revisions, and the end of every change is known."""
    operations = operations_of(name, history)
    writes = [each for each in operations if changes(each)]
    unseen = any(each.outcome == "info" and each.name != "read one" for each in operations)
    return not unseen and any(each.revision is not None for each in writes)
