"""What do the locks cost when nobody else wants them?

What our `ReadWriteLock` and a section of a store's table cost beside the library's fair lock, and why single
keys are read without a lock.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from readerwriterlock import rwlock

from benchmarks.measure import Answer, Subject, figures_of, interleaved, markdown
from latchstore import DictMemoryStore, EventManager
from latchstore.delivery.waiting import Latch
from latchstore.engine.locks import ReadWriteLock

TIMES = 1_000


def _repeated(once: Callable[[], object]) -> Subject:
    return Subject(f"for _ in range({TIMES}): once()", TIMES, once=once)


def _write(lock: Any) -> Callable[[], None]:
    handle = lock.gen_wlock()

    def once() -> None:
        handle.acquire(timeout=30.0)
        handle.release()

    return once


def _read(lock: Any) -> Callable[[], None]:
    def once() -> None:
        handle = lock.gen_rlock()
        handle.acquire(timeout=30.0)
        handle.release()

    return once


def _plain() -> Callable[[], None]:
    lock = threading.Lock()

    def once() -> None:
        lock.acquire(timeout=30.0)
        lock.release()

    return once


def _nothing() -> None:
    pass


def _table() -> Any:
    return DictMemoryStore(EventManager())._table


def run(quick: bool = False) -> Answer:
    """Measure; return the answer; there are no limits here."""
    timings = interleaved(
        {
            "an empty call": _repeated(lambda: None),
            "threading.Lock with a timeout": _repeated(_plain()),
            "a section of the table's writer": _repeated(
                functools.partial(_table().exclusively, "benchmark", _nothing)
            ),
            "a section of the table's reader": _repeated(functools.partial(_table().read, _nothing)),
            "RWLockFair, write": _repeated(_write(rwlock.RWLockFair())),
            "ReadWriteLock, write": _repeated(_write(ReadWriteLock())),
            "RWLockFair, read": _repeated(_read(rwlock.RWLockFair())),
            "ReadWriteLock, read": _repeated(_read(ReadWriteLock())),
            "latch, around an empty call": _repeated(functools.partial(Latch().during, _nothing)),
        },
        5 if quick else 60,
    )
    rows = [[name, f"{timing.median:,.0f}", f"{timing.spread:.0%}"] for name, timing in timings.items()]
    return Answer(markdown(["acquire and release", "ns", "spread"], rows), (), figures_of(timings))
