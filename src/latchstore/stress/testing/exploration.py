"""Tries schedules of a test until the time is over or one fails; reduces a failure.

Schedule number n has its own seed, derived from the test's and n; the first has the test's. So a seed alone
repeats a schedule, independent of earlier ones.

Thread safety: one exploration at a time in a process, as it replaces the standard library's locks.
"""

from __future__ import annotations

import functools
import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from random import Random
from typing import Any

from latchstore.stress.execution import quick_collections, under_control
from latchstore.stress.models import REFUSED
from latchstore.stress.scheduler import Strategy
from latchstore.stress.shrinking import fewer_calls, first_failure
from latchstore.stress.strategies import seed_of
from latchstore.stress.testing.answers import UNKNOWN_ANSWER, WAITS, Break, Record, told_apart
from latchstore.stress.testing.checking import check, states_of
from latchstore.stress.testing.definition import Definition, check_numbers, invariants_of, operations_of
from latchstore.stress.testing.execution import Run, run_native, run_scheduled, switching_often
from latchstore.stress.testing.program import Call, Program, ProgramSource
from latchstore.stress.testing.report import Report
from latchstore.stress.testing.scope import TestScope
from latchstore.stress.testing.shrinking import LONGEST, shrunk, shrunk_by_trying, strategy_of
from latchstore.stress.testing.specification import Specification
from latchstore.stress.testing.spelling import check_spelling
from latchstore.stress.verdict import Answer as VerdictAnswer

#: One in this many schedules runs on native threads, if threads can be switched in the code.
NATIVE = 10

#: The number of schedules in which a failure of native threads is looked for under control.
_CONTROLLED = 100

#: The number of programs that one thread runs, to check that the class is deterministic.
_SEQUENTIAL = 20


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
        Override those of the test.
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
        check_spelling(kind, [*(each.name for each in self._operations), *self._invariants])
        self._source = ProgramSource(test, self._operations, 0)
        self._is_async = any(each.is_async for each in self._operations)
        # Tasks of a loop need no scope: they switch where they wait.
        self._scope = None if self._is_async else TestScope(test)
        # Whether there is code in which threads can be switched under control.
        self._is_switched = self._scope is not None and self._scope.switched
        # The operations that were found to wait.
        self._waiting: set[str] = set()
        # The operations that were in a controlled schedule, which shows whether they wait.
        self._controlled: set[str] = set()
        # Seconds that the reduction of a failure may take.
        self._reduction = LONGEST
        # When the test began, and the seconds that native threads have taken since.
        self._begun = self._native_seconds = 0.0
        # A new one for each program.
        self._specification: Specification
        self._report = Report(
            f"{kind.__module__}:{kind.__qualname__}",
            seed=seed,
            switched=self._scope is None or self._scope.switched,
            is_async=self._is_async,
        )

    def _specified(self, make: Callable[[], Any], seed: int = 0) -> Specification:
        if self._is_async:
            # asyncio is imported only if it is needed.
            from latchstore.stress.testing.async_execution import AsyncSpecification

            return AsyncSpecification(self._test, make, seed)
        return Specification(self._test, make, seed)

    def run(self, seconds: float, most: int | None, progress: Callable[[Report], None] | None) -> Report:
        report, begun = self._report, time.monotonic()
        self._reduction, self._begun = min(seconds, LONGEST), begun
        with self._open():
            for number in range(10**12):
                if self._try(seed_of(self._seed, number), number, only=most == 1):
                    break
                report.seconds = time.monotonic() - begun
                if progress is not None:
                    progress(report)
                if report.seconds >= seconds or (most is not None and report.schedules >= most):
                    break
        report.seconds = time.monotonic() - begun
        if self._scope is not None:
            report.modules = self._scope.names
        if report.answer == "valid":
            self._doubt()
        return report

    def _doubt(self) -> None:
        """Set the answer to unknown if nothing was proved."""
        report = self._report
        if report.counts and report.raised == report.counts:
            report.answer = "unknown"
            report.reason = (
                "every call raised an exception, so nothing was proved: check the test; the first was "
                f"{report.first_raised}"
            )
        elif not report.overlaps:
            report.answer = "unknown"
            report.reason = "no two calls overlapped, so nothing was proved"
        elif report.undecided:
            report.answer = "unknown"
            report.reason = f"{report.undecided:,} schedules had too many orders to try: use fewer operations"

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Replace blocking functions; restore the state of ``random``, which each schedule seeds."""
        control = nullcontext() if self._scope is None else under_control(self._scope)
        state = random.getstate()
        try:
            with control, switching_often(), quick_collections():
                yield
        finally:
            random.setstate(state)

    def _try(self, seed: int, number: int, only: bool) -> bool:
        """Run the schedule of a seed; return whether it ended the test.

        Parameters
        ----------
        seed, number : int
        only : bool
            Whether it is the only one, as in the command that repeats a failure.
        """
        if number % 20 == 0:
            gc.collect()
        chance = Random(f"schedule {seed}")  # noqa: S311 (nothing secret)
        native = self._runs_natively(chance)
        program = self._source.draw(seed, native=native)
        # For this program's calls only, as it stores the answers of every order of them.
        self._specification = self._specified(self._test.reference)
        report = self._report
        if number < _SEQUENTIAL and (run := self._sequential_defect(program)):
            smaller, run = fewer_calls(program, run, lambda tried, _: self._sequential_defect(tried))
            self._report_end("invalid", seed, smaller, run)
            return True
        run = self._native_run(program, only) if native else self._first_run(program, chance)
        if run is None:
            return False
        report.count(program, run)
        self._note_waits(program, run)
        if (run.native and run.failed) or self._is_new_cycle(run):
            run = self._under_control(program) or run
        if not run.failed:
            return False
        if run.is_blocked:
            self._report_end("unknown", seed, program, run)
            return True
        seconds = self._reduction
        if run.native:
            program, run = shrunk_by_trying(program, run, self._run_native, seconds)
        elif self._is_async:
            again = functools.partial(self._run_async, chance=chance)
            program, run = shrunk_by_trying(program, run, again, seconds)
        else:
            program, run = shrunk(program, run, self._run, chance, seconds)
        self._report_end("invalid", seed, program, run)
        return True

    def _native_run(self, program: Program, only: bool) -> Run | None:
        """Run a program on native threads; under control if calls may wait, which only a timeout could tell.

        None if they may wait, and there is no code in which threads can be switched.
        """
        may_wait = self._may_wait(program)
        if may_wait and not self._is_switched:
            return None
        # The command that repeats a failure should find it again.
        if only and (found := self._under_control(program)):
            return found
        if may_wait or self._natives_are_slow():
            return self._run(program, strategy_of(_control(program)))
        return (self._natively_again(program) if only else None) or self._run_native(program)

    def _natives_are_slow(self) -> bool:
        """Return whether native threads have taken a large part of the time, as when the class sleeps."""
        elapsed = time.monotonic() - self._begun
        return self._is_switched and self._native_seconds > 1 + elapsed / NATIVE

    def _natively_again(self, program: Program) -> Run | None:
        """Return a failing run of several on native threads, if one is found."""
        runs = (self._run_native(program) for _ in range(_CONTROLLED))
        return first_failure(runs, time.monotonic() + self._reduction)

    def _under_control(self, program: Program) -> Run | None:
        """Return a failing run under control of a program of native threads, if one is found.

        It shows the place, and the same seed finds it again.
        """
        if not self._is_switched:
            return None
        chance = _control(program)
        runs = (self._run(program, strategy_of(chance)) for _ in range(_CONTROLLED))
        run = first_failure(runs, time.monotonic() + self._reduction)
        return None if run is None or run.is_blocked else run

    def _is_new_cycle(self, run: Run) -> bool:
        """Return whether a run has acquired locks in a cycle, as no run before.

        That is no failure: another lock, or a count, may keep the threads from waiting for each other. So
        that is looked for under control.
        """
        if run.failed or run.cycle is None or run.cycle.text in self._report.cycles:
            return False
        self._report.cycles.append(run.cycle.text)
        return True

    def _may_wait(self, program: Program) -> bool:
        """Return whether a call of a program waits; new calls are tried under control first."""
        names = {call.name for call in program.calls()}
        if self._is_switched and names - self._controlled:
            self._note_waits(program, self._run(program, strategy_of(_control(program))))
        return not names.isdisjoint(self._waiting)

    def _note_waits(self, program: Program, run: Run) -> None:
        self._waiting.update(record.call.name for record in run.records if record.end is None)
        if not run.native:
            self._controlled.update(call.name for call in program.calls())

    def _report_end(self, answer: VerdictAnswer, seed: int, program: Program, run: Run) -> None:
        report = self._report
        report.answer, report.seed, report.program, report.run = answer, seed, program, run
        report.reason, report.broken = run.reason, run.broken
        if run.broken is not None:
            states = states_of(run.broken, self._specification, self._test.model, run)
            report.broken = replace(run.broken, states=states)
        module, name = report.test.split(":")
        report.command = (
            f"{name}.run(seed={seed}, schedules=1)"
            if module == "__main__"  # which no other process can import
            else f"python -m latchstore stress --test {report.test} --seed {seed} --schedules 1"
        )

    # -- runs --------------------------------------------------------------------------------------

    def _runs_natively(self, chance: Random) -> bool:
        """Draw whether a schedule runs on native threads."""
        if self._scope is None or all(each.blocking for each in self._operations):
            return False
        return not self._scope.switched or chance.randrange(NATIVE) == 0

    def _first_run(self, program: Program, chance: Random) -> Run:
        return self._run_async(program, chance) if self._is_async else self._run(program, strategy_of(chance))

    def _run_async(self, program: Program, chance: Random) -> Run:
        from latchstore.stress.testing.async_execution import run_async

        run = run_async(self._test, program, self._invariants, chance)
        return self._judged(run)

    def _run(self, program: Program, strategy: Strategy, recording: bool = False) -> Run:
        assert self._scope is not None
        run = run_scheduled(self._test, program, self._invariants, strategy, self._scope, recording=recording)
        return self._judged(run)

    def _run_native(self, program: Program) -> Run:
        begun = time.monotonic()
        run = run_native(self._test, program, self._invariants)
        self._native_seconds += time.monotonic() - begun
        return self._judged(run)

    def _judged(self, run: Run) -> Run:
        """Record the problem of a run, if it has one."""
        explained = run.stuck or run.kept_lock
        if run.problems and not explained:
            return _failed(run)
        judged = check(run, self._specification, self._test.model)
        if run.problems and (judged.answer != "valid" or run.kept_lock > self._specification.keeps_locks):
            # One thread alone would not wait, or not keep a lock.
            return _failed(run)
        run.problems.clear()
        self._report.undecided += judged.answer == "unknown"
        if judged.answer == "invalid":
            run.broken = judged.broken
            run.reason = self._two_states(judged.broken) or (
                "calls wait that would not wait in any sequential order of the others"
                if run.stuck
                else "no order of the calls in one thread explains their results"
            )
        return run

    def _sequential_defect(self, program: Program) -> Run | None:
        """Make all calls in one thread; return that run if it has a problem."""
        run = Run([])
        order: tuple[Call, ...] = ()
        # With different seeds of `random`, as threads draw its numbers in another order.
        made = [self._specified(self._test.make, seed) for seed in range(2)]
        model, state = self._test.model, None if self._test.model is None else self._test.model.initial
        calls = [replace(call, thread=0) for call in program.calls()]
        answers = [each.answers(calls) for each in (*made, self._specification)]
        for place, (call, once, again, right) in enumerate(zip(calls, *answers, strict=True)):
            run.records.append(Record(call, 2 * place, 2 * place + 1, once))
            if model is not None:
                state = model.step(state, call, once.result)
                if state is REFUSED:
                    run.reason = (
                        f"sequential defect: {call} gives {once} in one thread, which the model refuses"
                    )
                    run.broken = Break(order, call, UNKNOWN_ANSWER, once)
            elif once != again:
                run.reason = (
                    f"the class is not deterministic: {call} gave {once}, but {again} after the same calls "
                    "on another object, in one thread: let describe() leave out what differs, or use a model"
                )
            elif once != right:
                run.reason = f"sequential defect: {call} gives {once} in one thread, but must give {right}"
                run.broken = Break(order, call, right, once)
            if run.failed:
                return run
            if once == WAITS:
                break
            order = (*order, call)
        return None

    def _two_states(self, broken: Break | None) -> str:
        """Return that two objects have different states after the same calls in one thread, if they have."""
        if broken is None or broken.call is not None or self._test.model is not None:
            return ""
        made = [self._specified(self._test.reference) for _ in range(2)]
        first, second = (each.within(functools.partial(each.state, broken.order)) for each in made)
        if first == second:
            return ""
        text, different = told_apart(first, second)
        return (
            f"the class is not deterministic: its final state was {text}, but {different} after the same "
            "calls on another object, in one thread: let state() return what must be the same"
        )


def _failed(run: Run) -> Run:
    """Record the first problem of a run as its reason."""
    problem = run.problems[0]
    run.reason = f"{problem.kind}: {problem.text.splitlines()[0].rstrip(':')}"
    return run


def _control(program: Program) -> Random:
    """Return the generator for schedules under control of a program that was drawn for native threads."""
    return Random(f"control {program.seed}")  # noqa: S311 (nothing secret)
