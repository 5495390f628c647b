"""Lists in transactions, which show the order of the transactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.list_append import Append, ListTransaction, Read, check_list_append
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads.action import (
    RolledBackError,
    TransactionalWorkload,
    chance_of,
    revision_of,
    text_of,
)


class ListAction:
    """One transaction that appends to lists and reads them."""

    __slots__ = ("argument", "key", "name", "revision")

    def __init__(self, plan: Sequence[tuple[str, str, int | None]], fails: bool) -> None:
        self.name: str = "append and read"
        self.key: str | None = None
        self.argument: list[Any] = [list(step) for step in plan] + ([["fail", "", None]] if fails else [])
        self.revision: int | None = None

    def run(self, store: AbstractStore) -> Any:
        """Run it in one transaction; return the plan with the lists that were read."""
        done: list[list[Any]] = []
        with store.transaction(self.name) as transaction:
            for kind, key, value in self.argument:
                if kind == "fail":
                    raise RolledBackError
                values = _list(store, key)
                if kind == "append":
                    text = ",".join(map(str, [*values, value]))
                    store.from_bytes(key, text.encode())
                    done.append([kind, key, value])
                else:
                    done.append([kind, key, values])
        self.revision = revision_of(transaction)
        return done


def _list(store: AbstractStore, key: str) -> list[int]:
    text = text_of(store, key)
    return [int(each) for each in text.split(",")] if text else []


class ListAppend(TransactionalWorkload):
    """Transactions that append to lists and read them, some of which fail: strict serializability.

    Parameters
    ----------
    keys : int
        Number of lists in use at a time.
    length : int
        Number of transactions after which a thread changes to other keys, so that lists stay short.
    """

    name = "list-append"
    weight: ClassVar[float] = 0.5

    def __init__(self, keys: int = 4, length: int = 50) -> None:
        self._keys = keys
        self._length = length

    def actions(self, thread: int, seed: int) -> Iterator[ListAction]:
        """Yield random transactions; every value is appended once."""
        chance = chance_of(self.name, seed, thread)
        value = thread * 10**9
        number = 0
        while True:
            generation = number // self._length
            plan: list[tuple[str, str, int | None]] = []
            for _ in range(chance.randrange(1, 5)):
                key = f"list-append/{generation}/{chance.randrange(self._keys)}"
                value += 1
                append = chance.random() < 0.5
                plan.append(("append", key, value) if append else ("read", key, None))
            number += 1
            yield ListAction(plan, chance.random() < 0.1)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Analyse all transactions together."""
        transactions = [
            _list_transaction(number, operation)
            for number, operation in enumerate(history.operations)
            if operation.name == "append and read"
        ]
        return {"strictly serializable": check_list_append(transactions)}


def _list_transaction(number: int, operation: Operation) -> ListTransaction:
    """Return a transaction for the checker: as it ran, or as it was planned if it did not end."""
    steps = operation.result if operation.outcome == "ok" else operation.argument
    actions: list[Append | Read] = []
    for kind, key, value in steps:
        if kind == "append":
            actions.append(Append(key, value))
        elif kind == "read" and operation.outcome == "ok":
            actions.append(Read(key, tuple(value)))
    return ListTransaction(
        number, tuple(actions), operation.begin, operation.end, operation.outcome, operation
    )
