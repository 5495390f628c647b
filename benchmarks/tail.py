"""How long can a read take while another thread commits 1, 100 or 10,000 keys at a time?

One thread reads keys by the law of Zipf and notes how long each read took (HdrHistogram, three digits);
another commits all the time: ours by `multiset_data`, the others by the same number of sets under their lock
or one by one, as they can. The interpreter gives a waiting thread its turn only every 5 ms, and any reader
beside a busy writer meets that, whatever the store: so each is compared with a bare dict whose writer is as
busy, but with another store of the same kind. What is left is the store's own share.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Answer, Chart, Figure, Ratio, markdown, ratio_table
from benchmarks.operations import data_of, encore_store, fill, key_of, our_store
from benchmarks.peers import LockedDict, ReadWriteLockedDict
from latchstore.zipf import Zipfian

KEYS = 10_000
SIZES = (1, 100, 10_000)
PERCENTILES = (50.0, 99.0, 99.9, 99.99)
_LONGEST = 60_000_000_000  # nanoseconds
_LAW = Zipfian(KEYS, 0.99)


@dataclass(frozen=True)
class Arrangement:
    """What is read, and what is written meanwhile."""

    read: Callable[[str], object]
    commit: Callable[[Sequence[str]], object]


def _commit_to(store: Any) -> Callable[[Sequence[str]], object]:
    data = data_of(0)
    return lambda keys: store.multiset_data(keys, [data] * len(keys))


def arrangements() -> dict[str, Arrangement]:
    """Return all that is compared."""
    ours, other = fill(our_store(), KEYS), fill(our_store(), KEYS)
    encore = fill(encore_store(), KEYS)
    bare = {key_of(number): data_of(number) for number in range(KEYS)}
    locked, fair = LockedDict(bare.copy()), ReadWriteLockedDict(bare.copy())
    data = data_of(0)

    def set_one_by_one(keys: Sequence[str]) -> None:
        for key in keys:
            encore.from_bytes(key, b"x")

    return {
        "latchstore": Arrangement(ours.to_bytes, _commit_to(ours)),
        "bare dict, the writer elsewhere": Arrangement(bare.get, _commit_to(other)),
        "dict + Lock": Arrangement(locked.get, lambda keys: locked.commit(keys, data)),
        "dict + RWLockFair": Arrangement(fair.get, lambda keys: fair.commit(keys, data)),
        "encore, not isolated": Arrangement(encore.to_bytes, set_one_by_one),
    }


def latencies(arrangement: Arrangement, size: int, seconds: float, histogram: Any) -> None:
    """Note in a histogram, in nanoseconds, how long reads take while commits of some size go on."""
    begun, over = threading.Event(), threading.Event()
    keys = [key_of(number) for number in range(size)]

    def write() -> None:
        while not over.is_set():
            arrangement.commit(keys)
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        begun.wait()
        chance = random.Random(size)
        wanted = [key_of(_LAW.draw(chance)) for _ in range(1_000)]
        read, now, note = arrangement.read, time.perf_counter_ns, histogram.record_value
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key in wanted:
                before = now()
                read(key)
                note(now() - before)
    finally:
        over.set()
        writer.join()


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError:
        return Answer("Not measured: hdrhistogram is not installed.")
    rounds, seconds, sizes = (1, 0.05, (max(SIZES),)) if quick else (8, 1.0, SIZES)
    compared = arrangements()
    histograms = {(name, size): HdrHistogram(1, _LONGEST, 3) for size in sizes for name in compared}
    for _ in range(rounds):
        for (name, size), histogram in histograms.items():
            latencies(compared[name], size, seconds, histogram)
    # All percentiles in one pass each, for the histograms are long.
    shown = [100 - 100 / 2 ** (each / 2) for each in range(28)]
    values = {
        key: histogram.get_percentile_to_value_dict([*PERCENTILES, *shown])
        for key, histogram in histograms.items()
    }
    cuts = {key: [found[percentile] for percentile in PERCENTILES] for key, found in values.items()}
    p999 = PERCENTILES.index(99.9)
    ours, bare = (cuts[name, 10_000][p999] for name in ("latchstore", "bare dict, the writer elsewhere"))
    ratios = [Ratio("p99.9 of reads beside commits of 10,000 keys / a bare dict's", ours, bare, "ns", 3.0)]
    rows = [
        [
            f"{size:,}",
            name,
            *(f"{cut / 1e3:,.2f}" for cut in cuts[name, size]),
            f"{histogram.get_total_count():,}",
        ]
        for (name, size), histogram in histograms.items()
    ]
    headings = ["keys a commit", "microseconds of a read", *(f"p{each:g}" for each in PERCENTILES), "reads"]
    figures = [
        Figure(f"{name}, commits of {size:,}, p{percentile:g}", cut, 0.5, "ns")
        for (name, size), all_cuts in cuts.items()
        for percentile, cut in zip(PERCENTILES, all_cuts, strict=True)
    ]
    chart = Chart(
        "tail",
        "Latency of a read while another thread commits 10,000 keys at a time",
        "of so many reads, one takes longer",
        "microseconds",
        {
            name: [(100 / (100 - each), values[name, 10_000][each] / 1e3) for each in shown]
            for name in compared
        },
    )
    return Answer(f"{ratio_table(ratios)}\n\n{markdown(headings, rows)}", ratios, figures, [chart])
