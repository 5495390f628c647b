"""One queue of several processes, on one file, and on one server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    EventsLost,
    LeaseLostError,
    RedisStore,
    SqliteStore,
    StoreDeleteEvent,
    StoreModificationEvent,
    WorkQueue,
)
from latchstore.engine.inspection import feed_of
from tests.fork.children import in_child, needs_fork
from tests.queue.other_process import OtherProcess, Place, opened, other_process, other_processes, work
from tests.queue.parts import TIMEOUT, all_claimed, claimed, counts

Store = SqliteStore | RedisStore

JOBS = 1_000

#: Those of processes that are killed.
FEWER = 300


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return (str(tmp_path / "store"),)
    return request.getfixturevalue("redis_server").url, request.getfixturevalue("namespace")


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with opened(place) as store:
        yield store


@pytest.fixture
def queue(store: Store) -> WorkQueue[Any]:
    return WorkQueue(store, "jobs", max_attempts=10, backoff=lambda attempts: 0.0)


@pytest.fixture
def other(place: Place, store: Store) -> Iterator[OtherProcess]:
    with other_process(place) as process:
        yield process


def test_each_job_is_done_once(place: Place, store: Store, queue: WorkQueue[Any]) -> None:
    with store.transaction():
        for number in range(JOBS):
            queue.put(number)
    with other_processes(place, 2) as others:
        for other in others:
            other.tell("work(queue)")
        done = [(payload, attempts) for payload, attempts in work(queue)]
        for other in others:
            done += [(payload, attempts) for payload, attempts in other.answer()]
    assert sorted(done) == [(number, 1) for number in range(JOBS)]
    assert len(store) == 0


def test_jobs_are_done_while_others_are_put(place: Place, queue: WorkQueue[Any]) -> None:
    with other_processes(place, 2) as (putting, working):
        putting.tell("[queue.put(number) for number in range(200)] and None")
        working.tell("[queue.claim(20).ack() for number in range(100)] and None")
        done = []
        for _ in range(100):
            job = queue.claim(TIMEOUT)
            assert job is not None
            job.ack()
            done.append(job.payload)
        assert putting.answer() is None
        assert working.answer() is None
    assert done == sorted(set(done))
    assert counts(queue) == {}


def test_a_job_is_put_by_another_process(queue: WorkQueue[Any], other: OtherProcess) -> None:
    other.ask("queue.put('first')")
    queue.put("second")
    other.ask("queue.put('urgent', priority=1)")
    assert all_claimed(queue) == ["urgent", "first", "second"]
    assert other.ask("queue.claim(0)") is None
    assert other.ask("queue.stats()['leased']") == 3


@pytest.mark.usefixtures("no_second_look")
def test_a_claim_that_waits_is_woken_by_another_process(queue: WorkQueue[Any], other: OtherProcess) -> None:
    other.ask("None")
    with ThreadPoolExecutor(1) as executor:
        claim = executor.submit(queue.claim, TIMEOUT)
        other.ask("queue.put(1)")
        job = claim.result(TIMEOUT)
    assert job is not None
    job.ack()


@pytest.mark.usefixtures("no_second_look")
def test_a_job_that_another_process_gives_back_wakes(queue: WorkQueue[Any], other: OtherProcess) -> None:
    queue.put(1)
    other.ask("jobs.append(queue.claim(0))")
    with ThreadPoolExecutor(1) as executor:
        claim = executor.submit(queue.claim, TIMEOUT)
        other.ask("jobs.pop().retry(0)")
        job = claim.result(TIMEOUT)
    assert job is not None
    assert job.attempts == 2


def test_a_process_that_is_killed_loses_its_job_to_others(queue: WorkQueue[Any], other: OtherProcess) -> None:
    queue.put(1)
    other.ask("jobs.append(queue.claim(0, 0.3))")
    other.kill()
    job = queue.claim(TIMEOUT)
    assert job is not None
    assert (job.payload, job.attempts) == (1, 2)
    job.ack()


def test_no_job_is_lost_with_processes_that_are_killed(
    place: Place, store: Store, queue: WorkQueue[Any]
) -> None:
    with store.transaction():
        for number in range(FEWER):
            queue.put(number)
    changes = store.watch("jobs/*", max_buffer=10 * FEWER)
    ended: Counter[str] = Counter()

    def note(change: StoreModificationEvent | EventsLost) -> None:
        assert not isinstance(change, EventsLost)
        ended[change.key] += isinstance(change, StoreDeleteEvent)

    for _ in range(3):
        with other_process(place) as other:
            other.tell("work(queue, 0.3)")
            for _ in range(51):  # and then it is killed: in the middle of a job, of a claim or of an end
                note(changes.get(TIMEOUT))
    queue.run(lambda job: None, threads=2, progress=False)
    while sum(ended.values()) < FEWER:
        note(changes.get(TIMEOUT))
    assert set(ended.values()) == {1}
    assert len(store) == 0


def test_a_late_worker_is_told(queue: WorkQueue[Any], other: OtherProcess) -> None:
    queue.put(1)
    late = claimed(queue, 0.05)
    assert other.ask("jobs.append(queue.claim(20))") is None
    with pytest.raises(LeaseLostError, match="another worker"):
        late.ack()
    assert other.ask("jobs.pop().ack()") is None
    assert counts(queue) == {}


def test_an_empty_queue_does_not_wait_for_a_transaction_of_another_process(
    queue: WorkQueue[Any], other: OtherProcess
) -> None:
    other.ask("jobs.append(store.transaction()) or jobs[0].__enter__() and None")
    assert queue.claim(0) is None
    other.ask("queue.put(1) and None")
    assert queue.claim(0) is None
    other.ask("jobs[0].__exit__(None, None, None)")
    assert claimed(queue).payload == 1


def test_join_ends_with_the_last_job_of_another_process(queue: WorkQueue[Any], other: OtherProcess) -> None:
    for number in range(5):
        queue.put(number)
    other.tell("work(queue)")
    queue.join(TIMEOUT)
    assert sorted(payload for payload, _ in other.answer()) == list(range(5))


def test_a_process_without_a_queue_keeps_its_order(queue: WorkQueue[Any], other: OtherProcess) -> None:
    """Whoever commits keeps the index that a queue finds its jobs by."""
    for number in range(3):
        queue.put(number, key=str(number))
    other.ask("store.delete('jobs/0')")
    other.ask("store.set('jobs/9', store.get('jobs/1'))")
    assert all_claimed(queue) == [1, 1, 2]


def test_an_index_that_another_process_removes(queue: WorkQueue[Any], other: OtherProcess) -> None:
    for number in range(3):
        queue.put(number)
    other.ask("[store.remove_index(index) for index in store.info()['indexes']]")
    assert all_claimed(queue) == [0, 1, 2]


@needs_fork
def test_keys_are_told_apart_though_clocks_stand_still(
    queue: WorkQueue[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parent and child allot the same numbers then."""
    monkeypatch.setattr(time, "time_ns", lambda: 0)

    def child() -> None:
        for number in range(10):
            queue.put(number)

    assert in_child(child) == ""
    child()
    assert sorted(all_claimed(queue)) == sorted(2 * [*range(10)])


@needs_fork
def test_a_forked_child_shares_the_jobs(queue: WorkQueue[Any], store: Store) -> None:
    queue.put("of the parent")
    queue.put("of the child")
    job = claimed(queue)

    def child() -> None:
        assert all_claimed(queue) == ["of the child"]
        queue.put("from the child")

    assert in_child(child) == ""
    assert counts(queue) == {"waiting": 1, "leased": 2}
    job.ack()
    assert claimed(queue).payload == "from the child"


@needs_fork
@pytest.mark.usefixtures("no_second_look")
def test_a_claim_that_waits_is_woken_across_a_fork(queue: WorkQueue[Any], store: Store) -> None:
    with ThreadPoolExecutor(1) as executor:
        claim = executor.submit(queue.claim, TIMEOUT)
        moment = threading.Event()
        while not any(signal.waiters.bells for signal in feed_of(store).signals):
            moment.wait(0.001)

        def child() -> None:
            timer = threading.Timer(0.05, queue.put, ["of the child, for itself"])
            with store.watch("jobs/*") as changes:
                queue.put("of the child")
                changes.get(TIMEOUT)
                changes.get(TIMEOUT)  # the parent has claimed it
                timer.start()
                job = queue.claim(TIMEOUT)
                timer.join()
            assert job is not None
            assert job.payload == "of the child, for itself"
            job.ack()

        assert in_child(child) == ""
        first = claim.result(TIMEOUT)
    assert first is not None
    assert first.payload == "of the child"
