"""A forked child has a queue of its own, and the leases of the parent's workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from latchstore import WorkQueue
from latchstore.engine.inspection import feed_of
from tests.fork.children import in_child, needs_fork
from tests.queue.parts import TIMEOUT, AnyStore, Clock, all_claimed, claimed, counts, in_memory

pytestmark = [needs_fork, in_memory, pytest.mark.usefixtures("no_second_look")]


def test_leases_are_the_parents(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put("of the parent")
    queue.put("of both")
    job = claimed(queue)

    def child() -> None:
        assert all_claimed(queue) == ["of both"]
        assert counts(queue) == {"leased": 2}
        clock.now += 60
        assert sorted(all_claimed(queue)) == ["of both", "of the parent"]

    assert in_child(child) == ""
    assert counts(queue) == {"waiting": 1, "leased": 1}
    job.ack()
    assert claimed(queue).payload == "of both"


@contextmanager
def ended_with_the_block(queue: WorkQueue[Any]) -> Iterator[None]:
    """Have no claim wait for ever if the block fails."""
    try:
        yield
    finally:
        queue.close(immediate=True)


def test_a_child_is_woken_by_its_own_jobs(queue: WorkQueue[Any], store: AnyStore) -> None:
    """And not a thread of the parent, which sleeps there and is not here."""
    with ThreadPoolExecutor(2) as executor, ended_with_the_block(queue):
        claims = [executor.submit(queue.claim) for _ in range(2)]
        moment = threading.Event()
        while sum(len(signal.waiters.bells) for signal in feed_of(store).signals) < 2:
            moment.wait(0.001)

        def child() -> None:
            timer = threading.Timer(0.05, queue.put, ["of the child"])
            timer.start()
            job = queue.claim()
            assert job is not None
            assert job.payload == "of the child"
            job.ack()
            timer.join()
            queue.run(print)
            assert len(store) == 0

        assert in_child(child) == ""
        assert len(store) == 0
        for number in range(2):
            queue.put(number)
        jobs = [claim.result(TIMEOUT) for claim in claims]
    assert sorted(job.payload for job in jobs if job is not None) == [0, 1]
