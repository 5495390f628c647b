"""Code under test that looks at the clock until a moment has come, and state in unusual places."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from latchstore.stress import Test, operation

pytestmark = pytest.mark.timeout(120)


class Patient:
    """Sound; waits for a moment without a sleep."""

    def __init__(self) -> None:
        self.value = 0
        self.lock = threading.Lock()

    def increment(self) -> int:
        with self.lock:
            begin = time.perf_counter()
            while time.perf_counter() < begin + 0.001:
                pass
            self.value += 1
            return self.value


def counter() -> Callable[[], int]:
    """Return a function that counts its calls, with a race."""
    value = 0

    def increment() -> int:
        nonlocal value
        found = value
        value = found + 1
        return found + 1

    return increment


class ClosureCounter:
    def __init__(self) -> None:
        self.increment = counter()


class CounterTest(Test):
    __test__ = False
    seconds = 60.0

    @operation()
    def increment(self, subject: Any) -> int:
        value: int = subject.increment()
        return value


def test_a_clock_goes_on_while_a_thread_looks_at_it() -> None:
    class PatientTest(CounterTest):
        __test__ = False
        schedules = 5

        def make(self) -> Any:
            return Patient()

    report = PatientTest.run()
    assert report.passed, str(report)
    assert report.schedules == 5


def test_variables_of_an_enclosing_function_are_shared() -> None:
    class ClosureTest(CounterTest):
        __test__ = False
        schedules = 300

        def make(self) -> Any:
            return ClosureCounter()

    report = ClosureTest.run()
    assert "would give 2, but it gave 1" in str(report)
    assert "writes value (" in str(report)


class Spinning:
    """Sound; a thread that finds another one inside looks again and again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_busy = False
        self.value = 0

    def increment(self) -> int:
        while not self.enter():
            pass
        self.value += 1
        value = self.value
        with self.lock:
            self.is_busy = False
        return value

    def enter(self) -> bool:
        with self.lock:
            is_free = not self.is_busy
            self.is_busy = True
            return is_free


def test_a_thread_that_spins_lets_others_run() -> None:
    class SpinningTest(CounterTest):
        __test__ = False
        schedules = 40

        def make(self) -> Any:
            return Spinning()

    report = SpinningTest.run()
    assert report.passed, str(report)


class Ledger:
    """A file of SQLite, which waits for a lock by short sleeps in C."""

    def __init__(self, path: str) -> None:
        self.path = path
        with closing(self.connect()) as connection:
            connection.execute("create table if not exists entries(value)")
            connection.execute("delete from entries")

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=300, isolation_level=None)

    def increment(self) -> int:
        with closing(self.connect()) as connection:
            connection.execute("begin immediate")
            connection.execute("insert into entries values (1)")
            (count,) = connection.execute("select count(*) from entries").fetchone()
            connection.execute("commit")
            return int(count)


def test_a_wait_by_short_sleeps_in_c_is_named(tmp_path: Path) -> None:
    class LedgerTest(CounterTest):
        __test__ = False

        def make(self) -> Any:
            return Ledger(str(tmp_path / "ledger.db"))

    report = LedgerTest.run()
    assert report.answer == "unknown"
    assert "waits in a call outside control, at test_ways_to_wait.py:" in report.reason
    assert 'connection.execute("begin immediate")' in report.reason
