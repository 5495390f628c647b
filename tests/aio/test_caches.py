"""Caches awaited by tasks: one flight with threads and loops, cancellation, circles, memoized functions."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, EventManager, LoadTimeoutError, NearCache, RecursiveLoadError, SqliteStore
from latchstore.aio import AsyncCache, AsyncStore
from latchstore.cache.inspection import check
from tests.event_loops import TIMEOUT, Run


class OnPurposeError(Exception):
    """Raised by a loader."""


class Loader:
    """A coroutine function that counts its calls, and waits for permission to end."""

    def __init__(self) -> None:
        self.calls = 0
        self.ended = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, key: str) -> str:
        self.calls += 1
        self.begun.set()
        try:
            await self.go.wait()
        finally:
            self.ended += 1
        return key.upper()


async def turns(count: int = 20) -> None:
    """Let other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks and threads run until something has come true."""
    while not condition():
        await asyncio.sleep(0.001)


def test_one_load_for_a_thousand_tasks_and_eight_threads(run: Run) -> None:
    """999 of the tasks are cancelled meanwhile: the load goes on."""
    cache = Cache[str](max_entries=10)
    loaded_by_threads: list[str] = []
    got: list[str] = []

    def load(key: str) -> str:
        loaded_by_threads.append(key)
        return "of a thread"

    async def main() -> None:
        values, loader = AsyncCache(cache), Loader()
        tasks = [asyncio.create_task(values.get_or_load("k", loader)) for _ in range(1000)]
        await loader.begun.wait()
        threads = [
            threading.Thread(target=lambda: got.append(cache.get_or_load("k", load))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        await turns()
        for task in tasks[:-1]:
            task.cancel()
        await turns()
        assert not tasks[-1].done()
        loader.go.set()
        assert await tasks[-1] == "K"
        await until(lambda: len(got) == 8)
        for thread in threads:
            thread.join(TIMEOUT)
        assert loader.calls == 1

    run(main())
    assert got == ["K"] * 8
    assert not loaded_by_threads
    check(cache)


def test_the_last_one_cancelled_cancels_the_load(run: Run, cache: Cache[Any]) -> None:
    """Not the one that has begun it, as long as another waits; the next one who asks loads."""

    async def main() -> None:
        values, loader = AsyncCache(cache), Loader()
        first = asyncio.create_task(values.get_or_load("k", loader))
        await loader.begun.wait()
        second = asyncio.create_task(values.get_or_load("k", loader))
        await turns()
        await asyncio.sleep(0.05)  # of a store that reads in threads
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        await turns()
        assert loader.ended == 0
        second.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await second
        await until(lambda: loader.ended)
        loader.go.set()
        assert await values.get_or_load("k", loader) == "K"
        assert loader.calls == 2

    run(main())
    check(cache)


def test_a_load_of_a_thread_is_awaited(run: Run, cache: Cache[Any]) -> None:
    """The loop goes on meanwhile."""
    inside, leave = threading.Event(), threading.Event()

    def slow(key: str) -> str:
        inside.set()
        assert leave.wait(TIMEOUT)
        return "of the thread"

    async def never(key: str) -> str:
        raise AssertionError(key)

    async def main() -> None:
        thread = threading.Thread(target=cache.get_or_load, args=("k", slow))
        thread.start()
        await until(inside.is_set)
        values = AsyncCache(cache)
        tasks = [asyncio.create_task(values.get_or_load("k", never)) for _ in range(10)]
        await turns()
        assert not any(task.done() for task in tasks)
        with pytest.raises(LoadTimeoutError, match="still being loaded"):
            await values.get_or_load("k", never, timeout=0)
        leave.set()
        assert await asyncio.gather(*tasks) == ["of the thread"] * 10
        thread.join(TIMEOUT)

    run(main())


def test_two_loops_have_one_load(run: Run) -> None:
    """Of tasks in loops of two threads."""
    cache = Cache[str](max_entries=10)
    begun, go, calls = threading.Event(), threading.Event(), []

    async def slow(key: str) -> str:
        calls.append(key)
        begun.set()
        await until(go.is_set)
        return "once"

    got: list[str] = []

    async def ask() -> None:
        got.append(await AsyncCache(cache).get_or_load("k", slow))

    async def main() -> None:
        thread = threading.Thread(target=lambda: asyncio.run(ask()))
        thread.start()
        await until(begun.is_set)
        asking = asyncio.create_task(ask())
        await turns()
        go.set()
        await asking
        await until(lambda: len(got) == 2)
        thread.join(TIMEOUT)

    run(main())
    assert got == ["once", "once"]
    assert calls == ["k"]


def test_a_loop_that_ends_in_the_middle_of_a_load() -> None:
    """A thread that waits for it loads the key itself."""
    cache = Cache[str](max_entries=10)
    got: list[str] = []

    async def main() -> threading.Thread:
        loader = Loader()
        asyncio.get_running_loop().create_task(AsyncCache(cache).get_or_load("k", loader))
        await loader.begun.wait()
        thread = threading.Thread(target=lambda: got.append(cache.get_or_load("k", lambda key: "thread")))
        thread.start()
        await turns()
        return thread

    thread = asyncio.run(main())
    thread.join(TIMEOUT)
    assert got == ["thread"]
    check(cache)


def test_a_loop_that_is_closed_with_a_load_in_it() -> None:
    """Nobody cancels its tasks: the load is over all the same, and the key can be loaded."""
    cache = Cache[str](max_entries=10)
    loop = asyncio.new_event_loop()
    begun: list[str] = []

    async def slow(key: str) -> str:
        begun.append(key)
        await asyncio.Event().wait()
        return "never"

    task = loop.create_task(AsyncCache(cache).get_or_load("k", slow))
    while not begun:
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert cache.get_or_load("k", lambda key: "thread") == "thread"
    with contextlib.suppress(RuntimeError):
        task.get_coro().close()


@pytest.mark.parametrize("wait", [False, True])
def test_failures(run: Run, cache: Cache[Any], wait: bool) -> None:
    """Whoever waits gets a copy; with a negative_ttl, those who come later as well."""

    async def main() -> None:
        values, calls = AsyncCache(cache), 0

        async def fail(key: str) -> str:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.05 if wait else 0)
            raise OnPurposeError(key)

        asked = [values.get_or_load("k", fail, negative_ttl=60) for _ in range(5)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in errors] == [OnPurposeError] * 5
        assert calls == 1
        with pytest.raises(OnPurposeError):
            await values.get_or_load("k", fail)
        assert calls == 1

    run(main())


def test_stale_values(run: Run) -> None:
    """One that has expired serves if the loader fails; one that is to be refreshed while it is loaded."""
    now = [0.0]
    cache = Cache[str](max_entries=10, clock=lambda: now[0])

    async def main() -> None:
        values = AsyncCache(cache)

        async def fail(key: str) -> str:
            raise OnPurposeError(key)

        async def fresh(key: str) -> str:
            return "fresh"

        await values.set("k", "old", ttl=1, refresh_after=None)
        assert await values.get_or_load("s", fresh, ttl=1, stale_on_error=100) == "fresh"
        now[0] = 2
        assert await values.get_or_load("s", fail, ttl=1, stale_on_error=100) == "fresh"
        await values.set("r", "old", refresh_after=1)
        now[0] = 4
        loader = Loader()
        refreshing = asyncio.create_task(values.get_or_load("r", loader))
        await loader.begun.wait()
        assert await values.get_or_load("r", fail) == "old"
        loader.go.set()
        assert await refreshing == "R"

    run(main())


def test_plain_loaders_run_in_a_thread(run: Run, cache: Cache[Any]) -> None:
    """And may return something to be awaited."""

    async def main() -> None:
        values, main_thread = AsyncCache(cache), threading.get_ident()

        def load(key: str) -> bool:
            return threading.get_ident() == main_thread

        assert await values.get_or_load("thread", load) is False

        async def later() -> int:
            return 5

        def promise(key: str) -> Awaitable[int]:
            return later()

        assert await values.get_or_load("promise", promise) == 5

    run(main())


def test_circles(run: Run, cache: Cache[Any]) -> None:
    """A loader that asks for its own key, itself or by way of others, is refused at once."""

    async def main() -> None:
        values = AsyncCache(cache)

        async def own(key: str) -> Any:
            return await values.get_or_load("own", own)

        with pytest.raises(RecursiveLoadError, match="'own'"):
            await values.get_or_load("own", own)

        async def a(key: str) -> Any:
            return await asyncio.gather(values.get_or_load("b", b))

        async def b(key: str) -> Any:
            return await asyncio.create_task(values.get_or_load("a", a))

        with pytest.raises(RecursiveLoadError, match="'a' -> 'b'"):
            await values.get_or_load("a", a)

        both = asyncio.Barrier(2)

        async def crossed(key: str) -> Any:
            await both.wait()
            return await values.get_or_load("y" if key == "x" else "x", crossed)

        asked = (values.get_or_load("x", crossed), values.get_or_load("y", crossed))
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in errors} == {RecursiveLoadError}

    run(main())


def test_a_plain_call_in_the_loop_does_not_wait_for_a_task(run: Run) -> None:
    """It would keep the task from ending."""
    cache = Cache[str](max_entries=10)

    async def main() -> None:
        values, loader = AsyncCache(cache), Loader()
        loading = asyncio.create_task(values.get_or_load("k", loader))
        await loader.begun.wait()
        with pytest.raises(RecursiveLoadError, match="by this thread"):
            cache.get_or_load("k", str.upper)
        loader.go.set()
        await loading

    run(main())


def test_memoized_coroutine_functions(run: Run, cache: Cache[Any]) -> None:
    """By their arguments; methods by their instance."""

    async def main() -> None:
        values, calls = AsyncCache(cache), list[int | str]()

        @values.memoize(ttl=60, tags=lambda first, **rest: [f"tag {first}"])
        async def add(first: int, *, second: int = 1) -> int:
            calls.append(first)
            await asyncio.sleep(0)
            return first + second

        # What asyncio has for it is deprecated from 3.14 on, and inspect's knows the mark from 3.12 on.
        is_coroutine_function = (
            inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
        )
        assert is_coroutine_function(add)
        assert list(await asyncio.gather(add(1), add(1), add(2, second=3))) == [2, 2, 5]
        assert sorted(calls, key=str) == [1, 2]
        assert list(add.cache_info()[:2]) == [1, 2]
        assert await add.invalidate(1)
        assert not await add.invalidate(1)
        assert await values.invalidate_tag("tag 2") == 1
        assert await add(2, second=3) == 5
        assert sorted(calls, key=str) == [1, 2, 2]
        assert await values.contains(add.cache_key(2, second=3))
        await add.cache_clear()
        assert list(add.cache_info()[:2]) == [0, 0]

        class User:
            def __init__(self, name: str) -> None:
                self.name = name

            def __reduce__(self) -> Any:
                return User, (self.name,)

            @values.memoize(key=lambda self, suffix: (self.name, suffix))
            async def greet(self, suffix: str) -> str:
                calls.append(self.name)
                return self.name + suffix

        assert [await User("a").greet("!"), await User("a").greet("!"), await User("b").greet("!")] == [
            "a!",
            "a!",
            "b!",
        ]
        assert calls[-2:] == ["a", "b"]

    run(main())


def test_a_load_of_others_is_not_kept_if_a_block_invalidates_it(tmp_path: Path) -> None:
    """Though threads of the pool have invalidated it, and committed: two of them, as they come."""
    begun, go = threading.Event(), threading.Event()

    def slow(key: str) -> str:
        begun.set()
        assert go.wait(TIMEOUT)
        return "of before"

    def open_store() -> SqliteStore:
        return SqliteStore(tmp_path / "store", EventManager(), durability="off")

    async def main(store: SqliteStore, other: Cache[str]) -> None:
        values = AsyncCache(Cache[str](store, codec="json"))
        thread = threading.Thread(target=lambda: other.get_or_load("k", slow, tags=["t"]))
        async with AsyncStore(store).transaction() as tx:
            await tx.from_bytes("row", b"changed")
            await values.invalidate_tag("t")
            thread.start()
            await until(begun.is_set)
            # Other threads of the pool are free first.
            await asyncio.gather(*(asyncio.create_task(values.get(f"{number}")) for number in range(8)))
        go.set()
        await until(lambda: not thread.is_alive())
        assert await values.get("k") is None

    with open_store() as store, open_store() as others:
        asyncio.run(asyncio.wait_for(main(store, Cache[str](others, codec="json")), TIMEOUT))


def test_a_near_hit_awaits_nothing(tmp_path: Path) -> None:
    """It is in the memory of the process, though the store is a file."""
    with SqliteStore(tmp_path / "store", EventManager(), durability="off") as store:
        cache = Cache[int](store, max_entries=10, near=NearCache(staleness=5))

        async def main() -> None:
            values = AsyncCache(cache)
            await values.set("k", 1)
            while cache.stats()["near_hits"] == 0:
                assert await values.get("k") == 1
                assert await values.get_or_load("k", Loader()) == 1
            for coroutine in (values.get("k"), values.get_or_load("k", Loader())):
                with pytest.raises(StopIteration) as end:
                    coroutine.send(None)
                assert end.value.value == 1
            await values.delete("k")
            assert await values.get("k") is None

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))
        cache.close()


def test_methods(run: Run, cache: Cache[Any]) -> None:
    """They do what those of the cache do."""

    async def main() -> None:
        values = AsyncCache(cache)
        await values.set("a", 1, tags=["t"])
        await values.set_many({"b": 2, "c": 3})
        assert not await values.add("a", 5)
        assert await values.get_many(["a", "b", "x"]) == {"a": 1, "b": 2}
        assert await values.get("x") is None
        assert await values.get("x", 9) == 9
        assert await values.touch("a", 60)
        assert await values.contains("a")
        assert await values.invalidate_tag("t") == 1
        assert await values.delete_glob("b*") == 1
        assert await values.delete("c")
        assert not await values.delete("c")
        await values.set("d", 4)
        await values.clear()
        assert await values.sweep() == 0
        assert len(cache) == 0

    run(main())


def test_wrong_arguments(run: Run, cache: Cache[Any]) -> None:
    """The message says what to write instead."""
    with pytest.raises(TypeError, match=r"cache must be a latchstore\.Cache"):
        AsyncCache({})  # type: ignore[arg-type]

    async def coroutine_function(key: str) -> str:
        return key

    with pytest.raises(TypeError, match="AsyncCache"):
        cache.get_or_load("k", coroutine_function)
    with pytest.raises(TypeError, match="AsyncCache"):
        cache.get_or_load("k", lambda key: coroutine_function(key))
    with pytest.raises(TypeError, match="AsyncCache"):
        cache.get_many_or_load(["k"], coroutine_function)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="AsyncCache"):
        cache.memoize(coroutine_function)
    with pytest.raises(TypeError, match=r"use Cache\.memoize for plain functions"):
        AsyncCache(cache).memoize(str.upper)  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(TypeError, match="key must be a str"):
            await AsyncCache(cache).get_or_load(1, coroutine_function)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="loader must be callable"):
            await AsyncCache(cache).get_or_load("k", 1)  # type: ignore[call-overload]

    run(main())
