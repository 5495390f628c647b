"""Tests that were entered in a REPL: their module has no file."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(120)

ENTERED = """
import threading
from latchstore.stress import Test, operation

LOCK = threading.Lock()

class Counter:
    def __init__(self):
        self.value = 0

    def increment(self):
        value = self.value
        self.value = value + 1
        return value + 1

class Sound(Counter):
    def increment(self):
        with LOCK:
            return super().increment()

class CounterTest(Test):
    schedules = 300
    seconds = 60

    def make(self):
        return Counter()

    @operation()
    def increment(self, counter):
        return counter.increment()

class SoundTest(CounterTest):
    schedules = 30

    def make(self):
        return Sound()

report = CounterTest.run()
print(report)
print(eval(report.command).answer)
print(SoundTest.run())
"""


@pytest.mark.parametrize("words", [["-c", ENTERED], ["-i", "-q"]])
def test_classes_without_a_file_are_switched_within(words: list[str]) -> None:
    entered = None if "-c" in words else ENTERED.replace("\n\n    ", "\n    ")
    ran = subprocess.run(
        [sys.executable, *words], input=entered, capture_output=True, text=True, timeout=100, check=False
    )
    assert "__main__:CounterTest: invalid: no order of the calls" in ran.stdout, ran.stderr
    assert "where each was when another thread got its turn" in ran.stdout
    assert "again: CounterTest.run(seed=" in ran.stdout
    assert "--test __main__" not in ran.stdout
    assert "\ninvalid\n" in ran.stdout.replace(">>> ", "")
    assert "__main__:SoundTest: valid (30 schedules" in ran.stdout
