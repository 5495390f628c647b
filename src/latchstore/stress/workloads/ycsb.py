"""The core workloads of YCSB, a benchmark for databases.

They are those of Cooper, Silberstein, Tam, Ramakrishnan and Sears, "Benchmarking cloud serving systems with
YCSB" (SoCC 2010, table 2 and section 4.2), with three differences. Only the most frequent records exist
initially; the others are made by their first update. Threads insert records of the same numbers in D, so the
latest record is about the same for all. A scan is a glob for a prefix of keys.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.registers import check_register
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    chance_of,
    facts_of,
    final_reads,
    has_transactions,
    operations_of,
    revision_of,
    text_of,
)
from latchstore.stress.workloads.stages import ReplaceModel, check_replacements, check_stages
from latchstore.zipf import Zipfian

#: Number of actions after which a thread changes from a few records to all, so that the first actions meet.
_BEGINNING = 20
_FEW = 3

#: The value of the initial records.
_LOADED = "loaded"

#: Number of inserts after which a thread begins the next group of keys that a scan reads together.
_GROUP = 5


class RecordAction:
    """One operation on one record."""

    __slots__ = ("argument", "key", "name", "revision")

    def __init__(self, name: str, key: str, argument: str | None = None) -> None:
        self.name: str = name
        self.key: str = key
        self.argument: str | None = argument
        self.revision: int | None = None

    def run(self, store: AbstractStore) -> Any:
        """Return the value read."""
        match self.name:
            case "get":
                return text_of(store, self.key)
            case "scan":
                return sorted(store.glob(f"{self.key}/*"))
            case "insert":
                store.from_bytes(f"{self.key}/{self.argument}", b"")
                return None
        assert self.argument is not None, "a write has a value"
        if self.name == "set":
            store.set(self.key, (io.BytesIO(self.argument.encode()), {}))
            return None
        with store.transaction("read, modify, write") as transaction:
            before = text_of(store, self.key)
            store.from_bytes(self.key, self.argument.encode())
        self.revision = revision_of(transaction)
        return before


def _loaded() -> tuple[io.BytesIO, dict[str, str]]:
    return io.BytesIO(_LOADED.encode()), {}


class _Ycsb(PlainWorkload):
    """Base class of these workloads.

    Parameters
    ----------
    records : int
        Maximum number of records.
    """

    #: They are similar, so all of them have one share of a run.
    share = "ycsb"
    weight: ClassVar[float] = 0.5
    each_key_alone = True
    #: The fraction of reads, and the operation of the others.
    reading: ClassVar[float]
    writing: ClassVar[str] = "set"

    def __init__(self, records: int = 1_000) -> None:
        self._all = Zipfian(records)
        self._few = Zipfian(min(records, _FEW))

    def prepare(self, store: AbstractStore) -> None:
        """Load the most frequent records."""
        keys = [f"{self.name}/{number}" for number in range(_FEW)]
        if has_transactions(store):
            store.multiset(keys, [_loaded() for _ in keys])
        else:
            for key in keys:
                store.set(key, _loaded())

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield reads and writes of records; every written value is unique."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        while True:
            records = self._few if number < _BEGINNING else self._all
            number += 1
            key = f"{self.name}/{records.draw(chance)}"
            if chance.random() < self.reading:
                yield RecordAction("get", key)
            else:
                yield RecordAction(self.writing, key, f"{thread}.{number}")

    def finish(self, store: AbstractStore) -> Any:
        """Return the final values of the records."""
        return {key: text_of(store, key) for key in sorted(store.glob(f"{self.name}/*"))}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each record."""
        records: dict[str, list[Operation]] = {}
        last = final_reads("get", history, facts_of(self.name, history) or {})
        for operation in [*operations_of(self.name, history), *last]:
            records.setdefault(str(operation.key), []).append(operation)
        return {"linearizable": all_of(self._check(key, each) for key, each in records.items())}

    def _check(self, key: str, operations: Iterable[Operation]) -> Verdict:
        return check_register(operations, self._initial(key))

    def _initial(self, key: str) -> str | None:
        return _LOADED if int(key.rpartition("/")[2]) < _FEW else None


class YcsbA(_Ycsb):
    """YCSB A: half reads, half updates, of records by Zipf's law."""

    name = "ycsb-a"
    reading: ClassVar[float] = 0.5


class YcsbB(_Ycsb):
    """YCSB B: 95 % reads, 5 % updates."""

    name = "ycsb-b"
    reading: ClassVar[float] = 0.95


class YcsbC(_Ycsb):
    """YCSB C: reads alone."""

    name = "ycsb-c"
    reading: ClassVar[float] = 1.0


class YcsbD(_Ycsb):
    """YCSB D: 95 % reads of the latest records, 5 % inserts."""

    name = "ycsb-d"
    reading: ClassVar[float] = 0.95

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield reads and inserts; records near the thread's last insert are read most."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        latest = _FEW - 1
        while True:
            number += 1
            if chance.random() < self.reading:
                back = self._all.draw(chance)
                # One beyond the thread's own inserts: other threads may have inserted it.
                yield RecordAction("get", f"{self.name}/{max(0, latest + 1 - back)}")
            else:
                latest += 1
                yield RecordAction("set", f"{self.name}/{latest}", f"{thread}.{number}")


class YcsbE(_Ycsb):
    """YCSB E: 95 % scans, 5 % inserts."""

    name = "ycsb-e"
    reading: ClassVar[float] = 0.95

    def prepare(self, store: AbstractStore) -> None:
        """Do nothing: a scan of no records is valid."""

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield scans of the latest groups of keys, and inserts into them."""
        chance = chance_of(self.name, seed, thread)
        number = 0
        inserted = 0
        while True:
            number += 1
            # The first actions insert more, so that scans find keys.
            scans = chance.random() < (0.5 if number <= _BEGINNING else self.reading)
            back = self._all.draw(chance) if scans else 0
            key = f"{self.name}/{max(0, inserted // _GROUP - back)}"
            if scans:
                yield RecordAction("scan", key)
            else:
                inserted += 1
                yield RecordAction("insert", key, f"{thread}.{number}")

    def finish(self, store: AbstractStore) -> Any:
        """Return all keys, by group."""
        groups: dict[str, list[str]] = {}
        for key in sorted(store.glob(f"{self.name}/*")):
            groups.setdefault(key.rpartition("/")[0], []).append(key)
        return groups

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each group of keys."""
        groups: dict[str | None, list[Operation]] = {}
        last = final_reads("scan", history, facts_of(self.name, history) or {})
        for operation in [*operations_of(self.name, history), *last]:
            groups.setdefault(operation.key, []).append(operation)
        return {"linearizable": all_of(check_growing_set(each) for each in groups.values())}


class YcsbF(_Ycsb):
    """YCSB F: half reads, half read-modify-writes in a transaction."""

    name = "ycsb-f"
    reading: ClassVar[float] = 0.5
    writing = "replace"

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has transactions."""
        return has_transactions(store)

    def _check(self, key: str, operations: Iterable[Operation]) -> Verdict:
        return check_replacements(operations, ReplaceModel(lambda _, value: value, self._initial(key)))


def check_growing_set(operations: Sequence[Operation]) -> Verdict:
    """Check a set that only grows: ``insert`` of a member, and ``scan`` of all.

    The results of the scans must form a chain, each a subset of the next. That gives which inserts come
    before which scans.

    Parameters
    ----------
    operations : sequence of Operation
        An insert has the last part of its member's name as the argument, a scan has the list of members as
        the result.
    """
    inserts = {f"{each.key}/{each.argument}": each for each in operations if each.name == "insert"}
    scans = [each for each in operations if each.name == "scan" and each.outcome == "ok"]
    scans.sort(key=lambda scan: len(scan.result))
    stages: list[list[Operation]] = []
    found: set[str] = set()
    last: Operation | None = None
    for scan in scans:
        members = set(scan.result)
        if found - members or len(members) < len(scan.result):
            beside = f"; not a superset of ({last})" if found - members else ", one of them twice"
            return Verdict("invalid", f"({scan}) found {len(scan.result)}{beside}", (scan,))
        stray = [each for each in members - found if each not in inserts or inserts[each].outcome == "fail"]
        if stray:
            return Verdict("invalid", f"({scan}) found {stray[0]!r}, which no call inserted", (scan,))
        stages += [[inserts[each] for each in members - found], [scan]]
        found, last = members, scan
    # All scans of one state are one stage; otherwise their position in a list would define an order.
    merged = _merged(stages)
    unseen = [each for name, each in inserts.items() if name not in found and each.outcome == "ok"]
    verdict = check_stages([*merged, unseen])
    return VALID if verdict.answer == "valid" else verdict


def _merged(stages: Iterable[list[Operation]]) -> list[list[Operation]]:
    """Join stages of scans without an insert between them."""
    merged: list[list[Operation]] = []
    for stage in stages:
        if not stage:
            continue
        if merged and stage[0].name == merged[-1][0].name:
            merged[-1] += stage
        else:
            merged.append(list(stage))
    return merged
