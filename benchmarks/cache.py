"""What does a shared cache cost, with eviction going on, beside the caches that people use today?

Throughput: threads begin at a barrier and go on until time is up, 95 reads of 100, keys by the law of Zipf
(theta 0.99) over ten times as many as the cache holds, 64 bytes each; a miss is not loaded. The caches hold
10,000 entries, but for dogpile's memory backend, which never evicts anything. Bytes go in and out as they are
(``codec="raw"``), since the others hand out what they were given, too.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence

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
from benchmarks.threads import Mix, throughput
from latchstore import Cache

ENTRIES = 10_000
KEYS = 10 * ENTRIES
THREADS = (1, 8, 16)
OURS = "latchstore Cache"
#: Different operations of each thread: many more than keys fit, so that there is something to evict.
_OPERATIONS = 50_000


def _costs(rounds: int) -> tuple[list[Ratio], list[Figure], str]:
    """Return what single calls take, in one thread."""
    keys = [key_of(number) for number in range(1_000)]
    new = [f"new {number}" for number in range(1_000)]
    cache = Cache(max_entries=len(keys), codec="raw")
    timed = Cache(max_entries=len(keys), codec="raw", ttl=3_600)
    full = Cache(max_entries=len(keys), codec="raw")
    for each in (cache, timed, full):
        for key in keys:
            each[key] = data_of(0)
    loop = "for key in keys: call(key)"
    put = "for key in keys: call(key, data)"
    count = len(keys)
    timings = interleaved(
        {
            "to_bytes": Subject(loop, count, keys=keys, call=cache.store.to_bytes),
            "hit": Subject(loop, count, keys=keys, call=cache.get),
            "hit, with a ttl": Subject(loop, count, keys=keys, call=timed.get),
            "miss": Subject(loop, count, keys=new, call=cache.get),
            "get_or_load, hit": Subject(put, count, keys=keys, call=cache.get_or_load, data=len),
            "set, nothing goes": Subject(put, count, keys=keys, call=cache.set, data=data_of(1)),
            "set, one goes": Subject(
                "for number in itertools.islice(numbers, 1_000): call(f'new {number}', data)",
                count,
                itertools=itertools,
                numbers=itertools.count(),
                call=full.set,
                data=data_of(1),
            ),
        },
        rounds,
    )
    ratio = Ratio.of(
        "a hit / the store's to_bytes", timings["hit"].rounds, timings["to_bytes"].rounds, "ns", 1.5
    )
    table = markdown(
        ["nanoseconds", "a call"], [[name, f"{timing.median:,.0f}"] for name, timing in timings.items()]
    )
    return [ratio], figures_of(timings), table


def _throughputs(
    make: dict[str, Callable[[int], Peer]], threads: Sequence[int], rounds: int, seconds: float
) -> dict[tuple[str, int], list[float]]:
    mix = Mix(KEYS, 95)
    filled: dict[str, Peer] = {}
    for name, maker in make.items():
        filled[name] = peer = maker(ENTRIES)
        for number in range(KEYS - 1, -1, -1):
            peer.set(key_of(number), data_of(number))
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in threads:
            for name, peer in filled.items():
                found.setdefault((name, count), []).append(throughput(peer, count, mix, seconds, _OPERATIONS))
    return found


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    ratios, figures, costs = _costs(3 if quick else 15)
    make = caches()
    if quick:
        make = {
            name: make[name] for name in (OURS, "cachetools LRU + Lock", "dogpile memory") if name in make
        }
    threads = (8,) if quick else THREADS
    rounds = _throughputs(make, threads, 1 if quick else 5, 0.05 if quick else 0.3)
    medians = {what: statistics.median(found) for what, found in rounds.items()}
    ratios += [
        Ratio.of(
            f"8 threads, 95/5: {OURS} / {other}", rounds[OURS, 8], rounds[other, 8], "ops/s", asked, True
        )
        for other, asked in (("cachetools LRU + Lock", 1.0), ("dogpile memory", 3.0))
        if (other, 8) in rounds
    ]
    table = markdown(
        ["95/5, with eviction: thousands a second", *(f"{count} threads" for count in threads)],
        [[name, *(f"{medians[name, count] / 1e3:,.0f}" for count in threads)] for name in make],
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
    return Answer("\n\n".join([ratio_table(ratios), costs, table]), ratios, figures, [chart])
