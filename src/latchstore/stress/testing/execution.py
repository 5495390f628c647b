"""Runs a program once: one thread at a time under a scheduler, or on native threads.

Thread safety: each thread writes records of its own; they are joined when all threads have ended.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from latchstore.stress.execution import Body, Execution, Stage, run_schedule
from latchstore.stress.result import Problem, Step
from latchstore.stress.scheduler import Strategy
from latchstore.stress.scope import Scope
from latchstore.stress.tasks import Turn
from latchstore.stress.testing.answers import Answer, Break, Record, answer_of, state_of
from latchstore.stress.testing.definition import Definition
from latchstore.stress.testing.program import Call, Program
from latchstore.stress.tracebacks import raised

#: Seconds without a begin or end of a call after which native threads count as waiting forever.
_PATIENCE = 10.0


@dataclass
class Run:
    """The results of one run of a program.

    Attributes
    ----------
    records : list of Record
        In the order of their beginnings.
    state : Answer or None
        The final state; None if the run did not end.
    problems : list of Problem
    stuck : bool
        Whether calls wait forever.
    kept_lock : bool
        Whether the only problem is that a thread ended without releasing a lock.
    cycle : Problem or None
        Locks were acquired in a cycle, without a deadlock in this run.
    turns : list of Turn
    points : int
    steps : list of Step
        Where threads were switched, if that was recorded.
    reason : str
        The problem, in one line; empty if there is none.
    broken : Break or None
        The place where the longest order breaks.
    native : bool
    among_started : bool
        Whether no two calls overlapped, but calls started threads, which may race with each other.
    """

    records: list[Record]
    state: Answer | None = None
    problems: list[Problem] = field(default_factory=list)
    stuck: bool = False
    kept_lock: bool = False
    cycle: Problem | None = None
    turns: list[Turn] = field(default_factory=list)
    points: int = 0
    steps: list[Step] = field(default_factory=list)
    reason: str = ""
    broken: Break | None = None
    native: bool = False
    among_started: bool = False

    @property
    def failed(self) -> bool:
        """Whether there is a problem."""
        return bool(self.reason)

    @property
    def is_blocked(self) -> bool:
        """Whether a thread waited for something outside control, so that the run proves nothing."""
        return any(problem.kind == "blocked" for problem in self.problems)


class Play:
    """One run: the calls of its threads, and their records."""

    def __init__(self, test: Definition, program: Program, invariants: Sequence[str]) -> None:
        self.test = test
        self.program = program
        self.records: list[Record] = []
        self.problems: list[Problem] = []
        self.state: Answer | None = None
        self._invariants = invariants
        self._subject: Any = None
        # Number of calls in progress, of threads under a scheduler.
        self._running = 0
        self._now = 0

    def begin(self) -> Any:
        """Make the object and the calls before the threads; return the object."""
        subject = self.test.make()
        self.test.setup(subject)
        for call in self.program.before:
            self.do(call, subject)
        return subject

    def end(self, subject: Any) -> None:
        """Make the calls after the threads, and check the object."""
        for call in self.program.after:
            self.do(call, subject)
        self.look(subject)

    def look(self, subject: Any) -> None:
        """Check the object when all calls have returned."""
        self.check_invariants(subject)
        self.state = state_of(self.test, subject)
        try:
            self.test.validate(subject)
        except Exception:
            self.problems.append(raised("validation", "validate"))

    def do(self, call: Call, subject: Any) -> None:
        """Make a call and record it."""
        record = self.begun(call)
        self.returned(record, answer_of(self.test, call, subject))

    def begun(self, call: Call) -> Record:
        """Record the begin of a call."""
        record = Record(call, self.tick())
        self.records.append(record)
        self._running += 1
        return record

    def returned(self, record: Record, answer: Answer) -> None:
        """Record the answer of a call."""
        record.answer = answer
        record.end = self.tick()
        self._running -= 1

    def check_invariants(self, subject: Any) -> None:
        """Record the first invariant that does not hold."""
        if self.problems:
            return
        for name in self._invariants:
            try:
                holds = getattr(self.test, name)(subject)
            except Exception:
                self.problems.append(raised("invariant", f"{name} does not hold"))
                return
            if holds is False:
                self.problems.append(Problem("invariant", f"{name} does not hold: it returned False"))
                return

    def tick(self) -> int:
        """Return a time later than all before; for one thread at a time."""
        self._now += 1
        return self._now

    def run(self) -> Run:
        """Return the records."""
        return Run(sorted(self.records, key=lambda record: record.begin), self.state, self.problems)


# -- under a scheduler -------------------------------------------------------------------------------


class _ScheduledPlay(Play):
    """A run under a scheduler, in which one thread at a time writes records."""

    def __init__(self, test: Definition, program: Program, invariants: Sequence[str]) -> None:
        super().__init__(test, program, invariants)
        self._stage: Stage | None = None

    def tick(self) -> int:
        # On the clock of the steps, so that reports show both in order.
        return super().tick() if self._stage is None else self._stage.tick()

    def bodies(self, stage: Stage) -> list[Body]:
        """Make the object, and return the bodies of the threads."""
        self._stage, self._subject = stage, self.begin()
        return [functools.partial(self._work, calls) for calls in self.program.threads]

    def finish(self) -> None:
        """Do the work after the end of all threads."""
        self.end(self._subject)
        self.test.teardown(self._subject)

    def _work(self, calls: Sequence[Call]) -> None:
        assert self._stage is not None
        for call in calls:
            self.do(call, self._subject)
            if not self._running and self._invariants:
                with self._stage.undisturbed():
                    self.check_invariants(self._subject)


def run_scheduled(
    test: Definition,
    program: Program,
    invariants: Sequence[str],
    strategy: Strategy,
    scope: Scope,
    *,
    recording: bool = False,
) -> Run:
    """Run a program under a scheduler, inside `under_control`."""
    play = _ScheduledPlay(test, program, invariants)
    execution = run_schedule(
        play.bodies, strategy, scope, finish=play.finish, seed=program.seed, recording=recording
    )
    run = play.run()
    run.stuck, run.kept_lock = _waits_forever(execution), execution.kept_lock
    for problem in execution.problems:
        if problem.kind == "lock order":
            run.cycle = problem
        elif not run.problems and not _waits_for_no_lock(execution):
            run.problems.append(problem)
    run.turns, run.points = execution.turns, execution.points
    run.among_started = execution.started > 0 and not overlapped(run.records)
    steps = execution.steps
    run.steps = steps if run.among_started else [step for step in steps if step.thread < len(program.threads)]
    return run


def overlapped(records: Sequence[Record]) -> bool:
    """Return whether two calls overlapped; they are in the order of their beginnings."""
    return any(
        one.overlaps(other)
        for one, other in itertools.pairwise(records)
        if one.call.thread != other.call.thread
    )


def _waits_forever(execution: Execution) -> bool:
    """Return whether the run ended because no thread could continue."""
    return bool(execution.blocked) and any(problem.kind == "deadlock" for problem in execution.problems)


def _waits_for_no_lock(execution: Execution) -> bool:
    """Return whether that is so without locks as the reason."""
    return _waits_forever(execution) and all(each.held_by is None for each in execution.blocked)


# -- on native threads -------------------------------------------------------------------------------


def run_native(test: Definition, program: Program, invariants: Sequence[str]) -> Run:
    """Run a program on native threads, which begin at the same moment."""
    play = _NativePlay(test, program, invariants)
    thread = threading.Thread(target=play.play, daemon=True)
    thread.start()
    before = -1
    while thread.is_alive() and before != play.done:
        before = play.done
        thread.join(_PATIENCE)
    run = play.run()
    run.stuck, run.native = thread.is_alive(), True
    return run


class _NativePlay(Play):
    """A run on native threads."""

    def tick(self) -> int:
        return time.monotonic_ns()

    @property
    def done(self) -> int:
        """Number of calls that have begun, plus those that have returned."""
        return len(self.records) + sum(record.end is not None for record in self.records)

    def play(self) -> None:
        """Make all calls; those of the program's threads in threads, the others in this one."""
        try:
            subject = self.begin()
            barrier = threading.Barrier(len(self.program.threads))

            def work(calls: Sequence[Call]) -> None:
                barrier.wait()
                for call in calls:
                    self.do(call, subject)

            threads = [
                threading.Thread(target=work, args=(calls,), daemon=True) for calls in self.program.threads
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.end(subject)
            self.test.teardown(subject)
        except Exception:
            self.problems.append(raised("crash", "outside of all operations"))


@contextmanager
def switching_often() -> Iterator[None]:
    """Switch between native threads as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
