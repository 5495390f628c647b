"""How a job ends, and who may end it."""

# ruff: noqa: PT012

from __future__ import annotations

import pickle
from typing import Any

import pytest

from latchstore import JobExistsError, LeaseLostError, WorkQueue
from tests.queue.parts import AnyStore, Clock, all_claimed, claimed, counts


def test_an_acknowledged_job_is_removed(queue: WorkQueue[Any], store: AnyStore) -> None:
    queue.put(1)
    job = claimed(queue)
    assert job.outcome is None
    job.ack()
    assert job.outcome == "acked"
    assert len(store) == 0


def test_a_leased_job_is_given_to_nobody_else(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put(1)
    job = claimed(queue)
    clock.now += 59
    assert queue.claim(0) is None
    job.ack()


def test_a_lease_that_runs_out_gives_the_job_to_another(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put(1, key="k")
    late = claimed(queue)
    clock.now += 60
    job = claimed(queue)
    assert (job.key, job.attempts) == ("k", 2)
    for call in (late.ack, late.retry, late.fail, late.release, late.extend):
        with pytest.raises(LeaseLostError, match="'jobs', job 'k', attempt 1: its lease expired") as lost:
            call()
        assert (lost.value.queue, lost.value.key, lost.value.attempts) == ("jobs", "k", 1)
    job.ack()


def test_a_late_worker_whose_job_nobody_has_can_end_it(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put(1)
    queue.put(2)
    late = claimed(queue)
    also_late = claimed(queue)
    clock.now += 60
    assert claimed(queue).payload == 1
    also_late.ack()
    with pytest.raises(LeaseLostError):
        late.ack()


def test_a_job_that_was_replaced_is_lost(queue: WorkQueue[Any]) -> None:
    queue.put(1, key="k")
    job = claimed(queue)
    queue.put(2, key="k", if_exists="replace")
    with pytest.raises(LeaseLostError, match="replaced"):
        job.ack()
    assert claimed(queue).payload == 2


def test_a_job_that_was_deleted_is_lost(queue: WorkQueue[Any], store: AnyStore) -> None:
    queue.put(1, key="k")
    job = claimed(queue)
    store.delete("jobs/k")
    with pytest.raises(LeaseLostError, match="not in the store"):
        job.ack()


def test_a_job_is_ended_once(queue: WorkQueue[Any]) -> None:
    queue.put(1)
    job = claimed(queue)
    job.ack()
    with pytest.raises(LeaseLostError, match="has acked it already"):
        job.fail()


def test_notes_in_the_metadata_are_no_loss_of_the_lease(queue: WorkQueue[Any], store: AnyStore) -> None:
    queue.put(1, key="k")
    job = claimed(queue)
    store.update_metadata("jobs/k", {"progress": 50})
    job.extend(100)
    job.ack()
    assert len(store) == 0


def test_a_lease_is_extended(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put(1)
    job = claimed(queue)
    clock.now += 50
    job.extend(60)
    assert job.leased_until == clock.now + 60
    clock.now += 59
    assert queue.claim(0) is None
    clock.now += 1
    assert claimed(queue).attempts == 2


def test_a_job_is_tried_again_after_a_pause(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put("first")
    queue.put("second")
    job = claimed(queue)
    assert job.retry(30, "busy")
    assert job.outcome == "retried"
    assert claimed(queue).payload == "second"
    assert queue.claim(0) is None
    clock.now += 30
    assert (again := claimed(queue)).payload == "first"
    assert again.attempts == 2


def test_a_job_that_is_tried_again_keeps_its_place(queue: WorkQueue[Any]) -> None:
    for payload in ("first", "second"):
        queue.put(payload)
    claimed(queue).retry(0)
    assert all_claimed(queue) == ["first", "second"]


def test_the_pause_is_that_of_the_backoff(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put(1)
    claimed(queue).retry()
    clock.now += 9.9
    assert queue.claim(0) is None
    clock.now += 0.1
    claimed(queue).retry()
    clock.now += 19.9
    assert queue.claim(0) is None
    clock.now += 0.1
    assert claimed(queue).attempts == 3


def test_after_the_last_attempt_it_is_a_dead_letter(queue: WorkQueue[Any]) -> None:
    queue.put(1)
    assert [claimed(queue).retry(0, "no use") for _ in range(3)] == [True, True, False]
    assert counts(queue) == {"dead": 1}
    assert [letter.reason for letter in queue.dead_letters()] == ["no use"]


def test_leases_that_run_out_make_a_dead_letter_as_well(queue: WorkQueue[Any], clock: Clock) -> None:
    queue.put(1)
    for _ in range(3):
        job = claimed(queue)
        clock.now += 60
    assert queue.claim(0) is None
    (letter,) = queue.dead_letters()
    assert letter.reason == "the lease of attempt 3 of 3 expired"
    with pytest.raises(LeaseLostError, match="dead letter"):
        job.ack()


def test_a_job_that_is_given_back_is_ready_at_once(queue: WorkQueue[Any]) -> None:
    queue.put(1)
    for attempt in range(1, 6):
        job = claimed(queue)
        assert job.attempts == attempt
        job.release()
    assert counts(queue) == {"waiting": 1}


class TestBlocks:
    def test_success_acknowledges(self, queue: WorkQueue[Any], store: AnyStore) -> None:
        queue.put(1)
        with claimed(queue) as job:
            assert job.payload == 1
        assert len(store) == 0

    def test_an_exception_is_passed_on_and_the_job_tried_again(
        self, queue: WorkQueue[Any], clock: Clock
    ) -> None:
        queue.put(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), claimed(queue):
                1 / 0
            clock.now += 100
        (letter,) = queue.dead_letters()
        assert "ZeroDivisionError" in letter.reason
        assert letter.attempts == 3

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, GeneratorExit])
    def test_an_interrupt_gives_the_job_back(
        self, queue: WorkQueue[Any], interrupt: type[BaseException]
    ) -> None:
        queue.put(1)
        for _ in range(5):
            with pytest.raises(interrupt), claimed(queue):
                raise interrupt
            assert counts(queue) == {"waiting": 1}

    def test_an_exit_gives_the_job_back_as_often_as_it_may_be_tried(self, queue: WorkQueue[Any]) -> None:
        queue.put(1)
        for _ in range(3):
            with pytest.raises(SystemExit), claimed(queue):
                raise SystemExit(1)
        assert counts(queue) == {"dead": 1}

    def test_a_job_that_has_ended_inside_stays_so(self, queue: WorkQueue[Any]) -> None:
        queue.put(1)
        with claimed(queue) as job:
            job.fail("bad")
        with pytest.raises(ZeroDivisionError), claimed_again(queue) as job:
            job.ack()
            1 / 0
        assert counts(queue) == {}

    def test_a_lost_lease_shows_at_the_end(self, queue: WorkQueue[Any], clock: Clock) -> None:
        queue.put(1)
        job = claimed(queue)
        clock.now += 60
        claimed(queue)
        with pytest.raises(LeaseLostError), job:
            pass

    def test_a_lost_lease_hides_no_exception(self, queue: WorkQueue[Any], clock: Clock) -> None:
        queue.put(1)
        with pytest.raises(ZeroDivisionError), claimed(queue):
            clock.now += 60
            claimed(queue)
            1 / 0


def claimed_again(queue: WorkQueue[Any]) -> Any:
    assert queue.requeue_all() == 1
    return claimed(queue)


class TestDeadLetters:
    def test_what_a_dead_letter_has(self, queue: WorkQueue[Any], clock: Clock) -> None:
        queue.put({"n": 1}, key="k", priority=2, metadata={"kind": "mail"})
        clock.now += 7
        claimed(queue).fail("no such address")
        (letter,) = queue.dead_letters()
        assert (letter.key, letter.payload, letter.attempts, letter.reason) == (
            "k",
            {"n": 1},
            1,
            "no such address",
        )
        assert (letter.failed, letter.metadata, letter.priority) == (clock.now, {"kind": "mail"}, 2)
        assert "no such address" in repr(letter)

    def test_they_come_in_the_order_in_which_they_failed(self, queue: WorkQueue[Any], clock: Clock) -> None:
        for number in range(4):
            queue.put(number)
        for job in reversed([claimed(queue) for _ in range(4)]):
            clock.now += 1
            job.fail()
        assert [letter.payload for letter in queue.dead_letters()] == [3, 2, 1, 0]

    def test_one_is_requeued_as_if_it_had_never_been_claimed(self, queue: WorkQueue[Any]) -> None:
        queue.put(1, key="k", metadata={"kind": "mail"})
        late = claimed(queue)
        late.fail("bad")
        queue.put(2)
        (letter,) = queue.dead_letters()
        assert letter.requeue()
        assert not letter.requeue()
        assert claimed(queue).payload == 2
        job = claimed(queue)
        assert (job.payload, job.attempts, job.metadata) == (1, 1, {"kind": "mail"})
        with pytest.raises(LeaseLostError):
            late.ack()
        job.ack()
        assert not letter.discard()

    def test_a_worker_from_before_cannot_end_what_was_requeued(
        self, queue: WorkQueue[Any], clock: Clock
    ) -> None:
        queue.put(1)
        first = claimed(queue)
        clock.now += 60
        claimed(queue).fail("bad")
        assert queue.requeue_all() == 1
        second = claimed(queue)
        assert first.attempts == second.attempts == 1
        with pytest.raises(LeaseLostError, match="requeued"):
            first.ack()
        second.ack()

    def test_one_is_discarded(self, queue: WorkQueue[Any], store: AnyStore) -> None:
        queue.put(1)
        claimed(queue).fail()
        (letter,) = queue.dead_letters()
        assert letter.discard()
        assert len(store) == 0


def test_a_wrong_reason(queue: WorkQueue[Any]) -> None:
    queue.put(1)
    with pytest.raises(TypeError, match="reason must be a str"):
        claimed(queue).fail(ValueError("bad"))  # type: ignore[arg-type]


@pytest.mark.parametrize("lease", [0, -1, float("nan"), float("inf"), None, "60"])
def test_a_wrong_lease(queue: WorkQueue[Any], lease: Any) -> None:
    queue.put(1)
    with pytest.raises((TypeError, ValueError), match="lease must be"):
        queue.claim(0, lease)
    job = claimed(queue)
    with pytest.raises((TypeError, ValueError), match="lease must be"):
        job.extend(lease)


def test_a_backoff_that_is_wrong_is_named(store: AnyStore) -> None:
    queue: WorkQueue[Any] = WorkQueue(store, "jobs", backoff=lambda attempts: -1.0)
    queue.put(1)
    with pytest.raises(ValueError, match="the result of backoff must be"):
        claimed(queue).retry()


def test_the_oldest_waiting_job(queue: WorkQueue[Any], store: AnyStore) -> None:
    real: WorkQueue[Any] = WorkQueue(store, "real")
    assert real.stats()["oldest_waiting"] is None
    real.put(1)
    real.put(2, priority=1)
    assert 0 <= real.stats()["oldest_waiting"] < 3600


@pytest.mark.parametrize(
    "error", [JobExistsError("q", "k", "dead"), LeaseLostError("q", "k", 2, "it was lost")]
)
def test_errors_can_be_pickled(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))
