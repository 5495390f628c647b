"""What does a store in a file cost, beside SQLite itself, diskcache and queues in files?

Single calls are made by one thread of one process, in interleaved rounds; where something is written, with
the same ``PRAGMA synchronous`` on both sides (FULL: a commit that has returned survives a loss of power;
NORMAL, diskcache's default: the file is whole then, and may lack the last commits). Processes are started
anew, and begin together: readers, a writer whose commits a listener of this process hears, workers of a
queue. A job of ours and of persist-queue is claimed and acknowledged, two commits with durability FULL. Of
huey the storage alone is measured, which takes a job by one commit and forgets it then. persist-queue has no
lock between processes, so one process works on it.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Answer, Figure, Ratio, Subject, Timing, interleaved, markdown, ratio_table
from benchmarks.processes import (
    DATA,
    KEYS,
    MANY,
    TIMEOUT,
    events_of_another_process,
    jobs_in_a_second,
    result_of,
    started,
)
from benchmarks.queues import OurJobs, PersistJobs
from latchstore import EventManager, SqliteStore

READERS = 4
WORKERS = 2

_SYNCHRONOUS = {"normal": 1, "full": 2}

OURS = "SqliteStore"
RAW = "sqlite3"
DISKCACHE = "diskcache"
PERSIST = "persist-queue"
HUEY = "huey's storage"


# -- single calls -------------------------------------------------------------------------------------


class RawFile:
    """A table of a SQLite file, as one writes it.

    Parameters
    ----------
    path : Path
    durability : str
    """

    def __init__(self, path: Path, durability: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute(f"pragma synchronous = {_SYNCHRONOUS[durability]}")
        self._database.execute("create table entries (key text primary key, data blob) without rowid")

    def get(self, key: str) -> Any:
        row = self._database.execute("select data from entries where key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def set(self, key: str, data: bytes) -> None:
        self._database.execute("insert or replace into entries values (?, ?)", (key, data))

    def set_all(self, keys: list[str], data: bytes) -> None:
        self._database.execute("begin immediate")
        for key in keys:
            self.set(key, data)
        self._database.execute("commit")

    def close(self) -> None:
        self._database.close()


class OurFile:
    """Ours."""

    def __init__(self, path: Path, durability: str) -> None:
        self.store = SqliteStore(path, EventManager(), durability=durability)
        self.get: Callable[[str], Any] = self.store.to_bytes
        self.set: Callable[[str, bytes], None] = self.store.set_data
        self.close: Callable[[], None] = self.store.close

    def set_all(self, keys: list[str], data: bytes) -> None:
        with self.store.transaction():
            for key in keys:
                self.store.set_data(key, data)


class DiskCacheFile:
    """A cache of diskcache, as it is made; only `durability` is asked for."""

    def __init__(self, path: Path, durability: str) -> None:
        import diskcache

        cache: Any = diskcache.Cache(str(path), sqlite_synchronous=_SYNCHRONOUS[durability])
        self.get: Callable[[str], Any] = cache.get
        self.set: Callable[[str, bytes], Any] = cache.set
        self.close: Callable[[], None] = cache.close
        self._cache = cache

    def set_all(self, keys: list[str], data: bytes) -> None:
        with self._cache.transact():
            for key in keys:
                self.set(key, data)


_FILES: Mapping[str, Any] = {OURS: OurFile, RAW: RawFile, DISKCACHE: DiskCacheFile}

#: What is timed, by what is asked of each commit, and how many keys it takes.
_CALLS = {
    "normal": {
        "get": ("for key in keys: get(key)", len(KEYS)),
        "set": ("for key in keys: set(key, data)", 100),
        "transaction": ("set_all(keys, data)", MANY),
    },
    "full": {"set": ("for key in keys: set(key, data)", 10), "transaction": ("set_all(keys, data)", MANY)},
}


def _installed(makers: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what makes those that are installed."""
    found = {}
    for number, (name, make) in enumerate(makers.items()):
        try:
            make(folder / f"try-{number}", "normal").close()
        except ImportError:
            continue
        found[name] = make
    return found


def _single_calls(folder: Path, rounds: int) -> dict[str, dict[str, Timing]]:
    """Return the times of each call, by what is called with which durability."""
    makers = _installed(_FILES, folder)
    result = {}
    for durability, timed in _CALLS.items():
        files = {name: make(folder / f"{name}-{durability}", durability) for name, make in makers.items()}
        for file in files.values():
            file.set_all(KEYS, DATA)
        for what, (code, count) in timed.items():
            subjects = {
                name: Subject(
                    code,
                    count,
                    keys=KEYS[:count],
                    data=DATA,
                    get=file.get,
                    set=file.set,
                    set_all=file.set_all,
                )
                for name, file in files.items()
            }
            result[f"{what}, {durability}"] = interleaved(subjects, rounds)
        for file in files.values():
            file.close()
    return result


# -- processes ----------------------------------------------------------------------------------------


def _read(barrier: Any, results: Any, path: Path, count: int) -> None:
    store = SqliteStore(path, EventManager())
    read = store.to_bytes
    for key in KEYS:
        read(key)
    barrier.wait(TIMEOUT)
    begun = time.monotonic()
    for _ in range(count // len(KEYS)):
        for key in KEYS:
            read(key)
    results.put((begun, time.monotonic()))
    store.close()


def _reads_in_a_second(path: Path, processes: int, count: int) -> float:
    with started(processes, _read, path, count) as (barrier, results):
        barrier.wait(TIMEOUT)
        times = [result_of(results) for _ in range(processes)]
    seconds: float = max(end for _, end in times) - min(begun for begun, _ in times)
    return processes * count / seconds


def _attached(path: Path) -> SqliteStore:
    return SqliteStore(path, EventManager(), durability="off")


def _events(folder: Path, transactions: int, singles: int) -> tuple[float, float]:
    """Return how many events of another process are heard in a second, and the median delay in ms."""
    path = folder / "events"
    heard = events_of_another_process(partial(_attached, path), transactions, singles)
    path.unlink()
    return heard.in_a_second, heard.delay


# -- queues -------------------------------------------------------------------------------------------


def _our_jobs(path: Path) -> OurJobs:
    return OurJobs(SqliteStore(path, EventManager()))


class HueyJobs:
    """The storage of huey, in a file."""

    def __init__(self, path: Path) -> None:
        from huey.storage import SqliteStorage

        self._storage: Any = SqliteStorage(filename=str(path))

    def put_all(self, count: int) -> None:
        for number in range(count):
            self._storage.enqueue(json.dumps(number).encode())

    def work(self) -> bool:
        data = self._storage.dequeue()
        if data is None:
            return False
        json.loads(data)
        return True


_QUEUES: Mapping[str, Any] = {OURS: _our_jobs, PERSIST: PersistJobs, HUEY: HueyJobs}


def _jobs_in_a_second(name: str, path: Path, workers: int, count: int) -> float | None:
    """Return how many jobs workers have done in a second; None if the library is not installed."""
    return jobs_in_a_second(partial(_QUEUES[name], path), workers, count)


#: Which queues how many workers work on.
_POOLS = ((OURS, 1), (PERSIST, 1), (HUEY, 1), (OURS, WORKERS), (HUEY, WORKERS))


def _queues(
    folder: Path, rounds: int, count: int, pools: tuple[tuple[str, int], ...]
) -> dict[tuple[str, int], list[float]]:
    """Return jobs a second, by the name of the queue and the number of workers."""
    rates: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds):
        for name, workers in pools:
            rate = _jobs_in_a_second(name, folder / f"{name}-{workers}-{turn}", workers, count)
            if rate is not None:
                rates.setdefault((name, workers), []).append(rate)
    return rates


# -- the answer ---------------------------------------------------------------------------------------


def _ratio(times: Mapping[str, Timing], what: str, other: str, asked: float) -> list[Ratio]:
    if other not in times:
        return []
    return [Ratio.of(f"{what} / {other}", times[OURS].rounds, times[other].rounds, "ns", asked)]


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    rounds, reads, transactions, singles, jobs = (
        (2, 2_000, 20, 20, 20) if quick else (9, 100_000, 500, 300, 300)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls = _single_calls(folder, rounds)
        file = OurFile(folder / "readers", "normal")
        file.set_all(KEYS, DATA)
        few, readers = (1, 2) if quick else (3, READERS)
        reading = {
            count: [_reads_in_a_second(folder / "readers", count, reads) for _ in range(few)]
            for count in (1, readers)
        }
        file.close()
        events = [_events(folder, transactions, singles) for _ in range(few)]
        rates = _queues(folder, few, jobs, _POOLS[:2] if quick else _POOLS)
    heard = [rate for rate, _ in events]
    delays = [delay for _, delay in events]
    ratios = [
        *_ratio(calls["get, normal"], "get", RAW, 2.0),
        *_ratio(calls["get, normal"], "get", DISKCACHE, 1.0),
        *_ratio(calls["set, normal"], "set, normal", DISKCACHE, 1.5),
        *_ratio(calls["set, full"], "set, full", DISKCACHE, 1.5),
        *_ratio(calls["transaction, normal"], f"{MANY} sets in a transaction, normal", RAW, 3.0),
        *_ratio(calls["transaction, full"], f"{MANY} sets in a transaction, full", RAW, 3.0),
        Ratio.of(f"{readers} processes read / one", reading[readers], reading[1], "reads/s", 1.8, True),
        Ratio("events heard of another process", statistics.median(heard), 1.0, "/s", 40_000, True),
        Ratio("until one is heard, median", statistics.median(delays), 1.0, "ms", 2.0),
    ]
    if (PERSIST, 1) in rates:
        beside = rates[PERSIST, 1]
        ratios.append(Ratio.of(f"jobs: {OURS} / {PERSIST}", rates[OURS, 1], beside, "/s", 1.0, True))
    table = markdown(
        ["microseconds for a key", *_FILES],
        [
            [what, *(f"{times[name].median / 1e3:.1f}" if name in times else "" for name in _FILES)]
            for what, times in calls.items()
        ],
    )
    pool = markdown(
        ["jobs in a second", "workers", "median"],
        [[name, str(workers), f"{statistics.median(each):,.0f}"] for (name, workers), each in rates.items()],
    )
    figures = [
        *(
            Figure.of(f"{what}, {name}", timing.rounds, "ns")
            for what, times in calls.items()
            for name, timing in times.items()
        ),
        *(Figure.of(f"{count} processes read", each, "reads/s") for count, each in reading.items()),
        Figure.of("events heard of another process", heard, "events/s"),
        Figure.of("until an event is heard", delays, "ms"),
        *(Figure.of(f"{name}, {workers} workers", each, "jobs/s") for (name, workers), each in rates.items()),
    ]
    return Answer(f"{ratio_table(ratios)}\n\n{table}\n\n{pool}", ratios, figures)
