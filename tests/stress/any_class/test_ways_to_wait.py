"""Code under test that looks at the clock until a moment has come, and state in unusual places."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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
