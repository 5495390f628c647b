"""Every wait of a store on a server ends, whatever a test has done to the clocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore import EventManager, OutcomeUnknownError, RedisStore
from tests.redis.proxy import Proxy, Reply
from tests.redis.servers import Server
from tests.test_clocks import CLOCKS, FOR_OTHERS, SHORT, TIMEOUT, WAITS, Scene, ends


@pytest.fixture
def make(redis_server: Server, namespace: str) -> Callable[..., RedisStore]:
    def made(url: str = redis_server.url, **options: Any) -> RedisStore:
        options |= {"lock_timeout": SHORT, "max_pending_events": 2}
        return RedisStore(url, EventManager(), namespace=namespace, **options)

    return made


@pytest.fixture
def scene(make: Callable[..., RedisStore]) -> Iterator[Scene]:
    scene = Scene(make())
    yield scene
    scene.end()


@pytest.fixture
def apart(make: Callable[..., RedisStore]) -> Iterator[Scene]:
    scene = Scene(make(), make())
    yield scene
    scene.end()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wait", WAITS)
def test_every_wait_ends(scene: Scene, wait: str, clock: str) -> None:
    ends(scene, wait, clock)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wait", FOR_OTHERS)
def test_every_wait_for_another_process_ends(apart: Scene, wait: str, clock: str) -> None:
    ends(apart, wait, clock)


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_wait_for_a_server_that_does_not_answer_ends(
    make: Callable[..., RedisStore], redis_server: Server, clock: str
) -> None:
    ended: list[BaseException] = []

    def write() -> None:
        try:
            far.from_bytes("a", b"")
        except (OSError, OutcomeUnknownError) as error:
            ended.append(error)

    with Proxy(redis_server.socket) as proxy, make(proxy.url, socket_timeout=SHORT) as far:
        far.from_bytes("a", b"")
        proxy.judge = lambda request: Reply.HELD
        with CLOCKS[clock]():
            waiting = threading.Thread(target=write, daemon=True)
            waiting.start()
            waiting.join(TIMEOUT)
        proxy.judge = lambda request: Reply.PASSED
        proxy.release()
    assert not waiting.is_alive()
    assert len(ended) == 1
