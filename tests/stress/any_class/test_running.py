"""Tests of any class in pytest, on the command line, and as files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from latchstore.__main__ import main

pytestmark = pytest.mark.timeout(300)

TESTS = """
import pytest
from latchstore.stress import Test, operation

class Counter:
    value = 0

    def increment(self):
        value = self.value
        self.value = value + 1
        return value + 1

class Abstract(Test):
    seconds = 60
    schedules = 100
    seed = 101703154125  # a schedule that fails on most Pythons

    @operation()
    def increment(self, counter):
        return counter.increment()

class CounterTest(Abstract):
    def make(self):
        return Counter()

@pytest.mark.skip(reason="not today")
class SkippedTest(CounterTest):
    pass

class DisabledTest(CounterTest):
    __test__ = False

class WrongTest(CounterTest):
    threads = 1

class NotMadeTest(CounterTest):
    __test__ = False

    def make(self):
        return int("x")

class NotSetUpTest(CounterTest):
    __test__ = False

    def setup(self, subject):
        raise OSError("no disk")

class NoStateTest(CounterTest):
    __test__ = False

    def state(self, subject):
        return subject.missing

def test_beside():
    assert True

class ForgottenTest(Test):
    @operation()
    def increment(self, counter):
        return counter.increment()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "test_counters.py").write_text(TESTS)
    return tmp_path


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", *words]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=240, check=False)


def test_pytest_collects_them(directory: Path) -> None:
    ran = run(directory, "pytest", "-p", "no:cacheprovider", "--strict-markers", "-rsf", "test_counters.py")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "3 failed, 1 passed, 1 skipped" in ran.stdout
    assert "ForgottenTest has no make(): define it" in ran.stdout
    assert "FAILED test_counters.py::CounterTest - test_counters:CounterTest: invalid" in ran.stdout
    assert "would give 2, but it gave 1" in ran.stdout
    assert "not today" in ran.stdout
    assert "ValueError: WrongTest.threads must be at least 2, got 1" in ran.stdout
    assert "::Abstract" not in ran.stdout
    assert "DisabledTest" not in ran.stdout


def test_pytest_does_not_load_the_harness_for_other_tests(directory: Path) -> None:
    (directory / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    assert not [name for name in sys.modules if name.startswith('latchstore.stress.t')]\n"
    )
    ran = run(directory, "pytest", "-p", "no:cacheprovider", "test_other.py")
    assert ran.returncode == 0, ran.stdout


def test_the_command_line(directory: Path) -> None:
    files = ["--report", "r.html", "--junit", "r.xml", "--history", "r.jsonl"]
    ran = run(directory, "latchstore", "stress", "--test", "test_counters:CounterTest", *files)
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.startswith("test_counters:CounterTest: invalid: no order of the calls")
    assert "again: python -m latchstore stress --test test_counters:CounterTest --seed " in ran.stdout
    page = (directory / "r.html").read_text()
    assert "increment() -&gt; 1" in page or "increment() -> 1" in page
    failure = ElementTree.parse(directory / "r.xml").find(".//failure")
    assert failure is not None
    assert "no order of the calls" in (failure.text or "")
    lines = (directory / "r.jsonl").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["header", "invoke", "invoke", "ok", "ok"]

    again = next(line for line in ran.stdout.splitlines() if line.startswith("again: "))
    repeated = run(directory, *again.removeprefix("again: python -m ").split(), "--json")
    found = json.loads(repeated.stdout)
    assert (repeated.returncode, found["answer"], found["schedules"]) == (1, "invalid", 1)
    assert found["history"] == ["increment() -> 1", "increment() -> 1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_counters", "test must be named as module:Class, got 'test_counters'"),
        ("missing:Test", "test 'missing:Test': cannot import 'missing'"),
        ("test_counters:Missing", "module 'test_counters' has no 'Missing'"),
        (
            "test_counters:Counter",
            "test 'test_counters:Counter' must be a subclass of latchstore.stress.Test",
        ),
        ("test_counters:Abstract", "Abstract has no make(): define it, and return the object"),
        ("test_counters:WrongTest", "WrongTest.threads must be at least 2, got 1"),
        (
            "test_counters:NotMadeTest",
            "ValueError: invalid literal for int() with base 10: 'x' "
            '(at test_counters.py:40 in make: return int("x"))',
        ),
        (
            "test_counters:NotSetUpTest",
            'OSError: no disk (at test_counters.py:46 in setup: raise OSError("no disk"))',
        ),
    ],
)
def test_what_cannot_be_run(
    directory: Path,
    name: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(directory)
    monkeypatch.delitem(sys.modules, "test_counters", raising=False)
    assert main(["stress", "--test", name]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"latchstore stress: error: {message}" in told.err or message in told.err
    assert len(told.err.splitlines()) == 1


def test_a_crash_is_told_without_the_frames_of_the_harness(directory: Path) -> None:
    ran = run(directory, "latchstore", "stress", "--test", "test_counters:NoStateTest")
    assert ran.returncode == 1
    error = "AttributeError: 'Counter' object has no attribute 'missing'"
    assert f"invalid: crash: outside of all operations: {error}" in ran.stdout
    assert 'test_counters.py", line 52, in state' in ran.stdout
    assert "latchstore/stress" not in ran.stdout


def test_without_jinja2_the_command_ends_before_the_run(directory: Path) -> None:
    (directory / "jinja2.py").write_text("raise ModuleNotFoundError('no module', name='jinja2')")
    ran = run(directory, "latchstore", "stress", "--test", "test_counters:CounterTest", "--report", "r.html")
    assert ran.returncode == 2
    assert "error: a report needs Jinja2: python -m pip install 'latchstore[report]'" in ran.stderr
    assert ran.stdout == ""
