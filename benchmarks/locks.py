"""What do the locks cost when nobody else wants them?

What `locking.SharedLatch` costs beside the library's fair lock, and why single keys are read without a lock.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from readerwriterlock import rwlock

from benchmarks.measure import Answer, Subject, figures_of, interleaved, markdown
from latchstore.engine.locking import Latch, SharedLatch, WriterMutex, this_thread

TIMES = 1_000


def _repeated(once: Callable[[], object]) -> Subject:
    return Subject(f"for _ in range({TIMES}): once()", TIMES, once=once)


def _write(lock: rwlock.RWLockable) -> Callable[[], None]:
    handle = lock.gen_wlock()

    def once() -> None:
        handle.acquire(timeout=30.0)
        handle.release()

    return once


def _read(lock: rwlock.RWLockable) -> Callable[[], None]:
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


def _mutex() -> Callable[[], None]:
    mutex = WriterMutex()

    def once() -> None:
        claim = (this_thread.thread, "benchmark")
        mutex.acquire_as_writer(claim, 30.0)
        mutex.release(claim)

    return once


def run(quick: bool = False) -> Answer:
    """Measure; return the answer; there are no limits here."""
    timings = interleaved(
        {
            "an empty call": _repeated(lambda: None),
            "threading.Lock with a timeout": _repeated(_plain()),
            "writer mutex": _repeated(_mutex()),
            "RWLockFair, write": _repeated(_write(rwlock.RWLockFair())),
            "SharedLatch, write": _repeated(_write(SharedLatch())),
            "RWLockFair, read": _repeated(_read(rwlock.RWLockFair())),
            "SharedLatch, read": _repeated(_read(SharedLatch())),
            "latch, around an empty call": _repeated(functools.partial(Latch().during, _nothing)),
        },
        5 if quick else 60,
    )
    rows = [[name, f"{timing.median:,.0f}", f"{timing.spread:.0%}"] for name, timing in timings.items()]
    return Answer(markdown(["acquire and release", "ns", "spread"], rows), (), figures_of(timings))
