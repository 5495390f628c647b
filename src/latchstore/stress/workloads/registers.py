"""Single keys, as registers."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Invocation, Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.models import REFUSED, UNKNOWN, KeyModel
from latchstore.stress.verdict import Verdict, all_of
from latchstore.stress.workloads.action import (
    POOL,
    PlainWorkload,
    chance_of,
    has_transactions,
    operations_of,
    text_of,
)

#: Number of actions after which a thread uses more keys, so that the first actions meet.
_BEGINNING = 20
#: Number of actions after which a thread changes to other keys, to limit the length of searches.
_GENERATION = 200


class KeyAction:
    """One operation on one key, in the form of `KeyModel`."""

    __slots__ = ("argument", "key", "name")

    def __init__(self, name: str, key: str, argument: Any = None) -> None:
        self.name: str = name
        self.key: str = key
        self.argument: Any = argument

    def run(self, store: AbstractStore) -> Any:
        """Run it; a missing key is a result like others."""
        match self.name:
            case "set":
                store.from_bytes(self.key, self.argument.encode())
                return None
            case "get":
                return text_of(store, self.key)
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
            if text_of(store, self.key) != expected:
                return False
            store.from_bytes(self.key, new.encode())
            return True


class MetadataAction(KeyAction):
    """One operation on a key that has its value in its metadata, twice: once in a nested dictionary.

    The arguments and results are mutated afterwards, which must not change the store.
    """

    __slots__ = ()

    def run(self, store: AbstractStore) -> Any:
        match self.name:
            case "set_metadata":
                metadata = _metadata(self.argument)
                store.set_metadata(self.key, metadata)
                _spoil(metadata)
                return None
            case "update_metadata":
                metadata = _metadata(self.argument)
                try:
                    store.update_metadata(self.key, metadata)
                except KeyError:
                    return False
                _spoil(metadata)
                return True
            case "get_metadata":
                try:
                    return _value_of(store.get_metadata(self.key))
                except KeyError:
                    return None
            case _:
                return super().run(store)


class PairAction(KeyAction):
    """One operation on a key whose data and metadata are written together."""

    __slots__ = ()

    def run(self, store: AbstractStore) -> Any:
        match self.name:
            case "set pair":
                metadata = _metadata(self.argument)
                store.set(self.key, (io.BytesIO(self.argument.encode()), metadata))
                _spoil(metadata)
                return None
            case "get pair":
                try:
                    data, metadata = store.get(self.key)
                except KeyError:
                    return None
                return [data.read().decode(), _value_of(metadata)]
            case _:
                return super().run(store)


def _metadata(value: str) -> dict[str, Any]:
    return {"value": value, "nested": {"value": value}}


def _value_of(metadata: dict[str, Any]) -> str:
    """Return the value, or both if they differ, which no write produces; then mutate the metadata."""
    outer, inner = metadata.get("value"), metadata.get("nested", {}).get("value")
    _spoil(metadata)
    return str(outer) if outer == inner else f"{outer} and {inner}"


def _spoil(metadata: dict[str, Any]) -> None:
    metadata.setdefault("nested", {})["value"] = "spoiled"
    metadata["value"] = "spoiled"


class RegisterModel(KeyModel):
    """A `KeyModel` with ``update_metadata``, which writes only if the key exists."""

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the state after the operation, or `REFUSED` if its answer does not fit the state before."""
        if operation.name != "update_metadata":
            return super().step(state, operation, answer)
        there = state is not None
        if answer is not UNKNOWN and answer != there:
            return REFUSED
        return operation.argument if there else None

    def expected(self, state: Hashable, operation: Invocation) -> object:
        """Return the result of the operation."""
        return (
            state is not None if operation.name == "update_metadata" else super().expected(state, operation)
        )


#: The model's names of operations.
_MODEL_NAMES = {"set_metadata": "set", "get_metadata": "get", "set pair": "set", "get pair": "get"}

_OPERATIONS: dict[str, tuple[type[KeyAction], tuple[str, ...], tuple[int, ...]]] = {
    "data": (KeyAction, ("get", "set", "exists", "delete", "swap"), (10, 6, 2, 2, 2)),
    "metadata": (
        MetadataAction,
        ("get_metadata", "set_metadata", "update_metadata", "exists", "delete"),
        (10, 4, 4, 1, 2),
    ),
    "pair": (PairAction, ("get pair", "set pair", "exists", "delete"), (10, 7, 1, 2)),
}


class Registers(PlainWorkload):
    """Single keys: data, metadata, and both together; each key is linearizable.

    Parameters
    ----------
    keys : int
        Number of keys of each kind; the fewer, the more the threads meet. The first actions of each thread
        use one key of each kind.
    """

    name = "registers"
    weight: ClassVar[float] = 0.5
    each_key_alone = True

    def __init__(self, keys: int = 4) -> None:
        self._keys = keys
        self._swaps = True

    def prepare(self, store: AbstractStore) -> None:
        """Determine whether there are transactions, which swaps need."""
        self._swaps = has_transactions(store)

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Determine whether there are transactions."""
        self.prepare(store)

    def actions(self, thread: int, seed: int) -> Iterator[KeyAction]:
        """Yield random operations; every written value is unique."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        while True:
            keys = 1 if number < _BEGINNING else self._keys
            kind = chance.choice(tuple(_OPERATIONS))
            place = f"{thread // POOL}/{number // _GENERATION}/{chance.randrange(keys)}"
            number += 1
            action, names, weights = _OPERATIONS[kind]
            name = chance.choices(names, weights)[0]
            if name == "swap" and not self._swaps:
                name = "set"
            value = f"{thread}.{number}"
            argument: Any = value if name.startswith(("set", "update")) else None
            if name == "swap":
                # Sometimes correct: a value that a thread may have written a moment ago.
                expected = f"{chance.randrange(thread + 2)}.{max(1, number - chance.randrange(4))}"
                argument = [chance.choice([None, expected]), value]
            yield action(name, f"{self.name}/{kind}/{place}", argument)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each key."""
        keys: dict[str, list[Operation]] = {}
        for operation in operations_of(self.name, history):
            assert operation.key is not None
            keys.setdefault(operation.key, []).append(operation)
        return {"linearizable": all_of(_check(operations) for operations in keys.values())}


def _check(operations: list[Operation]) -> Verdict:
    """Check the operations on one key."""
    for operation in operations:
        if operation.name == "get pair" and operation.result and len(set(operation.result)) > 1:
            reason = f"torn read: ({operation}) has data of one write and metadata of another"
            return Verdict("invalid", reason, (operation,))
    return check_linearizable(map(_for_model, operations), RegisterModel())


def _for_model(operation: Operation) -> Operation:
    name = _MODEL_NAMES.get(operation.name)
    if name is None:
        return operation
    paired = operation.name == "get pair" and operation.result
    return replace(operation, name=name, result=operation.result[0] if paired else operation.result)
