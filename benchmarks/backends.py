"""What does an operation of the Django backend cost, beside Django's own cache in memory?

Both are asked the same in turn, in one thread: 1,000 keys (200 for coroutines) and room for all of them,
small dicts as values (numbers for `incr`), Django's timeout of 300 seconds. CPU is what the whole process has
computed, the store's thread for events included. Wall is the time that has passed, which is more where
another thread is waited for, as the methods for coroutines of Django's own backends do.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.measure import Answer, Figure, Ratio, Subject, Timing, interleaved, markdown, ratio_table

OURS, OTHER = "latchstore", "locmem"

#: The most CPU that an operation may take, in that of locmem.
LIMITS = {"set": 2.0, "incr": 4.0, "touch": 4.0}

#: How many keys the operations on several have, and how many calls of coroutines there are.
_MANY = 10
_AWAITED = 200

_KEYS = [f"session:{number}" for number in range(1_000)]
_COUNTERS = [f"counter:{number}" for number in range(1_000)]
_VALUE = {"user": 7, "name": "anna", "roles": ["reader", "writer"], "token": "x" * 32}

#: What an operation finds: all keys, none of them, or numbers. Made anew for each, or it would expire.
_FULL = "cache.set_many(dict.fromkeys(present, value))"
_EMPTY = "cache.delete_many(present)"
_COUNTED = "cache.set_many(dict.fromkeys(keys, 0))"

_Times = dict[tuple[str, str], Timing]


def _caches() -> dict[str, Any]:
    """Return both; neither has to evict anything."""
    from django.core.cache.backends.locmem import LocMemCache

    from latchstore.backends.django import LatchstoreCache

    params = {"OPTIONS": {"MAX_ENTRIES": 10 * len(_KEYS)}}
    return {OURS: LatchstoreCache("benchmark", params), OTHER: LocMemCache("benchmark", params)}


async def _each(keys: Iterable[str], call: Callable[..., Awaitable[object]], *arguments: object) -> None:
    for key in keys:
        await call(key, *arguments)


def _subjects(cache: Any, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> dict[str, Subject]:
    """Return what is timed of one cache."""
    missing = [f"missing:{number}" for number in range(len(_KEYS))]
    parts = [_KEYS[start : start + _MANY] for start in range(0, len(_KEYS), _MANY)]
    mappings = [dict.fromkeys(part, _VALUE) for part in parts]
    names = {"cache": cache, "present": _KEYS, "value": _VALUE, "run": loop.run_until_complete, "each": _each}

    def looped(call: str, setup: str = _FULL, keys: Sequence[object] = _KEYS) -> Subject:
        return Subject(f"for key in keys: cache.{call}", len(keys), setup, clock, keys=keys, **names)

    def awaited(call: str, setup: str = _FULL, keys: Sequence[object] = _KEYS) -> Subject:
        keys = keys[:_AWAITED]
        return Subject(f"run(each(keys, cache.{call}))", len(keys), setup, clock, keys=keys, **names)

    return {
        "get, a hit": looped("get(key)"),
        "get, a miss": looped("get(key)", keys=missing),
        "set": looped("set(key, value)"),
        "set, a new key": looped("set(key, value)", _EMPTY),
        "add, a new key": looped("add(key, value)", _EMPTY),
        "add, the key is there": looped("add(key, value)"),
        "incr": looped("incr(key)", _COUNTED, _COUNTERS),
        "touch": looped("touch(key)"),
        "delete": looped("delete(key)"),
        f"get_many of {_MANY}": looped("get_many(key)", keys=parts),
        f"set_many of {_MANY}": looped("set_many(key)", keys=mappings),
        f"delete_many of {_MANY}": looped("delete_many(key)", keys=parts),
        "get_or_set, a hit": looped("get_or_set(key, dict)"),
        "get_or_set, a miss": looped("get_or_set(key, dict)", _EMPTY),
        "aget, a hit": awaited("aget"),
        "aset": awaited("aset, value"),
        "aadd, a new key": awaited("aadd, value", _EMPTY),
        "atouch": awaited("atouch"),
        "aincr": awaited("aincr", _COUNTED, _COUNTERS),
        f"aset_many of {_MANY}": awaited("aset_many", keys=mappings[: _AWAITED // _MANY]),
    }


def _times(caches: Mapping[str, Any], rounds: int, clock: Callable[[], float]) -> _Times:
    """Time all operations of all caches, each operation of both in turn."""
    loop = asyncio.new_event_loop()
    try:
        of_caches = {name: _subjects(cache, loop, clock) for name, cache in caches.items()}
        return interleaved(
            {(what, name): of_caches[name][what] for what in of_caches[OURS] for name in caches}, rounds
        )
    finally:
        loop.close()


def _table(cpu: _Times, wall: _Times) -> str:
    rows = []
    for what in dict.fromkeys(what for what, _ in cpu):
        row = [what]
        for times in (cpu, wall):
            ours, other = times[what, OURS], times[what, OTHER]
            ratio = Ratio.of(what, ours.rounds, other.rounds, "ns", 0.0)
            row += [f"{ours.median / 1e3:.1f}", f"{other.median / 1e3:.1f}", f"{ratio.value:.2f}"]
        rows.append(row)
    headings = ["microseconds a call"]
    for clock in ("CPU", "wall"):
        headings += [f"{clock}: {OURS}", f"{OTHER}", "ratio"]
    return markdown(headings, rows)


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    try:
        caches = _caches()
    except ImportError as error:
        return Answer(f"Not measured: {error}.")
    rounds = 3 if quick else 15
    cpu = _times(caches, rounds, time.process_time)
    wall = _times(caches, rounds, time.perf_counter)
    ratios = [
        Ratio.of(f"{what}, CPU / {OTHER}", cpu[what, OURS].rounds, cpu[what, OTHER].rounds, "ns", limit)
        for what, limit in LIMITS.items()
    ]
    figures = [
        Figure.of(f"{what}, {name}, {clock}", timing.rounds, "ns")
        for clock, times in (("CPU", cpu), ("wall", wall))
        for (what, name), timing in times.items()
    ]
    versions = f"Django {importlib.metadata.version('django')}."
    return Answer("\n\n".join([versions, ratio_table(ratios), _table(cpu, wall)]), ratios, figures)
