"""The calls of work queues, as calls.py has those of stores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latchstore import LeaseLostError, WaitTimeoutError, WorkQueue
from tests.reentry.cache_calls import OWN, Call

if TYPE_CHECKING:
    from tests.reentry.caller import Caller


def claimed(end: Callable[[Any], object]) -> Call:
    """Return a call that puts a job, claims one and ends it."""

    def call(caller: Caller) -> None:
        caller.queue.put(1)
        job = caller.queue.claim(0)
        assert job is not None
        # A block around all this may be taken back by the call that is made in it.
        with contextlib.suppress(LeaseLostError):
            end(job)

    return call


def worked(caller: Caller) -> None:
    caller.queue.put(1)
    job = caller.queue.claim(0)
    assert job is not None
    with contextlib.suppress(LeaseLostError), job:
        assert (job.payload, job.priority, job.outcome) == (1, 0, None)
        assert job.key in repr(job)
        assert not job.metadata


def given_up(caller: Caller) -> None:
    claimed(lambda job: job.fail("bad"))(caller)
    for letter in caller.queue.dead_letters():
        assert letter.payload == 1
        repr(letter)
        letter.requeue()
        letter.discard()


def emptied(caller: Caller) -> None:
    with contextlib.suppress(WaitTimeoutError):
        caller.queue.join(0)


def opened_and_closed(caller: Caller) -> None:
    with WorkQueue[int](caller.subject.store, f"{OWN} closed") as queue:
        assert not queue.closed
        queue.close()
        assert list(queue) == []
        repr(queue)


QUEUES: dict[str, Call] = {
    "queue: put": lambda caller: caller.queue.put(1),
    "queue: claim, ack": claimed(lambda job: job.ack()),
    "queue: claim, retry": claimed(lambda job: job.retry()),
    "queue: claim, fail": claimed(lambda job: job.fail("bad")),
    "queue: claim, release": claimed(lambda job: job.release()),
    "queue: claim, extend": claimed(lambda job: job.extend(500)),
    "queue: claim, end_after": claimed(lambda job: job.end_after(ValueError("bad"))),
    "queue: with job": worked,
    "queue: dead_letters": given_up,
    "queue: requeue_all": lambda caller: caller.queue.requeue_all(),
    "queue: stats": lambda caller: caller.queue.stats(),
    "queue: join": emptied,
    "queue: another one": opened_and_closed,
}
