"""Caches on one store, also of several processes, over rows of the store that writers change.

A writer sets the row of a key, and then deletes the key from the caches. A load reads the row, and takes some
time. So a load that begins after a writer has returned must not return the old row: neither from a cache, nor
from an earlier load that had read the old row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from latchstore.cache import Cache
from latchstore.contract.errors import StoreError
from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import Action, PlainWorkload, chance_of, operations_of, text_of

_NAME = "loading"
_KEYS = (f"{_NAME}/a", f"{_NAME}/b")

#: Seconds for which a loader lets others run after it has read the row.
_PAUSES = (0.0, 0.000_5, 0.003)


def _row_of(key: str) -> str:
    return f"{key}/row"


class _Call:
    """A write or a load of a key."""

    __slots__ = ("_workload", "argument", "key", "name")

    def __init__(self, workload: Loading, name: str, key: str, argument: Any) -> None:
        self.name = name
        self.key = key
        self.argument = argument
        self._workload = workload

    def run(self, store: AbstractStore) -> str | None:
        """Return the loaded or cached value; None for a write, and for a missing row."""
        cache = self._workload.cache
        if self.name == "write":
            store.from_bytes(_row_of(self.key), self.argument.encode())
            try:
                cache.delete(self.key)
            except StoreError as error:
                # The row is written, though that call had no effect.
                raise StoreError(f"the row of {self.key!r} is written, and its entry is kept") from error
            return None

        def loader(key: str) -> str | None:
            row = text_of(store, _row_of(key))
            time.sleep(self.argument)
            return row

        found: str | None = cache.get_or_load(self.key, loader)
        return found


class Loading(PlainWorkload):
    """Caches load rows of the store while others change them: no load returns an old value."""

    name = _NAME
    weight: ClassVar[float] = 0.5
    in_tasks = False

    def __init__(self) -> None:
        self._cache: Cache[Any] | None = None

    @property
    def cache(self) -> Cache[Any]:
        """The cache of this process."""
        assert self._cache is not None, "prepare or attach was called"
        return self._cache

    def supports(self, store: AbstractStore) -> bool:
        """Return whether there can be a cache on the store."""
        try:
            Cache(store, codec="json").close()
        except TypeError:
            return False
        return True

    def prepare(self, store: AbstractStore) -> None:
        """Make the cache."""
        self.attach(store, None)

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Make the cache of this process."""
        self._cache = Cache(store, codec="json")

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield loads, and a write after every few."""
        chance = chance_of(self.name, seed, thread)
        count = 0
        while True:
            count += 1
            key = chance.choice(_KEYS)
            if chance.random() < 0.2:
                yield _Call(self, "write", key, f"{thread}.{count}")
            else:
                yield _Call(self, "load", key, chance.choice(_PAUSES))

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check for loads that returned an old value."""
        operations = operations_of(self.name, history)
        return {self.name: all_of(_check([each for each in operations if each.key == key]) for key in _KEYS)}


def _check(operations: Sequence[Operation]) -> Verdict:
    """Check the operations on one key."""
    writes = [each for each in operations if each.name == "write" and each.outcome != "fail"]
    by_value: Mapping[Any, Operation] = {each.argument: each for each in writes}
    for load in operations:
        if load.name != "load" or load.outcome != "ok":
            continue
        written = by_value.get(load.result)
        if load.result is not None and (written is None or load.precedes(written)):
            return Verdict(
                "invalid", f"{load.call} returned {load.result!r}, which no call has written", (load,)
            )
        for later in writes:
            if later.precedes(load) and (written is None or written.precedes(later)):
                return Verdict(
                    "invalid",
                    f"{load.call} returned {load.result!r}, which was replaced before it began",
                    (load, later, *([] if written is None else [written])),
                )
    return VALID
