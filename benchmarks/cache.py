"""What does a shared cache cost, with eviction going on, beside the caches that people use today?

Throughput: threads begin at a barrier and go on until time is up, 95 reads of 100, keys by the law of Zipf
(theta 0.99) over ten times as many as the cache holds; a miss is not loaded. Values are lists of 100 numbers,
which all caches keep by reference. The caches hold 10,000 entries, but for dogpile's memory backend, which
never evicts anything. CPU is that of the whole process, for each operation.
"""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import (
    Answer,
    Chart,
    Figure,
    Ratio,
    Subject,
    figures_of,
    interleaved,
    markdown,
    ratio_table,
)
from benchmarks.operations import data_of, key_of
from benchmarks.peers import Peer, caches
from benchmarks.threads import Mix, work_done
from latchstore import Cache

ENTRIES = 10_000
KEYS = 10 * ENTRIES
THREADS = (1, 8, 16)
OURS = "latchstore Cache"
LOCKED = "cachetools LRU + Lock"
#: Different operations of each thread: many more than keys fit, so that there is something to evict.
_OPERATIONS = 50_000


def value_of(number: int) -> list[int]:
    """Return a list of 100 numbers."""
    return [number] * 100


class _Locked:
    """cachetools' LRU under a lock."""

    def __init__(self, entries: int) -> None:
        import cachetools

        self._lock = threading.Lock()
        self._cache: Any = cachetools.LRUCache(entries)

    def get(self, key: str) -> Any:
        with self._lock:
            return self._cache.get(key)

    def set(self, key: str, value: Any) -> None:
        with self._lock:
            self._cache[key] = value


def _costs(rounds: int) -> tuple[list[Ratio], list[Figure], str]:
    """Return what single calls take, in one thread."""
    keys = [key_of(number) for number in range(1_000)]
    new = [f"new {number}" for number in range(1_000)]
    cache: Cache[Any] = Cache(max_entries=len(keys))
    timed: Cache[Any] = Cache(max_entries=len(keys), ttl=3_600)
    full: Cache[Any] = Cache(max_entries=len(keys))
    raw: Cache[bytes] = Cache(max_entries=len(keys), codec="raw")
    others = _others(len(keys))
    for each in (cache.set, timed.set, full.set, *(other.set for other in others.values())):
        for key in keys:
            each(key, value_of(0))
    for key in keys:
        raw[key] = data_of(0)
    loop = "for key in keys: call(key)"
    put = "for key in keys: call(key, data)"
    count = len(keys)
    timings = interleaved(
        {
            "to_bytes": Subject(loop, count, keys=keys, call=raw.store.to_bytes),
            "hit": Subject(loop, count, keys=keys, call=cache.get),
            "hit, with a ttl": Subject(loop, count, keys=keys, call=timed.get),
            "miss": Subject(loop, count, keys=new, call=cache.get),
            "get_or_load, hit": Subject(put, count, keys=keys, call=cache.get_or_load, data=len),
            "set, nothing goes": Subject(put, count, keys=keys, call=cache.set, data=value_of(1)),
            "set, one goes": Subject(
                "for number in itertools.islice(numbers, 1_000): call(f'new {number}', data)",
                count,
                itertools=itertools,
                numbers=itertools.count(),
                call=full.set,
                data=value_of(1),
            ),
            **{
                f"{what}, {name}": subject
                for name, other in others.items()
                for what, subject in (
                    ("hit", Subject(loop, count, keys=keys, call=other.get)),
                    ("set, nothing goes", Subject(put, count, keys=keys, call=other.set, data=value_of(1))),
                )
            },
        },
        rounds,
    )
    ratios = [
        Ratio.of("a hit / the store's to_bytes", timings["hit"].rounds, timings["to_bytes"].rounds, "ns", 1.5)
    ]
    for name in others:
        ratios.append(
            Ratio.of(f"a hit / {name}", timings["hit"].rounds, timings[f"hit, {name}"].rounds, "ns", 1.3)
        )
    table = markdown(
        ["nanoseconds", "a call"], [[name, f"{timing.median:,.0f}"] for name, timing in timings.items()]
    )
    return ratios, figures_of(timings), table


def _others(entries: int) -> dict[str, _Locked]:
    try:
        return {LOCKED: _Locked(entries)}
    except ImportError:
        return {}


def _throughputs(
    make: dict[str, Callable[[int], Peer]], threads: Sequence[int], rounds: int, seconds: float
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    mix = Mix(KEYS, 95)
    filled: dict[str, Peer] = {}
    for name, maker in make.items():
        filled[name] = peer = maker(ENTRIES)
        for number in range(KEYS - 1, -1, -1):
            peer.set(key_of(number), value_of(number))
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for count in threads:
            for name, peer in filled.items():
                work = work_done(peer, count, mix, seconds, _OPERATIONS, value_of)
                found.setdefault((name, count), []).append(work)
    return found


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    ratios, figures, costs = _costs(3 if quick else 15)
    make = caches()
    if quick:
        make = {name: make[name] for name in (OURS, LOCKED, "dogpile memory") if name in make}
    threads = (8,) if quick else THREADS
    work = _throughputs(make, threads, 1 if quick else 5, 0.05 if quick else 0.3)
    rounds = {what: [speed for speed, _ in found] for what, found in work.items()}
    used = {what: [cpu * 1e6 for _, cpu in found] for what, found in work.items()}
    medians = {what: statistics.median(found) for what, found in rounds.items()}
    ratios += [
        Ratio.of(
            f"8 threads, 95/5: {OURS} / {other}", rounds[OURS, 8], rounds[other, 8], "ops/s", asked, True
        )
        for other, asked in ((LOCKED, 8.0), ("dogpile memory", 3.0))
        if (other, 8) in rounds
    ]
    if (LOCKED, 8) in used:
        what = f"8 threads, 95/5: CPU of an operation, {OURS} / {LOCKED}"
        ratios.append(Ratio.of(what, used[OURS, 8], used[LOCKED, 8], "us", 1.0))
    table = markdown(
        ["95/5, with eviction: thousands a second", *(f"{count} threads" for count in threads)],
        [[name, *(f"{medians[name, count] / 1e3:,.0f}" for count in threads)] for name in make],
    )
    cpu = markdown(
        ["95/5, with eviction: microseconds of CPU", *(f"{count} threads" for count in threads)],
        [[name, *(f"{statistics.median(used[name, count]):,.2f}" for count in threads)] for name in make],
    )
    figures += [
        Figure.of(f"95/5 with eviction, {name}, {count} threads", found, "ops/s")
        for (name, count), found in rounds.items()
    ]
    chart = Chart(
        "cache",
        "Throughput of threads on one cache that evicts, 95 % reads",
        "threads",
        "operations a second",
        {name: [(count, medians[name, count]) for count in threads] for name in make},
        "xy",
    )
    return Answer("\n\n".join([ratio_table(ratios), costs, table, cpu]), ratios, figures, [chart])
