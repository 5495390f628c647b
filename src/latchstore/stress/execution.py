"""Runs callables as controlled threads: the layer between the scheduler and its users.

::

    scope = Scope(BoundedQueue)
    with under_control(scope):
        execution = run_schedule(lambda stage: [put, get], AtRandom(Random(7)), scope, seed=7)

It does not depend on stores: a body is any callable without arguments. `controlled.py` uses it to run
workloads.

Thread safety: one schedule at a time in a process, as it replaces the standard library's locks. The thread
that has the turn may access the state of a run.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from latchstore.stress.cooperative import begin_run, cooperative
from latchstore.stress.processors import stay_on_processor
from latchstore.stress.result import LockEdge, Problem, Step
from latchstore.stress.scheduler import LIMIT, Scheduler, Strategy
from latchstore.stress.scope import Scope
from latchstore.stress.standstill import Blocked
from latchstore.stress.tasks import TaskExit, Turn, current_task
from latchstore.stress.tracebacks import raised

#: Seconds of real time after which a schedule is abandoned.
TIMEOUT = 60.0

Body = Callable[[], object]


@dataclass
class Ended:
    """The end of a body: a value or an error."""

    value: object = None
    error: Exception | None = None


@dataclass
class Execution:
    """The results of one schedule.

    Attributes
    ----------
    ended : list of Ended or None
        For each body; None if the run ended before the body did.
    problems : list of Problem
        ``"deadlock"``: no thread can continue, or threads wait for each other's locks. ``"hang"``: threads
        run without end. ``"blocked"``: a thread waits for something outside control. ``"crash"``: `make` or
        `finish` raised an exception. ``"lock order"``: locks were acquired in a circle.
    blocked : list of Blocked
        The threads that had not ended when a deadlock, a hang or a real wait was found: what each holds and
        waits for, who holds that, and where it is; bodies by their numbers.
    turns : list of Turn
        For replaying: ``Replay(schedule_of(execution.turns))``.
    points : int
        Number of points.
    steps : list of Step
        Where each thread was (file and line) when it lost its turn, if `recording` was set. Threads have the
        numbers of the bodies; threads that the code under test started have the following numbers.
    lock_edges : list of LockEdge
    kept_lock : bool
        Whether the only problem is that a thread ended without releasing a lock.
    started : int
        Number of threads that the code under test started.
    finished : object
        The result of `finish`.
    """

    ended: list[Ended | None]
    problems: list[Problem] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    points: int = 0
    steps: list[Step] = field(default_factory=list)
    lock_edges: list[LockEdge] = field(default_factory=list)
    kept_lock: bool = False
    started: int = 0
    finished: object = None


class Stage:
    """The interface of a run to its bodies, and to the function that makes them.

    Attributes
    ----------
    scheduler : Scheduler
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        # The numbers of the bodies, by task number.
        self._numbers: dict[int, int] = {}
        self.ended: list[Ended | None] = []

    def tick(self) -> int:
        """Return a time later than all before, in nanoseconds on the clock of the run.

        A body that calls it before and after each of its calls records which calls overlap.
        """
        return self.scheduler.tick()

    def begin_operation(self, name: str) -> None:
        """Note that the calling body begins an operation, so that a strategy can interrupt each operation."""
        task = current_task()
        if task is not None:
            self.scheduler.begin_operation(task, name)

    def end_operation(self) -> None:
        """Note that the calling body has ended an operation: threads may switch before the next."""
        task = current_task()
        if task is not None:
            self.scheduler.end_operation(task)

    def number(self) -> int | None:
        """Return the number of the body that the calling thread runs; None for other threads."""
        task = current_task()
        return None if task is None else self._numbers.get(task.number)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep other threads from running, unless the calling thread blocks: for checks of invariants."""
        with self.scheduler.undisturbed():
            yield

    def fail(self, problem: Problem) -> None:
        """End the run with a problem; does not return."""
        self.scheduler.fail(problem)

    def perform(self, bodies: Sequence[Body]) -> None:
        """Run bodies, each in a thread of its own, until all have ended."""
        self.ended = [None] * len(bodies)
        threads = [
            threading.Thread(target=self._run, args=(number, body), name=f"thread {number}")
            for number, body in enumerate(bodies)
        ]
        self.scheduler.has_helpers = False
        for number, thread in enumerate(threads):
            self._numbers[len(self.scheduler.tasks)] = number
            thread.start()
        # Bodies get the first numbers, then the threads that they have started.
        others = (task for task in self.scheduler.tasks if task.number not in self._numbers)
        for shown, task in enumerate(others, len(bodies)):
            task.shown = shown
        for task in self.scheduler.tasks:
            task.shown = self._numbers.get(task.number, task.shown)
        self.scheduler.has_helpers = True
        self.scheduler.release()
        for thread in threads:
            thread.join()
        self.scheduler.hold()
        self.scheduler.at_check = None

    def _run(self, number: int, body: Body) -> None:
        try:
            self.ended[number] = Ended(value=body())
        except Exception as error:
            self.ended[number] = Ended(error=error)


@contextmanager
def under_control(scope: Scope) -> Iterator[None]:
    """Replace blocking functions, and disable automatic garbage collection.

    Locks that the code under test made when it was imported are replaced as well, and restored later.
    """
    collecting = gc.isenabled()
    gc.disable()
    state = random.getstate()
    try:
        with cooperative(scope.modules()):
            yield
    finally:
        random.setstate(state)
        if collecting:
            gc.enable()


@contextmanager
def quick_collections() -> Iterator[None]:
    """Exclude existing objects from garbage collection, which would otherwise take most of the time."""
    if gc.get_freeze_count():
        yield  # other code has frozen objects, which must stay frozen
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def run_schedule(
    make: Callable[[Stage], Sequence[Body]],
    strategy: Strategy,
    scope: Scope,
    *,
    finish: Callable[[], object] | None = None,
    seed: object = 0,
    recording: bool = False,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
) -> Execution:
    """Run callables as controlled threads, once, inside `under_control`.

    Parameters
    ----------
    make : callable
        Makes the object under test, and returns the bodies, each for a thread of its own. It runs as a thread
        of the run itself, so the locks that it makes are cooperative; no other thread runs meanwhile.
    strategy : Strategy
        Decides which thread gets the turn, and when: `AtRandom`, `Priorities` or `Replay`.
    scope : Scope
        The code in which threads may switch.
    finish : callable, optional
        Called when all bodies have ended, like `make`; its result is `Execution.finished`.
    seed : object
        Seed of the global generator of ``random``, so that the code under test draws the same numbers again.
    recording : bool
        Whether to record the steps, for reports.
    limit : int
        Points after which the run counts as hanging.
    timeout : float
        Seconds of real time after which the run counts as hanging.

    Returns
    -------
    execution : Execution
        An exception of a body is in `Execution.ended`; it is not a problem by itself.
    """
    scheduler = Scheduler(strategy, scope.traced, limit=limit, recording=recording)
    stage = Stage(scheduler)
    execution = Execution([])

    def play() -> None:
        stay_on_processor()
        scheduler.has_helpers = True  # threads that `make` starts are not bodies
        try:
            stage.perform(make(stage))
            if finish is not None:
                execution.finished = finish()
        except Exception:
            scheduler.fail(raised("crash", "outside of all operations"))

    begin_run(scheduler)
    random.seed(f"run {seed}")
    try:
        ended = scheduler.run(play, timeout)
    finally:
        logging.disable(logging.NOTSET)
    execution.problems = _problems(scheduler, ended, timeout)
    if not execution.problems and (kept := scheduler.kept_locks()):
        execution.problems, execution.kept_lock = [kept], True
    execution.ended = stage.ended
    execution.blocked = scheduler.blocked
    execution.turns, execution.points = scheduler.turns, scheduler.now
    execution.steps = scheduler.steps
    execution.started = len(scheduler.tasks) - 1 - len(stage.ended)
    execution.lock_edges = list(scheduler.lock_order.edges())
    return execution


def _problems(scheduler: Scheduler, ended: bool, timeout: float) -> list[Problem]:
    problems = [problem for problem in (scheduler.problem, scheduler.lock_order.problem()) if problem]
    if not ended and not problems:
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
        problems.append(Problem("hang", f"no end after {timeout:g} s\n{scheduler.table()}"))
    return problems


__all__ = [
    "Body",
    "Ended",
    "Execution",
    "Stage",
    "TaskExit",
    "quick_collections",
    "run_schedule",
    "under_control",
]
