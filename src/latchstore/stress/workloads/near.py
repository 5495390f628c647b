"""Near caches, which may return values that are some milliseconds old.

The keys of a bound are read by a cache whose near cache has that bound; all caches write them. A read is
checked as if it had begun earlier by the bound: so it may return any value that the key has had since then.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from latchstore.cache import Cache, NearCache
from latchstore.contract.errors import CompactedError
from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.registers import check_register
from latchstore.stress.session_checks import check_sessions
from latchstore.stress.verdict import Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    TransactionalWorkload,
    chance_of,
    facts_of,
    operations_of,
)
from latchstore.stress.workloads.watching import read_to_the_end

_PREFIX = "near"

#: The bounds, in milliseconds.
BOUNDS = (10, 50, 250)

#: Number of keys for each bound, and maximum number of copies in its near cache.
_KEYS, _MOST_COPIES = 3, 2

#: How often each operation is drawn. A ``read`` is one in a transaction, so it must return the present value.
_OPERATIONS = {"get": 16, "read": 1, "set": 2, "set data": 1, "set in transaction": 1}

#: Number of operations for which all threads use one key, so that they meet.
_SPAN = 25

#: More changes than any run makes: the final watch must lose none.
_ENDLESS = 2**31


class _Rig:
    """The caches of one process on a store, by bound."""

    def __init__(self, store: AbstractStore) -> None:
        self.caches: dict[int, Cache[Any]] = {
            bound: Cache(store, near=NearCache(max_entries=_MOST_COPIES, staleness=bound / 1_000))
            for bound in BOUNDS
        }

    def end(self) -> dict[str, Any]:
        """Close the caches; return for each the number of reads, and how many its near cache served."""
        found = {}
        for bound, cache in self.caches.items():
            stats = cache.stats()
            found[str(bound)] = [stats["hits"] + stats["misses"], stats["near_hits"]]
            cache.close()
        return found


class _NearAction:
    """One operation on a key."""

    __slots__ = ("_bound", "_workload", "argument", "key", "name")

    def __init__(self, workload: Near, bound: int, name: str, key: str, argument: str | None) -> None:
        self._workload = workload
        self._bound = bound
        self.name = name
        self.key = key
        self.argument = argument

    def run(self, store: AbstractStore) -> Any:
        """Run it; return the value read."""
        cache = self._workload.rig.caches[self._bound]
        match self.name:
            case "get":
                return cache.get(self.key)
            case "read":
                with store.transaction("read"):
                    return cache.get(self.key)
            case "set":
                cache.set(self.key, self.argument)
            case "set data":
                store.from_bytes(self.key, json.dumps(self.argument).encode())
            case _:
                with store.transaction("set"):
                    cache.set(self.key, self.argument)
        return None


class Near(TransactionalWorkload):
    """Near caches: no value is older than the bound, and no thread reads an older value than before."""

    name = _PREFIX
    in_tasks = False
    options: ClassVar[Mapping[str, Any]] = {"history": 1_000_000}

    def __init__(self) -> None:
        self._rig: _Rig | None = None
        self._begin = 0

    @property
    def rig(self) -> _Rig:
        """The caches of this process."""
        assert self._rig is not None, "prepare or attach was called"
        return self._rig

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store has watches, and its caches can have near caches."""
        try:
            Cache(store, near=NearCache()).close()
        except TypeError:
            return False
        return super().supports(store) and callable(getattr(store, "watch", None))

    def prepare(self, store: Any) -> None:
        """Make the caches."""
        self._begin = store.info()["revision"]
        self._rig = _Rig(store)

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Make the caches of another process."""
        self._rig = _Rig(store)

    def detach(self, store: AbstractStore) -> Any:
        """Return the read counts of this process's caches."""
        return self.rig.end()

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random operations, mostly reads; every written value is unique."""
        chance, shared = chance_of(self.name, seed, thread), chance_of(self.name, seed, -1)
        names, weights = tuple(_OPERATIONS), tuple(_OPERATIONS.values())
        for number in itertools.count():
            if number % _SPAN == 0:
                place = shared.choice(BOUNDS), shared.randrange(_KEYS)
            bound, key = place
            if chance.random() < 0.2:
                bound, key = chance.choice(BOUNDS), chance.randrange(_KEYS)
            name = chance.choices(names, weights)[0]
            value = f"{thread}.{number}" if "set" in name else None
            yield _NearAction(self, bound, name, f"{_PREFIX}/{bound}/{key}", value)

    def finish(self, store: Any) -> Any:
        """Return the values that each key has had, in order, and the read counts of the caches here."""
        served, self._rig = self.rig.end(), None
        versions: dict[str, list[Any]] = {}
        try:
            watch = store.watch(f"{_PREFIX}/*", since=self._begin, max_buffer=_ENDLESS)
        except CompactedError:
            return {"served": served, "versions": None}  # another kind of store, with a history of its own
        for key, value in read_to_the_end(watch, _written_down, _lost)[0]:
            versions.setdefault(key, []).append(value)
        watch.close()
        return {"served": served, "versions": versions}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each key by its bound, and each session."""
        keys: dict[str, list[Operation]] = {}
        for operation in operations_of(self.name, history):
            assert operation.key is not None
            keys.setdefault(operation.key, []).append(_for_checkers(operation))
        facts = facts_of(self.name, history)
        versions = None if facts is None else facts["versions"]
        sessions = Verdict("unknown", "there is no record of the commits")
        if versions is not None:
            everything = [operation for operations in keys.values() for operation in operations]
            sessions = check_sessions(everything, versions)
        return {
            "no older than the bound": all_of(
                check_register(map(_moved_back, operations)) for operations in keys.values()
            ),
            "sessions": sessions,
        }


def _for_checkers(operation: Operation) -> Operation:
    return replace(operation, name="set") if operation.name.startswith("set") else operation


def _moved_back(operation: Operation) -> Operation:
    """Return an operation as if it had begun earlier by the bound of its key, if it may be late."""
    if operation.name != "get":
        return replace(operation, name="get") if operation.name == "read" else operation
    bound = int((operation.key or "").split("/")[1])
    return replace(operation, begin=operation.begin - bound * 1_000_000)


def _written_down(event: StoreModificationEvent) -> tuple[str, Any]:
    value: Any = event.value
    return event.key, None if value is None else json.loads(value.range().read())


def _lost(event: EventsLost) -> Any:
    raise AssertionError(f"a watch without a limit lost events: {event}")
