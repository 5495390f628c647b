"""Processes for measurements between them: readers, a writer whose commits another one hears, workers.

Processes are started anew, and begin together.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from latchstore import StoreKeyEvent

KEYS = [f"key/{number}" for number in range(1_000)]
DATA = b"x" * 100
#: How many keys a transaction sets.
MANY = 100
#: Seconds that a process may take.
TIMEOUT = 300.0


@contextmanager
def started(count: int, function: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """Start processes, which call a function with a barrier, a queue for results, and the arguments.

    The block passes the barrier as the last.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count + 1), context.Queue()
    processes = [
        context.Process(target=_run, args=(function, barrier, results, arguments), daemon=True)
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        yield barrier, results
        for process in processes:
            process.join(TIMEOUT)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _run(function: Callable[..., None], barrier: Any, results: Any, arguments: tuple[Any, ...]) -> None:
    try:
        function(barrier, results, *arguments)
    except BaseException as error:
        barrier.abort()
        results.put(error)
        raise


def result_of(results: Any) -> Any:
    """Return what a process has put into the queue; raise the error with which it has ended."""
    result = results.get(timeout=TIMEOUT)
    if isinstance(result, BaseException):
        raise result
    return result


# -- events -------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What a listener has heard of another process."""

    events: int = 0
    first: float = 0.0
    last: float = 0.0
    delays: list[float] = field(default_factory=list)

    def __call__(self, event: StoreKeyEvent) -> None:
        now = time.monotonic_ns()
        if event.key == "at":
            self.delays.append((now - event.metadata["at"]) / 1e6)
            return
        self.events += 1
        self.last = now / 1e9
        if self.events == 1:
            self.first = self.last

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait, looking now and then: the listener has nothing to do but to count."""
        end = time.monotonic() + TIMEOUT
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)

    @property
    def in_a_second(self) -> float:
        """How many events were heard in a second."""
        return (self.events - 1) / (self.last - self.first)

    @property
    def delay(self) -> float:
        """The median of the milliseconds from a commit to the listener."""
        return statistics.median(self.delays)


def _write(barrier: Any, results: Any, attach: Callable[[], Any], transactions: int, singles: int) -> None:
    store = attach()
    barrier.wait(TIMEOUT)
    for number in range(transactions):
        with store.transaction():
            for key in KEYS[:MANY]:
                store.set(key, (DATA, {"number": number}))
    results.get(timeout=TIMEOUT)  # all of them are heard
    for _ in range(singles):
        store.set("at", (DATA, {"at": time.monotonic_ns()}))
        time.sleep(0.003)
    store.close()


def events_of_another_process(attach: Callable[[], Any], transactions: int, singles: int) -> Heard:
    """Have another process commit transactions of many sets, and then single ones with pauses.

    Parameters
    ----------
    attach : callable
        Opens the store; it is sent to the other process.
    transactions, singles : int

    Returns
    -------
    heard : Heard
        What a listener of this process has heard.
    """
    heard = Heard()
    with attach() as store:
        store.event_manager.connect(StoreKeyEvent, heard)
        store.set("ours", (b"", {}))
        store.flush()
        heard.events = 0
        with started(1, _write, attach, transactions, singles) as (barrier, results):
            barrier.wait(TIMEOUT)
            heard.wait(lambda: heard.events >= transactions * MANY)
            results.put(None)
            heard.wait(lambda: len(heard.delays) >= singles)
    return heard


# -- jobs ---------------------------------------------------------------------------------------------


class Jobs(Protocol):
    """A queue of jobs."""

    def put_all(self, count: int) -> None:
        """Put jobs."""

    def work(self) -> bool:
        """Take a job, look at it, and acknowledge it; tell whether there was one."""


def _work(barrier: Any, results: Any, attach: Callable[[], Jobs]) -> None:
    jobs = attach()
    barrier.wait(TIMEOUT)
    begun, count = time.monotonic(), 0
    while jobs.work():
        count += 1
    results.put((begun, time.monotonic(), count))


def jobs_in_a_second(attach: Callable[[], Jobs], workers: int, count: int) -> float | None:
    """Return how many jobs workers have done in a second; None if the library is not installed."""
    try:
        jobs = attach()
    except ImportError:
        return None
    jobs.put_all(count)
    with started(workers, _work, attach) as (barrier, results):
        barrier.wait(TIMEOUT)
        done = [result_of(results) for _ in range(workers)]
    assert sum(each for _, _, each in done) == count
    return count / float(max(end for _, end, _ in done) - min(begun for begun, _, _ in done))
