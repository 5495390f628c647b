"""`AsyncStore` on a `RedisStore`: calls are made in threads, and a task's transaction is one all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from latchstore import EventManager, EventsLost, RedisStore, TransactionConflictError
from latchstore.aio import AsyncStore
from tests.redis.servers import Server

TIMEOUT = 20.0


@pytest.fixture
def store(redis_server: Server, namespace: str) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
        yield store


def test_transactions_of_tasks(store: RedisStore) -> None:
    """Each is one commit, tried again after conflicts; a cancelled one leaves nothing."""

    async def main() -> None:
        tasks = AsyncStore(store)
        await tasks.set("n", (b"", {"n": 0}))

        async def add() -> None:
            async for attempt in tasks.attempts("add"):
                async with attempt as tx:
                    count = (await tx.get_metadata("n"))["n"]
                    await tx.update_metadata("n", {"n": count + 1})

        await asyncio.gather(*(add() for _ in range(5)))
        assert await tasks.get_metadata("n") == {"n": 5}

        async def overtaken() -> None:
            async with tasks.transaction() as tx:
                await tx.get_metadata("n")
                await asyncio.create_task(tasks.update_metadata("n", {"n": 0}))
                await tx.from_bytes("k", b"")

        with pytest.raises(TransactionConflictError, match="'n'"):
            await overtaken()

        async def cancelled() -> None:
            async with tasks.transaction() as tx:
                await tx.from_bytes("k", b"")
                await asyncio.Event().wait()

        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not await tasks.exists("k")

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


def test_changes_of_another_store_are_read(store: RedisStore, redis_server: Server, namespace: str) -> None:
    """As from another machine."""

    async def main() -> None:
        async with AsyncStore(RedisStore(redis_server.url, EventManager(), namespace=namespace)) as other:
            async with AsyncStore(store).watch() as changes:
                await other.multiset(["a", "b"], [(b"", {}), (b"", {})])
                first, second = await changes.get(), await changes.get()
                assert not isinstance(first, EventsLost)
                assert not isinstance(second, EventsLost)
                assert [first.key, second.key] == ["a", "b"]
            assert (await AsyncStore(store).wait_for_key("b")).metadata == {}

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
