"""Jobs are put, claimed and ended with the transaction that they are in, or not at all."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from latchstore import JobExistsError, LeaseLostError, TransactionConflictError, WorkQueue
from tests.queue.parts import AnyStore, claimed, counts
from tests.schedules import in_another_thread


class Failed(Exception):
    pass


@pytest.fixture(params=[False, True], ids=["exclusive", "optimistic"])
def optimistic(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


def test_a_job_is_there_with_its_data(queue: WorkQueue[Any], store: AnyStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic):
        store.set("order", (b"", {}))
        queue.put("ship", key="order")
        assert in_another_thread(lambda: queue.claim(0)) is None
        assert counts(queue) == {"waiting": 1}
    assert claimed(queue).payload == "ship"


def test_a_job_that_is_rolled_back_was_never_there(
    queue: WorkQueue[Any], store: AnyStore, optimistic: bool
) -> None:
    with suppress(Failed), store.transaction(optimistic=optimistic):
        queue.put("ship", key="order")
        raise Failed
    assert len(store) == 0
    queue.put("again", key="order")


def test_a_second_job_of_a_key_inside(queue: WorkQueue[Any], store: AnyStore, optimistic: bool) -> None:
    queue.put(1, key="k")
    with store.transaction(optimistic=optimistic):
        with pytest.raises(JobExistsError):
            queue.put(2, key="k")
        queue.put(2, key="k", if_exists="keep")
        queue.put(3, key="k", if_exists="replace")
        queue.put(4, key="other")
        queue.put(5, key="other", if_exists="replace")
    assert [claimed(queue).payload, claimed(queue).payload] == [3, 5]


def test_a_key_that_another_puts_meanwhile_is_a_conflict(queue: WorkQueue[Any], store: AnyStore) -> None:
    def put_both() -> None:
        with store.transaction(optimistic=True):
            queue.put(1, key="k")
            in_another_thread(lambda: queue.put(2, key="k"))

    with pytest.raises(TransactionConflictError):
        put_both()
    assert claimed(queue).payload == 2


def test_a_result_is_written_with_the_acknowledgement(
    queue: WorkQueue[Any], store: AnyStore, optimistic: bool
) -> None:
    queue.put(1)
    with claimed(queue) as job, store.transaction(optimistic=optimistic):
        store.set("result", (b"done", {}))
        job.ack()
    assert list(store.query_keys()) == ["result"]


def test_a_job_whose_transaction_fails_is_tried_again(
    queue: WorkQueue[Any], store: AnyStore, optimistic: bool
) -> None:
    queue.put(1)
    with suppress(Failed), claimed(queue) as job, store.transaction(optimistic=optimistic):
        store.set("result", (b"done", {}))
        job.ack()
        assert job.outcome == "acked"
        raise Failed
    assert counts(queue) == {"delayed": 1}
    assert "result" not in store


def test_a_lease_that_is_extended_and_rolled_back(queue: WorkQueue[Any], store: AnyStore) -> None:
    queue.put(1)
    job = claimed(queue)
    until = job.leased_until
    with suppress(Failed), store.transaction():
        job.extend(1000)
        job.extend(2000)
        raise Failed
    assert job.leased_until == until
    job.ack()


def test_what_another_has_claimed_is_lost_inside(
    queue: WorkQueue[Any], store: AnyStore, clock: Any, optimistic: bool
) -> None:
    queue.put(1)
    late = claimed(queue)
    clock.now += 60
    claimed(queue)
    with store.transaction(optimistic=optimistic), pytest.raises(LeaseLostError):
        late.ack()


def test_a_lease_that_is_lost_before_the_commit_is_a_conflict(
    queue: WorkQueue[Any], store: AnyStore, clock: Any
) -> None:
    queue.put(1)
    late = claimed(queue)
    clock.now += 60

    def end() -> None:
        with store.transaction(optimistic=True):
            late.ack()
            store.set("result", (b"twice", {}))
            in_another_thread(lambda: claimed(queue))

    with pytest.raises(TransactionConflictError):
        end()
    assert "result" not in store
    assert counts(queue) == {"leased": 1}


def test_a_claim_that_is_rolled_back(queue: WorkQueue[Any], store: AnyStore, optimistic: bool) -> None:
    queue.put(1)
    with suppress(Failed), store.transaction(optimistic=optimistic):
        claimed(queue)
        raise Failed
    assert claimed(queue).attempts == 1


def test_a_dead_letter_is_requeued_with_a_transaction(
    queue: WorkQueue[Any], store: AnyStore, optimistic: bool
) -> None:
    queue.put(1)
    claimed(queue).fail()
    with suppress(Failed), store.transaction(optimistic=optimistic):
        assert queue.requeue_all() == 1
        raise Failed
    assert counts(queue) == {"dead": 1}


def test_snapshots_show_the_queue_of_their_moment(queue: WorkQueue[Any], store: AnyStore) -> None:
    queue.put(1, key="k")
    with store.snapshot() as before:
        claimed(queue).ack()
        assert list(before.query_keys()) == ["jobs/k"]
