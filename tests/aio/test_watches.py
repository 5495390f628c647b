"""Watches, waits and listeners of tasks."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    FlushTimeoutError,
    StoreClosedError,
    StoreSetEvent,
    WaitTimeoutError,
    WatchClosedError,
)
from latchstore.aio import AsyncStore
from latchstore.delivery import async_waiting
from latchstore.engine.transactional_store import TransactionalStore
from tests.event_loops import TIMEOUT, Run


def test_changes_of_threads_are_read_in_order(run: Run, store: TransactionalStore) -> None:
    """By a task, until the store is closed."""

    def write() -> None:
        for number in range(50):
            store.from_bytes(f"k{number}", b"")

    async def main() -> None:
        tasks = AsyncStore(store)
        async with tasks.watch("k*") as changes:
            thread = threading.Thread(target=write)
            thread.start()
            read = [change.key async for change in _first(changes, 50)]
            thread.join(TIMEOUT)
            assert read == [f"k{number}" for number in range(50)]
            with pytest.raises(WaitTimeoutError, match="no change in"):
                await changes.get(0.01)
        with pytest.raises(WatchClosedError):
            await changes.get()
        changes = tasks.watch()
        await tasks.from_bytes("last", b"")
        reading = asyncio.create_task(_all(changes))
        await tasks.close()
        assert [change.key for change in await reading] == ["last"]

    run(main())


async def _first(changes: Any, count: int) -> Any:
    for _ in range(count):
        yield await changes.__anext__()


async def _all(changes: Any) -> list[Any]:
    return [change async for change in changes]


def test_several_tasks_read_one_watch(run: Run, store: TransactionalStore) -> None:
    """Each change goes to one; a reader that is cancelled loses none."""

    async def main() -> None:
        tasks = AsyncStore(store)
        read: list[str] = []

        async def reader(changes: Any) -> None:
            while True:
                read.append((await changes.get()).key)

        async with tasks.watch() as changes:
            readers = [asyncio.create_task(reader(changes)) for _ in range(4)]
            await asyncio.sleep(0)
            for number in range(20):
                store.from_bytes(f"{number}", b"")
                if number < 3:
                    readers[number].cancel()
                await asyncio.sleep(0)
            while len(read) < 20:
                await asyncio.sleep(0.001)
            readers[3].cancel()
            assert sorted(read, key=int) == [f"{number}" for number in range(20)]

    run(main())


def test_a_watch_that_nobody_has_is_closed(run: Run, store: TransactionalStore) -> None:
    """As that of threads is."""

    async def main() -> None:
        before = store.stats()["watches"]
        changes = AsyncStore(store).watch()
        assert store.stats()["watches"] == before + 1
        del changes
        gc.collect()
        store.from_bytes("k", b"")
        assert store.stats()["watches"] == before

    run(main())


def test_waits(run: Run, store: TransactionalStore) -> None:
    """For a key, and for what a function or a coroutine function finds."""

    async def main() -> None:
        tasks = AsyncStore(store)
        waiting = asyncio.create_task(tasks.wait_for_key("k*"))
        await asyncio.sleep(0)
        await tasks.from_bytes("kk", b"")
        assert not waiting.done()
        await tasks.from_bytes("k*", b"data")
        assert (await waiting).data.read() == b"data"

        async def two() -> bool:
            return await tasks.count() >= 3

        both = [
            asyncio.create_task(tasks.wait_for(two)),
            asyncio.create_task(tasks.wait_for(lambda: store.exists("third"))),
        ]
        await asyncio.sleep(0)
        await tasks.from_bytes("third", b"")
        assert await asyncio.gather(*both) == [True, True]
        with pytest.raises(WaitTimeoutError, match="key 'never'"):
            await tasks.wait_for_key("never", 0.01)
        waiting = asyncio.create_task(tasks.wait_for_key("never"))
        await asyncio.sleep(0)
        await tasks.close()
        with pytest.raises(WatchClosedError, match="was closed during the wait for key 'never'"):
            await waiting
        with pytest.raises(StoreClosedError):
            tasks.watch()

    run(main())


class Listening:
    """Has a method that listens."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    async def listen(self, event: StoreSetEvent) -> None:
        """Take a while."""
        await asyncio.sleep(0)
        self.heard.append(event.key)


def test_coroutine_functions_listen(run: Run, store: TransactionalStore) -> None:
    """In the loop, in order, each by itself; a method of an object that is gone does not."""

    async def main() -> None:
        tasks, manager = AsyncStore(store), store.event_manager
        heard: list[str] = []
        by_method: list[str] = []
        threads: set[int] = set()

        async def listen(event: StoreSetEvent) -> None:
            threads.add(threading.get_ident())
            await asyncio.sleep(0.001)
            heard.append(event.key)

        listening = Listening(by_method)
        manager.connect(StoreSetEvent, listen)
        manager.connect(StoreSetEvent, listening.listen, {"key": "3"})
        assert list(manager.get_listeners(StoreSetEvent)) == [listen, listening.listen]

        def write() -> None:
            for number in range(10):
                store.from_bytes(f"{number}", b"")

        thread = threading.Thread(target=write)
        thread.start()
        while not store.exists("9"):
            await asyncio.sleep(0.001)
        await tasks.flush()
        thread.join(TIMEOUT)
        assert heard == [f"{n}" for n in range(10)]
        assert by_method == ["3"]
        assert threads == {threading.get_ident()}
        del listening
        gc.collect()
        manager.disconnect(StoreSetEvent, listen)
        await tasks.from_bytes("3", b"")
        await tasks.flush()
        assert len(heard) == 10
        assert by_method == ["3"]

    run(main())


def test_a_coroutine_function_that_fails(
    run: Run, store: TransactionalStore, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and called for what comes after."""

    async def main() -> None:
        heard: list[str] = []

        async def listen(event: StoreSetEvent) -> None:
            heard.append(event.key)
            raise ValueError(event.key)

        store.event_manager.connect(StoreSetEvent, listen)
        store.from_bytes("a", b"")
        store.from_bytes("b", b"")
        await AsyncStore(store).flush()
        assert heard == ["a", "b"]
        store.event_manager.disconnect(StoreSetEvent, listen)

    run(main())
    assert [record.message.split(" failed on ")[0].rpartition(".")[2] for record in caplog.records] == [
        "listen",
        "listen",
    ]


def test_a_loop_that_is_closed_has_no_listeners(caplog: pytest.LogCaptureFixture) -> None:
    """They are disconnected, with one line in the log."""
    store = DictMemoryStore(EventManager())

    async def listen(event: StoreSetEvent) -> None:
        raise AssertionError(event)

    async def main() -> None:
        store.event_manager.connect(StoreSetEvent, listen)

    asyncio.run(main())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            store.from_bytes("k", b"")
            store.flush()
    assert ["event loop is closed" in record.message for record in caplog.records] == [True]
    assert not list(store.event_manager.get_listeners(StoreSetEvent))
    store.close()


def test_plain_calls_name_the_awaited_ones(run: Run, store: TransactionalStore) -> None:
    """`async with` on what is entered by `with`, and a coroutine function where no loop runs."""

    async def main() -> None:
        with pytest.raises(TypeError, match="AsyncStore"):
            async with store:
                pass
        with pytest.raises(TypeError, match="AsyncStore"):
            async with store.transaction():
                pass

    run(main())
    with pytest.raises(TypeError, match="must be connected in an asyncio task"):
        store.event_manager.connect(StoreSetEvent, Listening([]).listen)


def test_async_with_closes_the_store(run: Run, store: TransactionalStore) -> None:
    """As `with` does."""

    async def main() -> None:
        async with AsyncStore(store) as tasks:
            await tasks.set("k", (b"", {}))
            await tasks.multiset(["a", "b"], [(b"", {}), (b"", {"n": 1})])
            await tasks.multiset_metadata(["a"], [{"n": 2}])
            await tasks.multiupdate_metadata(["a"], [{"m": 3}])
            await tasks.set_metadata("k", {"n": 1})
            assert await tasks.query(n=1, order_by="key") == [("b", {"n": 1}), ("k", {"n": 1})]
            assert await tasks.get_metadata("a") == {"n": 2, "m": 3}
            assert (await tasks.get("k")).metadata == {"n": 1}
            assert [value.metadata for value in await tasks.multiget(["b"])] == [{"n": 1}]
            await tasks.delete("k")
        with pytest.raises(StoreClosedError):
            store.from_bytes("k", b"")

    run(main())


def test_two_listeners_that_flush(run: Run, store: TransactionalStore) -> None:
    """Neither waits for the other one."""

    async def main() -> None:
        tasks, both, heard = AsyncStore(store), asyncio.Barrier(2), list[str]()

        async def first(event: StoreSetEvent) -> None:
            await both.wait()
            await tasks.flush()
            heard.append("first")

        async def second(event: StoreSetEvent) -> None:
            await both.wait()
            await asyncio.create_task(tasks.flush())
            heard.append("second")

        store.event_manager.connect(StoreSetEvent, first)
        store.event_manager.connect(StoreSetEvent, second)
        store.from_bytes("k", b"")
        await tasks.flush()
        assert sorted(heard) == ["first", "second"]
        store.event_manager.disconnect(StoreSetEvent, first)
        store.event_manager.disconnect(StoreSetEvent, second)

    run(main())


def test_a_flush_that_takes_too_long(run: Run, store: TransactionalStore) -> None:
    """The error names the coroutine function."""

    async def main() -> None:
        tasks, go = AsyncStore(store), asyncio.Event()

        async def listen(event: StoreSetEvent) -> None:
            await go.wait()

        store.event_manager.connect(StoreSetEvent, listen)
        store.from_bytes("k", b"")
        with pytest.raises(FlushTimeoutError, match=r"listen was not awaited in time for 1 events") as error:
            await tasks.flush(0.05)
        assert error.value.pending == 1
        go.set()
        await tasks.flush()
        store.event_manager.disconnect(StoreSetEvent, listen)

    run(main())


def test_what_a_listener_awaits_is_cancelled(
    run: Run, store: TransactionalStore, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails on that event, and is called for the next."""

    async def main() -> None:
        heard: list[str] = []

        async def listen(event: StoreSetEvent) -> None:
            heard.append(event.key)
            if event.key == "a":
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future

        store.event_manager.connect(StoreSetEvent, listen)
        store.from_bytes("a", b"")
        store.from_bytes("b", b"")
        while heard != ["a", "b"]:
            await asyncio.sleep(0.001)
        store.event_manager.disconnect(StoreSetEvent, listen)

    run(main())
    assert ["failed on" in record.message for record in caplog.records] == [True]


class Calling:
    """An object that can be called, and a class method."""

    heard: ClassVar[list[str]] = []

    async def __call__(self, event: StoreSetEvent) -> None:
        """Note an event."""
        await asyncio.sleep(0)
        self.heard.append(f"object {event.key}")

    @classmethod
    async def listen(cls, event: StoreSetEvent) -> None:
        """Note an event."""
        await asyncio.sleep(0)
        cls.heard.append(f"class {event.key}")

    async def named(self, name: str, event: StoreSetEvent) -> None:
        """Note an event."""
        await asyncio.sleep(0)
        self.heard.append(f"{name} {event.key}")


def test_listeners_of_each_kind(run: Run, store: TransactionalStore) -> None:
    """A partial, an object that can be called, a class method; what was committed before a disconnect."""
    Calling.heard.clear()

    async def main() -> None:
        tasks, manager = AsyncStore(store), store.event_manager
        listeners: list[Callable[[StoreSetEvent], object]]
        listeners = [functools.partial(Calling().named, "partial"), Calling(), Calling.listen]
        for listener in listeners:
            manager.connect(StoreSetEvent, listener)
        store.from_bytes("k", b"")
        store.flush()
        for listener in listeners:
            manager.disconnect(StoreSetEvent, listener)
        store.from_bytes("later", b"")
        await tasks.flush()
        assert sorted(Calling.heard) == ["class k", "object k", "partial k"]

    run(main())


def test_connected_again_from_another_loop() -> None:
    """What the closed loop does not hear of is no reason to disconnect it there."""
    store = DictMemoryStore(EventManager())
    heard: list[str] = []
    held, go = threading.Event(), threading.Event()

    async def listen(event: StoreSetEvent) -> None:
        heard.append(event.key)

    def hold(event: StoreSetEvent) -> None:
        held.set()
        assert go.wait(TIMEOUT)

    async def first() -> None:
        store.event_manager.connect(StoreSetEvent, hold, {"key": "a"}, priority=1)
        store.event_manager.connect(StoreSetEvent, listen)
        store.from_bytes("a", b"")
        assert held.wait(TIMEOUT)
        store.event_manager.disconnect(StoreSetEvent, listen)

    async def second() -> None:
        store.event_manager.connect(StoreSetEvent, listen)
        go.set()
        store.flush()
        store.from_bytes("b", b"")
        await AsyncStore(store).flush()
        assert heard == ["b"]

    asyncio.run(first())
    asyncio.run(second())
    store.close()


def test_a_reader_that_is_cancelled_right_when_it_is_rung(
    run: Run, store: TransactionalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is woken in its place: it need not look by itself."""
    monkeypatch.setattr(async_waiting, "LOOK_AGAIN", 10 * TIMEOUT)

    async def main() -> None:
        changes = AsyncStore(store).watch()
        first = asyncio.create_task(changes.get())
        second = asyncio.create_task(changes.get())
        await asyncio.sleep(0)
        first.cancel()
        store.from_bytes("k", b"")
        change = await second
        assert isinstance(change, StoreSetEvent)
        assert change.key == "k"
        assert first.cancelled()
        changes.close()

    run(main())
