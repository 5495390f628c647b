"""Running a workload under the scheduler, once.

Thread safety: one run at a time in a process, as the standard library's locks are replaced meanwhile.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from latchstore.contract.errors import StoreError
from latchstore.contract.store import AbstractStore
from latchstore.stress.cooperative import cooperative
from latchstore.stress.faults import Exceptions, Fault, InjectedError
from latchstore.stress.history import History, Operation, Outcome
from latchstore.stress.result import LockEdge, Mark, Problem, Step
from latchstore.stress.scheduler import Scheduler, Strategy, Task, Turn, current_task
from latchstore.stress.scope import Scope
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Action, RolledBackError, Workload

#: Seconds of real time after which a run is given up.
TIMEOUT = 60.0

#: How often each fault that acts by itself does so in one run.
_DISTURBANCES = 3

#: At about how many places of an operation CPython may raise an exception from outside.
_CHECKS = 100


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
    marks: list[Mark] = field(default_factory=list)

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
    faults : sequence of classes
        What goes wrong in each run. Their `options` are handed to the factory.
    """

    def __init__(self, factory: Callable[..., AbstractStore], faults: Sequence[type[Fault]] = ()) -> None:
        options = {name: value for fault in faults for name, value in fault.options.items()}
        self._factory = functools.partial(factory, **options) if options else factory
        self._scope = Scope(factory)
        self._faults = faults
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
        cast = _Cast(scheduler, program, self._factory, self._faults)
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
            cast.marks,
        )


class _Cast:
    """The threads of one run, and what they write down."""

    def __init__(
        self,
        scheduler: Scheduler,
        program: Program,
        factory: Callable[[], AbstractStore],
        faults: Sequence[type[Fault]],
    ) -> None:
        self._scheduler = scheduler
        self._program = program
        self._factory = factory
        self.marks: list[Mark] = []
        self._faults = [fault(program.seed, self._note) for fault in faults]
        self._written: list[list[Operation]] = [[] for _ in program.kept]
        self._open: list[tuple[Action, int] | None] = [None for _ in program.kept]
        # The numbers of the workers among the scheduler's tasks.
        self._numbers: dict[int, int] = {}
        self._time = 0
        # After how many places for exceptions one is put in, if that fault is switched on.
        self._checks_left = 0
        self.facts: Any = None

    def play(self) -> None:
        """Be the first task: make the store, have the threads do their actions, and look what is left."""
        program, scheduler = self._program, self._scheduler
        try:
            store = self._factory()
            program.workload.prepare(store)
            for fault in self._faults:
                fault.prepare(store)
            threads = [
                threading.Thread(target=self._work, args=(store, number, program.actions(number)))
                for number in range(len(program.kept))
            ]
            for number, thread in enumerate(threads):
                self._numbers[len(scheduler.tasks)] = number
                thread.start()
            for fault in self._faults:
                disturber = threading.Thread(target=self._disturb, args=(store, fault))
                threads.append(disturber)
                disturber.start()
            self._plan_exception()
            scheduler.release()
            for thread in threads:
                thread.join()
            scheduler.hold()
            scheduler.at_check = None
            for fault in self._faults:
                fault.finish(store)
            self.facts = program.workload.finish(store)
            close = getattr(store, "close", None)
            if close is not None:
                close()
        except Exception:
            scheduler.fail(Problem("crash", f"outside of all operations:\n{traceback.format_exc()}"))

    def _work(self, store: AbstractStore, number: int, actions: Sequence[Action]) -> None:
        for action in actions:
            self._written[number].append(self._done(store, number, action))

    def _disturb(self, store: AbstractStore, fault: Fault) -> None:
        try:
            for _ in range(_DISTURBANCES):
                if not fault.disturb(store, self):
                    return
        except StoreError:
            return  # refused, as all others may be
        except Exception:
            self._scheduler.fail(Problem("crash", f"fault {fault.name}:\n{traceback.format_exc()}"))

    def interrupt(self, error: type[BaseException]) -> bool:
        """Do nothing: exceptions come at places of their own here, see `_plan_exception`."""
        return False

    def _plan_exception(self) -> None:
        """Have one worker be broken off once, where CPython may raise, if that fault is switched on."""
        for fault in self._faults:
            if isinstance(fault, Exceptions):
                self._checks_left = fault.check_of_error(self._program.size * _CHECKS)
                self._scheduler.at_check = self._count_down

    def _count_down(self, task: Task) -> None:
        self._checks_left -= 1
        number = self._numbers.get(task.number)
        if self._checks_left <= 0 and number is not None and self._open[number] is not None:
            self._scheduler.at_check = None
            self._note("exception")
            raise InjectedError

    def _note(self, name: str) -> None:
        task = current_task()
        number = None if task is None else self._numbers.get(task.number)
        self.marks.append(Mark(int(self._scheduler.clock() * 10**9), name, number))

    def _done(self, store: AbstractStore, number: int, action: Action) -> Operation:
        outcome: Outcome = "ok"
        result = None
        begin = self._tick()
        end: int | None = None
        try:
            for fault in self._faults:
                fault.before_action(store, action.key)
            begin = self._tick()
            self._open[number] = (action, begin)
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
