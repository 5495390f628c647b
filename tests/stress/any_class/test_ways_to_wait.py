"""Code under test that looks at the clock until a moment has come, and state in unusual places."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
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

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def increment(self) -> int:
        self.connection.execute("begin immediate")
        return 0


def test_a_wait_by_short_sleeps_in_c_is_named(tmp_path: Path) -> None:
    def connect() -> sqlite3.Connection:
        connections.append(
            sqlite3.connect(tmp_path / "file", timeout=300, isolation_level=None, check_same_thread=False)
        )
        return connections[-1]

    class LedgerTest(CounterTest):
        __test__ = False

        def make(self) -> Any:
            return Ledger(connect())

    connections: list[sqlite3.Connection] = []
    before = set(threading.enumerate())
    holder = connect()
    holder.execute("begin exclusive")
    try:
        with pytest.raises(
            ValueError, match=r"in one thread: .* waits in a call outside control, at test_ways_"
        ):
            LedgerTest.run()
    finally:
        holder.execute("rollback")
        for thread in set(threading.enumerate()) - before:
            thread.join(30)
        for connection in connections:
            connection.close()
