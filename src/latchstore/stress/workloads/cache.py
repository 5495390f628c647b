"""A cache that loads from a database, while writers change its rows and invalidate entries of the cache.

A cached value is a list: its name, its weight, and the row that it was made from. Each value that is written
or loaded has a unique name, ``"0.3/1"``: the first of call 3 of thread 0.
"""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from latchstore.cache import Cache
from latchstore.contract.events import EventsLost, StoreModificationEvent
from latchstore.contract.store import AbstractStore
from latchstore.stress.cache_checks import CacheLog
from latchstore.stress.history import History
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    RolledBackError,
    chance_of,
    facts_of,
    final_reads,
    operations_of,
)
from latchstore.stress.workloads.cache_mixes import (
    EVERYTHING,
    KEYS,
    MEMO,
    MEMO_KEY,
    MEMO_TTL,
    MEMO_WEIGHT,
    NUMBER,
    SEVERAL,
    TAGS,
    TRANSACTIONS,
    scene,
)
from latchstore.stress.workloads.cache_parts import RunningCall, SteppedClock
from latchstore.stress.workloads.watching import read_to_the_end, watch_all

#: The bound of the cache: two entries of three keys, or fewer heavy ones.
_MOST_ENTRIES, _MOST_BYTES = 2, 6_000

#: Seconds for which a loader lets others run after it has read the database: long enough for a whole call.
_PAUSES = (0.0, 0.0005, 0.001)

_START = 1_000.0

#: Number of actions of a thread in one scene, and the number of scenes until it uses all kinds of calls.
_LENGTH, _SCENES = 3, 6


class _Rig:
    """A cache on a store, its database, and records of both.

    Attributes
    ----------
    database : dict
        The row of each key: the name of its last writer.
    loads : list
        For each load: key, name of the value, times of its begin, its read of the database and its end, and
        whether it was in a transaction.
    """

    def __init__(self, store: AbstractStore) -> None:
        self.clock = SteppedClock(_START)
        self.running = RunningCall()
        self.database = dict.fromkeys(KEYS, "first")
        self.loads: list[list[Any]] = []
        self.watch = watch_all(store)
        self.cache = Cache(
            store, max_entries=_MOST_ENTRIES, max_bytes=_MOST_BYTES, codec="json", clock=self.clock
        )

        @self.cache.memoize(name=MEMO, tags=(TAGS[MEMO_KEY],), ttl=MEMO_TTL, weight=MEMO_WEIGHT)
        def memoized(number: int) -> Any:
            return self.load(MEMO_KEY)

        self.memoized = memoized

    def load(self, key: str) -> list[Any]:
        """Read the row of a key; this is the loader."""
        running = self.running
        name = running.new_name()
        begin = time.monotonic_ns()
        row = self.database[key]
        read = time.monotonic_ns()
        try:
            time.sleep(_PAUSES[zlib.crc32(name.encode()) % len(_PAUSES)])
        finally:
            self.loads.append([key, name, begin, read, time.monotonic_ns(), running.inside])
        return [name, running.weight, row]

    def change_rows(self, keys: Sequence[str]) -> None:
        """Change rows of the database for the running call, which will then invalidate the cache."""
        for key in keys:
            self.database[key] = self.running.token


# -- single calls -------------------------------------------------------------------------------------


class _Call:
    """One call of the cache.

    Parameters
    ----------
    rig : callable
        Returns the rig for the call.
    name : str
    key : str
    argument : dict
        ``token`` identifies the call. Others are options of the call, or the ``keys`` that it removes.
    """

    __slots__ = ("_rig", "argument", "key", "name")

    def __init__(self, rig: Callable[[], _Rig], name: str, key: str, argument: Mapping[str, Any]) -> None:
        self._rig = rig
        self.name = name
        self.key = key
        self.argument = dict(argument)

    def run(self, store: AbstractStore) -> Any:
        """Return the result of the call, or the value that it has set."""
        return self._run(inside=False)

    def run_inside(self) -> Any:
        """Run as a step of a transaction."""
        return self._run(inside=True)

    def _run(self, inside: bool) -> Any:
        rig, argument = self._rig(), self.argument
        running = rig.running
        running.token, running.count, running.inside = argument["token"], 0, inside
        running.weight = argument.get("weight", 0)
        return _CALLS[self.name](rig, self.key, argument)


def _options(key: str, argument: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the options of a call that makes an entry."""
    return {"tags": (TAGS[key],), **{name: argument.get(name) for name in ("ttl", "weight", *names)}}


def _get(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.cache.get(key)


def _get_or_load(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.cache.get_or_load(key, rig.load, **_options(key, argument, "refresh_after"))


def _call_memoized(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.memoized(NUMBER)


def _set(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    rig.change_rows((key,))
    value = [rig.running.new_name(), argument["weight"], rig.database[key]]
    rig.cache.set(key, value, **_options(key, argument))
    return value


def _modify(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    """Return the values before and after."""
    pair: list[Any] = []
    rig.change_rows((key,))

    def change(before: Any) -> Any:
        # The entry keeps its weight for any value.
        weight = argument["weight"] if before is None else before[1]
        pair[:] = [before, [rig.running.new_name(), weight, rig.running.token]]
        return pair[1]

    rig.cache.modify(key, change, default=None, **_options(key, argument))
    return pair


def _touch(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.cache.touch(key, argument["ttl"])


def _delete(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    rig.change_rows(argument["keys"])
    return rig.cache.delete(key)


def _invalidate_memoized(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    rig.change_rows(argument["keys"])
    return rig.memoized.invalidate(NUMBER)


def _clear_memoized(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    rig.change_rows(argument["keys"])
    rig.memoized.cache_clear()


def _invalidate_tag(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    rig.change_rows(argument["keys"])
    return rig.cache.invalidate_tag(argument["tag"])


def _delete_glob(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    rig.change_rows(argument["keys"])
    return rig.cache.delete_glob("cache/a/*")


def _clear(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    rig.change_rows(argument["keys"])
    rig.cache.clear()


def _advance(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.clock.advance()


_CALLS: dict[str, Callable[[_Rig, str, Mapping[str, Any]], Any]] = {
    "get": _get,
    "get_or_load": _get_or_load,
    "call memoized": _call_memoized,
    "set": _set,
    "modify": _modify,
    "touch": _touch,
    "delete": _delete,
    "invalidate memoized": _invalidate_memoized,
    "clear memoized": _clear_memoized,
    "invalidate tag": _invalidate_tag,
    "delete glob": _delete_glob,
    "clear": _clear,
    "advance clock": _advance,
}


# -- transactions -------------------------------------------------------------------------------------


class _Transaction:
    """Some calls in one transaction, which may be rolled back."""

    __slots__ = ("_calls", "argument", "key", "name")

    def __init__(self, name: str, token: str, optimistic: bool, calls: Sequence[_Call]) -> None:
        self.name = name
        self.key = SEVERAL
        self._calls = calls
        steps = [[call.name, call.key, call.argument] for call in calls]
        self.argument = {"token": token, "optimistic": optimistic, "steps": steps}

    def run(self, store: Any) -> list[Any]:
        """Return the results of the calls."""
        with store.transaction(self.name, optimistic=self.argument["optimistic"]):
            results = [call.run_inside() for call in self._calls]
            if self.name == "roll back":
                raise RolledBackError
        return results


# -- the workload -------------------------------------------------------------------------------------


class CacheWorkload(PlainWorkload):
    """A small cache over a database that others change: nothing stale, nothing expired, never too much."""

    name = "cache"
    weight: ClassVar[float] = 26
    length: ClassVar[int | None] = _LENGTH
    # Its database and its clock are objects of one process.
    between_processes = False
    in_tasks = False

    def __init__(self) -> None:
        self._rig: _Rig | None = None

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store can enforce the bound of a cache, and has watches for the check."""
        try:
            Cache(store, codec="json").close()
        except TypeError:
            return False
        return callable(getattr(store, "watch", None))

    def prepare(self, store: AbstractStore) -> None:
        """Make the cache."""
        self._rig = _Rig(store)

    def _rig_now(self) -> _Rig:
        assert self._rig is not None, "prepare was called"
        return self._rig

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random calls, and transactions of several; the first ones are of few kinds.

        With few kinds at a time, Groce, Zhang, Eide, Chen and Regehr, "Swarm testing" (ISSTA 2012), find
        failures that need several calls of two kinds.
        """
        chance = chance_of(self.name, seed, thread)
        shared = chance_of(self.name, seed, -1)
        scenes = [*(scene(shared) for _ in range(_SCENES)), EVERYTHING]
        for number in itertools.count(1):
            mix = scenes[min((number - 1) // _LENGTH, _SCENES)]
            token = f"{thread}.{number}"
            kind = mix.kind(chance, thread)
            calls = [_Call(self._rig_now, *drawn) for drawn in mix.calls(chance, kind, token)]
            if kind not in TRANSACTIONS:
                yield calls[0]
                continue
            optimistic = kind == "optimistic transaction" or (kind == "roll back" and chance.random() < 0.5)
            yield _Transaction(kind, token, optimistic, calls)

    def finish(self, store: AbstractStore) -> Any:
        """Return the loads, the events of each commit, and the values that the cache has at the end."""
        rig, self._rig = self._rig_now(), None
        kept = {key: rig.cache.get(key) for key in KEYS}
        events, to_the_end = read_to_the_end(rig.watch, _written_down, _lost)
        rig.watch.close()
        return {
            "loads": rig.loads,
            "commits": events,
            "to the end": to_the_end,
            "start": _START,
            "kept": kept,
        }

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check the values read, the loads, and the entries after each commit."""
        facts = facts_of(self.name, history)
        if facts is None:
            return {"bound": Verdict("unknown", "there is no record of the commits")}
        last = [
            replace(each, argument={"token": f"after.{number}"})
            for number, each in enumerate(final_reads("get", history, facts["kept"]))
        ]
        log = CacheLog([*operations_of(self.name, history), *last], facts["loads"], facts["start"])
        return {
            "no stale value": log.no_stale_value(),
            "nothing expired": log.nothing_expired(),
            "one load at a time": log.one_load_at_a_time(),
            "no lost update": log.no_lost_update(),
            "bound": log.bound(facts["commits"], _MOST_ENTRIES, _MOST_BYTES),
        }


def _written_down(event: StoreModificationEvent) -> list[Any]:
    """Return revision, key, and the entry's weight, None if it was removed."""
    value: Any = event.value
    if value is None:
        return [event.revision, event.key, None]
    data = value.range().read()
    if event.key in TAGS:
        return [event.revision, event.key, json.loads(data)[1]]
    return [event.revision, event.key, len(event.key) + len(data)]  # a fault has written it


def _lost(event: EventsLost) -> Any:
    raise AssertionError(f"a watch without a limit lost events: {event}")
