"""Waits of tasks end though a test has replaced the clock that event loops ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from latchstore import Cache, StoreSetEvent
from latchstore.aio import AsyncCache, AsyncStore
from latchstore.engine.transactional_store import TransactionalStore
from tests.test_clocks import CLOCKS, SHORT, ends_with_an_error


async def conflicting(store: AsyncStore, cache: AsyncCache[Any]) -> None:
    await store.from_bytes("n", b"")
    async for attempt in store.attempts(tries=2):
        async with attempt as transaction:
            await transaction.to_bytes("n")
            await asyncio.create_task(store.from_bytes("n", b""))
            await transaction.from_bytes("m", b"")


async def loading(store: AsyncStore, cache: AsyncCache[Any]) -> None:
    inside = asyncio.Event()

    async def loader(key: str) -> None:
        inside.set()
        await asyncio.Event().wait()

    other = asyncio.create_task(cache.get_or_load("loaded", loader))
    await inside.wait()
    try:
        await cache.get_or_load("loaded", loader, timeout=SHORT)
    finally:
        other.cancel()


async def never_heard(event: StoreSetEvent) -> None:
    await asyncio.Event().wait()


async def flushing(store: AsyncStore, cache: AsyncCache[Any]) -> None:
    store.store.event_manager.connect(StoreSetEvent, never_heard)
    await store.set("n", (b"", {}))
    await store.flush(SHORT)


WAITS: dict[str, Callable[[AsyncStore, AsyncCache[Any]], Awaitable[object]]] = {
    "watch.get": lambda store, cache: store.watch().get(SHORT),
    "wait_for_key": lambda store, cache: store.wait_for_key("z", SHORT),
    "load": loading,
    "attempts": conflicting,
    "flush": flushing,
}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_of_a_task_ends(store: TransactionalStore, wait: str, clock: str) -> None:
    async def main() -> None:
        await WAITS[wait](AsyncStore(store), AsyncCache(Cache(store, codec="raw")))

    ends_with_an_error(lambda: asyncio.run(main()), clock)
