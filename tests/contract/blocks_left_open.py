"""Blocks that are dropped, closed or collected by others, and those of tasks."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    LockTimeoutError,
    WrongThreadError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.blocks import (
    BlockContract,
    BrokenBlockError,
    both_kinds,
    left_open,
    write_at_once,
)
from tests.contract.stores import one_process
from tests.schedules import TIMEOUT, Actor, in_another_thread


@contextlib.contextmanager
def thread_with_identity(store: TransactionalStore, identity: int) -> Iterator[Actor]:
    """Start threads, and keep them, until one has the identifier of a thread that has ended."""
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            actor = stack.enter_context(Actor(store, "new"))
            if actor.do(threading.get_ident) == identity:
                yield actor
                return
        pytest.skip("this system does not give the identifiers of ended threads to new ones")


class BlockLeftOpenContract(BlockContract):
    """Blocks that nobody ends as they should be ended."""

    @both_kinds
    @pytest.mark.parametrize("depth", [1, 3])
    @pytest.mark.parametrize("drop", ["close", "collect"])
    def test_a_generator_that_is_dropped_in_its_thread(
        self, store: TransactionalStore, optimistic: bool, depth: int, drop: str
    ) -> None:
        generator: Any = left_open(store, optimistic, depth)
        next(generator)
        assert len(store) == depth
        if drop == "close":
            generator.close()
        else:
            # In a cycle, so that it is the collector who finds it.
            cycle: list[Any] = [generator]
            cycle.append(cycle)
            del generator, cycle
            gc.collect()
        assert len(store) == 0
        self.assert_free(store)

    @both_kinds
    @pytest.mark.parametrize("depth", [1, 3])
    def test_a_generator_that_is_closed_by_another_thread(
        self, store: TransactionalStore, optimistic: bool, depth: int
    ) -> None:
        with Actor(store, "first") as first, Actor(store, "second") as second:
            generator: Any = left_open(store, optimistic, depth)
            first.do(lambda: next(generator))
            with pytest.raises(
                WrongThreadError, match=r"belongs to thread 'first_0', but was used by .*'second_0'"
            ):
                second.do(generator.close)
            second.do(lambda: write_at_once(store, "by the second"))
            first.do(lambda: write_at_once(store, "by the first"))
            assert sorted(store.glob("*")) == ["by the first", "by the second"]
        self.assert_free(store)

    @both_kinds
    def test_a_generator_that_is_collected_in_another_thread(
        self, store: TransactionalStore, optimistic: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[Any] = []
        monkeypatch.setattr("sys.unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
        with Actor(store, "first") as first, Actor(store, "second") as second:
            holder: list[Any] = [left_open(store, optimistic)]
            first.do(lambda: next(holder[0]))
            second.do(holder.clear)
            assert told == [WrongThreadError], "nobody can catch it, but it is told"
            second.do(lambda: write_at_once(store, "by the second"))
            first.do(lambda: write_at_once(store, "by the first"))
            assert sorted(store.glob("*")) == ["by the first", "by the second"]
        self.assert_free(store)

    @both_kinds
    def test_a_generator_outlives_the_thread_that_began_it(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        generator: Any = left_open(store, optimistic)
        in_another_thread(lambda: next(generator))
        if not optimistic:
            with pytest.raises(LockTimeoutError, match=r"\(transaction 'left open 0'\)"):
                store.transaction(timeout=0).__enter__()
        with pytest.raises(WrongThreadError):
            generator.close()
        assert len(store) == 0
        self.assert_free(store)

    @both_kinds
    def test_a_new_thread_is_not_taken_for_an_ended_one_that_left_a_block_open(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        """The system gives the identifier of an ended thread to a new one, which must not get its block."""
        generator: Any = left_open(store, optimistic)
        with Actor(store, "ended") as ended:
            identity = ended.do(threading.get_ident)
            ended.do(lambda: next(generator))
        try:
            with thread_with_identity(store, identity) as new:
                assert not new.do(lambda: store.exists("inside 0"))
                assert new.do(lambda: list(store.glob("*"))) == []
                if optimistic:
                    new.do(lambda: store.from_bytes("mine", b""))
                    new.do(lambda: write_at_once(store, "in a block"))
                    assert new.do(lambda: sorted(store.glob("*"))) == ["in a block", "mine"]
                else:
                    with pytest.raises(LockTimeoutError, match=r"\(transaction 'left open 0'\)"):
                        new.do(lambda: write_at_once(store))
        finally:
            with pytest.raises(WrongThreadError):
                generator.close()
        assert sorted(store.glob("*")) == (["in a block", "mine"] if optimistic else [])
        self.assert_free(store)

    @both_kinds
    def test_the_late_end_of_an_ended_threads_block_leaves_a_new_threads_block_alone(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        generator: Any = left_open(store, True)
        with Actor(store, "ended") as ended:
            identity = ended.do(threading.get_ident)
            ended.do(lambda: next(generator))
        with thread_with_identity(store, identity) as new:
            new.begin(optimistic=optimistic)
            new.do(lambda: store.from_bytes("before", b""))
            with pytest.raises(WrongThreadError):
                generator.close()
            new.do(lambda: store.from_bytes("after", b""))
            assert not store.exists("after")
            new.commit()
        assert sorted(store.glob("*")) == ["after", "before"]
        self.assert_free(store)

    @one_process
    def test_lock_timeout_does_not_name_a_new_thread_for_the_ended_one(
        self, store: TransactionalStore
    ) -> None:
        generator: Any = left_open(store, False)
        with Actor(store, "ended") as ended:
            identity = ended.do(threading.get_ident)
            ended.do(lambda: next(generator))
        try:
            with thread_with_identity(store, identity):
                with pytest.raises(LockTimeoutError, match="left open 0") as by_another:
                    store.transaction(timeout=0).__enter__()
                assert "by thread 'ended_0 (ended)'" in str(by_another.value)
        finally:
            with pytest.raises(WrongThreadError):
                generator.close()

    @both_kinds
    def test_tasks_of_one_thread_do_not_share_a_block(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        """Two tasks of one thread, interleaved: the second gets errors, never the first one's writes."""
        store.from_bytes("old", b"")
        refused: list[str] = []

        async def first(inside: asyncio.Event, go_on: asyncio.Event) -> None:
            with store.transaction("first", optimistic=optimistic) as tx:
                store.from_bytes("a", b"first")
                inside.set()
                await asyncio.wait_for(go_on.wait(), TIMEOUT)
                assert tx.to_bytes("a") == b"first"
                store.from_bytes("b", b"first")

        async def second(inside: asyncio.Event, go_on: asyncio.Event) -> None:
            await asyncio.wait_for(inside.wait(), TIMEOUT)
            uses: dict[str, Callable[[], object]] = {
                "transaction": lambda: store.transaction("second").__enter__(),
                "optimistic": lambda: store.transaction("second", optimistic=True).__enter__(),
                "write": lambda: store.from_bytes("c", b"second"),
                "multiset": lambda: store.multiset_data(["c"], [b"second"]),
                "read": lambda: store.exists("a"),
                "query": lambda: list(store.query()),
                "len": lambda: len(store),
            }
            for name, use in uses.items():
                with pytest.raises(WrongThreadError, match=r"belongs to <Task .*name='one'.*name='two'"):
                    use()
                refused.append(name)
            assert in_another_thread(lambda: list(store.glob("*"))) == ["old"]
            go_on.set()

        async def main() -> None:
            inside, go_on = asyncio.Event(), asyncio.Event()
            tasks = [
                asyncio.create_task(first(inside, go_on), name="one"),
                asyncio.create_task(second(inside, go_on), name="two"),
            ]
            await asyncio.gather(*tasks)
            with store.transaction("third", timeout=0):
                store.from_bytes("d", b"main")

        asyncio.run(main())
        assert len(refused) == 7
        assert sorted(store.glob("*")) == ["a", "b", "d", "old"]
        self.assert_free(store)

    @both_kinds
    def test_a_task_that_is_cancelled_in_its_block(self, store: TransactionalStore, optimistic: bool) -> None:
        async def body(inside: asyncio.Event) -> None:
            with store.transaction(optimistic=optimistic):
                store.from_bytes("a", b"")
                inside.set()
                await asyncio.Event().wait()

        async def main() -> None:
            inside = asyncio.Event()
            task = asyncio.create_task(body(inside))
            await asyncio.wait_for(inside.wait(), TIMEOUT)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            write_at_once(store)

        asyncio.run(main())
        assert list(store.glob("*")) == ["after"]
        self.assert_free(store)

    @both_kinds
    def test_an_asynchronous_generator_that_is_closed_by_another_task(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        async def generate() -> AsyncIterator[str]:
            with store.transaction("left open", optimistic=optimistic):
                store.from_bytes("a", b"")
                yield "inside"

        async def main() -> None:
            generator: Any = generate()
            await asyncio.create_task(generator.__anext__())
            with pytest.raises(WrongThreadError, match="'left open'> belongs to <Task finished"):
                await generator.aclose()
            write_at_once(store)

        asyncio.run(main())
        assert list(store.glob("*")) == ["after"]
        self.assert_free(store)

    @both_kinds
    def test_a_coroutine_that_is_dropped_in_its_block(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        """Its loop is gone, and its block ends in no task at all."""

        class Never:
            def __await__(self) -> Generator[None, None, None]:
                yield

        async def body() -> None:
            with store.transaction(optimistic=optimistic):
                store.from_bytes("a", b"")
                await Never()

        async def main() -> Any:
            coroutine = body()
            coroutine.send(None)
            return coroutine

        coroutine = asyncio.run(main())
        with pytest.raises(WrongThreadError, match="but was used by no task"):
            coroutine.close()
        assert len(store) == 0
        self.assert_free(store)

    def test_blocks_of_two_stores_are_apart(self, store: TransactionalStore, other: DictMemoryStore) -> None:
        with pytest.raises(BrokenBlockError), store.transaction():
            store.from_bytes("a", b"")
            with other.transaction():
                other.from_bytes("a", b"")
            raise BrokenBlockError
        assert (store.exists("a"), other.exists("a")) == (False, True)
