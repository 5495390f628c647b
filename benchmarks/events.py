"""What does it cost until a change has been heard, and how soon is it?

Encore calls its listeners inside the set, one thread doing all; ours are called by a thread of their own,
so what is timed here is always a number of sets and the flush() after them: all has been heard then. Every
set is a commit of its own, of 64 bytes, on keys that are there. A listener counts, and does no more.

Latency runs from just before the call of from_bytes to the first line of the listener, with the garbage
collector at work. It says three things: the writer waits until it has been heard; it commits 100 in a row
and then waits; it goes on computing, so that the listener's thread must first be given the interpreter
(`sys.getswitchinterval`, 5 ms).
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from functools import partial
from statistics import quantiles
from time import perf_counter_ns
from typing import Any

from benchmarks.measure import (
    Answer,
    Subject,
    Timing,
    figure_list,
    figures_of,
    interleaved,
    markdown,
    ratio_of_times,
    ratio_table,
)
from benchmarks.operations import data_of, encore_store, fill, key_of, our_store
from latchstore import StoreModificationEvent, Watch

KEYS = 1_000
PASSES = 4
QUICK_PASSES = 2
BURST = 100
COMPUTED = 2_000
WATCHED = 2_000
MANY = 10_000

_FROM_BYTES = "store.from_bytes(key, data)"
_SET = "store.set(key, (BytesIO(data), {'type': 1, 'number': 2}))"

#: Listeners: how many, whether they hear the keys that are set, and how many sets a round is.
LISTENERS: dict[str, tuple[int, bool, int]] = {
    "no listener": (0, True, 1_000),
    "1 listener": (1, True, 1_000),
    "100 listeners": (100, True, 100),
    "1 listener, of another key": (1, False, 1_000),
    f"{MANY:,} listeners, of other keys": (MANY, False, 1_000),
    f"{MANY:,} listeners": (MANY, True, 4),
}
#: Encore asks every filter on every set.
ENCORE_SETS = {f"{MANY:,} listeners, of other keys": 4}


class Counter:
    """A listener that counts what it hears."""

    def __init__(self) -> None:
        self.heard = 0

    def hear(self, event: object) -> None:
        """Count an event."""
        self.heard += 1


def _connect(store: Any, event_class: Any, count: int, matching: bool = True) -> list[Counter]:
    """Connect `count` listeners; they are heard as long as the list is kept."""
    counters = [Counter() for _ in range(count)]
    for number, counter in enumerate(counters):
        others = None if matching else {"key": f"other{number}"}
        store.event_manager.connect(event_class, counter.hear, others)
    return counters


def our_heard_store(count: int, matching: bool = True) -> tuple[Any, list[Counter]]:
    """Return a store of ours with listeners."""
    store = fill(our_store(), KEYS)
    return store, _connect(store, StoreModificationEvent, count, matching)


def encore_heard_store(count: int, matching: bool = True) -> tuple[Any, list[Counter]]:
    """Return an encore store with listeners, and with an event manager of its own."""
    from encore.events.event_manager import EventManager as EncoreEventManager
    from encore.storage.events import StoreModificationEvent as EncoreModificationEvent

    store = fill(encore_store(), KEYS)
    store.event_manager = EncoreEventManager()
    return store, _connect(store, EncoreModificationEvent, count, matching)


def _names(store: Any, count: int = KEYS) -> dict[str, Any]:
    return {
        "store": store,
        "keys": [key_of(number) for number in range(count)],
        "data": data_of(0),
        "BytesIO": io.BytesIO,
    }


def measure_heard(passes: int, rounds: int) -> dict[str, Timing]:
    """Time sets until their one listener has heard them, in nanoseconds each."""
    sets = passes * KEYS
    subjects, checks = {}, []
    for name, code in (("from_bytes", _FROM_BYTES), ("set", _SET)):
        loop = f"for _ in range({passes}):\n    for key in keys: {code}"
        once = f"for key in keys: {code}"
        ours, our_counters = our_heard_store(1)
        encore, encore_counters = encore_heard_store(1)
        subjects[f"{name}, heard"] = Subject(
            f"{loop}\nstore.flush()", sets, f"{once}\nstore.flush()", **_names(ours)
        )
        subjects[f"encore {name}, heard"] = Subject(loop, sets, once, **_names(encore))
        quiet = fill(our_store(), KEYS)
        subjects[f"{name}, nobody listens"] = Subject(loop, sets, once, **_names(quiet))
        checks += [our_counters[0], encore_counters[0]]
    timings = interleaved(subjects, rounds)
    expected = (rounds + 1) * (sets + KEYS)
    for counter in checks:
        assert counter.heard == expected, (counter.heard, expected)
    return timings


def measure_listeners(rounds: int) -> dict[str, Timing]:
    """Time sets until all of some listeners have heard them, in nanoseconds each."""
    subjects, checks = {}, []
    for name, (count, matching, sets) in LISTENERS.items():
        for prefix, make in (("", our_heard_store), ("encore, ", encore_heard_store)):
            store, counters = make(count, matching)
            times = ENCORE_SETS.get(name, sets) if prefix else sets
            checks.append((counters, 2 * times * (rounds + 1) if matching else 0))
            code = f"for key in keys: {_FROM_BYTES}"
            flushed = code if prefix else f"{code}\nstore.flush()"
            subjects[f"{prefix}{name}"] = Subject(flushed, times, flushed, **_names(store, times))
    timings = interleaved(subjects, rounds)
    for counters, expected in checks:
        assert all(counter.heard == expected for counter in counters), expected
    return timings


def _drain(watches: list[Watch]) -> None:
    for watch in watches:
        for _ in range(len(watch)):
            watch.get(0)


def measure_watches(rounds: int) -> dict[str, Timing]:
    """Time sets of a store that is watched, and the reading of a change, in nanoseconds each."""
    code = f"for key in keys: {_FROM_BYTES}"
    subjects = {}
    cases = {"no watch": (0, "*"), "1 watch": (1, "*"), "10 watches": (10, "*")}
    for name, (count, glob) in (cases | {"10 watches, of other keys": (10, "other/*")}).items():
        store = fill(our_store(), KEYS)
        watches = [store.watch(glob) for _ in range(count)]
        subjects[name] = Subject(
            code, WATCHED, "drain(watches)", watches=watches, drain=_drain, **_names(store, WATCHED)
        )
    store = fill(our_store(), KEYS)
    subjects["reading a change"] = Subject(
        f"for _ in range({WATCHED}): watch.get(0)",
        WATCHED,
        code,
        watch=store.watch(),
        **_names(store, WATCHED),
    )
    return interleaved(subjects, rounds)


class _Latencies:
    """A listener, and what its writer does: when each set has begun, and when it was heard."""

    def __init__(self, heard_store: Callable[[int], tuple[Any, list[Counter]]], event_class: Any) -> None:
        self.store, _ = heard_store(0)
        self.begun: list[int] = []
        self.heard: list[int] = []
        self.store.event_manager.connect(event_class, self._hear)

    def _hear(self, event: object) -> None:
        self.heard.append(perf_counter_ns())

    def set(self, number: int) -> None:
        """Set a key, with the time before it."""
        self.begun.append(perf_counter_ns())
        self.store.from_bytes(key_of(number % KEYS), b"x")

    def microseconds(self) -> list[float]:
        """Return the time from each set to its listener."""
        return [(heard - begun) / 1e3 for begun, heard in zip(self.begun, self.heard, strict=True)]


def measure_latency(singles: int, bursts: int, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds from the call to the listener, for each way to write.

    Parameters
    ----------
    singles : int
        How many sets a round are heard one by one; a fiftieth of that while the writer computes.
    bursts : int
        How many bursts a round are sent.
    rounds : int
    """
    from encore.storage.events import StoreModificationEvent as EncoreModificationEvent

    waiting, burst, busy = (_Latencies(our_heard_store, StoreModificationEvent) for _ in range(3))
    encore = _Latencies(encore_heard_store, EncoreModificationEvent)
    for _ in range(rounds):
        gc.collect()
        for number in range(singles):
            waiting.set(number)
            waiting.store.flush()
        for _ in range(bursts):
            for number in range(BURST):
                burst.set(number)
            burst.store.flush()
        for number in range(singles // 50):
            busy.set(number)
            while len(busy.heard) < len(busy.begun):
                sum(range(COMPUTED))
        for number in range(singles):
            encore.set(number)
    return {
        "one at a time, the writer waits": waiting.microseconds(),
        f"bursts of {BURST}": burst.microseconds(),
        "one at a time, the writer computes": busy.microseconds(),
        "encore, inside the set": encore.microseconds(),
    }


def _latency_table(latencies: dict[str, list[float]]) -> str:
    rows = []
    for name, microseconds in latencies.items():
        cuts = quantiles(microseconds, n=1_000)
        shown = (cuts[499], cuts[989], cuts[998])
        rows.append([name, *(f"{cut:,.1f}" for cut in shown), f"{len(microseconds):,}"])
    return markdown(["microseconds from the call to the listener", "p50", "p99", "p99.9", "of"], rows)


def _listener_table(timings: dict[str, Timing]) -> str:
    rows = []
    for name in LISTENERS:
        ours, encore = timings[name].median, timings[f"encore, {name}"].median
        rows.append([name, f"{ours / 1e3:,.1f}", f"{encore / 1e3:,.1f}", f"{ours / encore:.3f}"])
    return markdown(["microseconds of a set, until heard", "latchstore", "encore", "ratio"], rows)


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    heard = measure_heard(QUICK_PASSES if quick else PASSES, 2 if quick else 60)
    listeners = measure_listeners(1 if quick else 20)
    watches = measure_watches(2 if quick else 30)
    latencies = measure_latency(500, 20, 1) if quick else measure_latency(2_000, 50, 10)
    timings = heard | listeners | watches
    ratio = partial(ratio_of_times, timings)
    compared = [
        ratio("from_bytes, heard", "encore from_bytes, heard", 1 / 3),
        ratio("set, heard", "encore set, heard", 1 / 3),
        ratio(f"{MANY:,} listeners, of other keys", "1 listener, of another key", 1.1),
    ]
    lines = [ratio_table(compared), "", _latency_table(latencies), "", _listener_table(listeners)]
    lines += ["", figure_list(timings)]
    return Answer("\n".join(lines), compared, figures_of(timings))
