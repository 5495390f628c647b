"""Workers that are killed at random lose no job, and end none twice.

``tox -e long`` sets LATCHSTORE_QUEUE_JOBS to 100,000.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from latchstore import DictMemoryStore, Job, StoreDeleteEvent, WorkQueue
from tests.queue.parts import TIMEOUT, AnyStore, counts

JOBS = int(os.environ.get("LATCHSTORE_QUEUE_JOBS", "3000"))
WORKERS = 8

#: A commit to a file takes longer.
FEWER_ON_FILE = 5


class Killed(BaseException):
    """Set in workers from outside."""


@contextmanager
def killer(seed: int) -> Iterator[list[int]]:
    """Kill a worker every few milliseconds; give a list of those that were hit."""
    chance, over, struck = random.Random(seed), threading.Event(), [0]
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def kill() -> None:
        # One that is struck as it begins leaves `Thread.start` of CPython waiting for ever.
        begun: set[threading.Thread] = set()
        while not over.wait(chance.uniform(0.0, 0.02)):
            workers = {
                thread
                for thread in threading.enumerate()
                if thread.name.startswith("latchstore-queue") and thread.is_alive()
            }
            if begun & workers:
                victim = chance.choice(sorted(begun & workers, key=lambda thread: thread.name))
                struck[0] += set_exception(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(Killed))
            begun = workers

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield struck
    finally:
        over.set()
        thread.join(TIMEOUT)


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_each_job_is_acknowledged_once_or_a_dead_letter(
    store: AnyStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # a handler's lock is written in Python until 3.13
    monkeypatch.setattr(threading, "excepthook", id)
    queue: WorkQueue[Any] = WorkQueue(store, "jobs", max_attempts=4, backoff=lambda attempts: 0.0)
    jobs = JOBS if isinstance(store, DictMemoryStore) else JOBS // FEWER_ON_FILE
    with store.transaction():
        keys = {queue.put(number) for number in range(jobs)}
    acked: list[str] = []
    store.event_manager.connect(StoreDeleteEvent, lambda event: acked.append(event.key))
    done: Counter[str] = Counter()

    def work(job: Job[Any]) -> None:
        done[job.key] += 1
        if job.payload % 100 == 0:
            raise ValueError("never")

    with killer(1) as struck:
        worked = queue.run(work, threads=WORKERS, lease=2)
    store.flush(TIMEOUT)
    dead = {letter.key for letter in queue.dead_letters()}
    assert struck[0] > 0
    assert max(Counter(acked).values()) == 1
    assert {key.removeprefix("jobs/") for key in acked} | dead == keys
    assert not {key.removeprefix("jobs/") for key in acked} & dead
    assert keys == set(done)
    assert counts(queue) == {"dead": len(dead)}
    assert jobs // 100 <= len(dead) < jobs // 10
    assert worked.acked <= len(acked)
    told = f"{len(acked):,} acked, {len(dead):,} dead letters; {worked}"
    print(f"{jobs:,} jobs, {struck[0]:,} strikes: {told}")
    gc.collect()  # connections that were struck
