"""Under trio, and under anyio with each of its backends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from latchstore import Cache, StoreSetEvent
from latchstore.aio import AsyncCache, AsyncStore
from latchstore.engine.transactional_store import TransactionalStore

anyio = pytest.importorskip("anyio")


async def load(key: str) -> str:
    return key.upper()


async def _transaction(store: AsyncStore, cache: AsyncCache[Any]) -> None:
    async with store.transaction() as tx:
        await tx.set("k", (b"", {}))


async def _attempts(store: AsyncStore, cache: AsyncCache[Any]) -> None:
    async for attempt in store.attempts():
        async with attempt as tx:
            await tx.set("k", (b"", {}))


async def _watch(store: AsyncStore, cache: AsyncCache[Any]) -> None:
    async with store.watch() as changes:
        store.store.from_bytes("there", b"")
        await changes.get()


CALLS: dict[str, Callable[[AsyncStore, AsyncCache[Any]], Coroutine[Any, Any, object]]] = {
    "set": lambda store, cache: store.set("k", (b"", {})),
    "query": lambda store, cache: store.query_keys(),
    "flush": lambda store, cache: store.flush(),
    "wait_for": lambda store, cache: store.wait_for(lambda: True),
    "wait_for_key": lambda store, cache: store.wait_for_key("there"),
    "transaction": _transaction,
    "attempts": _attempts,
    "watch": _watch,
    "get_or_load": lambda store, cache: cache.get_or_load("k", load),
    "cache.set": lambda store, cache: cache.set("k", "K"),
}


@pytest.mark.parametrize("name", CALLS)
def test_on_asyncio_by_anyio(store: TransactionalStore, cache: Cache[Any], name: str) -> None:
    """It is as without anyio."""
    store.from_bytes("there", b"")
    anyio.run(CALLS[name], AsyncStore(store), AsyncCache(cache), backend="asyncio")


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"wait_for", "wait_for_key", "watch"}))
def test_on_trio(store: TransactionalStore, cache: Cache[Any], name: str) -> None:
    """The error names asyncio, nothing is written, and nothing is left open."""
    pytest.importorskip("trio")
    store.from_bytes("there", b"")
    with pytest.raises(RuntimeError, match="running asyncio event loop"):
        anyio.run(CALLS[name], AsyncStore(store), AsyncCache(cache), backend="trio")
    assert list(store.query_keys()) == ["there"]
    assert cache.get_or_load("k", str.upper) == "K"


@pytest.mark.parametrize("name", ["wait_for", "wait_for_key", "watch"])
def test_waits_on_trio(store: TransactionalStore, cache: Cache[Any], name: str) -> None:
    """They are refused, whether there is anything to wait for or not."""
    pytest.importorskip("trio")
    with pytest.raises(RuntimeError, match="running asyncio event loop"):
        anyio.run(CALLS[name], AsyncStore(store), AsyncCache(cache), backend="trio")


def test_a_listener_on_trio(store: TransactionalStore) -> None:
    """It is refused where it is connected."""
    pytest.importorskip("trio")

    async def listen(event: StoreSetEvent) -> None:
        raise AssertionError(event)

    async def main() -> None:
        with pytest.raises(TypeError, match="in an asyncio task"):
            store.event_manager.connect(StoreSetEvent, listen)

    anyio.run(main, backend="trio")
