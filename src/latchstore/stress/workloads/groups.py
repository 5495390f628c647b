"""Keys that are always written together by one transaction: to all readers they are one register.

All keys of a group have the same value, whichever key is read, by whichever method.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.stress.history import Operation
from latchstore.stress.registers import check_register
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import RolledBackError, revision_of, text_of

#: The initial value of a group.
INITIAL = "initial"

#: Appended to a value in a block that is rolled back.
_UNDONE = "!"

#: The ways to write a key.
_WAYS = ("from_bytes", "set", "set_data", "delete and set")

#: The kinds of transactions that write.
_WRITES = ("write group", "write group in blocks", "write group around a failing block", "multiset group")
_FAILING_WRITES = (
    "roll back group",
    "roll back group for a missing key",
    "roll back group from an inner block",
)

_READS = ("multiget group", "multiget_data group", "read group in transaction", "read one of group")


class GroupWrite:
    """Writes one value to all keys of a group in one transaction, or fails.

    Parameters
    ----------
    name : str
        The kind of transaction.
    key : str
        The group.
    argument : str
        The value, unique to this write.
    keys : sequence of str
        The keys of the group, in the order of the writes.
    ways : sequence of str
        How each of them is written.
    """

    __slots__ = ("_keys", "_ways", "argument", "key", "name", "revision")

    def __init__(self, name: str, key: str, argument: str, keys: Sequence[str], ways: Sequence[str]) -> None:
        self.name: str = name
        self.key: str = key
        self.argument: str = argument
        self.revision: int | None = None
        self._keys = keys
        self._ways = ways

    def run(self, store: AbstractStore) -> list[str | None] | None:
        """Run it; return the keys' values as the transaction reads them after its writes."""
        if self.name == "multiset group":
            store.multiset(self._keys, [_pair(self.argument) for _ in self._keys])
            return None
        with store.transaction(self.name) as transaction:
            self._write_all(store)
            seen = [text_of(store, key) for key in self._keys]
        self.revision = revision_of(transaction)
        return seen

    def _write_all(self, store: AbstractStore) -> None:
        half = len(self._keys) // 2
        self.write_keys(store, self._keys[:half])
        match self.name:
            case "write group in blocks":
                with store.transaction("inner block"):
                    self.write_keys(store, self._keys[half:])
            case "write group around a failing block":
                self._fail_inside(store)
                self.write_keys(store, self._keys[half:])
            case "roll back group":
                self.write_keys(store, self._keys[half:])
                store.from_bytes(f"{self.key}/left by {self.argument}", b"")
                raise RolledBackError
            case "roll back group for a missing key":
                self.write_keys(store, self._keys[half:])
                try:
                    store.delete(f"{self.key}/missing")
                except KeyError as error:
                    raise RolledBackError from error
                raise RolledBackError
            case "roll back group from an inner block":
                with store.transaction("inner block"):
                    self.write_keys(store, self._keys[half:])
                    raise RolledBackError
            case _:
                self.write_keys(store, self._keys[half:])

    def write_keys(self, store: AbstractStore, keys: Iterable[str]) -> None:
        """Write the value to some of the keys, within the transaction."""
        ways = dict(zip(self._keys, self._ways, strict=True))
        for key in keys:
            _write(store, key, self.argument, ways[key])

    def _fail_inside(self, store: AbstractStore) -> None:
        """Write other values to all keys in a nested block, which is rolled back."""
        try:
            with store.transaction("failing block"):
                for key in self._keys:
                    store.from_bytes(key, (self.argument + _UNDONE).encode())
                store.delete(self._keys[-1])
                raise RolledBackError
        except RolledBackError:
            pass


def _pair(value: str) -> tuple[io.BytesIO, dict[str, str]]:
    return io.BytesIO(value.encode()), {}


def _write(store: AbstractStore, key: str, value: str, way: str) -> None:
    match way:
        case "from_bytes":
            store.from_bytes(key, value.encode())
        case "set_data":
            store.set_data(key, io.BytesIO(value.encode()))
        case "delete and set":
            if store.exists(key):
                store.delete(key)
            store.set(key, _pair(value))
        case _:
            store.set(key, _pair(value))


class GroupRead:
    """Reads the keys of a group, or one of them.

    Parameters
    ----------
    name : str
        The way to read.
    key : str
        The group.
    keys : sequence of str
        The keys to read.
    """

    __slots__ = ("_keys", "argument", "key", "name")

    def __init__(self, name: str, key: str, keys: Sequence[str]) -> None:
        self.name: str = name
        self.key: str = key
        self.argument: None = None
        self._keys = keys

    def run(self, store: AbstractStore) -> list[str | None]:
        """Return the values of the keys, None for each missing key."""
        match self.name:
            case "multiget group":
                return read_by_multiget(store, self._keys)
            case "multiget_data group":
                try:
                    return [stream.read().decode() for stream in store.multiget_data(self._keys)]
                except KeyError:
                    return [None]
            case "read group in transaction":
                with store.transaction(self.name):
                    return [text_of(store, key) for key in self._keys]
            case _:
                return [text_of(store, self._keys[0])]


def read_by_multiget(store: AbstractReadOnlyStore, keys: Sequence[str]) -> list[str | None]:
    """Return the values of the keys; a single None if one of them is missing."""
    try:
        return [value.data.read().decode() for value in store.multiget(keys)]
    except KeyError:
        return [None]


class Groups:
    """The groups of a workload, their operations, and the check.

    Parameters
    ----------
    workload : str
        Prefix of the names of the groups.
    groups, size : int
        Number of groups, and number of keys of each.
    kind : type
        The class of their writes.
    """

    def __init__(self, workload: str, groups: int, size: int, kind: type[GroupWrite] = GroupWrite) -> None:
        self._workload = workload
        self._kind = kind
        self.keys: dict[str, list[str]] = {
            f"{workload}/{group}": [f"{workload}/{group}/{number}" for number in range(size)]
            for group in range(groups)
        }

    def prepare(self, store: AbstractStore) -> None:
        """Set all keys to their initial value."""
        every = [key for keys in self.keys.values() for key in keys]
        store.multiset(every, [_pair(INITIAL) for _ in every])

    def write(self, chance: random.Random, value: str, failing: float = 0.25) -> GroupWrite:
        """Return a write of a random group, which sometimes fails."""
        group = chance.choice(tuple(self.keys))
        name = chance.choice(_FAILING_WRITES if chance.random() < failing else _WRITES)
        keys = self.keys[group]
        return self._kind(
            name, group, value, chance.sample(keys, len(keys)), chance.choices(_WAYS, k=len(keys))
        )

    def read(self, chance: random.Random) -> GroupRead:
        """Return a read of a random group."""
        group = chance.choice(tuple(self.keys))
        keys = self.keys[group]
        return GroupRead(chance.choice(_READS), group, chance.sample(keys, len(keys)))

    def finish(self, store: AbstractStore) -> dict[str, list[str | None]]:
        """Return the final values of each group; and, under "left", keys that must not exist."""
        found: dict[str, list[str | None]] = {
            group: [text_of(store, key) for key in keys] for group, keys in self.keys.items()
        }
        right = {key for keys in self.keys.values() for key in keys}
        return {**found, "left": [*sorted(set(store.glob(f"{self._workload}/*")) - right)]}


def is_write(operation: Operation) -> bool:
    """Return whether an operation writes a group."""
    return operation.name in _WRITES or operation.name in _FAILING_WRITES


def check_groups(operations: Iterable[Operation], size: int | None = None) -> dict[str, Verdict]:
    """Check operations on groups.

    Parameters
    ----------
    operations : iterable of Operation
        The result of a read is the list of the group's values. The argument of a write is the value, its
        result the values that it read afterwards, or None.
    size : int, optional
        Number of values that each read must have; None for any number.

    Returns
    -------
    verdicts : dict
        ``"whole"``: values read together were written together, and not rolled back. ``"linearizable"``: each
        group is a register, in real time.
    """
    groups: dict[str | None, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(operation.key, []).append(operation)
    whole = all_of(_check_whole(each, size) for each in groups.values())
    if whole.answer != "valid":
        return {"whole": whole}
    return {
        "whole": VALID,
        "linearizable": all_of(check_register(_as_register(each), INITIAL) for each in groups.values()),
    }


def _check_whole(operations: Sequence[Operation], size: int | None) -> Verdict:
    undone = {each.argument: each for each in operations if each.outcome == "fail" and is_write(each)}
    for operation in operations:
        if operation.outcome != "ok" or operation.result is None:
            continue
        values = set(operation.result)
        if len(values) != 1 or (size is not None and len(operation.result) != size):
            return Verdict(
                "invalid", f"torn: ({operation}) shows parts of several states of the group", (operation,)
            )
        (value,) = values
        if is_write(operation) and value != operation.argument:
            return Verdict("invalid", f"({operation}) does not read its own writes", (operation,))
        writer = undone.get(value)
        if writer is not None or str(value).endswith(_UNDONE):
            by = "" if writer is None else f" by ({writer})"
            reason = f"({operation}) read {value!r}, which was rolled back{by}"
            return Verdict("invalid", reason, tuple(each for each in (operation, writer) if each))
    return VALID


def _as_register(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Return the operations in the form of `check_register`."""
    for each in operations:
        if is_write(each) or each.outcome != "ok":
            if is_write(each) and not each.name.startswith("roll back"):
                yield replace(each, name="set")
        else:
            yield replace(each, name="get", result=each.result[0])
