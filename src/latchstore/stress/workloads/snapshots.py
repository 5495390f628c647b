"""Snapshots that are read repeatedly while others write."""

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

_OPEN, _AGAIN = "open snapshot", "look again"


class _Held:
    """The snapshot that a thread keeps open between its actions."""

    def __init__(self) -> None:
        self.view: Any = None

    def close(self) -> None:
        if self.view is not None:
            self.view.close()
            self.view = None


class _Look:
    """Reads a group in the thread's snapshot, in two ways."""

    __slots__ = ("_held", "_keys", "argument", "key", "name")

    def __init__(self, name: str, key: str, argument: str, keys: Sequence[str], held: _Held) -> None:
        self.name = name
        self.key = key
        self.argument = argument
        self._keys = keys
        self._held = held

    def run(self, store: Any) -> dict[str, Any]:
        """Return the values of the keys, read in three ways, and whether the snapshot is new."""
        held = self._held
        if self.name == _OPEN:
            held.close()
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
    weight: ClassVar[float] = 0.5

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
            if chance.random() < 0.5:
                yield self._groups.write(chance, f"{thread}.{number}", failing=0.1)
                continue
            ((group, keys),) = self._groups.keys.items()
            name = _AGAIN if opened and chance.random() < 0.6 else _OPEN
            if name == _OPEN:
                opened = number
            yield _Look(name, group, f"{thread}.{opened}", keys, held)

    def finish(self, store: AbstractStore) -> Any:
        return self._groups.finish(store)

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check the values of new snapshots, and that they do not change."""
        seen: dict[tuple[str | None, str], Operation] = {}
        looks = [each for each in operations_of(self.name, history) if each.name in (_OPEN, _AGAIN)]
        stays = all_of([_check_same(each, seen) for each in looks])
        others = [each for each in history.operations if each.name not in (_OPEN, _AGAIN)]
        # Later reads show the state when the snapshot was opened, so their time is ignored.
        first = [_as_read(each) for each in looks if each.outcome == "ok" and each.result["new"]]
        groups = verdicts_of_groups(self.name, History([*others, *first], history.header))
        return {"stays": stays, **groups}


def _as_read(look: Operation) -> Operation:
    return replace(look, result=look.result["values"])


def _check_same(look: Operation, seen: dict[tuple[str | None, str], Operation]) -> Verdict:
    """Compare a read with the first one of the same snapshot."""
    if look.outcome != "ok":
        return VALID
    first = seen.setdefault((look.key, look.argument), look)
    if first.result["values"] == look.result["values"]:
        return VALID
    return Verdict("invalid", f"({look}) differs from ({first}), of the same snapshot", (look, first))
