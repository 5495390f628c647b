"""What threads do to a store while they are watched: each workload acts, and says how it is checked.

A workload uses the public API of `AbstractStore` alone, so it runs on any store. What it does depends on the
seed and on the thread; what comes of it depends on the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from latchstore.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.list_append import Append, ListTransaction, Read, check_list_append
from latchstore.stress.models import KeyModel
from latchstore.stress.verdict import Verdict, all_of


class RolledBackError(Exception):
    """Raised by a workload in the middle of a transaction, which must leave nothing behind."""


class Action(Protocol):
    """One operation that is about to be done."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str | None: ...

    @property
    def argument(self) -> Any: ...

    def run(self, store: AbstractStore) -> Any:
        """Do it; return its result, as JSON knows it. RolledBackError: it has had no effect."""


class Workload(Protocol):
    """What the threads do, and how it is checked."""

    @property
    def name(self) -> str: ...

    def supports(self, store: AbstractStore) -> bool:
        """Tell whether a store can do what the workload asks of it."""

    def prepare(self, store: AbstractStore) -> None:
        """Get the store ready, before any thread has started."""

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Return what a thread does, one after the other, without end."""

    def finish(self, store: AbstractStore) -> Any:
        """Look at the store when all threads have ended; return what the check needs, as JSON knows it."""

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check a history; return the verdict of each checker by its name."""


def _chance(workload: str, seed: int, thread: int) -> random.Random:
    return random.Random(f"{workload} {seed} {thread}")  # noqa: S311 (nothing secret)


class PlainWorkload:
    """A workload that needs no preparation and no look at the end."""

    def supports(self, store: AbstractStore) -> bool:
        """Any store will do."""
        return True

    def prepare(self, store: AbstractStore) -> None:
        """Do nothing."""

    def finish(self, store: AbstractStore) -> Any:
        """Do nothing."""
        return None


class KeyAction:
    """One operation on one key, in the words of `KeyModel`."""

    __slots__ = ("argument", "key", "name")

    def __init__(self, name: str, key: str, argument: Any = None) -> None:
        self.name = name
        self.key = key
        self.argument = argument

    def run(self, store: AbstractStore) -> Any:
        """Do it; a key that is not there is a result like others."""
        match self.name:
            case "set":
                store.from_bytes(self.key, self.argument.encode())
                return None
            case "get":
                return _value(store, self.key)
            case "exists":
                return store.exists(self.key)
            case "delete":
                try:
                    store.delete(self.key)
                except KeyError:
                    return False
                return True
            case _:
                return self._swap(store)

    def _swap(self, store: AbstractStore) -> bool:
        expected, new = self.argument
        with store.transaction(f"swap {self.key}"):
            if _value(store, self.key) != expected:
                return False
            store.from_bytes(self.key, new.encode())
            return True


def _value(store: AbstractStore, key: str) -> str | None:
    try:
        return store.to_bytes(key).decode()
    except KeyError:
        return None


class Registers(PlainWorkload):
    """Single keys: set, get, exists, delete and compare-and-swap, each key checked for itself.

    Parameters
    ----------
    keys : int
        How many keys there are; the fewer, the more the threads meet.
    """

    name = "registers"

    def __init__(self, keys: int = 8) -> None:
        self._keys = [f"register/{number}" for number in range(keys)]

    def actions(self, thread: int, seed: int) -> Iterator[KeyAction]:
        """Return random operations; every value that is written is another one."""
        chance = _chance(self.name, seed, thread)
        number = 0
        while True:
            number += 1
            key = chance.choice(self._keys)
            name = chance.choices(("get", "set", "exists", "delete", "swap"), (10, 6, 2, 2, 2))[0]
            value = f"{thread}.{number}"
            if name == "swap":
                # Sometimes right: what one of the threads may have written a moment ago.
                expected = f"{chance.randrange(thread + 2)}.{max(1, number - chance.randrange(4))}"
                yield KeyAction(name, key, [chance.choice([None, expected]), value])
            else:
                yield KeyAction(name, key, value if name == "set" else None)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each key."""
        keys = {
            key: operations for key, operations in history.by_key().items() if key.startswith("register/")
        }
        model = KeyModel()
        verdict = all_of(check_linearizable(operations, model) for operations in keys.values())
        return {"linearizable": verdict}


class ListAction:
    """One transaction that appends to lists and reads them."""

    __slots__ = ("argument", "key", "name")

    def __init__(self, plan: Sequence[tuple[str, str, int | None]], fails: bool) -> None:
        self.name = "append and read"
        self.key: str | None = None
        self.argument: list[Any] = [list(step) for step in plan] + ([["fail", "", None]] if fails else [])

    def run(self, store: AbstractStore) -> Any:
        """Do all of it in one transaction; return the plan with what was read."""
        done: list[list[Any]] = []
        with store.transaction(self.name):
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
        return done


def _list(store: AbstractStore, key: str) -> list[int]:
    text = _value(store, key)
    return [int(each) for each in text.split(",")] if text else []


class ListAppend(PlainWorkload):
    """Transactions that append to lists and read them, some of which fail: strict serializability.

    Parameters
    ----------
    keys : int
        How many lists are in use at a time.
    length : int
        After how many transactions of a thread it turns to other keys, so that lists stay short.
    """

    name = "list-append"

    def __init__(self, keys: int = 4, length: int = 50) -> None:
        self._keys = keys
        self._length = length

    def actions(self, thread: int, seed: int) -> Iterator[ListAction]:
        """Return random transactions; every value is appended once."""
        chance = _chance(self.name, seed, thread)
        value = thread * 10**9
        number = 0
        while True:
            generation = number // self._length
            plan: list[tuple[str, str, int | None]] = []
            for _ in range(chance.randrange(1, 5)):
                key = f"list/{generation}/{chance.randrange(self._keys)}"
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
    """Return a transaction as its checker wants it: as it went, or as it was planned, if it did not end."""
    steps = operation.result if operation.outcome == "ok" else operation.argument
    actions: list[Append | Read] = []
    for kind, key, value in steps:
        if kind == "append":
            actions.append(Append(key, value))
        elif kind == "read" and operation.outcome == "ok":
            actions.append(Read(key, tuple(value)))
    return ListTransaction(number, tuple(actions), operation.begin, operation.end, operation.outcome)


#: The workloads, by name.
WORKLOADS: dict[str, Callable[[], Workload]] = {"registers": Registers, "list-append": ListAppend}
