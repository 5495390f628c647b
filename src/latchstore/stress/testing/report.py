"""The report of a test: what was tried, and the failure if there is one.

Thread safety: a `Report` is changed by the exploration that makes it only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from latchstore.stress.testing.answers import Break, Record
from latchstore.stress.testing.execution import Run
from latchstore.stress.testing.program import Program
from latchstore.stress.testing.wording import report_text
from latchstore.stress.verdict import Answer as VerdictAnswer


class TestFailedError(AssertionError):
    """A test failed; the message is the report.

    Attributes
    ----------
    report : Report
    """

    __test__ = False  # keeps pytest from collecting it by its name

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass
class Report:
    """The result of a test; prints as text.

    Attributes
    ----------
    test : str
        Name of the test.
    answer : str
        ``"valid"``, ``"invalid"``, or ``"unknown"`` if nothing was proved.
    reason : str
        The problem, in one line.
    seed : int
        Seed of the failing schedule, otherwise of the test.
    program : Program or None
        The failing program, reduced.
    run : Run or None
        Its run.
    broken : Break or None
        The place where the longest order of its calls breaks.
    schedules, calls : int
        Counts over the whole test.
    undecided : int
        Number of schedules without a verdict, as they had too many orders to try.
    native : int
        Number of schedules on native threads.
    seconds : float
    modules : tuple of str
        Modules in whose code threads were switched.
    is_async : bool
        Whether the operations were tasks of one event loop.
    switched : bool
        False if there is no such code, so that only native threads ran.
    counts : Counter
        Number of calls by operation.
    raised : Counter
        Number of exceptions by operation.
    first_raised : str
        The first call that raised an exception, and the exception.
    overlaps : Counter
        Number of overlaps by pair of operations.
    cycles : list of str
        In which cycles locks were acquired, without a deadlock.
    command : str
        Shell command that repeats the schedule; a line of Python if the test was entered in a REPL.

    Thread safety
    -------------
    Immutable once ``run`` has returned it.
    """

    test: str
    answer: VerdictAnswer = "valid"
    reason: str = ""
    seed: int = 0
    program: Program | None = None
    run: Run | None = None
    broken: Break | None = None
    schedules: int = 0
    calls: int = 0
    undecided: int = 0
    native: int = 0
    seconds: float = 0.0
    modules: tuple[str, ...] = ()
    switched: bool = True
    is_async: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    raised: Counter[str] = field(default_factory=Counter)
    first_raised: str = ""
    overlaps: Counter[tuple[str, str]] = field(default_factory=Counter)
    cycles: list[str] = field(default_factory=list)
    command: str = ""

    @property
    def passed(self) -> bool:
        """Whether no problem was found, and something was proved."""
        return self.answer == "valid"

    def check(self) -> None:
        """Raise `TestFailedError` unless the test passed."""
        if not self.passed:
            raise TestFailedError(self)

    def count(self, program: Program, run: Run) -> None:
        """Add one run."""
        self.schedules += 1
        self.calls += program.size
        self.native += run.native
        for record in run.records:
            self.counts[record.call.name] += 1
            is_raised = record.answer.value[0] == "raised"
            self.raised[record.call.name] += is_raised
            if is_raised and not self.first_raised:
                self.first_raised = f"{record.call.name}: {record.answer}"
        self.overlaps.update(_overlaps(run.records))

    def __str__(self) -> str:
        return report_text(self)

    __repr__ = __str__


def _overlaps(records: list[Record]) -> Iterator[tuple[str, str]]:
    for place, one in enumerate(records):
        for other in records[place + 1 :]:
            if one.call.thread != other.call.thread and one.overlaps(other):
                first, second = sorted((one.call.name, other.call.name))
                yield first, second
