"""Operations that are coroutine functions: tasks of one event loop, switched at each await."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest

from latchstore.stress import Test, invariant, operation

pytestmark = pytest.mark.timeout(120)


class Counter:
    def __init__(self) -> None:
        self.value = 0
        self.lock = asyncio.Lock()

    async def racy(self) -> int:
        value = self.value
        await asyncio.sleep(0.1)
        self.value = value + 1
        return value + 1

    async def locked(self) -> int:
        async with self.lock:
            return await self.racy()


class RacyTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 100

    def make(self) -> Any:
        return Counter()

    @operation()
    async def increment(self, counter: Any) -> int:
        value: int = await counter.racy()
        return value


class LockedTest(RacyTest):
    __test__ = False
    schedules = 30

    @operation()
    async def increment(self, counter: Any) -> int:
        value: int = await counter.locked()
        return value


class QueueTest(Test):
    """`make` needs a running loop; one operation is a plain method."""

    __test__ = False
    seconds = 60.0
    schedules = 40

    async def make(self) -> Any:
        assert asyncio.get_running_loop().is_running()
        return asyncio.Queue(1)

    @operation(item=[1, 2, 3])
    async def put(self, subject: Any, item: int) -> None:
        await subject.put(item)

    @operation()
    async def get(self, subject: Any) -> int:
        item: int = await subject.get()
        return item

    @operation()
    def size(self, subject: Any) -> int:
        size: int = subject.qsize()
        return size


class LossyChannel:
    """Looks for a waiting reader after a pause, and then for one alone."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.changed = asyncio.Condition()

    async def put(self, item: int) -> None:
        self.items.append(item)
        await asyncio.sleep(0)
        async with self.changed:
            if len(self.items) == 1:
                self.changed.notify()

    async def get(self) -> int:
        async with self.changed:
            while not self.items:
                await self.changed.wait()
            return self.items.pop(0)


class LossyTest(QueueTest):
    __test__ = False
    schedules = 300

    async def make(self) -> Any:
        return LossyChannel()

    def size(self, subject: Any) -> int:
        raise NotImplementedError


def test_a_race_between_awaits() -> None:
    report = RacyTest.run()
    assert report.answer == "invalid"
    assert "would give 2, but it gave 1" in str(report)
    assert "tasks of one event loop, switched at each await" in str(report)
    again = RacyTest.run(seed=report.seed, schedules=1)
    assert again.answer == "invalid"
    assert again.schedules == 1


@pytest.mark.parametrize("kind", [LockedTest, QueueTest])
def test_no_alarm(kind: type[Test]) -> None:
    report = kind.run()
    assert report.passed, str(report)
    assert report.schedules == kind.schedules


def test_a_lost_wake_up() -> None:
    report = LossyTest.run()
    assert report.reason.startswith("calls wait that would not wait")


def test_invariants() -> None:
    class Invariant(RacyTest):
        __test__ = False

        @invariant()
        def below_two(self, counter: Any) -> bool:
            return bool(counter.value < 2)

    assert Invariant.run().reason == "invariant: below_two does not hold: it returned False"


def test_threads_of_an_executor_and_timeouts() -> None:
    class Slow:
        value = 0

        async def read(self) -> int:
            return await asyncio.to_thread(lambda: self.value)

        async def late(self) -> str:
            try:
                async with asyncio.timeout(1):
                    await asyncio.sleep(3_600)
            except TimeoutError:
                return "late"
            return "in time"

        async def fail(self) -> None:
            await asyncio.get_running_loop().run_in_executor(None, divmod, 1, 0)

    class SlowTest(Test):
        __test__ = False
        seconds = 60.0
        schedules = 20

        def make(self) -> Any:
            return Slow()

        @operation()
        async def read(self, subject: Any) -> int:
            return int(await subject.read())

        @operation()
        async def late(self, subject: Any) -> Any:
            return await subject.late()

        @operation()
        async def fail(self, subject: Any) -> None:
            await subject.fail()

    report = SlowTest.run()
    assert report.passed, str(report)
    assert report.raised["fail"] == report.counts["fail"] > 0
    assert report.raised["late"] == 0


def test_no_task_is_left() -> None:
    QueueTest.run(schedules=20)
    # What is left would warn when it is freed, and warnings are errors.
    gc.collect()


class Polled:
    """Sound, though its tasks poll for what others do: with a pause or with none."""

    def __init__(self, pause: float) -> None:
        self.free = 1
        self.pause = pause

    async def take(self) -> None:
        while not self.free:
            await asyncio.sleep(self.pause)
        self.free -= 1

    async def give(self) -> None:
        await asyncio.sleep(5)
        self.free += 1


@pytest.mark.parametrize("pause", [0, 0.01])
def test_tasks_that_poll_wait_forever_if_nothing_comes(pause: float) -> None:
    class PolledTest(Test):
        __test__ = False
        seconds = 60.0
        schedules = 20

        def make(self) -> Any:
            return Polled(pause)

        @operation()
        async def take(self, subject: Any) -> None:
            await subject.take()

        @operation()
        async def give(self, subject: Any) -> None:
            await subject.give()

    report = PolledTest.run()
    assert report.passed, str(report)
    assert report.schedules == 20


def test_random_numbers_are_drawn_again() -> None:
    drawn: list[float] = []

    class RandomTest(Test):
        __test__ = False
        seconds = 60.0
        schedules = 3

        def make(self) -> Any:
            return Counter()

        @operation()
        async def draw(self, subject: Any) -> None:
            await asyncio.sleep(random.choice([0, 1]))
            drawn.append(random.random())

    state = random.getstate()
    RandomTest.run()
    assert random.getstate() == state
    before, drawn[:] = drawn[:], []
    random.seed()
    RandomTest.run()
    assert drawn == before
