"""Claims and joins end in time, and jobs stay in order, whatever a test has done to the clocks."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore import WaitTimeoutError, WorkQueue
from tests.queue.parts import AnyStore, all_claimed
from tests.test_clocks import CLOCKS, SHORT


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_claim_ends(store: AnyStore, clock: str) -> None:
    queue: WorkQueue[Any] = WorkQueue(store, "jobs")
    with CLOCKS[clock]():
        assert queue.claim(SHORT) is None
        queue.put(1, delay=10**6)
        assert queue.claim(SHORT) is None
        with pytest.raises(WaitTimeoutError):
            queue.join(SHORT)


@pytest.mark.parametrize("clock", CLOCKS)
def test_jobs_stay_in_order(store: AnyStore, clock: str) -> None:
    queue: WorkQueue[Any] = WorkQueue(store, "jobs")
    queue.put(0)
    with CLOCKS[clock]():
        for number in range(1, 10):
            queue.put(number)
    queue.put(10)
    assert all_claimed(queue) == list(range(11))
