"""What is read of a schedule: each access that may matter to other threads, by its source, in its order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from latchstore.stress.execution import Body, Stage, run_schedule, under_control
from latchstore.stress.interleaving import interruptions
from latchstore.stress.result import Access, Step
from latchstore.stress.scope import Scope
from latchstore.stress.strategies import Replay


class Box:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.items: dict[str, int] = {}
        self.count = 0

    def put(self, key: str) -> None:
        if key not in self.items:
            with self.lock:
                self.items[key] = self.count
        self.count += 1
        self.add(
            1,
            2,
        )

    def add(self, *numbers: int) -> int:
        del self.items["a"]
        return len(self.items)

    def one_line(self) -> None:
        with self.lock: self.items.clear()  # fmt: skip  # noqa: E701

    def by_a_call(self) -> None:
        with locked(self.lock):
            first, second = self.items["a"], self.items
            del first, second


@contextmanager
def locked(lock: threading.Lock) -> Iterator[None]:
    with lock:
        yield


def accesses_of(call: Any) -> list[str]:
    def make(stage: Stage) -> list[Body]:
        box = Box()
        return [lambda: call(box)]

    scope = Scope(Box)
    with under_control(scope):
        execution = run_schedule(make, Replay(()), scope, recording=True)
    assert not execution.problems
    assert not [each.error for each in execution.ended if each is not None and each.error is not None]
    return [str(each) for step in execution.steps for each in step.accesses if " in Box." in each.where]


def test_accesses_have_their_source() -> None:
    assert accesses_of(lambda box: box.put("a")) == [
        "reads key not in self.items",
        "enters self.lock",
        "reads self.count",
        "writes self.items[key]",
        "leaves self.lock",
        "reads self.count",
        "writes self.count",
        'deletes self.items["a"]',
        "calls len(self.items)",
    ]


def test_a_with_statement_of_one_line() -> None:
    assert accesses_of(lambda box: box.one_line()) == [
        "enters self.lock",
        "calls self.items.clear()",
        "leaves self.lock",
    ]


def test_what_a_call_returned_is_entered_and_left() -> None:
    assert accesses_of(lambda box: (box.items.update(a=1), box.by_a_call())) == [
        "calls locked(self.lock)",
        "enters locked(self.lock)",
        'reads self.items["a"]',
        "reads self.items",
        "leaves locked(self.lock)",
    ]


LOOK = Access(1, "box.py:1 in put", "reads", "self.x")
CHANGE = Access(2, "box.py:2 in put", "writes", "self.x")
OURS = Access(3, "table.py:3 in commit", "writes", "self.journal", ours=True)


def step(thread: int, *accesses: Access) -> Step:
    return Step(thread, "box.py:9 in put", "self.y()", 9, accesses)


def test_a_thread_that_has_looked_stops_while_another_one_writes() -> None:
    (found,) = interruptions([step(0, LOOK), step(1, OURS, CHANGE), step(0, LOOK)])
    assert (found.step.thread, found.before, found.meanwhile) == (0, LOOK, ((1, CHANGE),))


def test_a_thread_that_has_written_stops_while_another_one_looks() -> None:
    (found,) = interruptions([step(0, LOOK, CHANGE), step(1, LOOK), step(0, LOOK)])
    assert (found.before, found.meanwhile) == (CHANGE, ((1, LOOK),))


def test_nothing_is_told_of_threads_that_only_look() -> None:
    assert interruptions([step(0, LOOK), step(1, LOOK), step(0, LOOK)]) == []


def test_what_is_inside_this_package_is_told_if_there_is_nothing_else() -> None:
    (found,) = interruptions([step(0, OURS), step(1, OURS), step(0, OURS)])
    assert found.meanwhile == ((1, OURS),)
