"""Running a workload under the scheduler, once.

Thread safety: one run at a time in a process, as the standard library's locks are replaced meanwhile.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from latchstore.errors import StoreError
from latchstore.store import AbstractStore
from latchstore.stress.cooperative import cooperative
from latchstore.stress.faults import InjectedError, Injector
from latchstore.stress.history import History, Operation, Outcome
from latchstore.stress.result import LockEdge, Problem, Step
from latchstore.stress.scheduler import Scheduler, Strategy, Turn, current_task
from latchstore.stress.scope import Scope
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Action, RolledBackError, Workload

#: Seconds of real time after which a run is given up.
TIMEOUT = 60.0


@dataclass(frozen=True)
class Program:
    """What the threads of a run do.

    Attributes
    ----------
    workload : Workload
    seed : int
    kept : tuple of tuples
        For each thread, which of its first actions it does.
    """

    workload: Workload
    seed: int
    kept: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, workload: Workload, seed: int, threads: int, operations: int) -> Program:
        """Return the program in which each thread does its first actions."""
        return cls(workload, seed, tuple(tuple(range(operations)) for _ in range(threads)))

    def actions(self, thread: int) -> list[Action]:
        """Return the actions of a thread, made anew."""
        kept = self.kept[thread]
        source = self.workload.actions(thread, self.seed)
        made = [next(source) for _ in range(max(kept, default=-1) + 1)]
        return [made[number] for number in kept]

    @property
    def size(self) -> int:
        """How many actions there are in all."""
        return sum(map(len, self.kept))


@dataclass
class Run:
    """What one run has given."""

    history: History
    turns: list[Turn]
    points: int
    problems: list[Problem]
    verdicts: dict[str, Verdict]
    steps: list[Step] = field(default_factory=list)
    lock_edges: list[LockEdge] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.problems) or any(each.answer == "invalid" for each in self.verdicts.values())


class Laboratory:
    """Makes runs of stores of one kind.

    Parameters
    ----------
    factory : callable
        Makes a new store for each run.
    """

    def __init__(self, factory: Callable[[], AbstractStore], injector: Injector | None = None) -> None:
        self._factory = factory
        self._scope = Scope(factory)
        self._injector = injector
        self._runs = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Replace what makes threads wait, and keep the garbage collector from running when it likes."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            with cooperative(self._scope.modules()):
                yield
        finally:
            if collecting:
                gc.enable()

    def run(self, program: Program, strategy: Strategy, recording: bool = False) -> Run:
        """Make one run, inside `open`.

        Parameters
        ----------
        program : Program
        strategy : Strategy
        recording : bool
            Whether to write down the steps.
        """
        self._runs += 1
        if self._runs % 20 == 0:
            gc.collect()
        scheduler = Scheduler(strategy, self._scope.traced, recording=recording)
        cast = _Cast(scheduler, program, self._factory, self._injector)
        try:
            ended = scheduler.run(cast.play, TIMEOUT)
        finally:
            logging.disable(logging.NOTSET)
        problems = [problem for problem in (scheduler.problem, scheduler.lock_order.problem()) if problem]
        if not ended:
            faulthandler.dump_traceback(sys.stderr)
            problems.append(Problem("hang", f"no end after {TIMEOUT:g} s\n{scheduler.table()}"))
        elif not problems:
            kept = scheduler.kept_locks()
            problems = [kept] if kept else []
        history = History(cast.operations(), {"facts": {program.workload.name: cast.facts}})
        verdicts = {} if problems else program.workload.verdicts(history)
        return Run(
            history,
            scheduler.turns,
            scheduler.now,
            problems,
            verdicts,
            [cast.renumbered(step) for step in scheduler.steps],
            list(scheduler.lock_order.edges()),
        )


class _Cast:
    """The threads of one run, and what they write down."""

    def __init__(
        self,
        scheduler: Scheduler,
        program: Program,
        factory: Callable[[], AbstractStore],
        injector: Injector | None,
    ) -> None:
        self._scheduler = scheduler
        self._program = program
        self._factory = factory
        self._injector = injector
        self._written: list[list[Operation]] = [[] for _ in program.kept]
        self._open: list[tuple[Action, int] | None] = [None for _ in program.kept]
        # The numbers of the workers among the scheduler's tasks.
        self._numbers: dict[int, int] = {}
        self._time = 0
        self.facts: Any = None

    def play(self) -> None:
        """Be the first task: make the store, have the threads do their actions, and look what is left."""
        program, scheduler = self._program, self._scheduler
        try:
            store = self._factory()
            program.workload.prepare(store)
            threads = [
                threading.Thread(target=self._work, args=(store, number, program.actions(number)))
                for number in range(len(program.kept))
            ]
            for number, thread in enumerate(threads):
                self._numbers[len(scheduler.tasks)] = number
                thread.start()
            if self._injector is not None:
                self._injector.begin(scheduler, store, program.seed)
            scheduler.release()
            for thread in threads:
                thread.join()
            scheduler.hold()
            if self._injector is not None:
                self._injector.end(scheduler)
            self.facts = program.workload.finish(store)
            close = getattr(store, "close", None)
            if close is not None:
                close()
        except Exception:
            scheduler.fail(Problem("crash", f"outside of all operations:\n{traceback.format_exc()}"))

    def _work(self, store: AbstractStore, number: int, actions: Sequence[Action]) -> None:
        for action in actions:
            self._written[number].append(self._done(store, number, action))

    def _done(self, store: AbstractStore, number: int, action: Action) -> Operation:
        outcome: Outcome = "ok"
        result = None
        begin = self._tick()
        end: int | None = None
        self._open[number] = (action, begin)
        try:
            result = action.run(store)
            end = self._tick()
        except (RolledBackError, StoreError):
            outcome, end = "fail", self._tick()
        except InjectedError:
            outcome = "info"
            task = current_task()
            assert task is not None
            self._scheduler.trace_again(task)
        except Exception:
            self._scheduler.fail(
                Problem("crash", f"{action.name} of {action.key!r}:\n{traceback.format_exc()}")
            )
        self._open[number] = None
        return Operation(
            number,
            action.name,
            action.key,
            action.argument,
            result,
            begin,
            end,
            outcome,
            revision=getattr(action, "revision", None),
        )

    def _tick(self) -> int:
        """Return a time later than all before: nanoseconds on the clock of the run."""
        self._time = max(self._time + 1, int(self._scheduler.clock() * 10**9))
        return self._time

    def operations(self) -> Iterator[Operation]:
        """Return what was written down, and what was broken off."""
        for number, written in enumerate(self._written):
            yield from written
            broken_off = self._open[number]
            if broken_off is not None:
                action, begin = broken_off
                yield Operation(number, action.name, action.key, action.argument, None, begin, None, "info")

    def renumbered(self, step: Step) -> Step:
        """Return a step with its thread numbered as in the history, before those that the store starts."""
        others = [task.number for task in self._scheduler.tasks if task.number not in self._numbers]
        number = self._numbers.get(step.thread)
        if number is None:
            number = len(self._numbers) + others.index(step.thread)
        return Step(number, step.where, step.text)
