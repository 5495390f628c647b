"""What does a job cost a pool of workers, and does it cost more the more of them wait?

Jobs are claimed and acknowledged one after the other, by one thread while 1,000 to 1,000,000 wait, and by
four threads until none is left. Beside the `WorkQueue`: SQLite in memory behind a lock, as one writes it (an
index on state and order, ``UPDATE ... LIMIT 1 RETURNING``, then ``DELETE``); persist-queue's acknowledged
queue; huey in memory, whose workers take a task and run it, and its storage alone; and ``queue.Queue``. The
last two keep nothing of what a worker has taken: if it dies, the job is gone. Rounds are interleaved, medians
are shown.
"""

from __future__ import annotations

import gc
import itertools
import json
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.measure import Answer, Chart, Figure, Ratio, exponent, markdown, ratio_table
from latchstore import DictMemoryStore, EventManager, WorkQueue
from latchstore.engine.transactional_store import TransactionalStore

SIZES = (1_000, 10_000, 100_000, 1_000_000)
THREADS = 4
JOBS = 20_000
#: Jobs that are claimed of those that wait.
_CLAIMED = 1_000

OURS = "WorkQueue"
SQLITE = "SQLite, :memory:, a lock"
PERSIST = "persist-queue, acknowledged"
HUEY = "huey, memory, tasks run"
HUEY_STORAGE = "huey's memory storage, pop"
QUEUE = "queue.Queue"


class Jobs(Protocol):
    """Jobs that workers take, each a number."""

    def put_all(self, count: int) -> None:
        """Put so many."""

    def work(self) -> bool:
        """Take one, and end it; return whether there was one."""


class OurJobs:
    """Ours.

    Parameters
    ----------
    store : DictMemoryStore, SqliteStore or RedisStore, optional
        One in memory by default.
    """

    def __init__(self, store: TransactionalStore | None = None) -> None:
        self._store = DictMemoryStore(EventManager()) if store is None else store
        self._queue: WorkQueue[int] = WorkQueue(self._store, "jobs")

    def put_all(self, count: int) -> None:
        with self._store.transaction():
            for number in range(count):
                self._queue.put(number)

    def work(self) -> bool:
        job = self._queue.claim(timeout=0)
        if job is None:
            return False
        _ = job.payload
        job.ack()
        return True


class SQLiteJobs:
    """A table of jobs, as one writes it."""

    def __init__(self) -> None:
        # Guards the connection.
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._connection.execute(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT, priority INTEGER, payload TEXT)"
        )
        self._connection.execute("CREATE INDEX line ON jobs (state, priority, id)")

    def put_all(self, count: int) -> None:
        rows = ((json.dumps(number),) for number in range(count))
        with self._lock:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT INTO jobs (state, priority, payload) VALUES ('new', 0, ?)", rows
            )
            self._connection.execute("COMMIT")

    def work(self) -> bool:
        with self._lock:
            row = self._connection.execute(
                "UPDATE jobs SET state = 'claimed' WHERE id = (SELECT id FROM jobs WHERE state = 'new' "
                "ORDER BY priority, id LIMIT 1) RETURNING id, payload"
            ).fetchone()
        if row is None:
            return False
        json.loads(row[1])
        with self._lock:
            self._connection.execute("DELETE FROM jobs WHERE id = ?", (row[0],))
        return True


class PersistJobs:
    """persist-queue's queue with acknowledgements, in a folder: one in memory if none is named."""

    def __init__(self, path: Path | None = None) -> None:
        from persistqueue import SQLiteAckQueue
        from persistqueue.exceptions import Empty

        if path is None:
            memory = Path("/dev/shm")
            self._folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
            path = Path(self._folder.name)
        self._queue: Any = SQLiteAckQueue(str(path), multithreading=True, auto_commit=True)
        self._empty = Empty

    def put_all(self, count: int) -> None:
        for number in range(count):
            self._queue.put(number)

    def work(self) -> bool:
        try:
            job = self._queue.get(block=False)
        except self._empty:
            return False
        self._queue.ack(job)
        return True


class HueyJobs:
    """huey in memory: a task is taken, and run."""

    def __init__(self) -> None:
        from huey import MemoryHuey

        self._huey: Any = MemoryHuey(results=False)
        self._task: Any = self._huey.task()(int)

    def put_all(self, count: int) -> None:
        for number in range(count):
            self._task(number)

    def work(self) -> bool:
        task = self._huey.dequeue()
        if task is None:
            return False
        self._huey.execute(task)
        return True


class HueyStorageJobs:
    """The heap of huey's memory storage."""

    def __init__(self) -> None:
        from huey.storage import MemoryStorage

        self._storage: Any = MemoryStorage()

    def put_all(self, count: int) -> None:
        for number in range(count):
            self._storage.enqueue(json.dumps(number).encode())

    def work(self) -> bool:
        data = self._storage.dequeue()
        if data is None:
            return False
        json.loads(data)
        return True


class QueueJobs:
    """The standard library's."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes] = queue.Queue()

    def put_all(self, count: int) -> None:
        for number in range(count):
            self._queue.put(json.dumps(number).encode())

    def work(self) -> bool:
        try:
            data = self._queue.get(block=False)
        except queue.Empty:
            return False
        json.loads(data)
        self._queue.task_done()
        return True


_MAKERS: dict[str, Callable[[], Jobs]] = {
    OURS: OurJobs,
    SQLITE: SQLiteJobs,
    PERSIST: PersistJobs,
    HUEY: HueyJobs,
    HUEY_STORAGE: HueyStorageJobs,
    QUEUE: QueueJobs,
}

#: Of these fewer jobs are enough: each takes long.
_FEWER = {PERSIST: 20}


def _makers() -> dict[str, Callable[[], Jobs]]:
    """Return what makes those that are installed."""
    found = {}
    for name, maker in _MAKERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                maker()
        except ImportError:
            continue
        found[name] = maker
    return found


def seconds_of_pool(jobs: Jobs, count: int, threads: int = THREADS) -> float:
    """Return the seconds that threads take for so many jobs."""
    jobs.put_all(count)
    barrier = threading.Barrier(threads + 1)
    done = [0] * threads

    def work(number: int) -> None:
        barrier.wait()
        while jobs.work():
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    gc.collect()
    barrier.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begun
    assert sum(done) == count
    return seconds


def _seconds_for_each(jobs: Jobs, count: int = _CLAIMED) -> float:
    """Return the seconds that one thread takes for one of so many jobs."""
    begun = time.perf_counter()
    for _ in range(count):
        jobs.work()
    return (time.perf_counter() - begun) / count


def _growth(sizes: tuple[int, ...], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return microseconds for one job by the number that waits."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, size in itertools.product((OURS, SQLITE), sizes):
        jobs = _MAKERS[name]()
        jobs.put_all(size)
        jobs.work()
        gc.collect()
        count = min(_CLAIMED, size // (rounds + 1))
        taken = [_seconds_for_each(jobs, count) for _ in range(rounds)]
        lines.setdefault(name, []).append((size, statistics.median(taken) * 1e6))
        del jobs
        gc.collect()
    return lines


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    sizes, count, rounds = (SIZES[:2], 1_000, 2) if quick else (SIZES, JOBS, 5)
    lines = _growth(sizes, rounds)
    makers = _makers()
    taken: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, maker in makers.items():
            jobs = count // _FEWER.get(name, 1)
            taken[name].append(seconds_of_pool(maker(), jobs) / jobs * 1e6)
    rates = {name: [1e6 / each for each in times] for name, times in taken.items()}
    ratios = [
        Ratio("claim and ack, by the jobs that wait: exponent", exponent(lines[OURS]), 1.0, "", 0.1),
        *(
            Ratio.of(f"{THREADS} threads: {OURS} / {name}", rates[OURS], rates[name], "jobs/s", asked, True)
            for name, asked in ((SQLITE, 1.0), (PERSIST, 5.0), (HUEY, 5.0))
            if name in rates
        ),
    ]
    table = markdown(
        ["jobs that wait", *(f"{size:,}" for size in sizes)],
        [[f"{name}, us", *(f"{time:.1f}" for _, time in line)] for name, line in lines.items()],
    )
    pool = markdown(
        [f"{THREADS} threads, {count:,} jobs", "us for each", "jobs/s"],
        [
            [name, f"{statistics.median(times):.1f}", f"{statistics.median(rates[name]):,.0f}"]
            for name, times in taken.items()
        ],
    )
    missing = [name for name in _MAKERS if name not in makers]
    left_out = f"\n\nNot installed, so left out: {', '.join(missing)}." if missing else ""
    figures = [Figure.of(f"{THREADS} threads, {name}", each, "jobs/s") for name, each in rates.items()]
    chart = Chart("queues", "Claim and ack of one job", "jobs that wait", "microseconds", lines)
    return Answer(f"{ratio_table(ratios)}\n\n{table}\n\n{pool}{left_out}", ratios, figures, [chart])
