"""A cache that loads from a database, while writers change its rows and invalidate entries of the cache.

A cached value is a list: its name, its weight, and the row that it was made from. Each value that is written
or loaded has a unique name, ``"0.3/1"``: the first of call 3 of thread 0.
"""

from __future__ import annotations

import itertools
import json
import random
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    operations_of,
)
from latchstore.stress.workloads.cache_parts import RunningCall, SteppedClock
from latchstore.stress.workloads.watching import read_to_the_end, watch_all

#: The bound of the cache: two entries of three keys, or fewer heavy ones.
_MOST_ENTRIES, _MOST_BYTES = 2, 6_000
_WEIGHTS = (1_000, 3_500, 4_000)

_MEMO, _NUMBER = "cache/memo", 1
#: The keys of memoized results.
_MEMO_KEY = f"{_MEMO}(number={_NUMBER})"
#: The keys, each with the tag of its entries.
_TAGS = {"cache/a/0": "odd", "cache/a/1": "even", _MEMO_KEY: "odd"}
_KEYS = tuple(_TAGS)
_MEMO_TTL, _MEMO_WEIGHT = 2.0, 3_000

#: The key of operations on several keys.
_SEVERAL = "cache/several"

#: Seconds for which a loader lets others run after it has read the database: long enough for a whole call.
_PAUSES = (0.0, 0.0005, 0.001)

_START = 1_000.0


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
        self.database = dict.fromkeys(_KEYS, "first")
        self.loads: list[list[Any]] = []
        self.watch = watch_all(store)
        self.cache = Cache(
            store, max_entries=_MOST_ENTRIES, max_bytes=_MOST_BYTES, codec="json", clock=self.clock
        )

        @self.cache.memoize(name=_MEMO, tags=(_TAGS[_MEMO_KEY],), ttl=_MEMO_TTL, weight=_MEMO_WEIGHT)
        def memoized(number: int) -> Any:
            return self.load(_MEMO_KEY)

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
    return {"tags": (_TAGS[key],), **{name: argument.get(name) for name in ("ttl", "weight", *names)}}


def _get(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.cache.get(key)


def _get_or_load(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.cache.get_or_load(key, rig.load, **_options(key, argument, "refresh_after"))


def _call_memoized(rig: _Rig, key: str, argument: Mapping[str, Any]) -> Any:
    return rig.memoized(_NUMBER)


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
    return rig.memoized.invalidate(_NUMBER)


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

#: How often each call is drawn: those also made in transactions, and all.
_INSIDE = {
    "get": 4,
    "get_or_load": 6,
    "call memoized": 3,
    "set": 4,
    "modify": 2,
    "touch": 1,
    "delete": 4,
    "invalidate memoized": 1,
    "clear memoized": 1,
    "invalidate tag": 2,
    "delete glob": 1,
    "clear": 1,
}
_TRANSACTIONS = {"transaction": 2, "optimistic transaction": 5, "roll back": 1}
_SINGLE = {**_INSIDE, "advance clock": 3}
_ALL = {**_SINGLE, **_TRANSACTIONS}

#: Ways in which an entry is removed or changed while it is read and loaded; the last ones depend on the key.
_CHANGES = ("set", "delete", "modify", "invalidate tag", "advance clock", "clear")
_OF_MEMOIZED, _OF_OTHERS = ("invalidate memoized", "clear memoized"), ("delete glob",)

#: Number of actions after which a thread changes to other kinds of calls, how often it does so before it uses
#: all of them, and the number of kinds until then.
_PHASE, _PHASES, _FEW = 8, 3, 3

#: The fraction of phases with one key and one change of it, and of those the fraction with transactions.
_FOCUSED, _IN_TRANSACTIONS = 0.8, 0.1

#: How often such a key is changed, where 6 is how often it is read or loaded: a change races with loads, a
#: modification with other modifications.
_CHANGING, _MODIFYING = 3, 12

#: The keys that calls on several keys remove.
_REMOVED = {
    "clear memoized": [_MEMO_KEY],
    "invalidate memoized": [_MEMO_KEY],
    "delete glob": [key for key in _KEYS if key.startswith("cache/a/")],
    "clear": list(_KEYS),
}


# -- transactions -------------------------------------------------------------------------------------


class _Transaction:
    """Some calls in one transaction, which may be rolled back."""

    __slots__ = ("_calls", "argument", "key", "name")

    def __init__(self, name: str, token: str, optimistic: bool, calls: Sequence[_Call]) -> None:
        self.name = name
        self.key = _SEVERAL
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


# -- random choices -----------------------------------------------------------------------------------


def _kind_of_transaction(chance: random.Random) -> str:
    return chance.choices(tuple(_TRANSACTIONS), tuple(_TRANSACTIONS.values()))[0]


class _Mix:
    """Weighted kinds of calls, and keys, from which calls are drawn."""

    def __init__(self, kinds: Mapping[str, int], keys: Sequence[str]) -> None:
        self._kinds = kinds
        self._inside = {kind: weight for kind, weight in kinds.items() if kind in _INSIDE}
        self._keys = keys
        # The fraction of entries that expire: most of them if the clock often advances.
        self._expiring = 0.9 if kinds.get("advance clock", 0) * 5 >= sum(kinds.values()) else 0.5

    @classmethod
    def of_few(cls, chance: random.Random) -> _Mix:
        """Return a mix of a few kinds; always with loads.

        Most of them are about one key, which is read, loaded, and removed or changed in one way: each further
        one would end most races of the others unseen. The others often have one kind of transaction.
        """
        if chance.random() < _FOCUSED:
            key = chance.choice(_KEYS)
            is_memoized = key == _MEMO_KEY
            load = "call memoized" if is_memoized else "get_or_load"
            changes = (*_CHANGES, *(_OF_MEMOIZED if is_memoized else _OF_OTHERS))
            way = chance.choice(changes)
            kinds = {load: 4, "get": 2, way: _MODIFYING if way == "modify" else _CHANGING}
            if chance.random() < _IN_TRANSACTIONS:
                kinds[_kind_of_transaction(chance)] = 4
            return cls(kinds, [key])
        kinds = dict.fromkeys(chance.sample(tuple(_SINGLE), _FEW), 1)
        kinds["get_or_load"] = 2
        if chance.random() < 0.7:
            kinds[_kind_of_transaction(chance)] = 2
        return cls(kinds, chance.sample(_KEYS, chance.choice((1, 1, 3, 3, 3))))

    def kind(self, chance: random.Random) -> str:
        """Draw a kind."""
        return chance.choices(tuple(self._kinds), tuple(self._kinds.values()))[0]

    def kind_inside(self, chance: random.Random) -> str:
        """Draw a kind of call that is also made in transactions."""
        return chance.choices(tuple(self._inside), tuple(self._inside.values()))[0]

    def call(self, rig: Callable[[], _Rig], chance: random.Random, kind: str, token: str) -> _Call:
        """Return a call of a kind, with a random key and random options."""
        argument: dict[str, Any] = {"token": token}
        key = chance.choice(self._keys)
        if kind in _REMOVED:
            argument["keys"] = _REMOVED[kind]
            key = _MEMO_KEY if argument["keys"] == [_MEMO_KEY] else _SEVERAL
        elif kind == "delete":
            argument["keys"] = [key]
        elif kind == "invalidate tag":
            argument["tag"] = _TAGS[key]
            argument["keys"] = [each for each in _KEYS if _TAGS[each] == _TAGS[key]]
            key = _SEVERAL
        elif kind == "advance clock":
            key = "cache/clock"
        elif kind == "call memoized":
            key = _MEMO_KEY
            argument.update(ttl=_MEMO_TTL, weight=_MEMO_WEIGHT)
        elif kind == "touch":
            argument["ttl"] = chance.choice((1.0, 3.0))
        elif kind != "get":
            argument["weight"] = chance.choice(_WEIGHTS)
            if chance.random() < self._expiring:
                argument["ttl"] = chance.choice((1.0, 2.0))
            if kind == "get_or_load" and chance.random() < 0.25:
                argument["refresh_after"] = 1.0
        return _Call(rig, kind, key, argument)


# -- the workload -------------------------------------------------------------------------------------


class CacheWorkload(PlainWorkload):
    """A small cache over a database that others change: nothing stale, nothing expired, never too much."""

    name = "cache"
    weight: ClassVar[float] = 13
    length: ClassVar[int | None] = 2 * _PHASE  # the first phase also fills the cache
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
        phases = [*(_Mix.of_few(shared) for _ in range(_PHASES)), _Mix(_ALL, _KEYS)]
        for number in itertools.count(1):
            mix = phases[min((number - 1) // _PHASE, _PHASES)]
            token = f"{thread}.{number}"
            kind = mix.kind(chance)
            if kind not in _TRANSACTIONS:
                yield mix.call(self._rig_now, chance, kind, token)
                continue
            optimistic = kind == "optimistic transaction" or (kind == "roll back" and chance.random() < 0.5)
            calls = [
                mix.call(self._rig_now, chance, mix.kind_inside(chance), f"{token}.{place}")
                for place in range(chance.choice((1, 2, 2, 3)))
            ]
            yield _Transaction(kind, token, optimistic, calls)

    def finish(self, store: AbstractStore) -> Any:
        """Return the loads, and the events of each commit."""
        rig, self._rig = self._rig_now(), None
        events, to_the_end = read_to_the_end(rig.watch, _written_down, _lost)
        rig.watch.close()
        return {"loads": rig.loads, "commits": events, "to the end": to_the_end, "start": _START}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check the values read, the loads, and the entries after each commit."""
        facts = facts_of(self.name, history)
        if facts is None:
            return {"bound": Verdict("unknown", "there is no record of the commits")}
        log = CacheLog(operations_of(self.name, history), facts["loads"], facts["start"])
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
    if event.key in _TAGS:
        return [event.revision, event.key, json.loads(data)[1]]
    return [event.revision, event.key, len(event.key) + len(data)]  # a fault has written it


def _lost(event: EventsLost) -> Any:
    raise AssertionError(f"a watch without a limit lost events: {event}")
