"""Work queues on a server: each machine has a clock of its own, and that of the server is what counts."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from latchstore import EventManager, LeaseLostError, Ordered, RedisStore, WorkQueue
from tests.queue.parts import Clock, all_claimed, claimed
from tests.redis.proxy import Proxy, Reply
from tests.redis.redis_stores import ONE_SERVER_EACH
from tests.redis.servers import Server

pytestmark = [pytest.mark.each_server, ONE_SERVER_EACH]

TIMEOUT = 20.0


@pytest.fixture
def store(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        yield store


@pytest.fixture
def other(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    """Of another process, as it were."""
    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        yield store


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is an hour late."""
    actual, actual_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: actual() - 3600)
    monkeypatch.setattr(time, "time_ns", lambda: actual_ns() - 3600 * 10**9)


def server_time(server: Server) -> float:
    with redis.Redis.from_url(server.url) as client:
        seconds, microseconds = client.time()
        return int(seconds) + int(microseconds) / 1_000_000


@pytest.mark.usefixtures("slow_clock")
class TestClocks:
    """A machine whose clock is an hour late works as all others do."""

    def test_a_lease_lasts_as_long_by_the_clock_of_the_server(
        self, store: RedisStore, redis_server: Server
    ) -> None:
        queue = WorkQueue[Any](store, "jobs")
        queue.put("a")
        before = server_time(redis_server)
        job = claimed(queue, 60.0)
        assert before + 60.0 <= job.leased_until <= server_time(redis_server) + 60.0
        # Here it has ended long ago, or will in an hour.
        assert queue.claim(0) is None
        job.extend(90.0)
        assert before + 90.0 <= job.leased_until <= server_time(redis_server) + 90.0
        job.ack()

    def test_a_lease_that_has_run_out(self, store: RedisStore, other: RedisStore) -> None:
        queue, again = WorkQueue[Any](store, "jobs"), WorkQueue[Any](other, "jobs")
        queue.put("a")
        late = claimed(queue, 0.001)
        job = again.claim(TIMEOUT)
        assert job is not None
        assert (job.payload, job.attempts) == ("a", 2)
        with pytest.raises(LeaseLostError):
            late.ack()
        job.ack()

    def test_delays(self, store: RedisStore) -> None:
        queue = WorkQueue[Any](store, "jobs", backoff=lambda attempts: 1_000.0)
        queue.put("later", delay=1_000)
        assert queue.claim(0) is None
        queue.put("soon", delay=0.001)
        job = queue.claim(TIMEOUT)
        assert job is not None
        assert job.payload == "soon"
        job.retry()
        assert queue.claim(0) is None

    def test_age(self, store: RedisStore) -> None:
        queue = WorkQueue[Any](store, "jobs")
        queue.put("a")
        age = queue.stats()["oldest_waiting"]
        assert 0 <= age < 60


def test_first_in_first_out_whatever_the_clocks_are(
    store: RedisStore, other: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, early = WorkQueue[Any](store, "jobs"), WorkQueue[Any](other, "jobs")
    queue.put(1)
    with monkeypatch.context() as patched:
        actual, actual_ns = time.time, time.time_ns
        patched.setattr(time, "time", lambda: actual() - 3600)
        patched.setattr(time, "time_ns", lambda: actual_ns() - 3600 * 10**9)
        early.put(2)
    queue.put(3)
    assert all_claimed(queue) == [1, 2, 3]


def test_a_clock_of_ones_own(store: RedisStore) -> None:
    clock = Clock()
    queue = WorkQueue[Any](store, "jobs", clock=clock)
    queue.put("a")
    job = claimed(queue, 10.0)
    assert job.leased_until == clock.now + 10.0
    clock.now += 10.0
    assert claimed(queue).attempts == 2
    with pytest.raises(LeaseLostError):
        job.ack()


def test_a_claim_is_one_command(redis_server: Server, namespace: str) -> None:
    requests: list[bytes] = []

    def judge(request: bytes) -> Reply:
        requests.append(request)
        return Reply.PASSED

    with (
        Proxy(redis_server.socket) as proxy,
        RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
    ):
        queue = WorkQueue[Any](store, "jobs")
        for payload in range(5):
            queue.put(payload)
        claimed(queue).ack()
        proxy.judge = judge
        job = claimed(queue)
        assert len(requests) == 1
        job.ack()
        assert len(requests) == 2
        queue.put("x")
        assert len(requests) == 3


def test_a_claim_whose_answer_is_lost(redis_server: Server, namespace: str) -> None:
    """It is asked what has become of it, and is not made twice."""

    def judge(request: bytes) -> Reply:
        if b"queue.attempts" in request:
            proxy.judge = lambda request: Reply.PASSED
            return Reply.LOST
        return Reply.PASSED

    with (
        Proxy(redis_server.socket) as proxy,
        RedisStore(proxy.url, EventManager(), namespace=namespace) as store,
    ):
        queue = WorkQueue[Any](store, "jobs")
        queue.put("a")
        queue.put("b")
        proxy.judge = judge
        job = claimed(queue)
        assert proxy.lost == 1
        assert (job.payload, job.attempts) == ("a", 1)
        job.ack()
        assert all_claimed(queue) == ["b"]


def test_an_index_that_somebody_removes(store: RedisStore, other: RedisStore) -> None:
    queue = WorkQueue[Any](store, "jobs")
    queue.put("a")
    other.remove_index(Ordered("queue.place"))
    other.set("jobs/x", (b"", {}))
    assert claimed(queue).payload == "a"
    other.remove_index(Ordered("queue.place"))
    assert queue.claim(0) is None
    assert other.info()["indexes"] == [Ordered("queue.place")]


def test_a_counter_that_has_an_index(store: RedisStore) -> None:
    """The script makes the same positions as the client."""
    store.add_index(Ordered("queue.attempts"))
    queue = WorkQueue[Any](store, "jobs\0", backoff=lambda attempts: 0.0)
    queue.put("a", key="a")
    for attempts in range(1, 6):
        job = claimed(queue)
        assert job.attempts == attempts
        found = store.query_keys(where={"queue.attempts": attempts}, order_by="queue.attempts", limit=1)
        assert list(found) == ["jobs\0/a"]
        if attempts < 5:
            job.retry(0)
    assert list(store.query_keys(order_by="queue.place", limit=1)) == ["jobs\0/a"]
    job.ack()
    assert list(store.query_keys(order_by="queue.attempts", limit=1)) == []
    assert list(store.query_keys(order_by="queue.place", limit=1)) == []


def test_a_claim_waits_for_a_transaction(store: RedisStore, other: RedisStore) -> None:
    """But not if there is nothing to be claimed."""
    queue, others = WorkQueue[Any](store, "jobs"), WorkQueue[Any](other, "jobs")
    with ThreadPoolExecutor(1) as executor:
        with other.transaction():
            assert queue.claim(0) is None
            others.put("a")
            assert queue.claim(0) is None
        claim = executor.submit(claimed, queue)
        assert claim.result(TIMEOUT).payload == "a"


def test_workers_of_many_clients(redis_server: Server, namespace: str) -> None:
    """Each job is done once, in the order of the queue for each worker."""
    done: list[list[int]] = []

    def work() -> None:
        with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
            queue = WorkQueue[int](store, "jobs")
            mine: list[int] = []
            done.append(mine)
            barrier.wait(TIMEOUT)
            while (job := queue.claim(0)) is not None:
                mine.append(job.payload)
                job.ack()

    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        queue = WorkQueue[int](store, "jobs")
        for number in range(200):
            queue.put(number)
        barrier = threading.Barrier(4)
        with ThreadPoolExecutor(4) as executor:
            for future in [executor.submit(work) for _ in range(4)]:
                future.result(TIMEOUT)
        assert all(mine == sorted(mine) for mine in done)
        assert sorted(itertools.chain(*done)) == list(range(200))
        assert queue.stats()["waiting"] == len(store) == 0
