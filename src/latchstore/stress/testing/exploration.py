"""Trying schedules of a test until the time is over or one fails; a failure is made small.

Schedule number n has a seed of its own, made of the test's and n; the first has the test's. So a schedule is
run again by its seed alone, whatever was run before.

Thread safety: one exploration at a time in a process, as the standard library's locks are replaced meanwhile.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from latchstore.stress.execution import quick_collections, under_control
from latchstore.stress.models import REFUSED
from latchstore.stress.scheduler import Strategy
from latchstore.stress.shrinking import fewer_calls
from latchstore.stress.strategies import seed_of
from latchstore.stress.testing.answers import UNKNOWN_ANSWER, WAITS, Answer, Break, Record
from latchstore.stress.testing.checking import check, states_of
from latchstore.stress.testing.definition import Definition, check_numbers, invariants_of, operations_of
from latchstore.stress.testing.execution import Run, run_native, run_scheduled, switching_often
from latchstore.stress.testing.program import Call, Program, ProgramSource
from latchstore.stress.testing.scope import TestScope
from latchstore.stress.testing.shrinking import shrunk, shrunk_by_trying, strategy_of
from latchstore.stress.testing.specification import Specification
from latchstore.stress.testing.wording import report_text
from latchstore.stress.verdict import Answer as VerdictAnswer

#: Of how many schedules one is run by native threads, where threads can be switched within the code.
_NATIVE = 10

#: How many programs are run by one thread, to see whether the class gives the same each time.
_SEQUENTIAL = 20


class TestFailedError(AssertionError):
    """A test did not pass; the message is the report.

    Attributes
    ----------
    report : Report
    """

    __test__ = False  # pytest takes classes of such names for tests

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass
class Report:
    """What the schedules of a test gave; prints as text.

    Attributes
    ----------
    test : str
        The name of the test.
    answer : str
        ``"valid"``, ``"invalid"``, or ``"unknown"`` if nothing was shown.
    reason : str
        What is wrong, in one line.
    seed : int
        Of the schedule that failed, or of the test.
    program : Program or None
        The one that failed, made small.
    run : Run or None
        Its run.
    broken : Break or None
        Where the order of its calls that explains most breaks.
    schedules, calls : int
        How many there were.
    undecided : int
        Of how many it is not known whether an order explains them, as too many orders had to be tried.
    native : int
        How many of the schedules were run by native threads.
    seconds : float
    modules : tuple of str
        Within whose code threads were switched.
    is_async : bool
        Whether the operations were tasks of one event loop.
    switched : bool
        False if there is no such code, and native threads alone ran.
    counts : Counter
        How often each operation was called.
    raised : Counter
        How often it raised something.
    overlaps : Counter
        How often two operations, by name, ran at one time.
    command : str
        What runs the schedule again in a shell.

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
    overlaps: Counter[tuple[str, str]] = field(default_factory=Counter)
    command: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong, and something was shown."""
        return self.answer == "valid"

    def check(self) -> None:
        """Raise `TestFailedError` unless the test passed."""
        if not self.passed:
            raise TestFailedError(self)

    def count(self, program: Program, run: Run) -> None:
        """Note one more run."""
        self.schedules += 1
        self.calls += program.size
        self.native += run.native
        for record in run.records:
            self.counts[record.call.name] += 1
            self.raised[record.call.name] += record.answer.value[0] == "raised"
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


def explore(
    test: Definition,
    *,
    seconds: float | None = None,
    schedules: int | None = None,
    seed: int | None = None,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Try schedules of a test.

    Parameters
    ----------
    test : Definition
    seconds, schedules, seed : optional
        In place of the test's own.
    progress : callable
        Called after each schedule.
    """
    exploration = _Exploration(test, test.seed if seed is None else seed)
    most = test.schedules if schedules is None else schedules
    return exploration.run(test.seconds if seconds is None else seconds, most, progress)


class _Exploration:
    """The schedules of one test."""

    def __init__(self, test: Definition, seed: int) -> None:
        kind = type(test)
        self._test = test
        self._seed = seed
        check_numbers(test)
        self._operations = operations_of(kind)
        self._invariants = invariants_of(kind)
        self._source = ProgramSource(test, self._operations, 0)
        self._is_async = any(each.is_async for each in self._operations)
        # Tasks of a loop need no scope: they are switched where they wait.
        self._scope = None if self._is_async else TestScope(test)
        # The operations that were found to wait.
        self._waiting: set[str] = set()
        # Made for each program.
        self._specification: Specification
        self._report = Report(
            f"{kind.__module__}:{kind.__qualname__}",
            seed=seed,
            switched=self._scope is None or self._scope.switched,
            is_async=self._is_async,
        )

    def _specified(self, make: Callable[[], Any]) -> Specification:
        if self._is_async:
            # asyncio is not loaded for others.
            from latchstore.stress.testing.async_execution import AsyncSpecification

            return AsyncSpecification(self._test, make)
        return Specification(self._test, make)

    def run(self, seconds: float, most: int | None, progress: Callable[[Report], None] | None) -> Report:
        report, begun = self._report, time.monotonic()
        with self._open():
            for number in range(10**12):
                if self._try(seed_of(self._seed, number), number):
                    break
                report.seconds = time.monotonic() - begun
                if progress is not None:
                    progress(report)
                if report.seconds >= seconds or (most is not None and number + 1 >= most):
                    break
        report.seconds = time.monotonic() - begun
        if self._scope is not None:
            report.modules = self._scope.names
        if report.answer == "valid":
            self._doubt()
        return report

    def _doubt(self) -> None:
        """Find out whether anything was shown."""
        report = self._report
        if report.counts and report.raised == report.counts:
            report.answer = "unknown"
            report.reason = "every call raised something, so nothing was shown; is the test as it should be?"
        elif not report.overlaps:
            report.answer = "unknown"
            report.reason = "no two calls ever ran at one time, so nothing was shown"
        elif report.undecided:
            report.answer = "unknown"
            report.reason = (
                f"of {report.undecided:,} schedules the orders were too many to try; make fewer operations"
            )

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Replace what makes threads wait."""
        control = nullcontext() if self._scope is None else under_control(self._scope)
        with control, switching_often(), quick_collections():
            yield

    def _try(self, seed: int, number: int) -> bool:
        """Run the schedule of a seed; return whether it failed."""
        if number % 20 == 0:
            gc.collect()
        chance = Random(f"schedule {seed}")  # noqa: S311 (nothing secret)
        native = self._runs_natively(chance)
        program = self._source.draw(seed, native=native)
        # Of this program's calls alone, as it keeps what every order of them gave.
        self._specification = self._specified(self._test.reference)
        report = self._report
        if number < _SEQUENTIAL and (run := self._sequential_defect(program)):
            smaller, run = fewer_calls(program, run, lambda tried, _: self._sequential_defect(tried))
            self._report_failure(seed, smaller, run)
            return True
        if native and self._waiting.intersection(call.name for call in program.calls()):
            return False  # nothing but time would tell that such a call waits
        run = self._first_run(program, chance, native)
        report.count(program, run)
        self._waiting.update(record.call.name for record in run.records if record.end is None)
        if not run.failed:
            return False
        if native:
            program, run = shrunk_by_trying(program, run, self._run_native)
        elif self._is_async:
            program, run = shrunk_by_trying(program, run, lambda smaller: self._run_async(smaller, chance))
        else:
            program, run = shrunk(program, run, self._run, chance)
        self._report_failure(seed, program, run)
        return True

    def _report_failure(self, seed: int, program: Program, run: Run) -> None:
        report = self._report
        report.answer, report.seed, report.program, report.run = "invalid", seed, program, run
        report.reason, report.broken = run.reason, run.broken
        if run.broken is not None:
            states = states_of(run.broken, self._specification, self._test.model, run)
            report.broken = replace(run.broken, states=states)
        report.command = f"python -m latchstore stress --test {report.test} --seed {seed} --schedules 1"

    # -- runs --------------------------------------------------------------------------------------

    def _runs_natively(self, chance: Random) -> bool:
        """Draw whether a schedule is run by native threads."""
        if self._scope is None or all(each.blocking for each in self._operations):
            return False
        return not self._scope.switched or chance.randrange(_NATIVE) == 0

    def _first_run(self, program: Program, chance: Random, native: bool) -> Run:
        if self._is_async:
            return self._run_async(program, chance)
        return self._run_native(program) if native else self._run(program, strategy_of(chance))

    def _run_async(self, program: Program, chance: Random) -> Run:
        from latchstore.stress.testing.async_execution import run_async

        run = run_async(self._test, program, self._invariants, chance)
        return self._judged(run)

    def _run(self, program: Program, strategy: Strategy, recording: bool = False) -> Run:
        assert self._scope is not None
        run = run_scheduled(self._test, program, self._invariants, strategy, self._scope, recording=recording)
        return self._judged(run)

    def _run_native(self, program: Program) -> Run:
        run = run_native(self._test, program, self._invariants)
        return self._judged(run)

    def _judged(self, run: Run) -> Run:
        """Note what is wrong with a run."""
        if run.problems:
            problem = run.problems[0]
            run.reason = f"{problem.kind}: {problem.text.splitlines()[0].rstrip(':')}"
            return run
        judged = check(run, self._specification, self._test.model)
        self._report.undecided += judged.answer == "unknown"
        if judged.answer == "invalid":
            run.broken = judged.broken
            run.reason = (
                "calls wait that would not wait in any order of the others in one thread"
                if run.stuck
                else "no order of the calls in one thread gives what they gave"
            )
        return run

    def _sequential_defect(self, program: Program) -> Run | None:
        """Have one thread make all calls; return that if anything is wrong with it."""
        run = Run([])
        order: tuple[Call, ...] = ()
        made = [self._specified(self._test.make) for _ in range(2)]
        model, state = self._test.model, None if self._test.model is None else self._test.model.initial
        for place, call in enumerate(program.calls()):
            call = replace(call, thread=0)
            once, again, right = (_answer(each, order, call) for each in [*made, self._specification])
            run.records.append(Record(call, 2 * place, 2 * place + 1, once))
            if once != again:
                run.reason = (
                    f"the class does not give the same each time: {call} gave {once}, and {again} after the "
                    "same calls on another object, in one thread"
                )
            elif once != right:
                run.reason = f"sequential defect: {call} gives {once} in one thread, and {right} is right"
                run.broken = Break(order, call, right, once)
            elif model is not None:
                state = model.step(state, call, once.result)
                if state is REFUSED:
                    run.reason = (
                        f"sequential defect: {call} gives {once} in one thread, which the model refuses"
                    )
                    run.broken = Break(order, call, UNKNOWN_ANSWER, once)
            if run.failed:
                return run
            if once == WAITS:
                break
            order = (*order, call)
        return None


def _answer(specification: Specification, order: tuple[Call, ...], call: Call) -> Answer:
    return specification.within(lambda: specification.answer(order, call))
