"""The threads of `WorkQueue.run`."""

from __future__ import annotations

import ctypes
import io
import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Job, LeaseLostError, StoreClosedError, Worked, WorkQueue
from tests.queue.parts import TIMEOUT, AnyStore, Clock, all_claimed, claimed, counts


class Killed(BaseException):
    """Set in a thread from outside."""


@pytest.fixture
def quick(store: AnyStore) -> WorkQueue[Any]:
    return WorkQueue(store, "jobs", max_attempts=3, backoff=lambda attempts: 0.0)


def test_all_jobs_are_done(quick: WorkQueue[Any]) -> None:
    for number in range(200):
        quick.put(number)
    done: list[int] = []
    assert quick.run(lambda job: done.append(job.payload), threads=4) == Worked(acked=200)
    assert sorted(done) == list(range(200))
    assert counts(quick) == {}


def test_an_empty_queue(quick: WorkQueue[Any]) -> None:
    assert quick.run(print) == Worked()


def test_jobs_that_are_put_by_jobs(quick: WorkQueue[Any]) -> None:
    quick.put(6)

    def work(job: Job[int]) -> None:
        for _ in range(2 if job.payload else 0):
            quick.put(job.payload - 1)

    assert quick.run(work, threads=4) == Worked(acked=127)


def test_errors_are_logged_and_tried_again(quick: WorkQueue[Any], caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        quick.put(number)

    def work(job: Job[int]) -> None:
        if job.payload == 3 or (job.payload == 2 and job.attempts == 1):
            raise ValueError(f"no {job.payload}")

    with caplog.at_level(logging.WARNING):
        assert quick.run(work, threads=2) == Worked(acked=3, retried=3, dead=1)
    assert [letter.payload for letter in quick.dead_letters()] == [3]
    assert "no 2" in caplog.text


def test_a_job_may_be_ended_by_the_function(quick: WorkQueue[Any]) -> None:
    for number in range(3):
        quick.put(number)
    ends = [Job.ack, Job.fail, lambda job: job.release() if job.attempts == 1 else None]
    assert quick.run(lambda job: ends[job.payload](job), threads=1) == Worked(acked=2, retried=1, dead=1)


def test_a_lost_lease_is_counted(
    queue: WorkQueue[Any], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    queue.put(1)

    def work(job: Job[int]) -> None:
        if job.attempts == 1:
            clock.now += 60
            claimed(queue).release()

    with caplog.at_level(logging.WARNING):
        assert queue.run(work, threads=1) == Worked(acked=1, lost=1)
    assert "its lease expired" in caplog.text


def test_until_the_queue_is_closed(quick: WorkQueue[Any]) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        run = executor.submit(quick.run, lambda job: begun.set(), threads=2, until_empty=False)
        quick.put(1)
        assert begun.wait(TIMEOUT)
        quick.join(TIMEOUT)
        assert not run.done()
        quick.close()
        assert run.result(TIMEOUT) == Worked(acked=1)


def test_a_store_that_is_closed_ends_it(quick: WorkQueue[Any], store: AnyStore) -> None:
    quick.put(1)

    def work(job: Job[int]) -> None:
        store.close()

    with pytest.raises(StoreClosedError):
        quick.run(work, threads=2)


def test_a_worker_that_dies_is_replaced(quick: WorkQueue[Any], caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10):
        quick.put(number)

    def work(job: Job[int]) -> None:
        if job.payload == 0 and job.attempts < 3:
            set_exception(threading.get_ident(), Killed)
            threading.Event().wait(0.01)

    with caplog.at_level(logging.WARNING):
        assert quick.run(work, threads=2).acked == 10
    assert "died and is replaced: Killed" in caplog.text


def test_a_job_that_kills_its_worker_ends_as_a_dead_letter(
    quick: WorkQueue[Any], caplog: pytest.LogCaptureFixture
) -> None:
    quick.put(1)
    with caplog.at_level(logging.WARNING):
        quick.run(lambda job: sys.exit(1), threads=2)
    (letter,) = quick.dead_letters()
    assert "SystemExit" in letter.reason


def set_exception(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_jobs_that_are_begun(quick: WorkQueue[Any]) -> None:
    """And begins no others."""
    for number in range(20):
        quick.put(number)
    done: list[int] = []

    def work(job: Job[int]) -> None:
        if not done:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        done.append(job.payload)
        go_on.wait(TIMEOUT)

    go_on = threading.Event()
    timer = threading.Timer(0.05, go_on.set)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        quick.run(work, threads=2)
    timer.join()
    assert len(done) < 20
    assert sorted([*done, *all_claimed(quick)]) == list(range(20))


class TestProgress:
    def test_a_bar(self, quick: WorkQueue[Any], capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("tqdm")
        for number in range(3):
            quick.put(number)
        quick.run(lambda job: quick.put(3) if job.payload == 0 else None, threads=1, progress=True)
        assert "4/4" in capsys.readouterr().err

    def test_none_unless_it_is_a_terminal(
        self, quick: WorkQueue[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        quick.put(1)
        quick.run(lambda job: None, threads=1)
        assert capsys.readouterr().err == ""

    def test_without_tqdm(self, quick: WorkQueue[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        quick.put(1)
        with pytest.raises(ImportError, match=r"latchstore\[progress\]"):
            quick.run(lambda job: None, threads=1, progress=True)

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stderr", Terminal())
        assert quick.run(lambda job: None, threads=1).acked == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"function": None}, TypeError, "function must be callable"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
        ({"lease": 0}, ValueError, "lease must be positive"),
    ],
)
def test_wrong_arguments(
    quick: WorkQueue[Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        quick.run(**{"function": print, **arguments})


def test_an_error_of_the_lease_from_the_function(quick: WorkQueue[Any]) -> None:
    quick.put(1)

    def work(job: Job[int]) -> None:
        if job.attempts == 1:
            raise LeaseLostError("other", "k", 1, "of another queue")

    assert quick.run(work, threads=1) == Worked(acked=1, retried=1)
