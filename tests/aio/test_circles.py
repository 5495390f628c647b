"""Loads that would wait for themselves, by way of tasks and of the threads that work for them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from latchstore import Cache, RecursiveLoadError
from latchstore.aio import AsyncCache, AsyncStore
from latchstore.cache import async_loading
from latchstore.cache.inspection import check
from tests.event_loops import Run


def test_a_plain_loader_that_asks_for_its_own_key(run: Run, cache: Cache[Any]) -> None:
    """It runs in another thread than the task that has begun the load."""

    async def main() -> None:
        with pytest.raises(RecursiveLoadError, match="'k'"):
            await AsyncCache(cache).get_or_load("k", lambda key: cache.get_or_load(key, str.upper))

    run(main())
    check(cache)


def test_a_plain_loader_and_a_coroutine_function(run: Run, cache: Cache[Any]) -> None:
    """Each asks for the key of the other one."""

    async def main() -> None:
        values = AsyncCache(cache)

        async def b(key: str) -> Any:
            return await values.get_or_load("a", lambda key: cache.get_or_load("b", str.upper))

        with pytest.raises(RecursiveLoadError, match="'b' -> 'a'"):
            await values.get_or_load("b", b)

    run(main())
    check(cache)


def test_a_thread_that_the_loader_has_started(run: Run, cache: Cache[Any]) -> None:
    """With `asyncio.to_thread`, which takes the context along."""

    async def main() -> None:
        values = AsyncCache(cache)

        async def load(key: str) -> Any:
            return await asyncio.to_thread(cache.get_or_load, key, str.upper)

        with pytest.raises(RecursiveLoadError, match="'k'"):
            await values.get_or_load("k", load)

    run(main())
    check(cache)


def test_a_plain_call_in_the_loop(run: Run, cache: Cache[Any]) -> None:
    """It would keep the task from ending, whichever thread has looked in the store for that."""

    async def main() -> None:
        values, begun, go = AsyncCache(cache), asyncio.Event(), asyncio.Event()

        async def load(key: str) -> int:
            begun.set()
            await go.wait()
            return 1

        loading = asyncio.create_task(values.get_or_load("k", load))
        await begun.wait()
        with pytest.raises(RecursiveLoadError, match="by this thread"):
            cache.get_or_load("k", str.upper)
        go.set()
        assert await loading == 1

    run(main())
    check(cache)


def test_in_a_transaction(run: Run, cache: Cache[Any]) -> None:
    """A loader, with steps in several threads, is refused its own key; what it sets counts more."""

    async def main() -> None:
        values = AsyncCache(cache)

        async def own(key: str) -> Any:
            return await values.get_or_load(key, own)

        async def load(key: str) -> str:
            await values.set(key, "set")
            return "loaded"

        async with AsyncStore(cache.store).transaction():  # type: ignore[arg-type]
            with pytest.raises(RecursiveLoadError, match="'own'"):
                await values.get_or_load("own", own)
            await values.get_or_load("k", load)
            assert await values.get("k") == "set"

    run(main())
    check(cache)


def test_a_circle_that_is_not_seen_is_logged(
    run: Run, cache: Cache[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread's loader waits for a coroutine that asks for the thread's key."""
    monkeypatch.setattr(async_loading, "LONG", 0.01)

    async def main() -> None:
        values, loop = AsyncCache(cache), asyncio.get_running_loop()

        async def ask() -> Any:
            return await values.get_or_load("k", str.upper, timeout=0.1)

        def load(key: str) -> Any:
            return asyncio.run_coroutine_threadsafe(ask(), loop).result()

        with caplog.at_level(logging.WARNING), pytest.raises(Exception, match="still being loaded"):
            await asyncio.to_thread(cache.get_or_load, "k", load)

    run(main())
    assert ["has waited for key 'k'" in record.message for record in caplog.records] == [True]
