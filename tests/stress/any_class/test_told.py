"""What the report of a failure says."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from latchstore.stress import Test, operation
from latchstore.stress.junit import write_junit
from latchstore.stress.report import report_html
from latchstore.stress.result import Problem
from latchstore.stress.shrinking import first_failure
from latchstore.stress.testing.answers import Answer, told_apart
from latchstore.stress.testing.execution import Run
from latchstore.stress.testing.program import Program
from latchstore.stress.testing.report import Report
from latchstore.stress.testing.result import result_of

pytestmark = pytest.mark.timeout(300)


class Summer:
    """Its own threads race with each other."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> int:
        with ThreadPoolExecutor(number) as executor:
            list(executor.map(self._add_one, range(number)))
        return self.total

    def _add_one(self, number: int) -> None:
        total = self.total
        self.total = total + 1


class SoundSummer(Summer):
    def add(self, number: int) -> int:
        self.total += number
        return self.total


class SummerTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 100
    operations = 1

    def make(self) -> Any:
        return Summer()

    def reference(self) -> Any:
        return SoundSummer()

    @operation(number=[2])
    def add(self, subject: Any, number: int) -> int:
        total: int = subject.add(number)
        return total


def test_a_race_of_threads_that_a_call_has_started_is_no_sequential_defect() -> None:
    report = SummerTest.run()
    assert report.answer == "invalid"
    told = str(report)
    assert "no two of the calls overlapped: threads that a call has started race with each other" in told
    assert "sequential defect" not in told
    assert "reads self.total (test_told.py:" in told
    assert "frames.py" not in told
    assert not result_of(report).is_sequential


class Checked(SoundSummer):
    """Looks before it has the lock."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def add(self, number: int) -> int:
        if self.total:
            return 0
        with self.lock:
            return super().add(number)


def test_a_wait_for_a_lock_names_who_holds_it() -> None:
    class CheckedTest(SummerTest):
        __test__ = False
        schedules = 300

        def make(self) -> Any:
            return Checked()

        def reference(self) -> Any:
            return Checked()

    waits = [told for seed in range(5) if "(waits for the lock" in (told := str(CheckedTest.run(seed=seed)))]
    assert waits
    found = re.search(
        r"thread (\d) .*\(waits for the lock of test_told.py:\d+ in \S+, held by thread (\d)\)", waits[0]
    )
    assert found is not None
    assert found[1] != found[2]


def test_before_the_first_schedule_nothing_is_said_of_switches() -> None:
    class WrongTest(SummerTest):
        __test__ = False

        def make(self) -> Any:
            return [1]

        def reference(self) -> Any:
            return []

        def add(self, subject: Any, number: int) -> int:
            return len(subject)

        @operation()
        def length(self, subject: Any) -> int:
            return len(subject)

    told = str(WrongTest.run())
    assert "sequential defect: length() gives 1 in one thread, but must give 0" in told
    assert "threads were switched" not in told
    assert "native threads only" not in told


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("a", "b", ("shown", "shown, too")),
        ("x" * 90 + "a" + "y" * 90, "x" * 90 + "b" + "y" * 90, None),
    ],
)
def test_answers_with_the_same_text_are_told_apart(
    one: str, other: str, told: tuple[str, str] | None
) -> None:
    texts = told or ("'xxx...yyy'", "'xxx...yyy'")
    answers = [Answer(("returned", value), text) for value, text in zip((one, other), texts, strict=True)]
    found = told_apart(*answers)
    around = "x" * 20, "y" * 59
    different = (
        f"'xxx...yyy', in it ...{around[0]}a{around[1]}...",
        f"the same with ...{around[0]}b{around[1]}...",
    )
    assert found == (told or different)


def test_a_run_that_proves_nothing_is_no_failure_for_build_servers(tmp_path: Path) -> None:
    problem = Problem("blocked", "thread 1 waits for a real Lock")
    run = Run([], problems=[problem], reason="blocked")
    report = Report("module:Test", "unknown", program=Program(0, (), (), ()), run=run)
    write_junit(result_of(report), tmp_path / "r.xml")
    tree = ElementTree.parse(tmp_path / "r.xml")
    assert tree.find(".//failure") is None
    assert tree.find(".//error[@message='blocked']") is not None
    assert "<h1>unknown: blocked</h1>" in report_html(result_of(report)).replace(' class="unknown"', "")


class Writing(Summer):
    """Reads a sum while another thread writes it in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.items = [0]

    def add(self, number: int) -> int:
        found = self.total
        for _ in range(5):
            self.items.append(number)
        self.total = found + number
        return self.total


def test_accesses_of_a_loop_are_told_once() -> None:
    class WritingTest(SummerTest):
        __test__ = False

        def make(self) -> Any:
            return Writing()

    told = str(WritingTest.run())
    assert "would give 4, but it gave 2" in told
    places = told.partition("where to look:\n")[2].partition("\n\n")[0].split("\n  thread")
    appended = [place.count("calls self.items.append(number)") for place in places]
    assert max(appended) == 1


def test_after_the_deadline_no_more_runs_are_made() -> None:
    made: list[Run] = []

    def runs() -> Iterator[Run]:
        for _ in range(3):
            made.append(Run([]))
            yield made[-1]

    assert first_failure(runs(), deadline=0.0) is None
    assert len(made) == 1
