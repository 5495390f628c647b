"""How many operations do threads get done on one store, the more of them there are?

Three mixes of YCSB (C: reads only; B: 95 reads of 100; A: 50 of 100) and one of 90 reads, keys by the law of
Zipf (theta 0.99) over 10,000, 64 bytes each. All threads begin at a barrier and go on until time is up; what
counts is the operations of all together. With a GIL only one thread runs at a time, so no line can rise; what
shows is how much is lost by handing over locks. Rounds are interleaved, medians are shown.
"""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.measure import Answer, Chart, Figure, Ratio, markdown, ratio_table
from benchmarks.operations import data_of, key_of
from benchmarks.peers import LIMIT, OURS, Peer, peers
from latchstore.zipf import Zipfian

KEYS = 10_000
THREADS = (1, 2, 4, 8, 16)
#: Reads of a hundred operations.
MIXES = {"100/0 (YCSB C)": 100, "95/5 (YCSB B)": 95, "90/10": 90, "50/50 (YCSB A)": 50}
#: Operations between two looks at the clock, of which each thread has its own list.
_CHUNK = 500

_Operations = Sequence[tuple[bool, str]]


class Mix:
    """What threads do.

    Parameters
    ----------
    keys : int
        How many keys there are.
    reads : int
        How many of a hundred operations are reads; the others set the key.
    """

    def __init__(self, keys: int, reads: int) -> None:
        self._law = Zipfian(keys, 0.99)
        self._reads = reads

    def operations_of(self, thread: int, count: int = _CHUNK) -> list[tuple[bool, str]]:
        """Return what a thread does: whether it reads, and which key."""
        chance = random.Random(f"{thread} {self._reads}")
        return [(chance.random() * 100 < self._reads, key_of(self._law.draw(chance))) for _ in range(count)]


def throughput(peer: Peer, threads: int, mix: Mix, seconds: float, operations: int = _CHUNK) -> float:
    """Return the operations a second of all threads together."""
    return work_done(peer, threads, mix, seconds, operations)[0]


def work_done(
    peer: Peer,
    threads: int,
    mix: Mix,
    seconds: float,
    operations: int = _CHUNK,
    value_of: Callable[[int], Any] = data_of,
) -> tuple[float, float]:
    """Return the operations a second of all threads together, and the CPU seconds of each operation.

    What thread number N sets is ``value_of(N)``.
    """
    barrier = threading.Barrier(threads + 1)
    over = threading.Event()
    done = [0] * threads

    def work(number: int) -> None:
        mine = mix.operations_of(number, operations)
        chunks = [mine[begin : begin + _CHUNK] for begin in range(0, operations, _CHUNK)]
        data = value_of(number)
        barrier.wait()
        for chunk in itertools.cycle(chunks):
            if over.is_set():
                break
            _run(peer, chunk, data)
            done[number] += len(chunk)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begun, used = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    over.set()
    for worker in workers:
        worker.join()
    count = sum(done)
    return count / (time.perf_counter() - begun), (time.process_time() - used) / max(1, count)


def _run(peer: Peer, operations: _Operations, data: Any) -> None:
    get, put = peer.get, peer.set
    for read, key in operations:
        if read:
            get(key)
        else:
            put(key, data)


def measure(
    make: dict[str, Callable[[], Peer]],
    threads: Sequence[int],
    mixes: dict[str, int],
    rounds: int,
    seconds: float,
) -> dict[tuple[str, str, int], list[float]]:
    """Return the throughput of each round, by mix, peer and number of threads."""
    filled = {name: _filled(maker()) for name, maker in make.items()}
    found: dict[tuple[str, str, int], list[float]] = {}
    for name_of_mix, reads in mixes.items():
        mix = Mix(KEYS, reads)
        for _ in range(rounds):
            for count in threads:
                for name, peer in filled.items():
                    reached = throughput(peer, count, mix, seconds)
                    found.setdefault((name_of_mix, name, count), []).append(reached)
    return found


def _filled(peer: Peer) -> Peer:
    for number in range(KEYS):
        peer.set(key_of(number), data_of(number))
    return peer


def _table(medians: dict[tuple[str, str, int], float], mix: str, threads: Sequence[int]) -> str:
    names = dict.fromkeys(name for each, name, _ in medians if each == mix)
    rows = [[name, *(f"{medians[mix, name, count] / 1e3:,.0f}" for count in threads)] for name in names]
    return markdown([f"{mix}: thousands a second", *(f"{count} threads" for count in threads)], rows)


def _ratios(rounds: dict[tuple[str, str, int], list[float]]) -> list[Ratio]:
    def ratio(what: str, ours: list[float], other: list[float], asked: float) -> Ratio:
        return Ratio.of(what, ours, other, "ops/s", asked, at_least=True)

    ours = {count: rounds["90/10", OURS, count] for count in THREADS if ("90/10", OURS, count) in rounds}
    found = [
        ratio(f"8 threads, 90/10: {OURS} / {other}", ours[8], rounds["90/10", other, 8], asked)
        for other, asked in (("dict + RWLockFair", 6.0), ("cachetools LRU + Lock", 2.0))
        if ("90/10", other, 8) in rounds
    ]
    return [*found, ratio("90/10: 16 threads / 1 thread", ours[16], ours[1], 0.8)]


def charts_beside(charts: Sequence[Chart], other: Mapping[str, Any]) -> list[Chart]:
    """Return the charts with two lines more: ours and the limit, as another interpreter has run them.

    Parameters
    ----------
    other : mapping
        What ``--json`` has written there.
    """
    found = {
        figure["what"]: figure["median"] for figure in other["figures"] if figure["question"] == "threads"
    }
    interpreter = other["machine"].partition(", Linux")[0]
    more = []
    for chart in charts:
        mix = chart.title.rpartition(", reads/writes ")[2]
        lines = dict(chart.lines)
        for name in (OURS, LIMIT):
            points = [
                (float(count), found[what])
                for count in THREADS
                if (what := f"{mix}, {name}, {count} threads") in found
            ]
            if points:
                lines[f"{name}, {interpreter}"] = points
        more.append(replace(chart, lines=lines))
    return more


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    make = peers()
    if quick:
        make = {
            name: make[name]
            for name in (OURS, "dict + RWLockFair", "cachetools LRU + Lock", LIMIT)
            if name in make
        }
    mixes = {"90/10": 90} if quick else MIXES
    threads = (1, 8, 16) if quick else THREADS
    rounds = measure(make, threads, mixes, 1 if quick else 5, 0.05 if quick else 0.2)
    medians = {key: statistics.median(found) for key, found in rounds.items()}
    ratios = _ratios(rounds)
    report = "\n\n".join([ratio_table(ratios), *(_table(medians, mix, threads) for mix in mixes)])
    figures = [
        Figure.of(f"{mix}, {name}, {count} threads", found, "ops/s")
        for (mix, name, count), found in rounds.items()
    ]
    charts = [
        Chart(
            f"threads-{reads}",
            f"Throughput of threads on one store, reads/writes {mix}",
            "threads",
            "operations a second",
            {name: [(count, medians[mix, name, count]) for count in threads] for name in make},
            "xy",
        )
        for mix, reads in mixes.items()
    ]
    return Answer(report, ratios, figures, charts)
