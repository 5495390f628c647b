"""The proxy passes requests on and loses replies, so that a client cannot know what has happened."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.redis.proxy import Proxy, Reply, share
from tests.redis.servers import PATIENCE, Server


def connected(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def proxy(emptied_server: Server) -> Iterator[Proxy]:
    with Proxy(emptied_server.socket) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    with connected(proxy.url) as client:
        yield client


def test_what_is_not_lost_comes_through_whole(client: redis.Redis, namespace: str) -> None:
    value = bytes(range(256)) * 4_000
    client.set(namespace, value)
    assert client.get(namespace) == value


def test_a_lost_reply_is_of_a_request_that_was_made(
    proxy: Proxy, client: redis.Redis, namespace: str
) -> None:
    proxy.judge = lambda request: Reply.LOST if b"INCR" in request and not proxy.lost else Reply.PASSED
    with pytest.raises(redis.ConnectionError):
        client.incr(namespace)
    assert proxy.lost == 1
    assert client.get(namespace) == b"1"


def test_a_held_reply_comes_when_it_is_released(proxy: Proxy, client: redis.Redis, namespace: str) -> None:
    held = threading.Event()

    def judge(request: bytes) -> Reply:
        if b"INCR" not in request:
            return Reply.PASSED
        held.set()
        return Reply.HELD

    proxy.judge = judge
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(client.incr(namespace)))
    thread.start()
    assert held.wait(PATIENCE)
    assert client.get(namespace) == b"1"
    assert not answers
    proxy.release()
    thread.join(PATIENCE)
    assert answers == [1]


def test_a_share_of_the_replies_is_lost(proxy: Proxy, client: redis.Redis, namespace: str) -> None:
    judge, lost = share(0.05, seed=1), 0
    # Not of what a new connection begins with: then the client would not send its request.
    proxy.judge = lambda request: judge(request) if b"INCR" in request else Reply.PASSED
    for _ in range(1_000):
        try:
            client.incr(namespace)
        except redis.ConnectionError:
            lost += 1
    assert proxy.lost == lost
    assert 20 < lost < 100
    assert client.get(namespace) == b"1000"


def test_a_server_that_is_gone_is_gone_behind_the_proxy(redis_server: Server) -> None:
    with Server(redis_server.kind) as server, Proxy(server.socket) as proxy, connected(proxy.url) as client:
        assert client.ping()
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert client.ping()


def test_it_runs_as_a_process_until_its_input_ends(emptied_server: Server, namespace: str) -> None:
    command = [
        sys.executable, "-m", "tests.redis.proxy", str(emptied_server.socket), "--share", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = f"unix://{process.stdout.readline().strip()}"
        with connected(url) as client, pytest.raises(redis.ConnectionError):
            client.incr(namespace)
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
