"""Running callables as controlled threads: what stands between the scheduler and those who have some.

::

    scope = Scope(BoundedQueue)
    with under_control(scope):
        execution = run_schedule(lambda stage: [put, get], AtRandom(Random(7)), scope, seed=7)

It knows nothing of stores: a body is any callable without arguments. `controlled.py` runs workloads by it.

Thread safety: one schedule at a time in a process, as the standard library's locks are replaced meanwhile.
What belongs to a run is touched by whoever has the turn.
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
from latchstore.stress.result import LockEdge, Problem, Step
from latchstore.stress.scheduler import LIMIT, Scheduler, Strategy
from latchstore.stress.scope import Scope
from latchstore.stress.standstill import Blocked
from latchstore.stress.tasks import TaskExit, Turn, current_task
from latchstore.stress.tracebacks import raised

#: Seconds of real time after which a schedule is given up.
TIMEOUT = 60.0

Body = Callable[[], object]


@dataclass
class Ended:
    """How a body has ended: with a value, or with an error."""

    value: object = None
    error: Exception | None = None


@dataclass
class Execution:
    """What one schedule has given.

    Attributes
    ----------
    ended : list of Ended or None
        Of each body; None if it has not come to its end, as the run was broken off before.
    problems : list of Problem
        ``"deadlock"``: no thread could go on, or threads wait for each other's locks. ``"hang"``: they go on
        for ever. ``"blocked"``: one waits in earnest, for something that is not under control. ``"crash"``:
        `make` or `finish` has raised something. ``"lock order"``: locks were taken in a circle.
    blocked : list of Blocked
        The threads that had not ended when a deadlock, a hang or a real wait was found: what each holds, what
        it waits for, who has that, and where it is; bodies have their numbers.
    turns : list of Turn
        To be replayed: ``Replay(schedule_of(execution.turns))``.
    points : int
        How many there were.
    steps : list of Step
        Who was where (file and line) when it lost its turn; if `recording` was set. Their threads are the
        numbers of the bodies; threads that the code under test has started follow.
    lock_edges : list of LockEdge
    finished : object
        What `finish` has returned.
    """

    ended: list[Ended | None]
    problems: list[Problem] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    points: int = 0
    steps: list[Step] = field(default_factory=list)
    lock_edges: list[LockEdge] = field(default_factory=list)
    finished: object = None


class Stage:
    """What bodies, and those who make them, may ask of the run that they are in.

    Attributes
    ----------
    scheduler : Scheduler
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        # The numbers of the bodies, by the numbers of their tasks.
        self._numbers: dict[int, int] = {}
        self.ended: list[Ended | None] = []

    def tick(self) -> int:
        """Return a time later than all before, nanoseconds on the clock of the run.

        A body that calls it before and after each of its calls has written down which calls overlapped.
        """
        return self.scheduler.tick()

    def begin_operation(self, name: str) -> None:
        """Note that the calling body begins an operation, so that a strategy can interrupt each of them."""
        task = current_task()
        if task is not None:
            self.scheduler.begin_operation(task, name)

    def end_operation(self) -> None:
        """Note that the calling body has ended an operation: threads may change before the next."""
        task = current_task()
        if task is not None:
            self.scheduler.end_operation(task)

    def number(self) -> int | None:
        """Return the number of the body that the calling thread runs; None for all other threads."""
        task = current_task()
        return None if task is None else self._numbers.get(task.number)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Have no other thread come in, unless the calling one has to wait: for a look at invariants."""
        with self.scheduler.undisturbed():
            yield

    def fail(self, problem: Problem) -> None:
        """End the run with a problem; does not return."""
        self.scheduler.fail(problem)

    def perform(self, bodies: Sequence[Body]) -> None:
        """Run bodies, each in a thread of its own, until all have ended."""
        self.ended = [None] * len(bodies)
        threads = [
            threading.Thread(target=self._run, args=(number, body)) for number, body in enumerate(bodies)
        ]
        self.scheduler.has_helpers = False
        for number, thread in enumerate(threads):
            self._numbers[len(self.scheduler.tasks)] = number
            thread.start()
        # People count the bodies first, and then the threads that others have started.
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
    """Replace what makes threads wait, and keep the garbage collector from running when it likes.

    The locks that the code under test has made when it was loaded are replaced as well, and put back later.
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
    """Have collections pass over what there is already, as most of the time went into them."""
    if gc.get_freeze_count():
        yield  # somebody else has frozen objects, and may not want them back
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
        Makes what is under test, and returns the bodies: each is run by a thread of its own. It runs as a
        thread of the run itself, so the locks that are made in it are cooperative; no other thread runs
        meanwhile.
    strategy : Strategy
        Who gets the turn, and when: `AtRandom`, `Priorities` or `Replay`.
    scope : Scope
        The code within which threads change.
    finish : callable, optional
        Called when all bodies have ended, as `make`; what it returns is `Execution.finished`.
    seed : object
        What the global generator of ``random`` begins with, so that the code under test draws the same again.
    recording : bool
        Whether to write down the steps for people to read.
    limit : int
        Points after which the run counts as hanging.
    timeout : float
        Seconds of real time after which it does.

    Returns
    -------
    execution : Execution
        An error of a body is in `Execution.ended`, and no problem by itself.
    """
    scheduler = Scheduler(strategy, scope.traced, limit=limit, recording=recording)
    stage = Stage(scheduler)
    execution = Execution([])

    def play() -> None:
        scheduler.has_helpers = True  # what `make` starts is no body
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
    execution.ended = stage.ended
    execution.blocked = scheduler.blocked
    execution.turns, execution.points = scheduler.turns, scheduler.now
    execution.steps = scheduler.steps
    execution.lock_edges = list(scheduler.lock_order.edges())
    return execution


def _problems(scheduler: Scheduler, ended: bool, timeout: float) -> list[Problem]:
    problems = [problem for problem in (scheduler.problem, scheduler.lock_order.problem()) if problem]
    if not ended and not problems:
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
        problems.append(Problem("hang", f"no end after {timeout:g} s\n{scheduler.table()}"))
    if not problems:
        kept = scheduler.kept_locks()
        problems = [kept] if kept else []
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
