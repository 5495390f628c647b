"""What tests of queues share."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore import DictMemoryStore, Job, RedisStore, SqliteStore, WorkQueue

TIMEOUT = 20.0

#: Those that a queue may be on.
AnyStore = DictMemoryStore | SqliteStore | RedisStore

#: For tests of what the store in memory alone does.
in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)


class Clock:
    """Seconds since the epoch, as the test has it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def claimed(queue: WorkQueue[Any], lease: float = 60.0) -> Job[Any]:
    """Claim the job that there is."""
    job = queue.claim(0, lease)
    assert job is not None
    return job


def all_claimed(queue: WorkQueue[Any]) -> list[Any]:
    """Claim all jobs; return their payloads."""
    found = []
    while (job := queue.claim(0)) is not None:
        found.append(job.payload)
    return found


def counts(queue: WorkQueue[Any]) -> dict[str, int]:
    """Return how many jobs there are in each state that has any."""
    return {name: count for name, count in queue.stats().items() if name != "oldest_waiting" and count}
