"""Schedules of native threads: which locks they use, and what is told of a failure."""

from __future__ import annotations

import multiprocessing
import queue
import re
import threading
import types
from typing import Any

import pytest

from latchstore.stress import Test, operation
from latchstore.stress.result import Problem
from latchstore.stress.testing import exploration
from latchstore.stress.testing.execution import Run

pytestmark = pytest.mark.timeout(300)

_LOCK = threading.Lock()
_RLOCK = threading.RLock()
_TOKENS: queue.SimpleQueue[None] = queue.SimpleQueue()
#: Made when they are first needed, so under a scheduler if that schedule is one.
_LOCKS: dict[str, threading.Lock] = {}


class Counter:
    """Sound; its lock is older than the object."""

    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> int:
        with self.lock():
            value = self.value
            self.value = value + 1
            return value + 1

    def lock(self) -> Any:
        return _LOCK


class CounterOfReentrant(Counter):
    def increment(self) -> int:
        with _RLOCK:
            return super().increment()

    def lock(self) -> Any:
        return _RLOCK


class CounterOfRegistered(Counter):
    def lock(self) -> Any:
        return _LOCKS.setdefault("counter", threading.Lock())


class CounterWithToken(Counter):
    """Who has the token may count."""

    def __init__(self) -> None:
        super().__init__()
        while not _TOKENS.empty():
            _TOKENS.get()
        _TOKENS.put(None)

    def increment(self) -> int:
        _TOKENS.get()
        try:
            return super().increment()
        finally:
            _TOKENS.put(None)


class CounterTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300

    @operation()
    def increment(self, counter: Any) -> int:
        value: int = counter.increment()
        return value


@pytest.mark.parametrize("kind", [Counter, CounterOfReentrant, CounterOfRegistered, CounterWithToken])
def test_locks_older_than_the_object_exclude_native_threads(
    kind: type[Counter], monkeypatch: pytest.MonkeyPatch
) -> None:
    class SoundTest(CounterTest):
        __test__ = False

        def make(self) -> Any:
            return kind()

    monkeypatch.setattr(exploration, "NATIVE", 2)
    report = SoundTest.run()
    assert report.passed, str(report)
    assert 0 < report.native < report.schedules
    # Afterwards as well, as the code under test may have kept a lock of a schedule.
    lock = kind().lock()
    assert lock.acquire(timeout=10)
    acquired: list[bool] = []
    other = threading.Thread(target=lambda: acquired.append(lock.acquire(blocking=False)))
    other.start()
    other.join()
    assert acquired == [False]
    lock.release()


class RacyCounter:
    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> int:
        value = self.value
        self.value = value + 1
        return value + 1


def test_a_failure_is_looked_for_under_control(monkeypatch: pytest.MonkeyPatch) -> None:
    class RacyTest(CounterTest):
        __test__ = False

        def make(self) -> Any:
            return RacyCounter()

    def fails(*args: object) -> Run:
        return Run([], problems=[Problem("crash", "native threads have found it")], native=True)

    def passes(*args: object) -> Run:
        return Run([], native=True)

    monkeypatch.setattr(exploration, "NATIVE", 1)
    monkeypatch.setattr(exploration, "run_native", fails)
    report = RacyTest.run()
    assert "would give 2, but it gave 1" in str(report)
    assert "where to look:" in str(report)
    assert "native threads made these calls" not in str(report)
    # The command that repeats it does, whatever native threads do.
    monkeypatch.setattr(exploration, "run_native", passes)
    assert report.run is not None
    again = RacyTest.run(seed=report.seed, schedules=1)
    assert again.run is not None
    assert [str(each) for each in again.run.records] == [str(each) for each in report.run.records]


class BetweenProcesses(Counter):
    """Its lock is no lock of threading."""

    def __init__(self) -> None:
        super().__init__()
        self.mutex = multiprocessing.Lock()

    def increment(self) -> int:
        with self.mutex:
            value = self.value
            self.value = value + 1
            return value + 1


def test_a_lock_that_cannot_be_replaced_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class BlockedTest(CounterTest):
        __test__ = False

        def make(self) -> Any:
            return BetweenProcesses()

    def shrunk(*args: object) -> None:
        raise AssertionError("there is nothing to reduce, and each run takes a second")

    monkeypatch.setattr(exploration, "shrunk", shrunk)
    report = BlockedTest.run()
    assert report.answer == "unknown"
    assert "waits for a real Lock, self.mutex, at test_native_threads.py:" in report.reason
    told = str(report)
    assert re.search(
        r"held by thread \d, which is at \S+ in BetweenProcesses.increment in the 'with' of ", told
    )
    assert "a Lock of multiprocessing.synchronize cannot be replaced" in told
    assert f"again: {report.command}" in told
    assert "(main)" not in told


def test_the_command_for_a_class_written_in_c_makes_its_calls_several_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ListTest(CounterTest):
        __test__ = False

        def make(self) -> Any:
            return [0]

        def increment(self, subject: Any) -> int:
            return len(subject)

        @operation()
        def length(self, subject: Any) -> int:
            return len(subject)

    runs = iter([[], [], [Problem("crash", "native threads have found it")]])
    monkeypatch.setattr(exploration, "run_native", lambda *args: Run([], problems=next(runs), native=True))
    monkeypatch.setattr(exploration, "shrunk_by_trying", lambda program, run, *args: (program, run))
    assert ListTest.run(schedules=1).reason == "crash: native threads have found it"


def test_native_threads_that_take_long_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a class that sleeps, which takes no time under control."""

    class SleepingTest(CounterTest):
        __test__ = False
        schedules = 50
        seconds = 1e6

        def make(self) -> Any:
            return Counter()

    now = 0.0

    def sleeps(*args: object) -> Run:
        nonlocal now
        now += 100.0
        return Run([], native=True)

    monkeypatch.setattr(exploration, "NATIVE", 2)
    monkeypatch.setattr(exploration, "run_native", sleeps)
    monkeypatch.setattr(exploration, "time", types.SimpleNamespace(monotonic=lambda: now))
    report = SleepingTest.run()
    assert report.passed, str(report)
    assert (report.native, report.schedules) == (1, 50)
