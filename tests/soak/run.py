"""One soak from its beginning to its end."""

from __future__ import annotations

import gc
import logging
import random
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from latchstore import DictMemoryStore, EventManager
from latchstore.cache.inspection import check_idle as check_cache
from tests.builds import WITHOUT_GIL
from tests.soak.caching import Caches
from tests.soak.disturbers import Forker, Interrupter
from tests.soak.invariants import SETTLED, Measures, check_at_rest, clear, close_leaked
from tests.soak.mainthread import StruckBySignals
from tests.soak.scene import ACCOUNTS, SIDES, TIMEOUT, Mirrors, Scene
from tests.soak.starver import Starver
from tests.soak.storms import CALM, Storm
from tests.soak.workers import (
    Churn,
    Follower,
    Listeners,
    OptimisticTransfers,
    Pairs,
    Readers,
    Savers,
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
    Caches: 2,
    Visitors: 1,
    Savers: 1,
}

#: Seconds between two switches of threads in a storm, so that more of them are struck in the middle.
SWITCH = 0.0005


class Soak:
    """Two stores, one of them with a cache, and the threads that use them.

    Parameters
    ----------
    seed : int
    directory : Path
    make_store : callable
        The store, given an event manager and options.
    storm : Storm
        What strikes.
    """

    def __init__(
        self,
        seed: int,
        directory: Path,
        make_store: Callable[..., DictMemoryStore] = DictMemoryStore,
        storm: Storm = CALM,
    ) -> None:
        store = make_store(
            EventManager(), indexes=["kind"], lock_timeout=TIMEOUT, history=20, max_pending_events=1_000
        )
        self.storm = storm
        self.scene = scene = Scene(store, seed, directory, storm)
        self.measures = Measures()
        self.seconds = 0.0
        self.mirrors = [Mirrors(scene, each) for each in scene.stores]
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
        if not storm.starves:  # or what it has taken from the watch may not come here
            self.workers += [Follower(scene, mirrors) for mirrors in self.mirrors]
        self.forker = Forker(scene)
        self.interrupter = Interrupter(scene, self.workers)
        self.starver = Starver(scene)
        self.main = StruckBySignals(
            [kind(scene, -1) for kind in WORKERS if kind.may_be_struck], random.Random(seed)
        )

    def run(
        self,
        seconds: float,
        length: float = 5.0,
        progress: Callable[[float], object] = float,
        rested: Callable[[], object] = int,
    ) -> None:
        """Have everything go on for some time, with rests; ends early at the first violation.

        Parameters
        ----------
        seconds : float
        length : float
            Seconds between two rests.
        progress : callable
            Told how many seconds have gone by since it was called last.
        rested : callable
            Called after each rest.
        """
        with told_of_threads(self), quiet_logging():
            begun = time.monotonic()
            while self.seconds < seconds and not self.scene.violations:
                # see tests/builds.py
                forking = len(self.measures.threads) % 2 == 0 and not WITHOUT_GIL and not self.storm.starves
                self._go_on(min(length, seconds - self.seconds), forking)
                self._rest()
                now = time.monotonic() - begun
                progress(now - self.seconds)
                self.seconds = now
                rested()
        for mirrors in self.mirrors:
            mirrors.changes.close()
            mirrors.store.close(TIMEOUT)

    def _go_on(self, seconds: float, forking: bool) -> None:
        if not forking and not self.storm.starves:
            tracemalloc.start()
        workers = [*self.workers, self.forker] if forking else self.workers
        disturber = self.starver if self.storm.starves else self.interrupter
        for worker in [*workers, disturber]:
            worker.start()
        deadline = time.monotonic() + seconds
        with switching_often() if self.storm is not CALM else nullcontext():
            # Afterwards nobody is struck any more.
            self._pass_time(lambda: time.monotonic() < deadline and not self.scene.violations, disturber)
        for worker in workers:
            worker.over = True
        # One for all of them: those that wait for each other are not waited for one after the other.
        deadline = time.monotonic() + TIMEOUT
        for worker in workers:
            worker.stop(deadline)

    def _pass_time(self, goes_on: Callable[[], bool], disturber: Worker) -> None:
        if self.storm.signals:
            self.main.work(goes_on)
        while True:
            # Memory fails only within this: any call of this thread may be the one that gets none.
            try:
                self.starver.may_begin = True
                while goes_on():
                    time.sleep(0.05)
                disturber.stop()
                self.starver.calm()
                self.interrupter.calm()
            except MemoryError:
                continue
            else:
                return

    def _rest(self) -> None:
        if not self.scene.violations:
            for worker in [*self.workers, *self.main.workers]:
                worker.rest()
            # What exceptions hold that refer to themselves, struck blocks among it.
            gc.collect()
            clear(self.scene)
            if self.storm.starves:
                close_leaked(self.scene)
            for mirrors in self.mirrors:
                mirrors.catch_up()
                check_at_rest(self.scene, mirrors)
            check_cache(self.scene.cache)
            self.measures.take(self.scene)
        tracemalloc.stop()

    def counts(self) -> dict[str, int]:
        """Return what was done, and what has struck."""
        stats = [mirrors.store.stats() for mirrors in self.mirrors]
        counts = {
            "rests": len(self.measures.threads),
            "commits": sum(each["commits"] for each in stats),
            "events heard": sum(mirrors.heard.events for mirrors in self.mirrors),
            "changes read from watches": sum(mirrors.read.events for mirrors in self.mirrors),
            "listeners that raised": sum(
                mirrors.store.stats()["listener_errors"] for mirrors in self.mirrors
            ),
            "exceptions set in workers": self.interrupter.set,
            "exceptions set in threads that call listeners": self.interrupter.set_in_dispatchers,
            "signals that struck the main thread": self.main.struck,
            "times that memory failed": self.starver.steps * self.storm.starves,
            "steps that were broken off": sum(worker.struck for worker in self.workers),
            "objects that Python has leaked": self.scene.leaked,
            "children forked": self.forker.steps,
        }
        return {name: count for name, count in counts.items() if count}

    def figures(self) -> dict[str, str]:
        """Return what there is to tell at the end."""
        measures = self.measures
        blocks, left, threads = measures.blocks, measures.left, measures.threads
        steps: Counter[str] = Counter()
        struck: Counter[str] = Counter()
        for worker in [*self.workers, *self.main.workers]:
            steps[type(worker).__name__] += worker.steps
            struck[type(worker).__name__] += worker.struck
        told = {"seconds": f"{self.seconds:,.0f}"}
        told |= {name: f"{count:,}" for name, count in self.counts().items()}
        told |= {f"steps of {name}": f"{count:,} ({struck[name]:,} struck)" for name, count in steps.items()}
        if left:
            told["left by the first traced round"] = f"{left[0]:,} bytes"
            told["left by the last traced round"] = f"{left[-1]:,} bytes"
            told["left by a traced round at most"] = f"{max(left):,} bytes"
        if len(blocks) > SETTLED:
            told["blocks at the second rest, the last, at most"] = _three(blocks)
            told["bytes in use at these"] = _three(measures.used)
            told["bytes in memory at these"] = _three(measures.resident)
            told["threads at rests"] = " to ".join(map(str, sorted({min(threads), max(threads)})))
        told["violations"] = f"{len(self.scene.violations):,}"
        return told


def _three(measured: list[int]) -> str:
    return f"{measured[SETTLED]:,}, {measured[-1]:,}, {max(measured):,}"


@contextmanager
def switching_often() -> Iterator[None]:
    """Have threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def told_of_threads(soak: Soak) -> Iterator[None]:
    """Have what threads and finalizers raise be a violation, strikes apart."""
    before = threading.excepthook, sys.unraisablehook

    def note(where: object, error: BaseException | None) -> None:
        if not soak.storm.excuses(error) and not isinstance(error, KeyboardInterrupt):
            soak.scene.violations.append(f"{where!r}: {error!r}")

    def note_thread(arguments: Any) -> None:
        note(arguments.thread, arguments.exc_value)

    def note_finalizer(arguments: Any) -> None:
        note(arguments.object, arguments.exc_value)

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


def soak(
    seconds: float,
    seed: int,
    progress: Callable[[float], object] = float,
    storm: Storm = CALM,
) -> Soak:
    """Return a soak that has been run."""
    with tempfile.TemporaryDirectory() as directory:
        one = Soak(seed, Path(directory), storm=storm)
        one.run(seconds, min(5.0, seconds / 2), progress)
    return one
