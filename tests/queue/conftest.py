"""A store, a queue on it, and a clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, RedisStore, SqliteStore, WorkQueue
from latchstore.engine.inspection import check_idle
from latchstore.queue import claiming
from tests.queue.parts import AnyStore, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    if request.param == "redis":
        server, namespace = request.getfixturevalue("redis_server"), request.getfixturevalue("namespace")
        with RedisStore(server.url, EventManager(), namespace=namespace, lock_timeout=10.0) as on_server:
            yield on_server
        return
    if request.param == "sqlite":
        with SqliteStore(tmp_path / "store", EventManager(), lock_timeout=10.0, durability="off") as on_file:
            yield on_file
        return
    store = DictMemoryStore(EventManager(), lock_timeout=10.0)
    yield store
    check_idle(store)
    store.close()


@pytest.fixture
def queue(store: AnyStore, clock: Clock) -> WorkQueue[Any]:
    return WorkQueue(store, "jobs", max_attempts=3, backoff=lambda attempts: 10.0 * attempts, clock=clock)


@pytest.fixture
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by itself, so that a wake-up which is lost is not made good."""
    monkeypatch.setattr(claiming, "LOOK_AGAIN", 1_000.0)
