"""How long do save and load take beside a thread that computes?

SQLite and the system give up the interpreter lock at each call, and a thread that computes then keeps it for
five milliseconds: a file with a call for each row took a hundred times as long beside one. Two threads that
share the lock evenly take twice their time alone.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Answer, Figure, Ratio, ratio_table
from benchmarks.operations import fill, our_store
from latchstore import DictMemoryStore, EventManager

KEYS = 5_000

#: The most that a busy thread may cost, as a multiple of the time alone.
LIMIT = 2.0


@contextmanager
def busy_thread() -> Iterator[None]:
    """Have a thread compute meanwhile."""
    ended: list[None] = []

    def compute() -> None:
        while not ended:
            pass

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        ended.append(None)
        thread.join()


def milliseconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    store = fill(our_store(), 100 if quick else KEYS)
    rounds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        calls: dict[str, Callable[[], object]] = {
            "save": lambda: store.save(path),
            "load": lambda: DictMemoryStore.load(path, EventManager()).close(),
        }
        for _ in range(2 if quick else 15):
            for name, call in calls.items():
                rounds.setdefault(name, []).append(milliseconds(call))
            with busy_thread():
                for name, call in calls.items():
                    rounds.setdefault(f"{name}, beside a busy thread", []).append(milliseconds(call))
    store.close()
    busy = {name: rounds[f"{name}, beside a busy thread"] for name in calls}
    ratios = [Ratio.of(f"{name} of {KEYS:,} keys", busy[name], rounds[name], "ms", LIMIT) for name in calls]
    figures = [Figure.of(name, times, "ms") for name, times in rounds.items()]
    return Answer(ratio_table(ratios), ratios, figures)
