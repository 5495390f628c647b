"""Snapshots that are read repeatedly while others write.

Opening one and reading it are separate operations: it must show the state of the time at which it was opened,
even if it is first read after other writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from latchstore.contract.store import AbstractReadOnlyStore, AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    chance_of,
    has_transactions,
    operations_of,
    text_of,
)
from latchstore.stress.workloads.groups import Groups, read_by_multiget
from latchstore.stress.workloads.transactions import verdicts_of_groups

_OPEN, _LOOK = "open snapshot", "look"


class _Held:
    """The snapshot that a thread keeps open between its actions."""

    def __init__(self) -> None:
        self.view: Any = None

    def close(self) -> None:
        if self.view is not None:
            self.view.close()
            self.view = None


class _Open:
    """Opens the thread's snapshot, and closes the one before."""

    __slots__ = ("_held", "argument", "key", "name")

    def __init__(self, key: str, argument: str, held: _Held) -> None:
        self.name = _OPEN
        self.key = key
        self.argument = argument
        self._held = held

    def run(self, store: Any) -> None:
        """Open it, and read nothing."""
        self._held.close()
        self._held.view = store.snapshot()


class _Look:
    """Reads a group in the thread's snapshot."""

    __slots__ = ("_held", "_keys", "argument", "key", "name")

    def __init__(self, key: str, argument: str, keys: Sequence[str], held: _Held) -> None:
        self.name = _LOOK
        self.key = key
        self.argument = argument
        self._keys = keys
        self._held = held

    def run(self, store: Any) -> dict[str, Any]:
        """Return the values of the keys, read in three ways, and whether the snapshot is new."""
        held = self._held
        # None if the action that should have opened it was interrupted, or if it was closed.
        new = held.view is None
        if new:
            held.view = store.snapshot()
        return {"new": new, "values": _values(held.view, self._keys)}


def _values(view: AbstractReadOnlyStore, keys: Sequence[str]) -> list[str | None]:
    """Return the values of the keys: one after the other, at once, and by a glob."""
    there = sorted(view.glob(f"{keys[0].rpartition('/')[0]}/?"))
    found = [text_of(view, key) for key in there]
    return [*(text_of(view, key) for key in keys), *read_by_multiget(view, keys), *found]


class Snapshots(PlainWorkload):
    """Snapshots while transactions write: each shows one instant, unchanged.

    Parameters
    ----------
    size : int
        Number of keys that each transaction writes.
    """

    name = "snapshots"
    weight: ClassVar[float] = 3

    def __init__(self, size: int = 3) -> None:
        self._groups = Groups(self.name, 1, size)

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has snapshots and transactions."""
        return callable(getattr(store, "snapshot", None)) and has_transactions(store)

    def prepare(self, store: AbstractStore) -> None:
        self._groups.prepare(store)

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random writes, and reads of snapshots, several for each snapshot."""
        chance = chance_of(self.name, seed, thread)
        held = _Held()
        number = 0
        opened = 0
        while True:
            number += 1
            if chance.random() < 0.4:
                yield self._groups.write(chance, f"{thread}.{number}", failing=0.1)
                continue
            ((group, keys),) = self._groups.keys.items()
            if opened and chance.random() < 0.7:
                yield _Look(group, f"{thread}.{opened}", keys, held)
                continue
            opened = number
            yield _Open(group, f"{thread}.{opened}", held)

    def finish(self, store: AbstractStore) -> Any:
        return self._groups.finish(store)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check that each snapshot shows the state of its opening, and that it does not change."""
        mine = operations_of(self.name, history)
        opened = {each.argument: each for each in mine if each.name == _OPEN}
        first: dict[str, Operation] = {}
        stays = [
            _check_same(each, first.setdefault(each.argument, each))
            for each in mine
            if each.name == _LOOK and each.outcome == "ok"
        ]
        others = [each for each in history.operations if each.name not in (_OPEN, _LOOK)]
        reads = [
            _as_read(opened.get(look.argument), look)
            for look in first.values()
            # An opening that was interrupted may have left the snapshot before it open.
            if look.result["new"] or look.argument not in opened or opened[look.argument].outcome == "ok"
        ]
        groups = verdicts_of_groups(self.name, History([*others, *reads], history.header))
        return {"stays": all_of(stays), **groups}


def _as_read(opened: Operation | None, look: Operation) -> Operation:
    """Return the first look at a snapshot as a read at the time at which it was opened."""
    values = look.result["values"]
    if opened is None or look.result["new"]:
        return replace(look, result=values)
    return replace(look, result=values, begin=opened.begin, end=opened.end)


def _check_same(look: Operation, first: Operation) -> Verdict:
    """Compare a read with the first one of the same snapshot."""
    if first.result["values"] == look.result["values"]:
        return VALID
    return Verdict("invalid", f"({look}) differs from ({first}), of the same snapshot", (look, first))
