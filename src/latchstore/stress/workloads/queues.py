"""A work queue whose workers put, claim and end jobs, while leases expire and workers die.

A job is identified by its token, its payload: ``"0.3"`` is put by the third action of thread 0. The checks
are in ``queue_checks.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, ClassVar

from latchstore.contract.errors import BackpressureError, LeaseLostError
from latchstore.contract.store import AbstractStore
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.queue import Job, WorkQueue
from latchstore.stress.history import History
from latchstore.stress.queue_checks import QueueLog
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads.action import (
    Action,
    PlainWorkload,
    RolledBackError,
    chance_of,
    facts_of,
    operations_of,
)

#: Seconds of a lease, and of a tick of the clock.
_LEASE = 10.0

#: The initial jobs, by token, with their priorities.
_INITIAL = {"first": 0, "second": 1, "third": 0}

#: More attempts than a run has.
_ATTEMPTS = 1_000_000

_KINDS = {
    "put": 2,
    "put in a transaction": 1,
    "put and roll back": 1,
    "claim": 6,
    "ack": 4,
    "ack in a transaction": 1,
    "retry": 2,
    "extend": 1,
    "die": 1,
    "tick": 2,
}

#: Actions that end a job, or extend its lease.
_ENDS = ("ack", "ack in a transaction", "retry", "extend")


class _Clock:
    """A clock that advances only by `tick`."""

    def __init__(self) -> None:
        self._ticks: list[None] = []

    def __call__(self) -> float:
        return 1_000.0 + _LEASE * len(self._ticks)

    def tick(self) -> None:
        """Advance so far that all leases expire."""
        self._ticks.append(None)


class _Rig:
    """A queue on a store, its clock, and the jobs that each thread holds."""

    def __init__(self, store: TransactionalStore) -> None:
        self.clock = _Clock()
        self.queue: WorkQueue[str] = WorkQueue(
            store, "queue", max_attempts=_ATTEMPTS, backoff=lambda attempts: 0.0, clock=self.clock
        )
        self.held: dict[int, list[Job[str]]] = {}
        self.numbers = {
            token: int(self.queue.put(token, priority=priority), 16) for token, priority in _INITIAL.items()
        }


class _Call:
    """One action of a worker."""

    __slots__ = ("_rig", "_thread", "argument", "key", "name")

    def __init__(self, workload: QueueWorkload, thread: int, name: str, argument: Any) -> None:
        self.name: str = name
        self.key: str = "queue/jobs"
        self.argument: Any = argument
        self._rig = workload.rig
        self._thread = thread

    def run(self, store: Any) -> Any:
        """Run it; return the data for the checks."""
        rig = self._rig()
        held = rig.held.setdefault(self._thread, [])
        if self.name.startswith("put"):
            return self._put(rig.queue, store)
        if self.name == "claim":
            job = rig.queue.claim(0, _LEASE)
            if job is None:
                return None
            held.append(job)
            return [job.payload, job.attempts]
        if self.name == "tick":
            rig.clock.tick()
            return None
        if not held:
            raise RolledBackError
        job = held[0]
        if self.name != "extend":
            del held[0]
        try:
            self._end(job, store)
        except LeaseLostError:
            return [job.payload, job.attempts, "lost"]
        return [job.payload, job.attempts, "done"]

    def _put(self, queue: WorkQueue[str], store: Any) -> int:
        token, priority = self.argument
        if self.name == "put":
            return int(queue.put(token, priority=priority), 16)
        with store.transaction(self.name, optimistic=len(token) % 2 == 0):
            key = queue.put(token, priority=priority)
            if self.name == "put and roll back":
                raise RolledBackError
        return int(key, 16)

    def _end(self, job: Job[str], store: Any) -> None:
        match self.name:
            case "ack":
                job.ack()
            case "ack in a transaction":
                with store.transaction(self.name):
                    job.ack()
            case "retry":
                job.retry(0)
            case "extend":
                job.extend(_LEASE)


class QueueWorkload(PlainWorkload):
    """A work queue with leases that expire: each job done once, in order, and none lost."""

    name = "queue"
    weight: ClassVar[float] = 0.7
    # Its clock is an object of one process.
    between_processes = False
    in_tasks = False

    def __init__(self) -> None:
        self._rig: _Rig | None = None

    def supports(self, store: AbstractStore) -> bool:
        """Return whether the store supports queues."""
        return isinstance(store, TransactionalStore)

    def prepare(self, store: AbstractStore) -> None:
        """Make the queue, and put some jobs."""
        assert isinstance(store, TransactionalStore)
        for key in list(store.glob("queue/*")):
            store.delete(key)  # left by an attempt that was refused halfway
        self._rig = _Rig(store)

    def rig(self) -> _Rig:
        """Return the objects that the threads share."""
        assert self._rig is not None, "prepare was called"
        return self._rig

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random actions; each thread claims first, as it has no job to end before."""
        chance = chance_of(self.name, seed, thread)
        for number in itertools.count(1):
            kind = "claim" if number == 1 else chance.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
            argument = [f"{thread}.{number}", chance.randrange(3)] if kind.startswith("put") else None
            yield _Call(self, thread, kind, argument)

    def finish(self, store: AbstractStore) -> Any:
        """Return the jobs that are left, and the dead letters."""
        rig, self._rig = self.rig(), None
        rig.clock.tick()
        rig.clock.tick()
        left = []
        while (job := _last_claim(rig.queue, store)) is not None:
            left.append(job.payload)
        dead = [letter.payload for letter in rig.queue.dead_letters()]
        initial = {token: [priority, rig.numbers[token]] for token, priority in _INITIAL.items()}
        return {"initial": initial, "left": left, "dead": dead}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check that no job was lost, that jobs were done once, and that claims were in order."""
        facts = facts_of(self.name, history)
        if facts is None:
            return {"nothing lost": Verdict("unknown", "there is no record of the jobs left")}
        log = QueueLog(operations_of(self.name, history), facts["initial"])
        return {
            "nothing lost": log.nothing_lost(facts["left"], facts["dead"]),
            "leases": log.leases_are_kept(),
            "order": log.order_is_kept(),
        }


def _last_claim(queue: WorkQueue, store: AbstractStore) -> Job | None:
    """Claim a job, though a fault leaves room for few events, and no time to wait for more."""
    while True:
        store.flush()
        with suppress(BackpressureError):
            return queue.claim(0, 1_000 * _LEASE)
