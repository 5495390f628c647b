"""Transactions of tasks: what is in them, what is not, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import pytest

from latchstore import (
    Cache,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    TransactionClosedError,
    TransactionConflictError,
    TransactionError,
    WrongThreadError,
)
from latchstore.aio import AsyncCache, AsyncStore, AsyncTransaction
from latchstore.engine.inspection import check
from latchstore.engine.transactional_store import TransactionalStore
from tests.event_loops import TIMEOUT, Run


class OnPurposeError(Exception):
    """Ends a block."""


def test_changes_of_a_block_are_one_commit(run: Run, store: TransactionalStore) -> None:
    """The task sees them before the end, and nobody else does."""

    async def main() -> None:
        tasks = AsyncStore(store)
        before = store.info()["revision"]
        async with tasks.transaction("two keys") as tx:
            await tx.from_bytes("a", b"1")
            await tx.set("b", (b"2", {"n": 1}))
            assert await tx.to_bytes("a") == b"1"
            assert sorted(await tx.query_keys()) == ["a", "b"]
            assert await tx.multiget_metadata(["b"]) == [{"n": 1}]
            assert await asyncio.create_task(tasks.count()) == 0
            assert tx.revision is None
        assert tx.revision == before + 1 == store.info()["revision"]
        assert await tasks.to_bytes("b") == b"2"

    run(main())


def test_calls_of_the_task_go_to_its_block(run: Run, store: TransactionalStore) -> None:
    """Those of the store itself and of another `AsyncStore` do as well."""

    async def main() -> None:
        async with AsyncStore(store).transaction() as tx:
            await AsyncStore(store).from_bytes("by another object", b"")
            assert await tx.exists("by another object")
            assert await AsyncStore(store).glob("*") == ["by another object"]
            if not isinstance(store.current_transaction(), type(None)):
                store.from_bytes("by the store", b"")
            await tx.rollback()
        assert await AsyncStore(store).count() == 0

    run(main())


def test_other_tasks_are_not_in_the_block(run: Run, store: TransactionalStore) -> None:
    """What they write stays when the block is rolled back; not even tasks that the block has started are."""

    async def main() -> None:
        tasks = AsyncStore(store)

        async def write(key: str) -> None:
            await tasks.from_bytes(key, b"")
            store.from_bytes(f"{key}, by the store", b"")
            assert not await tasks.exists("inside")

        ready, done = asyncio.Event(), asyncio.Event()

        async def beside() -> None:
            await ready.wait()
            await write("beside")
            done.set()

        task = asyncio.create_task(beside())
        with pytest.raises(OnPurposeError):
            async with tasks.transaction() as tx:
                await tx.from_bytes("inside", b"")
                ready.set()
                await done.wait()
                await asyncio.create_task(write("started"))
                raise OnPurposeError
        await task
        expected = ["beside", "beside, by the store", "started", "started, by the store"]
        assert sorted(await tasks.query_keys()) == expected

    run(main())


def test_blocks_of_two_tasks_at_once(run: Run, store: TransactionalStore) -> None:
    """Each is its own."""

    async def main() -> None:
        tasks, both = AsyncStore(store), asyncio.Barrier(2)

        async def write(name: str) -> None:
            async with tasks.transaction(name) as tx:
                await both.wait()
                await tx.from_bytes(name, b"")
                await both.wait()
                assert await tasks.query_keys() == [name]
                await both.wait()
                if name == "b":
                    tx.doom()

        await asyncio.gather(write("a"), write("b"), return_exceptions=False)

    with contextlib.suppress(TransactionConflictError):  # each has asked for all keys
        run(main())
    assert "b" not in list(store.query_keys())


def test_inner_blocks(run: Run, store: TransactionalStore) -> None:
    """A block inside a block is a savepoint."""

    async def main() -> None:
        calls: list[str] = []
        async with AsyncStore(store).transaction() as tx:
            await tx.from_bytes("outer", b"")
            with pytest.raises(OnPurposeError):
                async with tx.transaction("inner") as inner:
                    await inner.from_bytes("inner", b"")
                    inner.on_rollback(lambda: calls.append("rollback"))
                    raise OnPurposeError
            async with tx.transaction("kept") as kept:
                await kept.from_bytes("kept", b"")
                kept.on_commit(lambda: calls.append("commit"))
            assert kept.revision is None
            assert calls == ["rollback"]
        assert calls == ["rollback", "commit"]

    run(main())
    assert sorted(store.query_keys()) == ["kept", "outer"]


def test_callbacks_run_in_the_thread_of_the_loop(run: Run, store: TransactionalStore) -> None:
    """After the commit, which another thread has made."""

    async def main() -> None:
        threads: list[object] = []
        async with AsyncStore(store).transaction() as tx:
            await tx.from_bytes("k", b"")
            tx.on_commit(lambda: threads.append((threading.current_thread(), store.exists("k"))))
        assert threads == [(threading.current_thread(), True)]

    run(main())


def test_conflicts_and_attempts(run: Run, store: TransactionalStore) -> None:
    """A block whose reads were overtaken raises; attempts run it again."""

    async def main() -> None:
        tasks = AsyncStore(store)
        await tasks.set("n", (b"", {"n": 0}))
        with pytest.raises(TransactionConflictError, match="'n'"):
            async with tasks.transaction() as tx:
                await tx.get_metadata("n")
                await asyncio.create_task(tasks.update_metadata("n", {"n": 1}))
                await tx.from_bytes("other", b"")

        async def add() -> None:
            async for attempt in tasks.attempts("add"):
                async with attempt as tx:
                    count = (await tx.get_metadata("n"))["n"]
                    await asyncio.sleep(0)
                    await tx.update_metadata("n", {"n": count + 1})

        await asyncio.gather(*(add() for _ in range(10)))
        assert await tasks.get_metadata("n") == {"n": 11}

    run(main())


def test_last_attempt_raises_the_conflict(run: Run, store: TransactionalStore) -> None:
    """With the number of tries."""

    async def main() -> None:
        tasks, tries = AsyncStore(store), 0
        await tasks.from_bytes("k", b"0")
        with pytest.raises(TransactionConflictError, match="gave up after 2 tries"):
            async for attempt in tasks.attempts("never", tries=2):
                async with attempt as tx:
                    tries += 1
                    await tx.to_bytes("k")
                    await asyncio.create_task(tasks.from_bytes("k", b"1"))
                    await tx.from_bytes("k", b"2")
        assert tries == 2
        with pytest.raises(TransactionClosedError, match="was not entered"):
            async for _ in tasks.attempts("never entered"):
                pass

    run(main())


def test_early_ends(run: Run, store: TransactionalStore) -> None:
    """After commit() and rollback() the block is over, and says so."""

    async def main() -> None:
        tasks = AsyncStore(store)
        async with tasks.transaction() as tx:
            await tx.from_bytes("k", b"")
            await tx.commit()
            assert await tasks.exists("k")
            with pytest.raises(TransactionClosedError, match="used after its end"):
                await tx.from_bytes("later", b"")
        async with tasks.transaction() as tx:
            await tx.delete("k")
            await tx.rollback()
        assert await tasks.exists("k")
        with pytest.raises(TransactionClosedError, match="entered before"):
            await tx.__aenter__()
        with pytest.raises(TransactionClosedError, match="not entered"):
            await tasks.transaction("new").to_bytes("k")

    run(main())


def test_a_block_of_another_task_or_thread(run: Run, store: TransactionalStore) -> None:
    """Neither may use it."""

    async def main() -> None:
        async with AsyncStore(store).transaction("mine") as tx:

            async def use() -> None:
                await tx.from_bytes("k", b"")

            with pytest.raises(WrongThreadError, match="belongs to"):
                await asyncio.create_task(use())
            with pytest.raises(WrongThreadError):
                await asyncio.to_thread(tx.doom)

    run(main())
    assert not list(store.query_keys())


def test_waits_are_refused_inside(run: Run, store: TransactionalStore) -> None:
    """They would wait for what comes after the end."""

    async def main() -> None:
        tasks = AsyncStore(store)
        async with tasks.transaction():
            for call in (tasks.flush, tasks.close):
                with pytest.raises(TransactionError, match="inside"):
                    await call()
            with pytest.raises(TransactionError, match="inside"):
                await tasks.wait_for(lambda: True)
            with pytest.raises(TransactionError, match="inside"):
                await tasks.wait_for_key("k")

    run(main())


def test_a_loop_goes_on_while_a_commit_waits_for_a_thread(run: Run, store: TransactionalStore) -> None:
    """An exclusive transaction of a thread holds up the end of the block, and nothing else."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction("of a thread"):
            inside.set()
            assert leave.wait(TIMEOUT)

    async def main() -> None:
        tasks = AsyncStore(store)
        thread = threading.Thread(target=hold)

        async def write() -> None:
            async with tasks.transaction() as tx:
                await tx.from_bytes("k", b"")
                thread.start()
                assert inside.wait(TIMEOUT)

        writing = asyncio.create_task(write())
        while not inside.is_set():
            await asyncio.sleep(0)
        for _ in range(100):
            assert not await tasks.exists("k")
            await asyncio.sleep(0)
        assert not writing.done()
        leave.set()
        await writing
        assert await tasks.exists("k")
        thread.join(TIMEOUT)

    run(main())


def test_a_commit_that_waits_too_long(run: Run, store: TransactionalStore) -> None:
    """The error names who is writing; the block has had no effect."""

    async def main() -> None:
        with pytest.raises(LockTimeoutError, match="of a thread"):
            async with AsyncStore(store).transaction(timeout=0) as tx:
                await tx.from_bytes("k", b"")
                thread = threading.Thread(target=hold)
                thread.start()
                assert inside.wait(TIMEOUT)
        leave.set()
        thread.join(TIMEOUT)
        assert not await AsyncStore(store).exists("k")

    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction("of a thread"):
            inside.set()
            assert leave.wait(TIMEOUT)

    run(main())


def test_a_cancelled_task_rolls_back(run: Run, store: TransactionalStore) -> None:
    """Wherever it is in its block; the store goes on."""

    async def main() -> None:
        tasks, inside = AsyncStore(store), asyncio.Event()

        async def write() -> None:
            async with tasks.transaction() as tx:
                await tx.from_bytes("k", b"")
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await tasks.exists("k")
        async with tasks.transaction() as tx:
            await tx.from_bytes("k", b"")
        assert store.current_transaction() is None

    run(main())


@pytest.mark.parametrize("steps", range(12))
def test_cancelled_after_some_steps(run: Run, store: TransactionalStore, steps: int) -> None:
    """Both keys are there, or none."""

    async def main() -> None:
        tasks = AsyncStore(store)

        async def write() -> None:
            async with tasks.transaction() as tx:
                await tx.from_bytes("a", b"")
                await tx.from_bytes("b", b"")

        task = asyncio.create_task(write())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert len(await tasks.query_keys()) in (0, 2)
        await tasks.from_bytes("after", b"")

    run(main())


def test_a_block_that_is_dropped_is_rolled_back(run: Run, store: TransactionalStore) -> None:
    """As when a loop is closed in the middle of it."""

    async def write(entered: list[AsyncTransaction]) -> None:
        async with AsyncStore(store).transaction() as tx:
            await tx.from_bytes("k", b"")
            entered.append(tx)
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    entered: list[AsyncTransaction] = []
    task = loop.create_task(write(entered))
    while not entered:
        loop.run_until_complete(asyncio.sleep(0))
    task.get_coro().close()
    loop.call_soon(loop.stop)
    del entered[:]
    with contextlib.suppress(RuntimeError):
        loop.run_forever()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        loop.run_until_complete(task)
    loop.close()
    assert not store.exists("k")
    store.from_bytes("k", b"")


def test_a_block_of_a_loop_that_is_gone() -> None:
    """Nothing of the store keeps its task alive, so both are freed, and the block is rolled back."""
    store = DictMemoryStore(EventManager())
    entered: list[bool] = []

    async def write() -> None:
        async with AsyncStore(store).transaction() as tx:
            await tx.from_bytes("k", b"")
            entered.append(True)
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    task = loop.create_task(write())
    while not entered:
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del task, loop
    gc.collect()
    store.from_bytes("after", b"")
    check(store)
    assert list(store.query_keys()) == ["after"]


def test_inside_a_block_of_the_thread(run: Run, store: TransactionalStore) -> None:
    """It is a savepoint of that."""

    async def main() -> None:
        with store.transaction("of the thread"):
            async with AsyncStore(store).transaction() as tx:
                await tx.from_bytes("a", b"")
            with pytest.raises(OnPurposeError):
                async with AsyncStore(store).transaction() as tx:
                    await tx.from_bytes("b", b"")
                    raise OnPurposeError
            assert await AsyncStore(store).query_keys() == ["a"]

    run(main())
    assert list(store.query_keys()) == ["a"]


def test_caches_in_a_block(run: Run, store: TransactionalStore) -> None:
    """What a cache is given in a block is in its commit."""
    cache = Cache[int](store, codec="json")

    async def main() -> None:
        values = AsyncCache(cache)

        async def load(key: str) -> int:
            return len(key)

        with pytest.raises(OnPurposeError):
            async with AsyncStore(store).transaction():
                await values.set("set", 1)
                assert await values.get_or_load("loaded", load) == 6
                assert await values.get("set") == 1
                assert await asyncio.create_task(values.get("set")) is None
                raise OnPurposeError
        assert await values.get("set") is None
        assert await values.get("loaded") is None

    run(main())


def test_wrong_arguments(run: Run, store: TransactionalStore) -> None:
    """They are named at once."""
    with pytest.raises(TypeError, match="store must be a store with transactions"):
        AsyncStore(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="notes must be a str"):
        AsyncStore(store).transaction(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tries must be at least 1"):
        AsyncStore(store).attempts(tries=0)


def test_blocks_of_threads_that_work_for_the_task(run: Run, store: TransactionalStore) -> None:
    """A plain loader, and a method of a cache, have blocks of their own inside that of the task."""
    cache = Cache[int](store, codec="json")

    def load(key: str) -> int:
        with store.transaction("kept"):
            store.from_bytes("kept", b"")
        with contextlib.suppress(OnPurposeError), store.transaction("rolled back"):
            store.from_bytes("rolled back", b"")
            raise OnPurposeError
        return 1

    async def main() -> None:
        values = AsyncCache(cache)
        async with AsyncStore(store).transaction() as tx:
            await values.set("tagged", 1, tags=["t"])
            assert await values.invalidate_tag("t") == 1
            assert await values.get_or_load("loaded", load) == 1
            await values.set("cleared", 1)
            assert await values.delete_glob("clear*") == 1
            assert sorted(await tx.query_keys()) == ["kept", "loaded"]
        assert sorted(await AsyncStore(store).query_keys()) == ["kept", "loaded"]

    run(main())
