"""What is handed to work queues and jobs: taken, or refused by name before anything has changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, WaitTimeoutError
from latchstore.contract.errors import StoreError
from latchstore.engine.inspection import check, check_idle
from latchstore.queue import Job, WorkQueue
from tests.hostile_arguments.offers import TIMEOUT, Calling, HostileError, Kind, Offer
from tests.hostile_arguments.queue_table import JOB_CALLS, QUEUE_CALLS, QUEUE_CONSTRUCTOR


def cases(table: dict[str, dict[str, Kind]]) -> list[Any]:
    """Return each offer alone, where all other arguments are good."""
    return [
        pytest.param(method, argument, offer, id=f"{method}-{argument}-{offer}")
        for method, arguments in table.items()
        for argument, kind in arguments.items()
        for offer in kind.offers
    ]


class Case:
    """A queue with a job that this worker has, one that is ready, and a dead letter."""

    def __init__(self) -> None:
        self.store = DictMemoryStore(EventManager(), lock_timeout=5.0)
        # What fails is tried again at once.
        self.queue: WorkQueue[Any] = WorkQueue(self.store, "mails", backoff=lambda attempts: 0.0)
        for name in ("dead", "claimed", "ready"):
            self.queue.put(name, key=name)
        dead, claimed = self.queue.claim(0), self.queue.claim(0)
        assert dead is not None
        assert claimed is not None
        dead.fail("at first")
        self.job: Job[Any] = claimed
        self.revision = self.store.info()["revision"]

    def call(self, target: Any, method: str, offers: dict[str, Offer]) -> Exception | None:
        """Make a call; return what it has raised."""
        try:
            getattr(target, method)(**{name: offer.make(self.store) for name, offer in offers.items()})
        except Exception as error:
            return error
        return None

    def check_use(self, other: ThreadPoolExecutor) -> None:
        """Look whether other threads can put and claim, and the worker can end its job."""

        def run() -> None:
            check(self.store)
            again: WorkQueue[Any] = WorkQueue(self.store, "mails")
            again.put("after", priority=10**9)
            after = again.claim(0)
            assert after is not None
            assert after.payload == "after"
            after.ack()

        other.submit(run).result(TIMEOUT)
        check_idle(self.store)
        self.store.close(TIMEOUT)


def refused(error: Exception | None, argument: str, offer: Offer) -> None:
    """Look whether an error is the argument's own, or names it and what was given."""
    if isinstance(error, HostileError):
        return
    assert error is not None, f"{argument}={offer} was taken"
    if offer.error is None and isinstance(error, StoreError):
        return  # a payload that cannot be encoded
    assert isinstance(error, offer.error or (TypeError, ValueError)), repr(error)
    assert argument in str(error)
    assert offer.shown[:20] in str(error)


def with_one(kinds: dict[str, Kind], argument: str, offer: Offer) -> dict[str, Offer]:
    return {**{name: kind.offers[0] for name, kind in kinds.items()}, argument: offer}


@pytest.mark.parametrize(
    ("argument", "offer"),
    [
        pytest.param(argument, offer, id=f"{argument}-{offer}")
        for argument, kind in QUEUE_CONSTRUCTOR.items()
        for offer in kind.offers
    ],
)
def test_what_a_queue_is_made_with(other: ThreadPoolExecutor, argument: str, offer: Offer) -> None:
    case = Case()
    offers = with_one(QUEUE_CONSTRUCTOR, argument, offer)
    try:
        WorkQueue(**{name: each.make(case.store) for name, each in offers.items()})
    except Exception as error:
        assert not offer.good
        refused(error, argument, offer)
    else:
        assert offer.good
    assert case.store.info()["revision"] == case.revision
    case.check_use(other)


@pytest.mark.parametrize(("method", "argument", "offer"), cases(QUEUE_CALLS))
def test_what_a_queue_is_handed(other: ThreadPoolExecutor, method: str, argument: str, offer: Offer) -> None:
    case = Case()
    if method == "run":
        case.job.ack()  # it would wait for it
        case.revision = case.store.info()["revision"]
    error = case.call(case.queue, method, with_one(QUEUE_CALLS[method], argument, offer))
    Calling.busy = False
    if offer.good is False:
        refused(error, argument, offer)
        assert case.store.info()["revision"] == case.revision, "refused, and changed something"
    elif offer.good and method == "join":
        assert isinstance(error, WaitTimeoutError)
    elif offer.good:
        assert error is None, repr(error)
    case.check_use(other)


@pytest.mark.parametrize(("method", "argument", "offer"), cases(JOB_CALLS))
def test_what_a_job_is_handed(other: ThreadPoolExecutor, method: str, argument: str, offer: Offer) -> None:
    case = Case()
    error = case.call(case.job, method, with_one(JOB_CALLS[method], argument, offer))
    if offer.good is False:
        refused(error, argument, offer)
        assert case.store.info()["revision"] == case.revision, "refused, and changed something"
        case.job.ack()  # it still has it
    elif offer.good:
        assert error is None, repr(error)
    case.check_use(other)
