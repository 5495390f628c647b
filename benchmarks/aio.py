"""What does a hit cost that is awaited, beside the plain one, and beside the memory caches of others?

All are asked for the same 1,000 keys, small values that expire, in one task of one loop; plain hits are calls
in the same thread. Of others, what is documented as their cache in memory. What keeps the loop from running
is measured by a task that asks for the time between 1,000 hits: the longest pause of 100,000.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.measure import Answer, Figure, Ratio, Subject, interleaved, markdown, ratio_table
from latchstore import Cache
from latchstore.aio import AsyncCache

OURS, PLAIN = "AsyncCache", "Cache"
PEERS = ("aiocache", "cashews")

#: The most that an awaited hit may cost, in plain ones.
MOST = 2.0

#: The longest pause of the loop that is asked for, in milliseconds.
LONGEST = 1.0

_KEYS = [f"user:{number}" for number in range(1_000)]
_VALUE = {"id": 7, "name": "ada"}
_HITS = 100_000

Get = Callable[[str], Awaitable[Any]]


async def _each(keys: Sequence[str], get: Get) -> None:
    for key in keys:
        await get(key)


async def _each_or_load(keys: Sequence[str], get: Callable[..., Awaitable[Any]], load: object) -> None:
    for key in keys:
        await get(key, load)


async def _load(key: str) -> Any:
    return _VALUE


async def _aiocache() -> Get:
    cache = importlib.import_module("aiocache").SimpleMemoryCache()
    for key in _KEYS:
        await cache.set(key, _VALUE, ttl=3_600)
    get: Get = cache.get
    return get


async def _cashews() -> Get:
    cache = importlib.import_module("cashews").Cache()
    cache.setup("mem://", size=10 * len(_KEYS))
    for key in _KEYS:
        await cache.set(key, _VALUE, expire=3_600)
    get: Get = cache.get
    return get


def _subjects(loop: asyncio.AbstractEventLoop) -> tuple[dict[str, Subject], list[str]]:
    """Return what is timed, and which others are not installed."""
    cache = Cache[Any](max_entries=10 * len(_KEYS), ttl=3_600)
    cache.set_many(dict.fromkeys(_KEYS, _VALUE))
    ours, missing = AsyncCache(cache), []
    names: dict[str, Any] = {"keys": _KEYS, "run": loop.run_until_complete, "each": _each}
    names |= {"each_or_load": _each_or_load, "load": _load}

    def awaited(get: object) -> Subject:
        return Subject("run(each(keys, get))", len(_KEYS), get=get, **names)

    subjects = {
        PLAIN: Subject("for key in keys: get(key)", len(_KEYS), get=cache.get, **names),
        OURS: awaited(ours.get),
        f"{PLAIN}.get_or_load": Subject(
            "for key in keys: get(key, load)", len(_KEYS), get=cache.get_or_load, **names
        ),
        f"{OURS}.get_or_load": Subject(
            "run(each_or_load(keys, get, load))", len(_KEYS), get=ours.get_or_load, **names
        ),
    }
    for peer, made in zip(PEERS, (_aiocache, _cashews), strict=True):
        try:
            subjects[peer] = awaited(loop.run_until_complete(made()))
        except ImportError:
            missing.append(peer)
    return subjects, missing


async def _longest_pause() -> float:
    """Return the longest time, in milliseconds, for which hits have kept another task from running."""
    cache = Cache[Any](max_entries=10 * len(_KEYS), ttl=3_600)
    cache.set_many(dict.fromkeys(_KEYS, _VALUE))
    ours = AsyncCache(cache)
    pauses: list[float] = []
    over = False

    async def look() -> None:
        before = time.perf_counter()
        while not over:
            await asyncio.sleep(0)
            now = time.perf_counter()
            pauses.append(now - before)
            before = now

    looking = asyncio.create_task(look())
    for number in range(_HITS):
        await ours.get(_KEYS[number % len(_KEYS)])
        if number % 100 == 0:
            await asyncio.sleep(0)  # as a service does, between requests
    over = True
    await looking
    return max(pauses) * 1e3


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    loop = asyncio.new_event_loop()
    try:
        subjects, missing = _subjects(loop)
        times = interleaved(subjects, 5 if quick else 51)
        pauses = [loop.run_until_complete(_longest_pause()) for _ in range(3 if quick else 11)]
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()  # some caches have one that removes what has expired
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    ratios = [
        Ratio.of(f"hit, {OURS} / {PLAIN}", times[OURS].rounds, times[PLAIN].rounds, "ns", MOST),
        Ratio.of(
            f"get_or_load, a hit, {OURS} / {PLAIN}",
            times[f"{OURS}.get_or_load"].rounds,
            times[f"{PLAIN}.get_or_load"].rounds,
            "ns",
            MOST,
        ),
        *(
            Ratio.of(f"hit, {OURS} / {peer}", times[OURS].rounds, times[peer].rounds, "ns", 1.0)
            for peer in PEERS
            if peer in times
        ),
        Ratio.of("longest pause in 100,000 hits / 1 ms", pauses, [LONGEST] * len(pauses), "ms", 1.0),
    ]
    rows = [[name, f"{timing.median:,.0f}"] for name, timing in times.items()]
    notes = f"Not installed: {', '.join(missing)}." if missing else ""
    text = "\n\n".join(filter(None, [ratio_table(ratios), markdown(["hit", "ns"], rows), notes]))
    figures = [Figure.of(f"hit, {name}", timing.rounds, "ns") for name, timing in times.items()]
    figures.append(Figure.of("longest pause in 100,000 hits", pauses, "ms"))
    return Answer(text, ratios, figures)
