"""Strategies: where turns end, and how the lengths of operations are measured."""

from __future__ import annotations

import random
import threading
import time
from typing import Any, cast

from latchstore.stress.execution import Body, Stage, run_schedule, under_control
from latchstore.stress.scope import Scope
from latchstore.stress.strategies import OneByOne, WholeOperations
from latchstore.stress.tasks import Task

#: Points at locks after which every turn that ends at a lock has ended.
MOST = 16


def locks_until_the_end(seed: int) -> int | None:
    """Return after how many points at locks a turn within an operation ends; None: not at one of them."""
    strategy = WholeOperations(random.Random(seed), {"operation": 1e6}, 1e6)
    task = cast("Task", object())
    strategy.next_choice(0)
    assert strategy.operation_began(task, "operation", 1) is not None
    ends = [strategy.at_lock(now) for now in range(2, 2 + MOST)]
    return next((number for number, end in enumerate(ends, 1) if end is not None), None)


def test_half_of_the_turns_that_end_within_an_operation_end_at_a_lock() -> None:
    found = [locks_until_the_end(seed) for seed in range(200)]
    assert 60 < found.count(None) < 140
    assert {1, 2, 3, 4} <= set(found)


def test_a_turn_of_whole_operations_does_not_end_at_a_lock() -> None:
    for seed in range(20):
        strategy = WholeOperations(random.Random(seed), {}, 1e6)
        strategy.next_choice(0)
        strategy.operation_began(cast("Task", object()), "operation", 1)
        strategy.next_choice(2)
        assert [strategy.at_lock(now) for now in range(3, 3 + MOST)] == [None] * MOST


class Meeting:
    """One thread waits while another works."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.steps: list[int] = []

    def wait(self) -> None:
        self.done.wait()

    def work(self) -> None:
        for number in range(100):
            self.steps.append(number)
        time.sleep(1)
        self.done.set()


def test_the_length_of_an_operation_is_that_of_its_own_thread() -> None:
    def make(stage: Stage) -> list[Body]:
        meeting = Meeting()

        def body(name: str, call: Any) -> Body:
            def run() -> None:
                stage.begin_operation(name)
                call()
                stage.end_operation()

            return run

        return [body("wait", meeting.wait), body("work", meeting.work)]

    strategy, scope = OneByOne(), Scope(Meeting)
    with under_control(scope):
        run_schedule(make, strategy, scope)
    ((wait,), (work,)) = strategy.lengths["wait"], strategy.lengths["work"]
    assert 0 < wait < 100 < work < 1_000


class Locks(OneByOne):
    """Ends each turn at the first lock."""

    def at_lock(self, now: int) -> float | None:
        return now


class Holding:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.order: list[str] = []

    def hold(self, name: str) -> None:
        self.order.append(name)
        with self.lock:
            self.order.append(name.upper())
        self.order.append(name)


def test_a_turn_can_end_before_a_lock_is_acquired() -> None:
    made: list[Holding] = []

    def make(stage: Stage) -> list[Body]:
        made.append(Holding())
        return [lambda: made[0].hold("a"), lambda: made[0].hold("b")]

    class Other(Locks):
        def choose(self, running: Task | None, ready: Any) -> Task:
            return super().choose(running, [each for each in ready if each is not running] or ready)

    scope = Scope(Holding)
    with under_control(scope):
        run_schedule(make, Other(), scope)
    assert made[0].order[:2] == ["a", "b"]
