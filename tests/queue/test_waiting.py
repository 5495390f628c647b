"""Who waits for a job is woken: by a commit, by the clock, by the end; and by nothing else."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    Job,
    StoreClosedError,
    TransactionError,
    WaitTimeoutError,
    WatchClosedError,
    WorkQueue,
)
from latchstore.engine.inspection import feed_of
from tests.queue.parts import TIMEOUT, AnyStore, Clock, all_claimed, claimed, counts

Claims = Callable[..., "Future[Job[Any] | None]"]


pytestmark = pytest.mark.usefixtures("no_second_look")


@pytest.fixture
def start(queue: WorkQueue[Any], store: AnyStore) -> Iterator[Claims]:
    """Return what begins a claim in a thread of its own, and returns when that sleeps."""
    with ThreadPoolExecutor(8) as executor:

        def begin(timeout: float | None = None, lease: float = 60.0) -> Future[Job[Any] | None]:
            sleepers = sleeping(store)
            future = executor.submit(queue.claim, timeout, lease)
            wait_for(lambda: future.done() or sleeping(store) > sleepers)
            return future

        yield begin
        queue.close(immediate=True)


def sleeping(store: AnyStore) -> int:
    """Return how many threads sleep until a commit concerns them."""
    return sum(len(signal.waiters.bells) for signal in feed_of(store).signals)


def wait_for(condition: Callable[[], object]) -> None:
    moment = threading.Event()
    for _ in range(int(TIMEOUT / 0.001)):
        if condition():
            return
        moment.wait(0.001)
    raise AssertionError("it has not come true")


def test_a_job_that_is_put_wakes(queue: WorkQueue[Any], start: Claims) -> None:
    claim = start()
    queue.put(1)
    job = claim.result(TIMEOUT)
    assert job is not None
    assert job.payload == 1


def test_each_job_wakes_one(queue: WorkQueue[Any], store: AnyStore, start: Claims) -> None:
    claims = [start() for _ in range(4)]
    with store.transaction():
        for number in range(3):
            queue.put(number)
    wait_for(lambda: sum(claim.done() for claim in claims) == 3)
    jobs = [claim.result(0) for claim in claims if claim.done()]
    assert sorted(job.payload for job in jobs if job is not None) == [0, 1, 2]
    assert counts(queue) == {"leased": 3}
    queue.put(3)
    wait_for(lambda: all(claim.done() for claim in claims))


def test_a_job_that_comes_back_wakes(queue: WorkQueue[Any], start: Claims) -> None:
    queue.put(1)
    job = claimed(queue)
    claim = start()
    job.retry(0)
    again = claim.result(TIMEOUT)
    assert again is not None
    assert again.attempts == 2


def test_a_dead_letter_that_is_requeued_wakes(queue: WorkQueue[Any], start: Claims) -> None:
    queue.put(1)
    claimed(queue).fail()
    claim = start()
    queue.requeue_all()
    assert claim.result(TIMEOUT) is not None


def test_a_raw_write_to_the_store_wakes(queue: WorkQueue[Any], store: AnyStore, start: Claims) -> None:
    """A job that a copy of the store brings, say."""
    queue.put(1, key="k")
    value = store.get("jobs/k")
    store.delete("jobs/k")
    claim = start()
    store.set("jobs/k", value)
    assert claim.result(TIMEOUT) is not None


def test_a_delay_that_ends_wakes(store: AnyStore) -> None:
    queue: WorkQueue[Any] = WorkQueue(store, "by the system's clock")
    queue.put(1, delay=0.05)
    job = queue.claim(TIMEOUT)
    assert job is not None
    assert job.payload == 1


def test_all_that_sleep_are_told_of_a_delayed_job(queue: WorkQueue[Any], clock: Clock, start: Claims) -> None:
    """Or the one that is told might be at work when the delay is over."""
    claims = [start(), start()]
    queue.put("later", delay=0.05)
    queue.put("now")
    wait_for(lambda: any(claim.done() for claim in claims))
    clock.now += 1
    jobs = [claim.result(TIMEOUT) for claim in claims]
    assert sorted(job.payload for job in jobs if job is not None) == ["later", "now"]


def test_a_lease_that_ends_wakes(store: AnyStore) -> None:
    queue: WorkQueue[Any] = WorkQueue(store, "by the system's clock")
    queue.put(1)
    claimed(queue, 0.05)
    job = queue.claim(TIMEOUT)
    assert job is not None
    assert job.attempts == 2


def test_there_is_none_in_time(queue: WorkQueue[Any]) -> None:
    queue.put(1, delay=10)
    assert queue.claim(0.01) is None
    assert queue.claim(0) is None


def test_a_job_that_is_put_between_the_look_and_the_sleep(store: AnyStore) -> None:
    """The look that comes after the bell finds it: no other thread could ring."""
    readings = []

    def clock() -> float:
        readings.append(1_000.0)
        if len(readings) == 2:  # one look has found nothing
            queue.put("in between")
        return 1_000.0

    queue: WorkQueue[Any] = WorkQueue(store, "jobs", clock=clock)
    job = queue.claim(0.5)
    assert job is not None
    assert job.payload == "in between"


def test_claims_are_refused_in_a_transaction(queue: WorkQueue[Any], store: AnyStore) -> None:
    queue.put(1)
    with store.transaction():
        for call in (queue.claim, lambda: queue.claim(1), queue.join, lambda: queue.run(print)):
            with pytest.raises(TransactionError, match="transaction"):
                call()
        claimed(queue).ack()
    assert len(store) == 0


class TestClosing:
    def test_a_claim_that_waits_ends(self, queue: WorkQueue[Any], start: Claims) -> None:
        claim = start(None)
        queue.close()
        assert claim.result(TIMEOUT) is None

    def test_claims_wait_for_what_others_may_give_back(self, queue: WorkQueue[Any], start: Claims) -> None:
        queue.put(1)
        queue.put(2)
        first, second = claimed(queue), claimed(queue)
        queue.close()
        claims = [start(None), start(None)]
        first.retry(0)
        wait_for(lambda: any(claim.done() for claim in claims))
        (job,) = [claim.result(0) for claim in claims if claim.done()]
        assert job is not None
        second.fail()
        job.ack()
        results = [claim.result(TIMEOUT) for claim in claims]
        assert results.count(None) == 1

    @pytest.mark.parametrize("end", [Job.ack, Job.fail])
    def test_the_end_of_the_last_job_wakes(
        self, queue: WorkQueue[Any], start: Claims, end: Callable[[Job[Any]], None]
    ) -> None:
        queue.put(1)
        job = claimed(queue)
        queue.close()
        claims = [start(None), start(None)]
        end(job)
        assert [claim.result(TIMEOUT) for claim in claims] == [None, None]

    def test_at_once(self, queue: WorkQueue[Any], start: Claims) -> None:
        queue.put(1)
        claimed(queue)
        claim = start(None)
        queue.close(immediate=True)
        assert claim.result(TIMEOUT) is None
        assert counts(queue) == {"leased": 1}

    def test_an_iteration_ends_when_all_is_done(self, queue: WorkQueue[Any]) -> None:
        for number in range(5):
            queue.put(number)
        queue.close()
        done = []
        for job in queue:
            with job:
                done.append(job.payload)
        assert done == list(range(5))

    def test_an_iteration_ends_at_once(self, queue: WorkQueue[Any]) -> None:
        for number in range(5):
            queue.put(number)
        done = []
        for job in queue:
            with job:
                done.append(job.payload)
                queue.close(immediate=True)
        assert done == [0]
        assert all_claimed(queue) == [1, 2, 3, 4]

    def test_a_block_closes(self, store: AnyStore) -> None:
        with WorkQueue[Any](store, "jobs") as queue:
            queue.put(1)
        assert queue.closed
        assert claimed(queue).payload == 1

    def test_the_store_that_is_closed(self, queue: WorkQueue[Any], store: AnyStore, start: Claims) -> None:
        claim = start(None)
        store.close()
        with pytest.raises(StoreClosedError):
            claim.result(TIMEOUT)
        with pytest.raises(StoreClosedError):
            queue.put(1)
        store.connect()
        again = start(None)
        queue.put(2)
        job = again.result(TIMEOUT)
        assert job is not None
        assert job.payload == 2


class TestJoin:
    def test_of_an_empty_queue(self, queue: WorkQueue[Any]) -> None:
        queue.join(0)

    def test_dead_letters_are_not_waited_for(self, queue: WorkQueue[Any]) -> None:
        queue.put(1)
        claimed(queue).fail()
        queue.join(0)

    @pytest.mark.parametrize("key", [None, "[a]*?"])
    def test_it_ends_with_the_last_job(self, queue: WorkQueue[Any], store: AnyStore, key: str | None) -> None:
        for number in range(3):
            queue.put(number)
        queue.put("with a key", key=key)
        with ThreadPoolExecutor(1) as executor:
            join = executor.submit(queue.join, TIMEOUT)
            jobs = [claimed(queue) for _ in range(4)]
            jobs[0].fail()
            jobs[3].ack()
            wait_for(lambda: store.stats()["watches"])
            assert not join.done()
            jobs[1].retry(0)
            jobs[2].ack()
            claimed(queue).ack()
            join.result(TIMEOUT)

    def test_not_in_time(self, queue: WorkQueue[Any]) -> None:
        queue.put(1)
        queue.put(2, delay=100)
        for timeout in (0, 0.01):
            with pytest.raises(WaitTimeoutError, match="2 jobs of queue 'jobs' are left"):
                queue.join(timeout)

    def test_the_store_that_is_closed(self, queue: WorkQueue[Any], store: AnyStore) -> None:
        queue.put(1)
        with ThreadPoolExecutor(1) as executor:
            join = executor.submit(queue.join, TIMEOUT)
            wait_for(lambda: store.stats()["watches"])
            store.close()
            with pytest.raises(WatchClosedError, match="jobs of queue 'jobs'"):
                join.result(TIMEOUT)


def test_a_queue_that_nobody_holds_is_let_go_of(store: AnyStore) -> None:
    for _ in range(5):
        WorkQueue[Any](store, "jobs").claim(0.001)
        gc.collect()
        assert feed_of(store).active
        store.set_data("k", b"")
    assert not feed_of(store).active
    assert feed_of(store).signals == ()
