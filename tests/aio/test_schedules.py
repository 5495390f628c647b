"""Transactions and loads of tasks, with each callback of their loop drawn by the harness."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager
from latchstore.aio import AsyncCache, AsyncStore
from latchstore.cache.load import Load
from latchstore.cache.loading import LoadTable
from latchstore.engine.batch import OptimisticBatch
from latchstore.engine.inspection import check
from latchstore.engine.routes import RoutesOfTasks
from latchstore.stress import Test, invariant, operation

pytestmark = pytest.mark.timeout(120)


class TransactionsTest(Test):
    """Blocks that await between what they read and what they write."""

    __test__ = False
    seconds = 60.0
    schedules = 60

    async def make(self) -> Any:
        store = AsyncStore(DictMemoryStore(EventManager()))
        await store.multiset(["a", "b"], [(b"", {"n": 1}), (b"", {"n": 1})])
        return store

    @operation()
    async def move(self, subject: Any) -> int:
        async for attempt in subject.attempts():
            async with attempt as tx:
                left = int((await tx.get_metadata("a"))["n"]) - 1
                await asyncio.sleep(0)
                await subject.update_metadata("a", {"n": left})
                await asyncio.sleep(0)
                await tx.update_metadata("b", {"n": 2 - left})
        return left

    @operation(number=[0, 1])
    async def give_up(self, subject: Any, number: int) -> None:
        try:
            async with subject.transaction() as tx, tx.transaction() as inner:
                await inner.update_metadata("a", {"n": 10})
                await asyncio.sleep(0)
                subject.store.update_metadata("b", {"n": 10})
                await asyncio.sleep(number)
                raise KeyError
        except KeyError:
            return

    @operation()
    async def read(self, subject: Any) -> list[int]:
        return [items["n"] for items in await subject.multiget_metadata(["a", "b"])]

    @invariant()
    def nothing_is_open(self, subject: Any) -> bool:
        check(subject.store)
        numbers = [items["n"] for items in subject.store.multiget_metadata(["a", "b"])]
        return numbers == [numbers[0], 2 - numbers[0]]


class LoadsTest(Test):
    """One load at a time."""

    __test__ = False
    seconds = 60.0
    schedules = 60

    def make(self) -> Any:
        cache = AsyncCache(Cache[int](max_entries=10))
        return cache, []

    def state(self, subject: Any) -> Any:
        cache, loads = subject
        return cache.cache.get("k"), len(loads)

    @operation()
    async def load(self, subject: Any) -> int:
        cache, loads = subject

        async def count(key: str) -> int:
            loads.append(key)
            number = len(loads)
            await asyncio.sleep(0)
            return number

        return int(await cache.get_or_load("k", count))

    @operation()
    async def get(self, subject: Any) -> int | None:
        cache, _ = subject
        value: int | None = await cache.get("k")
        return value

    @operation()
    async def delete(self, subject: Any) -> None:
        cache, _ = subject
        await cache.delete("k")


class ChangesTest(Test):
    """What was loaded before the source was changed, and the key deleted, is given to nobody after that."""

    __test__ = False
    seconds = 60.0
    schedules = 60

    def make(self) -> Any:
        return AsyncCache(Cache[int](max_entries=10)), [0]

    def state(self, subject: Any) -> Any:
        return subject[1]

    @operation()
    async def load(self, subject: Any) -> int:
        cache, source = subject

        async def read(key: str) -> int:
            number: int = source[0]
            await asyncio.sleep(0)
            return number

        return int(await cache.get_or_load("k", read))

    @operation(number=[1, 2, 3])
    async def change(self, subject: Any, number: int) -> None:
        cache, source = subject
        source[0] = number
        await cache.delete("k")


@pytest.mark.parametrize("kind", [TransactionsTest, LoadsTest, ChangesTest])
def test_no_alarm(kind: type[Test]) -> None:
    report = kind.run(schedules=30)
    assert report.passed, str(report)
    assert report.schedules == 30


def test_a_commit_that_is_not_validated_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OptimisticBatch, "check", lambda batch: None)
    assert TransactionsTest.run().answer == "invalid"


def test_calls_that_go_to_the_block_of_another_task_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def current(routes: RoutesOfTasks) -> Any:
        return next(routes.blocks(), None)

    monkeypatch.setattr(RoutesOfTasks, "current", current)
    assert TransactionsTest.run().answer == "invalid"


def test_two_loads_of_a_key_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(table: LoadTable, load: Load) -> Load:
        return load

    monkeypatch.setattr(LoadTable, "claim", claim)
    assert LoadsTest.run().answer == "invalid"


def test_a_load_that_began_before_a_deletion_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadTable, "overtake", lambda table, key: None)
    monkeypatch.setattr(LoadTable, "note_written", lambda table, keys: None)
    assert ChangesTest.run().answer == "invalid"
