"""What do the locks cost when nobody else wants them?

Why writers try before they compute deadlines (`locking.FairLock`), and why single keys are read without
a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from readerwriterlock import rwlock

from benchmarks.measure import Answer, Subject, figures_of, interleaved, markdown
from latchstore.locking import FairLock, WriterMutex

TIMES = 1_000


def _repeated(once: Callable[[], object]) -> Subject:
    return Subject(f"for _ in range({TIMES}): once()", TIMES, once=once)


def _write(lock: rwlock.RWLockFair) -> Callable[[], None]:
    handle = lock.gen_wlock()

    def once() -> None:
        handle.acquire(timeout=30.0)
        handle.release()

    return once


def _read(lock: rwlock.RWLockFair) -> Callable[[], None]:
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


def _mutex() -> Callable[[], None]:
    mutex = WriterMutex()

    def once() -> None:
        mutex.acquire(30.0, "benchmark")
        mutex.release()

    return once


def run(quick: bool = False) -> Answer:
    """Measure; return the answer; there are no limits here."""
    timings = interleaved(
        {
            "an empty call": _repeated(lambda: None),
            "threading.Lock with a timeout": _repeated(_plain()),
            "writer mutex": _repeated(_mutex()),
            "RWLockFair, write": _repeated(_write(rwlock.RWLockFair())),
            "FairLock, write": _repeated(_write(FairLock())),
            "RWLockFair, read": _repeated(_read(rwlock.RWLockFair())),
        },
        5 if quick else 60,
    )
    rows = [[name, f"{timing.median:,.0f}", f"{timing.spread:.0%}"] for name, timing in timings.items()]
    return Answer(markdown(["acquire and release", "ns", "spread"], rows), (), figures_of(timings))
