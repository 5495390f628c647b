"""What is told of final states, and of values in reports."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from latchstore.stress import Test, operation

pytestmark = pytest.mark.timeout(120)


class Numbered:
    """Each object has a number of its own, which no operation shows."""

    numbers = itertools.count()

    def __init__(self) -> None:
        self.number = next(self.numbers)

    def touch(self) -> object:
        return None


class NumberedTest(Test):
    __test__ = False
    schedules = 50
    seconds = 60.0

    def make(self) -> Any:
        return Numbered()

    @operation()
    def touch(self, subject: Any) -> object:
        return subject.touch()


def test_a_state_that_differs_between_objects_is_told() -> None:
    class StateTest(NumberedTest):
        __test__ = False

        def state(self, subject: Any) -> object:
            return [subject]

    report = StateTest.run()
    assert report.reason.startswith("the class is not deterministic: its final state was ")
    assert "let state() return what must be the same" in report.reason
    assert "the same with " in report.reason
    assert "('number', " in report.reason


def test_addresses_are_left_out_of_reports() -> None:
    class Different(Numbered):
        def touch(self) -> object:
            return self

    class DifferentTest(NumberedTest):
        __test__ = False

        def make(self) -> Any:
            return Different()

    told = str(DifferentTest.run())
    assert "touch() gave <tests.stress.any_class" in told
    assert " at 0x" not in told


def test_attributes_of_functions_are_no_state() -> None:
    def wrapped() -> Any:
        answers: list[int] = []

        def function() -> int:
            length = len(answers)
            answers.append(length)
            return length

        function.__module__ = "elsewhere"
        function.__dict__.update(__doc__="text", _marker=object(), limit=3)
        return function

    class FunctionTest(NumberedTest):
        __test__ = False

        def make(self) -> Any:
            return wrapped()

        @operation()
        def touch(self, subject: Any) -> object:
            return subject()

    told = str(FunctionTest.run())
    assert "with this state at its end: limit=3\n" in told
