"""Event loops, and stores of each kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, SqliteStore
from latchstore.engine.transactional_store import TransactionalStore

TIMEOUT = 20.0

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def _uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


@pytest.fixture(params=[asyncio.new_event_loop, _uvloop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine in a loop of its own, which is closed then; return its result."""

    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(coroutine, TIMEOUT))

    return call


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TransactionalStore]:
    """Make a store, of which reads wait for nobody, or for a file."""
    made: TransactionalStore
    if request.param == "memory":
        made = DictMemoryStore(EventManager())
    else:
        made = SqliteStore(tmp_path / "store", EventManager(), durability="off")
    with contextlib.closing(made):
        yield made


@pytest.fixture
def cache(store: TransactionalStore) -> Cache[Any]:
    """Make a cache on the store."""
    return Cache(store, max_entries=1000, codec="json")
