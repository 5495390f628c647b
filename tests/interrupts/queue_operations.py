"""Operations of work queues."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from latchstore import Job, WorkQueue
from latchstore.queue import places
from tests.interrupts.subjects import TIMEOUT, Contents, State, Subject

#: Numbers above this one are allotted by an operation; those of the jobs at the beginning are below.
ALLOTTED = 10**12

#: Seconds since the epoch.
NOW = 1_000.0


class AnyNumber(str):
    """The place of a job, equal to those in which only a number differs that an operation has allotted."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and _known_part(self) == _known_part(other)

    __hash__ = None  # type: ignore[assignment]


def _known_part(place: str) -> str:
    before, dash, number = place.rpartition("-")
    return f"{before}{dash}new" if int(number) > ALLOTTED else str.__str__(place)


class QueueSubject(Subject):
    """A store with a queue in it, which has a job in each state."""

    def __init__(self, **options: Any) -> None:
        self.now = NOW
        super().__init__(**options)
        claimed = self.queue.claim(0, lease=50.0)
        assert claimed is not None
        self._claimed = claimed
        self._jobs = {key: content for key, content in self.contents().items() if key.startswith("jobs/")}
        self.store.flush(TIMEOUT)
        self.heard.clear()
        self.events()

    def fill(self) -> None:
        super().fill()
        self.queue: WorkQueue[Any] = WorkQueue(
            self.store, "jobs", max_attempts=2, backoff=lambda attempts: 10.0, clock=lambda: self.now
        )
        waiting = {
            "claimed": places.ready("jobs", places.rank_of(1, 1)),
            "first": places.ready("jobs", places.rank_of(0, 2)),
            "second": places.ready("jobs", places.rank_of(0, 3)),
            "delayed": places.delayed("jobs", NOW + 100, places.rank_of(0, 4)),
        }
        for key, place in waiting.items():
            self.store.set(f"jobs/{key}", (b"1", {places.PLACE: place}))
        dead = places.dead("jobs", NOW, places.rank_of(0, 5))
        self.store.set("jobs/dead", (b"1", {places.PLACE: dead, places.ATTEMPTS: 2, places.REASON: "bad"}))

    @property
    def job(self) -> Job[Any]:
        """The job that is claimed, and that no operation has ended yet."""
        return copy.copy(self._claimed)

    def restore(self) -> None:
        with self.store.transaction("restore"):
            super().restore()
            for key in list(self.store.glob("jobs/*")):
                self.store.delete(key)
            self.store.multiset(list(self._jobs), list(self._jobs.values()))

    def later(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds
        self.undo.append(self._reset_clock)

    def _reset_clock(self) -> None:
        self.now = NOW

    def state(self) -> State:
        state = super().state()
        return state._replace(contents=_with_any_number(state.contents))


def _with_any_number(contents: Contents) -> Contents:
    return {
        key: (
            data,
            {name: AnyNumber(item) if name == places.PLACE else item for name, item in items.items()},
        )
        for key, (data, items) in contents.items()
    }


def put_in_a_transaction(subject: QueueSubject) -> None:
    with subject.store.transaction():
        subject.store.set("new", (b"", {"kind": "a"}))
        subject.queue.put(7, key="new", delay=5)


def ended_in_a_transaction(subject: QueueSubject) -> None:
    with subject.store.transaction(optimistic=True):
        subject.store.set_data("new", b"result")
        subject.job.ack()


def claimed(subject: QueueSubject) -> None:
    """A claim that is struck gives the job back, if it can."""
    job = subject.queue.claim(0)
    assert job is not None
    job.release()


def claimed_when_all_are_due(subject: QueueSubject) -> None:
    subject.later(200.0)
    claimed(subject)


def looked_at(subject: QueueSubject) -> None:
    queue = subject.queue
    assert queue.stats()["waiting"] == 2
    assert [letter.key for letter in queue.dead_letters()] == ["dead"]


def job_looked_at(subject: QueueSubject) -> None:
    """Not in its block: one that is struck gives the job back, which no run that is not struck does."""
    job = subject.queue.claim(0)
    assert job is not None
    assert (job.key, job.payload, job.priority, job.outcome) == ("first", 1, 0, None)
    assert not job.metadata
    repr(job)
    job.release()


def discarded(subject: QueueSubject) -> None:
    for letter in subject.queue.dead_letters():
        assert letter.payload == 1
        repr(letter)
        letter.discard()


def opened_and_closed(subject: QueueSubject) -> None:
    with WorkQueue[int](subject.store, "others") as queue:
        assert not queue.closed
        queue.join(0)
        queue.close()
        assert list(queue) == []
        repr(queue)


#: All of them.
QUEUE: dict[str, Callable[[Any], object]] = {
    "queue: put": lambda subject: subject.queue.put({"n": 7}, key="new", priority=1),
    "queue: put, replacing": lambda subject: subject.queue.put(7, key="first", if_exists="replace"),
    "queue: put in a transaction": put_in_a_transaction,
    "queue: claim": claimed,
    "queue: claim when all are due": claimed_when_all_are_due,
    "queue: ack": lambda subject: subject.job.ack(),
    "queue: ack in a transaction": ended_in_a_transaction,
    "queue: end of a block that fails": lambda subject: subject.job.end_after(ValueError("bad")),
    "queue: retry": lambda subject: subject.job.retry(5, "later"),
    "queue: fail": lambda subject: subject.job.fail("bad"),
    "queue: extend": lambda subject: subject.job.extend(500),
    "queue: requeue": lambda subject: subject.queue.requeue_all(),
    "queue: job looked at": job_looked_at,
    "queue: dead letter, discard": discarded,
    "queue: another one": opened_and_closed,
    "queue: looked at": looked_at,
}
