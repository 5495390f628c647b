"""Counters that are incremented, and entries that are removed, on the condition of a revision."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from latchstore.contract.errors import RevisionMismatchError
from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    RolledBackError,
    chance_of,
    facts_of,
    final_reads,
    operations_of,
)
from latchstore.stress.workloads.calling import Calls
from latchstore.stress.workloads.stages import ReplaceModel, check_replacements

#: Maximum number of attempts of an increment.
_TRIES = 3

_WAYS = ("from_bytes", "set", "set_data", "set_metadata", "update_metadata")


class Increment:
    """Increments a counter, unless another thread does between its read and its write.

    Parameters
    ----------
    key : str
    argument : str
        Added to the count, so that each value is unique.
    way : str
        The method that writes. Methods for metadata store the counter there.
    """

    __slots__ = ("_way", "argument", "key", "name")

    def __init__(self, key: str, argument: str, way: str) -> None:
        self.name: str = "replace"
        self.key: str = key
        self.argument: str = argument
        self._way = way

    def run(self, store: AbstractStore) -> str | None:
        """Return the counter's value before."""
        for _ in range(_TRIES):
            value, revision = self._read(store)
            try:
                self._write(store, following(value, self.argument), revision)
            except RevisionMismatchError:
                continue
            return value
        raise RolledBackError

    def _read(self, store: AbstractStore) -> tuple[str | None, int]:
        try:
            value = store.get(self.key)
        except KeyError:
            return None, 0
        revision = value.revision
        assert revision is not None, "supports() has checked for revisions"
        return _counter(value.data.read(), value.metadata), revision

    def _write(self, store: AbstractStore, value: str, revision: int) -> None:
        data, metadata = value.encode(), {"counter": value}
        match self._way:
            case "from_bytes":
                store.from_bytes(self.key, data, if_revision=revision)
            case "set":
                store.set(self.key, (io.BytesIO(data), {}), if_revision=revision)
            case "set_data":
                store.set_data(self.key, io.BytesIO(data), if_revision=revision)
            case "update_metadata" if revision:
                store.update_metadata(self.key, metadata, if_revision=revision)
            case _:
                store.set_metadata(self.key, metadata, if_revision=revision)


class ReadCounter:
    """Reads a counter."""

    __slots__ = ("argument", "key", "name")

    def __init__(self, key: str) -> None:
        self.name: str = "get"
        self.key: str = key
        self.argument: None = None

    def run(self, store: AbstractStore) -> str | None:
        """Return the counter's value."""
        try:
            data, metadata = store.get(self.key)
        except KeyError:
            return None
        return _counter(data.read(), metadata)


def _counter(data: bytes, metadata: dict[str, Any]) -> str:
    """Return a counter from its place: data or metadata."""
    return data.decode() or str(metadata.get("counter"))


def following(value: str | None, addition: str) -> str:
    """Return the value of a counter after an increment."""
    return f"{_count(value) + 1} {addition}"


def _count(value: str | None) -> int:
    return 0 if value is None else int(value.split()[0])


class CompareAndSet(PlainWorkload):
    """Counters incremented by writes on the condition of a revision: no update is lost.

    Parameters
    ----------
    keys : int
        Number of counters.
    """

    name = "compare-and-set"
    weight: ClassVar[float] = 2
    each_key_alone = True

    def __init__(self, keys: int = 2) -> None:
        self._keys = keys

    def supports(self, store: AbstractStore) -> bool:
        """Return whether values have revisions, and writes accept them as a condition."""
        return _has_conditions(store, f"{self.name}/trial")

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random increments and reads."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        while True:
            number += 1
            which = chance.randrange(self._keys)
            # A key stores its counter in one place: every other key in its metadata.
            way = chance.choice(_WAYS[3:] if which % 2 else _WAYS[:3])
            if chance.random() < 0.6:
                yield Increment(f"{self.name}/{which}", f"{thread}.{number}", way)
            else:
                yield ReadCounter(f"{self.name}/{which}")

    def finish(self, store: AbstractStore) -> Any:
        """Return the final counters."""
        return {key: ReadCounter(key).run(store) for key in sorted(store.glob(f"{self.name}/*"))}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each counter."""
        counters: dict[str | None, list[Operation]] = {}
        last = facts_of(self.name, history)
        for operation in [*operations_of(self.name, history), *final_reads("get", history, last or {})]:
            counters.setdefault(operation.key, []).append(operation)
        verdicts = {
            "linearizable": all_of(
                check_replacements(each, ReplaceModel(following, rank=_count)) for each in counters.values()
            )
        }
        if last is not None:
            counts = (_check_count(each, last.get(key)) for key, each in counters.items())
            verdicts["counts"] = all_of(counts)
        return verdicts


class Removals(Calls):
    """Entries that are removed, also on the condition that they are unchanged, while others set them."""

    name = "removals"
    weight: ClassVar[float] = 5
    writes: ClassVar[Sequence[str]] = (
        "set",
        "from_bytes",
        "delete",
        "evict",
        "delete, if unchanged",
        "evict, if unchanged",
    )
    reading_of: ClassVar[Sequence[float]] = (0.4, 0.1, 0.1)
    reads: ClassVar[Sequence[str]] = ("get", "exists")
    keys = first_keys = 1

    def few_writes(self, chance: random.Random) -> Sequence[str]:
        """Return a method that sets the key and one that removes it."""
        return chance.choice(self.writes[:2]), chance.choice(self.writes[2:])

    def supports(self, store: AbstractStore) -> bool:
        """Return whether values have revisions, and removals accept them as a condition."""
        key = f"{self.name}/trial"
        if not _has_conditions(store, key):
            return False
        for remove in (store.delete, store.evict):
            store.from_bytes(key, b"")
            try:
                remove(key, if_revision=store.get(key).revision)
            except TypeError:
                store.delete(key)
                return False
        return True


def _has_conditions(store: AbstractStore, key: str) -> bool:
    """Return whether values have revisions, and writes accept them as a condition."""
    try:
        store.from_bytes(key, b"", if_revision=0)
    except TypeError:
        return False
    known = store.get(key).revision is not None
    store.delete(key)
    return known


def _check_count(operations: list[Operation], last: str | None) -> Verdict:
    """Check that a counter was incremented once by each successful increment, and by no failed one."""
    raised = [each for each in operations if each.name == "replace"]
    least = sum(each.outcome == "ok" for each in raised)
    most = least + sum(each.outcome == "info" for each in raised)
    if least <= _count(last) <= most:
        return VALID
    reason = f"{operations[0].key!r} is {last!r} at the end, after {least} to {most} increments"
    return Verdict("invalid", reason)
