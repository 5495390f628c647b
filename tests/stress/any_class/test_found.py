"""What the harness finds in racy classes, and does not find in sound ones."""

from __future__ import annotations

import functools
import queue
import random
import re
from typing import Any

import pytest

from latchstore.stress import REFUSED, WAITING, Raised, Report, Test, TestFailedError, operation
from latchstore.stress.testing import exploration
from tests.stress.any_class.subjects import (
    BankTest,
    BlockingQueueTest,
    CounterTest,
    JournalTest,
    LockedCounter,
    LockedCounterTest,
    LossyChannelTest,
    QueueTest,
    SoundQueueTest,
    SumTest,
)

pytestmark = pytest.mark.timeout(300)


@functools.cache
def report_of(kind: type[Test]) -> Report:
    """Run a test; what it has found is looked at by several of these."""
    return kind.run()


class TestRacyClasses:
    def test_a_lost_update(self) -> None:
        report = report_of(CounterTest)
        assert report.answer == "invalid"
        assert report.run is not None
        assert [str(record) for record in report.run.records] == ["increment() -> 1", "increment() -> 1"]
        assert "would give 2, but it gave 1" in str(report)

    def test_a_check_outside_of_the_lock(self) -> None:
        report = report_of(QueueTest)
        assert report.answer == "invalid"
        assert "would raise Full, but it gave None" in str(report)
        assert "in RacyQueue.put_nowait: " in str(report)  # after the look, or at the lock

    def test_a_lost_wake_up(self) -> None:
        report = LossyChannelTest.run()
        assert report.reason.startswith("calls wait that would not wait")
        assert "but it waits forever" in str(report)

    def test_a_deadlock(self) -> None:
        report = BankTest.run()
        assert report.answer == "invalid"
        assert report.reason.startswith(("deadlock: threads wait for each other", "lock order: "))
        # The threads have the same numbers in the table of calls and in what is told of locks.
        assert report.run is not None
        busy = {f"thread {record.call.thread}" for record in report.run.records}
        assert set(re.findall(r"thread \d+", report.run.problems[0].text)) <= busy

    def test_an_invariant(self) -> None:
        report = SumTest.run()
        assert report.reason == "invariant: the_sum_is_the_same does not hold: it returned False"

    def test_the_final_state_of_a_collection(self) -> None:
        report = JournalTest.run()
        assert report.answer == "invalid"
        assert "the final state would give" in str(report)

    def test_the_seed_repeats_it(self) -> None:
        report = report_of(QueueTest)
        again = QueueTest.run(seed=report.seed, schedules=1)
        assert again.schedules == 1
        assert report.run is not None
        assert again.run is not None
        assert [str(each) for each in again.run.records] == [str(each) for each in report.run.records]
        assert f"--seed {report.seed} --schedules 1" in report.command

    def test_check_raises(self) -> None:
        report = report_of(CounterTest)
        with pytest.raises(TestFailedError, match="no order of the calls") as caught:
            report.check()
        assert caught.value.report is report


class TestSoundClasses:
    @pytest.mark.parametrize("kind", [LockedCounterTest, SoundQueueTest, BlockingQueueTest])
    def test_no_alarm(self, kind: type[Test]) -> None:
        report = kind.run()
        assert report.passed, str(report)
        report.check()
        assert report.schedules >= 30
        assert all(report.overlaps.values())

    def test_calls_that_may_wait_are_no_alarm(self) -> None:
        class GetTest(BlockingQueueTest):
            __test__ = False
            schedules = 20

            def put(self, subject: Any, item: int) -> None:
                """Not an operation here: every `get` waits for ever."""

        report = GetTest.run()
        assert report.answer == "valid", str(report)

    def test_calls_that_wait_are_found_before_native_threads_make_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class GetTest(BlockingQueueTest):
            __test__ = False
            schedules = 1

            def put(self, subject: Any, item: int) -> None:
                """Not an operation here: every `get` waits for ever."""

        made: list[object] = []
        monkeypatch.setattr(exploration, "run_native", lambda *args: made.append(args))
        reports = [GetTest.run(seed=seed) for seed in range(30)]
        assert not made
        # Of some seeds the first schedule is one for native threads; it is run under control.
        assert {report.schedules for report in reports} == {1}
        assert {report.answer for report in reports} <= {"valid", "unknown"}
        assert all(report.overlaps for report in reports if report.answer == "valid")

    def test_a_class_written_in_c(self) -> None:
        class ListTest(Test):
            __test__ = False
            seconds = 60.0
            schedules = 200

            def make(self) -> Any:
                return []

            @operation(item=range(5))
            def append(self, subject: Any, item: int) -> int:
                subject.append(item)
                return len(subject) >= 1

            @operation()
            def copy(self, subject: Any) -> Any:
                return subject.copy()

        report = ListTest.run()
        assert report.answer != "invalid", str(report)
        assert report.native == report.schedules
        assert not report.switched
        assert "has no Python code in which threads can switch" in str(report)


class BoundedModel:
    """What a queue of two items gives."""

    initial: tuple[int, ...] = ()

    def step(self, state: tuple[int, ...], call: Any, answer: Any) -> Any:
        if call.name == "put":
            full = len(state) == 2
            right = answer == Raised(queue.Full) if full else answer is None
            return (state if full else (*state, call.arguments["item"])) if right else REFUSED
        if not state:
            return state if answer == Raised(queue.Empty) else REFUSED
        return state[1:] if answer == state[0] else REFUSED


class TestSpecifications:
    def test_a_model(self) -> None:
        class Modelled(SoundQueueTest):
            __test__ = False
            model = BoundedModel()

        assert Modelled.run().passed

    def test_a_model_finds_a_race(self) -> None:
        class Modelled(QueueTest):
            __test__ = False
            model = BoundedModel()

        report = Modelled.run()
        assert report.reason == "no order of the calls in one thread explains their results"
        assert "after which" in str(report)

    def test_a_model_is_asked_of_calls_that_wait(self) -> None:
        asked = []

        class Waits:
            initial = 0

            def step(self, state: int, call: Any, answer: Any) -> Any:
                asked.append(answer)
                if answer is WAITING:
                    return REFUSED  # there is no reason to wait
                return state + (1 if call.name == "put" else -1)

        class Modelled(BlockingQueueTest):
            __test__ = False
            model = Waits()

        assert Modelled.run().answer == "invalid"
        assert WAITING in asked

    def test_a_reference_of_another_class(self) -> None:
        class Referred(CounterTest):
            __test__ = False

            def reference(self) -> Any:
                return LockedCounter()

        assert "would give 2, but it gave 1" in str(Referred.run())

    @pytest.mark.parametrize("by", ["reference", "model"])
    def test_a_sequential_defect_is_called_that(self, by: str) -> None:
        class Wrong(LockedCounter):
            def increment(self) -> int:
                return super().increment() + 1

        class WrongTest(CounterTest):
            __test__ = False

            def make(self) -> Any:
                return Wrong()

        class Counts:
            initial = 0

            def step(self, state: int, call: Any, answer: Any) -> Any:
                return state + 1 if answer == state + 1 else REFUSED

        if by == "model":
            WrongTest.model = Counts()
        else:
            WrongTest.reference = lambda self: LockedCounter()  # type: ignore[method-assign]
        report = WrongTest.run()
        assert report.reason.startswith("sequential defect: increment() gives 2 in one thread")
        assert "a single thread made these calls" in str(report)
        assert report.run is not None
        assert [str(record) for record in report.run.records] == ["increment() -> 2"]
        assert f"again: python -m latchstore stress --test {report.test} --seed {report.seed}" in str(report)
        assert WrongTest.run(seed=report.seed, schedules=1).reason == report.reason

    def test_if_every_call_raises_nothing_is_shown(self) -> None:
        class MistakenTest(Test):
            __test__ = False
            schedules = 20

            def make(self) -> Any:
                return LockedCounter()

            @operation()
            def decrement(self, subject: Any) -> None:
                subject.decrement()

        report = MistakenTest.run()
        assert report.answer == "unknown"
        assert report.reason.startswith("every call raised an exception")
        assert report.reason.endswith(f"the first was {report.first_raised}")

    def test_what_is_not_the_same_each_time_is_named(self) -> None:
        made = []

        class Different(LockedCounter):
            def __init__(self) -> None:
                super().__init__()
                made.append(self)
                self.value = len(made)

        class DifferentTest(CounterTest):
            __test__ = False

            def make(self) -> Any:
                return Different()

        assert DifferentTest.run().reason.startswith("the class is not deterministic: increment()")

    def test_random_numbers_are_no_race(self) -> None:
        class Lottery(LockedCounter):
            def increment(self) -> int:
                return random.choice([1, 2])

        class Any12:
            initial = None

            def step(self, state: None, call: Any, answer: Any) -> Any:
                return state if answer in (1, 2) else REFUSED

        class LotteryTest(CounterTest):
            __test__ = False

            def make(self) -> Any:
                return Lottery()

        class ModelledTest(LotteryTest):
            __test__ = False
            schedules = 30
            model = Any12()

        assert LotteryTest.run().reason.startswith("the class is not deterministic: increment()")
        assert ModelledTest.run().passed
