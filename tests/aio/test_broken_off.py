"""Tasks that are cancelled, or dropped with their loop, at each of their awaits: nothing stays taken."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore
from latchstore.aio import AsyncCache, AsyncStore
from latchstore.cache.inspection import check as check_cache
from latchstore.engine.inspection import check
from tests.event_loops import TIMEOUT, Run

#: More turns of the loop than any of the operations takes.
TURNS = 14


async def load(key: str) -> str:
    await asyncio.sleep(0)
    return key.upper()


async def _get_or_load(cache: Cache[Any]) -> None:
    await AsyncCache(cache).get_or_load("k", load, tags=["t"])


async def _plain_loader(cache: Cache[Any]) -> None:
    await AsyncCache(cache).get_or_load("k", str.upper, negative_ttl=1)


async def _refresh(cache: Cache[Any]) -> None:
    values = AsyncCache(cache)
    await values.set("k", "K", refresh_after=1e-9)
    await values.get_or_load("k", load)


async def _load_inside(cache: Cache[Any]) -> None:
    async with AsyncStore(cache.store).transaction():  # type: ignore[arg-type]
        await AsyncCache(cache).get_or_load("k", load)


async def _attempts(cache: Cache[Any]) -> None:
    async for attempt in AsyncStore(cache.store).attempts():  # type: ignore[arg-type]
        async with attempt as tx, tx.transaction() as inner:
            await inner.set("two", (b"", {}))
            await inner.set("keys", (b"", {}))
            await inner.query_keys()


OPERATIONS = [_get_or_load, _plain_loader, _refresh, _load_inside, _attempts]

Operation = Callable[[Cache[Any]], Coroutine[Any, Any, None]]


def nothing_is_left(cache: Cache[Any]) -> None:
    """Look at what a cache, and a store, has open, while nobody uses them."""
    store = cache.store
    check_cache(cache)
    if isinstance(store, DictMemoryStore):
        check(store)
    # At one instant, as a commit may be under way in another thread.
    assert len({"two", "keys"}.intersection(store.query_keys())) in (0, 2)
    # A lease that was left would last longer.
    assert cache.get_or_load("k", str.upper, timeout=TIMEOUT) == "K"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_cancelled(run: Run, cache: Cache[Any], operation: Operation) -> None:
    """The next one who asks for the key loads it; what a block has written is there whole, or not at all."""

    async def main(turns: int) -> None:
        task = asyncio.create_task(operation(cache))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await AsyncCache(cache).get_or_load("k", load) == "K"

    for turns in range(TURNS):
        run(main(turns))
        nothing_is_left(cache)
        cache.clear()
        for key in cache.store.glob("*"):
            cache.store.delete(key)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_dropped_with_its_loop(cache: Cache[Any], operation: Operation) -> None:
    """It is as if it had never been begun, or had come to its end."""
    for turns in range(TURNS):
        loop = asyncio.new_event_loop()
        task: asyncio.Task[None] = loop.create_task(operation(cache))
        for _ in range(turns):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        del task, loop
        gc.collect()
        assert asyncio.run(AsyncCache(cache).get_or_load("k", load)) == "K"
        nothing_is_left(cache)
        cache.clear()
        for key in cache.store.glob("*"):
            cache.store.delete(key)
