"""Callables of any kind run as controlled threads; locks that were there before them do as well."""

from __future__ import annotations

import importlib
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from latchstore.stress.execution import Body, Execution, Stage, run_schedule, under_control
from latchstore.stress.scheduler import Strategy
from latchstore.stress.scope import Scope
from latchstore.stress.strategies import AtRandom, Priorities, Replay, schedule_of

Make = Callable[[Stage], Sequence[Body]]


def execute(make: Make, strategy: Strategy, scope: Scope | None = None, **options: Any) -> Execution:
    scope = Scope(execute) if scope is None else scope
    with under_control(scope):
        return run_schedule(make, strategy, scope, **options)


def at_random(seed: int) -> AtRandom:
    return AtRandom(random.Random(seed))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Return a function that writes a package of some modules and imports the one named ``subject``."""
    name = "package_under_test"

    def write(**modules: str) -> ModuleType:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        for module, source in modules.items():
            (tmp_path / name / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        return importlib.import_module(f"{name}.subject")

    yield write
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


# -- the interface -----------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/thread-self/stat").exists(), reason="tells no thread its processor")
def test_threads_of_a_run_stay_on_one_processor_and_others_do_not() -> None:
    allowed = os.sched_getaffinity(0)
    found: list[set[int]] = []

    def look() -> None:
        found.append(os.sched_getaffinity(0))

    for _ in range(3):
        found.clear()
        execute(lambda stage: [look, look], Replay(()), finish=look)
        assert len(found) == 3
        assert len(set.union(*found)) == 1
        assert set.union(*found) <= allowed
        assert os.sched_getaffinity(0) == allowed


def test_bodies_return_and_raise_and_the_calls_are_in_order() -> None:
    calls: list[tuple[int | None, int, int]] = []

    def make(stage: Stage) -> list[Body]:
        box: queue.Queue[int] = queue.Queue()

        def put() -> str:
            begin = stage.tick()
            box.put(3)
            calls.append((stage.number(), begin, stage.tick()))
            return "put"

        def get() -> int:
            begin = stage.tick()
            item = box.get()
            calls.append((stage.number(), begin, stage.tick()))
            return item

        return [put, get, lambda: 1 // 0]

    execution = execute(make, at_random(1), finish=lambda: "looked", recording=True)
    assert execution.problems == []
    values = [None if each is None else each.value for each in execution.ended]
    assert values == ["put", 3, None]
    assert isinstance(execution.ended[2].error, ZeroDivisionError)  # type: ignore[union-attr]
    assert execution.finished == "looked"
    assert {number for number, _, _ in calls} == {0, 1}
    times = sorted(time for _, begin, end in calls for time in (begin, end))
    assert len(set(times)) == 4
    assert {step.thread for step in execution.steps} <= {0, 1, 2}


def test_a_schedule_is_replayed_with_its_random_numbers() -> None:
    def make(stage: Stage) -> list[Body]:
        def draw() -> list[float]:
            return [random.random() for _ in range(3)]

        return [draw, draw]

    before = random.getstate()
    first = execute(make, at_random(5), seed=7)
    assert random.getstate() == before
    again = execute(make, Replay(schedule_of(first.turns)), seed=7)
    other = execute(make, Replay(schedule_of(first.turns)), seed=8)
    assert again.turns == first.turns
    assert again.ended == first.ended
    assert other.ended != first.ended


def test_a_section_that_is_undisturbed_is_seen_whole() -> None:
    def make(stage: Stage) -> list[Body]:
        pair = [0, 0]

        def write() -> None:
            with stage.undisturbed():
                pair[0] += 1
                pair[1] += 1

        def read() -> list[int]:
            with stage.undisturbed():
                return [pair[0], pair[1]]

        return [write, read, write]

    for seed in range(10):
        ended = execute(make, at_random(seed)).ended[1]
        assert ended is not None
        assert ended.value != [-1]


def test_an_error_before_the_bodies_is_a_crash() -> None:
    (problem,) = execute(lambda stage: [][1], Replay(())).problems
    assert problem.kind == "crash"
    assert "IndexError" in problem.text


# -- what is cooperative without changes to the code -------------------------------------------------


def by_semaphore() -> list[Body]:
    free, full = threading.Semaphore(1), threading.BoundedSemaphore(1)
    items: list[int] = []

    def work() -> None:
        with free, full:
            items.append(len(items))

    return [work, work, work]


def by_barrier() -> list[Body]:
    barrier = threading.Barrier(3)
    return [barrier.wait] * 3


def by_timer() -> list[Body]:
    rang = threading.Event()

    def wait() -> None:
        timer = threading.Timer(1_000, rang.set)
        timer.start()
        assert rang.wait()

    return [wait]


def by_queues() -> list[Body]:
    queues: list[Any] = [queue.Queue(1), queue.LifoQueue(1), queue.PriorityQueue(1), queue.SimpleQueue()]

    def put() -> None:
        for each in queues:
            each.put(1)
            each.put(2)

    def get() -> None:
        for each in queues:
            assert {each.get(), each.get()} == {1, 2}

    return [put, get]


def by_executor() -> list[Body]:
    def ask() -> None:
        with ThreadPoolExecutor(2) as executor:
            futures = [executor.submit(pow, 2, number) for number in range(3)]
            assert [future.result(timeout=5) for future in futures] == [1, 2, 4]

    return [ask, ask]


def by_thread() -> list[Body]:
    def ask() -> None:
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(1))
        thread.start()
        time.sleep(1)
        thread.join()
        assert done == [1]

    return [ask, ask]


KINDS = [by_semaphore, by_barrier, by_timer, by_queues, by_executor, by_thread]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_makes_threads_wait_is_controlled(kind: Callable[[], list[Body]]) -> None:
    for seed in range(4):
        for strategy in (at_random(seed), Priorities(random.Random(seed), 3, 100)):
            execution = execute(lambda stage: kind(), strategy)
            assert execution.problems == [], seed
            assert [None if each is None else each.error for each in execution.ended] == [None] * len(
                execution.ended
            )


def test_a_wait_times_out_only_when_nobody_else_can_run() -> None:
    def make(stage: Stage) -> list[Body]:
        event = threading.Event()

        def set_late() -> None:
            for _ in range(500):
                event.is_set()
            event.set()

        return [lambda: event.wait(0.0001), set_late]

    for seed in range(10):
        ended = execute(make, at_random(seed)).ended[0]
        assert ended is not None
        assert ended.value is True


# -- locks that were there before --------------------------------------------------------------------

LOCKS = """
from threading import Lock as L, RLock, Condition
from latchstore.contract.with_lock import WithLock
import threading
LOCK = L()
WITH = WithLock(L())
CONDITION = Condition()
class Holder:
    lock = RLock()
    def __init__(self):
        self.own = L()
holder = Holder()
"""

SUBJECT = """
from dataclasses import dataclass, field
from threading import Lock as Made
from package_under_test.locks import LOCK as NEIGHBOUR, CONDITION, WITH, Holder, holder

@dataclass
class Counter:
    value: int = 0
    made: object = field(default_factory=Made)

    def add(self, lock):
        with lock:
            self.value = self.value + 1

    def locks(self):
        return [NEIGHBOUR, CONDITION, Holder.lock, holder.own, WITH, self.made]
"""


def test_locks_are_found_by_identity_wherever_they_were_made(package: Callable[..., ModuleType]) -> None:
    subject = package(subject=SUBJECT, locks=LOCKS)
    scope = Scope(subject.Counter)
    before = subject.Counter().locks()[:5]
    with under_control(scope):
        for which in range(6):
            for seed in range(10):
                counters: list[Any] = []

                def make(stage: Stage, counters: list[Any] = counters, which: int = which) -> list[Body]:
                    counter = subject.Counter()
                    counters.append(counter)
                    return [lambda: counter.add(counter.locks()[which])] * 3

                execution = run_schedule(make, at_random(seed), scope)
                assert execution.problems == []
                assert counters[0].value == 3
    assert subject.Counter().locks()[:5] == before
    assert type(subject.Counter().made) is type(threading.Lock())
    assert scope.switched_within() == ("package_under_test.subject",)


FOREIGN = """
import threading
LOCKS = {"only": threading.Lock()}
"""

BLOCKED = """
from package_under_test.foreign import LOCKS
class Table:
    def __init__(self):
        self.lock = LOCKS["only"]
        self.value = 0
    def add(self):
        with self.lock:
            self.value = self.value + 1
"""


def test_a_real_lock_that_blocks_is_named_with_who_holds_it(package: Callable[..., ModuleType]) -> None:
    subject = package(subject=BLOCKED, foreign=FOREIGN)

    def make(stage: Stage) -> list[Body]:
        table = subject.Table()
        return [table.add, table.add]

    found = [execute(make, at_random(seed), Scope(subject.Table)) for seed in range(3)]
    execution = next(each for each in found if each.problems)
    (problem,) = execution.problems
    assert problem.kind == "blocked"
    assert "waits for a real lock, self.lock" in problem.text
    assert "subject.py:8 in Table.add: with self.lock:" in problem.text
    assert "in the 'with' of subject.py:8" in problem.text


# -- the code within which threads change ------------------------------------------------------------

COUNTER = """
class Counter:
    value = 0
    def add(self):
        self.value = self.value + 1
"""


def lost(subject: ModuleType, scope: Scope) -> bool:
    for seed in range(20):
        counters: list[Any] = []

        def make(stage: Stage, counters: list[Any] = counters) -> list[Body]:
            counters.append(subject.Counter())
            return [counters[0].add] * 2

        with under_control(scope):
            run_schedule(make, at_random(seed), scope)
        if counters[0].value == 1:
            return True
    return False


def test_a_race_one_file_away_is_found(package: Callable[..., ModuleType]) -> None:
    subject = package(
        subject="from package_under_test import below\nclass Counter(below.Counter): ...", below=COUNTER
    )
    scope = Scope(subject.Counter)
    assert lost(subject, scope)
    assert scope.switched_within() == ("package_under_test.below",)


def test_modules_that_are_named_are_taken_instead(package: Callable[..., ModuleType]) -> None:
    subject = package(subject=COUNTER, other="")
    assert not lost(subject, Scope(subject.Counter, modules=["package_under_test.other"]))
    assert lost(subject, Scope(subject.Counter, modules=["package_under_test.subject"]))
    with pytest.raises(ImportError):
        Scope(modules=["no_such_module"])


def test_a_class_written_in_c_has_no_code_to_switch_within(package: Callable[..., ModuleType]) -> None:
    subject = package(subject=COUNTER)
    assert Scope(subject.Counter).has_python(subject.Counter)
    assert Scope(queue.Queue).has_python(queue.Queue)
    for written_in_c in (dict, queue.SimpleQueue):
        assert not Scope(written_in_c).has_python(written_in_c)


# -- deadlocks ---------------------------------------------------------------------------------------


def test_a_deadlock_is_found_at_once_while_others_go_on() -> None:
    def make(stage: Stage) -> list[Body]:
        one, two = threading.Lock(), threading.Lock()

        def both(first: Any, second: Any) -> None:
            with first, second:
                pass

        def busy() -> None:
            while True:
                one.locked()

        return [lambda: both(one, two), lambda: both(two, one), busy]

    found = [execute(make, at_random(seed), limit=20_000) for seed in range(8)]
    deadlocks = [each for each in found if each.problems[0].kind == "deadlock"]
    assert deadlocks
    for execution in deadlocks:
        assert "threads wait for each other" in execution.problems[0].text
        waiting = {each.task: each.held_by for each in execution.blocked if each.waits_for and each.task < 2}
        assert set(waiting) == {0, 1}
        assert "held by" in execution.problems[0].text


def test_a_lost_wake_up_is_found() -> None:
    def make(stage: Stage) -> list[Body]:
        condition = threading.Condition()

        def wait() -> None:
            with condition:
                condition.wait()

        def notify() -> None:
            with condition:
                condition.notify()

        return [wait, notify]

    found = [execute(make, at_random(seed)) for seed in range(8)]
    assert any(not each.problems for each in found)
    execution = next(each for each in found if each.problems)
    assert execution.problems[0].text.startswith(
        "no thread can continue: no thread is left to wake up threads 0\n"
    )
    (waiting,) = [each for each in execution.blocked if each.task == 0]
    assert waiting.waits_for == "a condition"
