"""One soak from its beginning to its end."""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latchstore import DictMemoryStore, EventManager, EventsLost, StoreModificationEvent
from tests.builds import WITHOUT_GIL
from tests.soak.disturbers import Forker, Interrupter
from tests.soak.invariants import SETTLED, Measures, check_at_rest, clear
from tests.soak.scene import ACCOUNTS, SIDES, TIMEOUT, Mirror, Scene
from tests.soak.workers import (
    Churn,
    Follower,
    Listeners,
    OptimisticTransfers,
    Pairs,
    Readers,
    Savers,
    Struck,
    Transfers,
    Visitors,
    Watchers,
    Worker,
)

#: How many threads there are of each kind.
WORKERS: dict[type[Worker], int] = {
    Transfers: 2,
    OptimisticTransfers: 2,
    Pairs: 1,
    Churn: 2,
    Readers: 2,
    Watchers: 1,
    Listeners: 1,
    Visitors: 1,
    Savers: 1,
}


class Soak:
    """One store and the threads that use it.

    Parameters
    ----------
    seed : int
    directory : Path
    make_store : callable
        The store, given an event manager and options.
    """

    def __init__(
        self, seed: int, directory: Path, make_store: Callable[..., DictMemoryStore] = DictMemoryStore
    ) -> None:
        store = make_store(
            EventManager(), indexes=["kind"], lock_timeout=TIMEOUT, history=20, max_pending_events=1_000
        )
        self.scene = scene = Scene(store, seed, directory)
        self.measures = Measures()
        self.seconds = 0.0
        self.heard, self.read = Mirror(scene), Mirror(scene)
        store.event_manager.connect(StoreModificationEvent, self.heard.hear)
        self._changes = store.watch(max_buffer=10_000_000)
        store.multiset(ACCOUNTS, [(b"", {"balance": 100})] * len(ACCOUNTS))
        store.multiset(SIDES, [(b"", {"kind": "pair"})] * 2)
        # What saving imports is imported here: an exception that strikes a thread in the middle of an import
        # may leave Python's import lock taken (``importlib._bootstrap._get_module_lock``), and then the next
        # fork waits for it for ever, holding the lock of `logging`, for which the process waits at its end.
        store.save(directory / "saved")
        DictMemoryStore.load(directory / "saved", EventManager()).close()
        self.workers: list[Worker] = [
            kind(scene, number) for kind, count in WORKERS.items() for number in range(count)
        ]
        self.workers.append(Follower(scene, self.read, self._changes))
        self.forker = Forker(scene)
        self.interrupter = Interrupter(scene, self.workers)

    def run(self, seconds: float, length: float = 5.0, progress: Callable[[float], object] = float) -> None:
        """Have everything go on for some time, with rests; ends early at the first violation.

        Parameters
        ----------
        seconds : float
        length : float
            Seconds between two rests.
        progress : callable
            Told how many seconds have gone by since it was called last.
        """
        with told_of_threads(self), quiet_logging():
            begun = time.monotonic()
            while self.seconds < seconds and not self.scene.violations:
                forking = len(self.measures.threads) % 2 == 0 and not WITHOUT_GIL  # see tests/builds.py
                self._go_on(min(length, seconds - self.seconds), forking)
                self._rest()
                now = time.monotonic() - begun
                progress(now - self.seconds)
                self.seconds = now
        self._changes.close()
        self.scene.store.close(TIMEOUT)

    def _go_on(self, seconds: float, forking: bool) -> None:
        if not forking:
            tracemalloc.start()
        workers = [*self.workers, self.forker] if forking else self.workers
        for worker in [*workers, self.interrupter]:
            worker.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.scene.violations:
            time.sleep(0.05)
        # First nobody is struck any more.
        self.interrupter.stop()
        for worker in workers:
            worker.over = True
        # One for all of them: those that wait for each other are not waited for one after the other.
        deadline = time.monotonic() + TIMEOUT
        for worker in workers:
            worker.stop(deadline)

    def _rest(self) -> None:
        if not self.scene.violations:
            clear(self.scene)
            while len(self._changes):
                change = self._changes.get(0)
                assert not isinstance(change, EventsLost)
                self.read.hear(change)
            check_at_rest(self.scene, [self.heard, self.read], watches=1)
            self.measures.take(self.scene)
        tracemalloc.stop()

    def figures(self) -> dict[str, str]:
        """Return what there is to tell at the end."""
        stats = self.scene.store.stats()
        blocks, left, threads = self.measures.blocks, self.measures.left, self.measures.threads
        steps: Counter[str] = Counter()
        struck: Counter[str] = Counter()
        for worker in self.workers:
            steps[type(worker).__name__] += worker.steps
            struck[type(worker).__name__] += worker.struck
        told = {
            "seconds": f"{self.seconds:,.0f}",
            "rests": f"{len(threads):,}",
            "commits": f"{stats['commits']:,}",
            "events heard": f"{self.heard.events:,}",
            "changes read from a watch": f"{self.read.events:,}",
            "listeners that raised": f"{stats['listener_errors']:,}",
            "exceptions that struck": f"{struck.total():,}",
            "children forked": f"{self.forker.steps:,}",
        }
        told |= {f"steps of {name}": f"{count:,} ({struck[name]:,} struck)" for name, count in steps.items()}
        if left:
            told["left by the first traced round"] = f"{left[0]:,} bytes"
            told["left by the last traced round"] = f"{left[-1]:,} bytes"
            told["left by a traced round at most"] = f"{max(left):,} bytes"
        if len(blocks) > SETTLED:
            told["memory at the second rest"] = f"{blocks[SETTLED]:,} blocks"
            told["memory at the last rest"] = f"{blocks[-1]:,} blocks"
            told["memory at a rest at most"] = f"{max(blocks[SETTLED:]):,} blocks"
            told["threads at rests"] = " to ".join(map(str, sorted({min(threads), max(threads)})))
        told["violations"] = f"{len(self.scene.violations):,}"
        return told


@contextmanager
def told_of_threads(soak: Soak) -> Iterator[None]:
    """Have what threads and finalizers raise be a violation, strikes apart."""
    before = threading.excepthook, sys.unraisablehook

    def note_thread(arguments: Any) -> None:
        soak.scene.violations.append(f"{arguments.thread}: {arguments.exc_value!r}")

    def note_finalizer(arguments: Any) -> None:
        if isinstance(arguments.exc_value, Struck):
            soak.interrupter.note_dropped(threading.current_thread())
        else:
            soak.scene.violations.append(f"{arguments.object!r}: {arguments.exc_value!r}")

    threading.excepthook, sys.unraisablehook = note_thread, note_finalizer
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Have the listeners that fail on purpose not be logged."""
    logger = logging.getLogger("latchstore")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def soak(seconds: float, seed: int, progress: Callable[[float], object] = float) -> Soak:
    """Return a soak that has been run."""
    with tempfile.TemporaryDirectory() as directory:
        one = Soak(seed, Path(directory))
        one.run(seconds, progress=progress)
    return one
