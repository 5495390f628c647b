"""Runs a workload under the scheduler, once.

Thread safety: one run at a time in a process, as it replaces the standard library's locks.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from latchstore.contract.errors import StoreError
from latchstore.contract.store import AbstractStore
from latchstore.stress.execution import Body, Stage, quick_collections, run_schedule, under_control
from latchstore.stress.faults import Exceptions, Fault, InjectedError
from latchstore.stress.history import History, Operation, Outcome
from latchstore.stress.result import LockEdge, Mark, Problem, Step
from latchstore.stress.scheduler import Strategy
from latchstore.stress.scope import Scope
from latchstore.stress.tasks import Task, Turn, current_task
from latchstore.stress.tracebacks import raised
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Action, RolledBackError, Workload, outcome_of, prepare, store_for

#: How often each independent fault acts in one run.
_DISTURBANCES = 3

#: Approximate number of points in an operation where CPython may raise an exception from outside.
_CHECKS = 100


@dataclass(frozen=True)
class Program:
    """The actions of the threads of a run.

    Attributes
    ----------
    workload : Workload
    seed : int
    kept : tuple of tuples
        For each thread, the indexes of its actions that it runs.
    """

    workload: Workload
    seed: int
    kept: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, workload: Workload, seed: int, threads: int, operations: int) -> Program:
        """Return the program in which each thread runs its first actions."""
        return cls(workload, seed, tuple(tuple(range(operations)) for _ in range(threads)))

    def actions(self, thread: int) -> list[Action]:
        """Return the actions of a thread, newly made."""
        kept = self.kept[thread]
        source = self.workload.actions(thread, self.seed)
        made = [next(source) for _ in range(max(kept, default=-1) + 1)]
        return [made[number] for number in kept]

    @property
    def size(self) -> int:
        """Number of actions of all threads."""
        return sum(map(len, self.kept))

    def beginnings(self) -> Iterator[Program]:
        """Yield the program with the first actions of all threads, then of each; the fewest first."""
        kept = self.kept
        for length in range(1, max(map(len, kept))):
            yield replace(self, kept=tuple(actions[:length] for actions in kept))
        for thread, actions in enumerate(kept):
            for length in range(len(actions)):
                yield replace(self, kept=(*kept[:thread], actions[:length], *kept[thread + 1 :]))

    def smaller(self) -> Iterator[Program]:
        """Yield the program without one of its threads, then without one of its actions."""
        kept = self.kept
        if len(kept) > 1:
            for thread in range(len(kept)):
                if kept[thread]:
                    # Threads keep their numbers, as their actions depend on them.
                    yield replace(self, kept=(*kept[:thread], (), *kept[thread + 1 :]))
        for thread, actions in enumerate(kept):
            for place in range(len(actions)):
                fewer = (*actions[:place], *actions[place + 1 :])
                if fewer:
                    yield replace(self, kept=(*kept[:thread], fewer, *kept[thread + 1 :]))


@dataclass
class Run:
    """The results of one run."""

    history: History
    turns: list[Turn]
    points: int
    problems: list[Problem]
    verdicts: dict[str, Verdict]
    steps: list[Step] = field(default_factory=list)
    lock_edges: list[LockEdge] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    @property
    def blocked(self) -> bool:
        """Whether a thread waited for something outside control, so the run proves nothing."""
        return any(problem.kind == "blocked" for problem in self.problems)

    @property
    def failed(self) -> bool:
        """Whether the run found a problem."""
        return bool(self.problems) or any(each.answer == "invalid" for each in self.verdicts.values())


class Laboratory:
    """Runs workloads on stores of one kind.

    Parameters
    ----------
    factory : callable
        Makes a new store for each run.
    faults : sequence of classes
        Faults of each run. Their `options` are passed to the factory.
    modules : iterable of str
        Names of the modules in which threads may switch; by default the packages of the store.
    """

    def __init__(
        self,
        factory: Callable[..., AbstractStore],
        faults: Sequence[type[Fault]] = (),
        modules: Iterable[str] = (),
    ) -> None:
        options = {name: value for fault in faults for name, value in fault.options.items()}
        self._factory = functools.partial(factory, **options) if options else factory
        self.scope: Scope = scope_of(factory, self._factory, modules)
        self._faults = faults
        self._runs = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Replace the blocking functions of the standard library."""
        with under_control(self.scope), quick_collections():
            yield

    def run(self, program: Program, strategy: Strategy, recording: bool = False) -> Run:
        """Make one run, inside `open`.

        Parameters
        ----------
        program : Program
        strategy : Strategy
        recording : bool
            Whether to record the steps.
        """
        self._runs += 1
        if self._runs % 20 == 0:
            gc.collect()
        cast = _Cast(program, self._factory, self._faults)
        execution = run_schedule(
            cast.make, strategy, self.scope, finish=cast.finish, seed=program.seed, recording=recording
        )
        problems = execution.problems
        history = History(cast.operations(), {"facts": {program.workload.name: execution.finished}})
        return Run(
            history,
            execution.turns,
            execution.points,
            problems,
            {} if problems else program.workload.verdicts(history),
            execution.steps,
            execution.lock_edges,
            cast.marks,
        )


def scope_of(factory: object, make: Callable[[], AbstractStore], modules: Iterable[str] = ()) -> Scope:
    """Return the code under test, from the factory and from the class of a store that it makes."""
    scope = Scope(factory, AbstractStore, modules=modules)
    store = make()
    scope.add(type(store))
    close = getattr(store, "close", None)
    if close is not None:
        close()
    return scope


class _Cast:
    """The threads of one run, and their records."""

    def __init__(
        self, program: Program, factory: Callable[[], AbstractStore], faults: Sequence[type[Fault]]
    ) -> None:
        self._program = program
        self._factory = factory
        self.marks: list[Mark] = []
        self._faults = [fault(program.seed, self._note) for fault in faults]
        self._written: list[list[Operation]] = [[] for _ in program.kept]
        self._open: list[tuple[Action, int] | None] = [None for _ in program.kept]
        # Number of points until an exception is injected, if that fault is enabled.
        self._checks_left = 0
        self._stage: Stage
        self._store: AbstractStore

    def make(self, stage: Stage) -> list[Body]:
        """Make the store; return the bodies of its threads."""
        program = self._program
        self._stage = stage
        self._store = store = store_for(program.workload, self._factory)
        prepare(program.workload, store)
        for fault in self._faults:
            fault.prepare(store)
        self._plan_exception()
        return [
            *(
                functools.partial(self._work, store, number, program.actions(number))
                for number in range(len(program.kept))
            ),
            *(functools.partial(self._disturb, store, fault) for fault in self._faults),
        ]

    def finish(self) -> object:
        """Read the final state."""
        store = self._store
        for fault in self._faults:
            fault.finish(store)
        facts: object = self._program.workload.finish(store)
        close = getattr(store, "close", None)
        if close is not None:
            close()
        return facts

    def _work(self, store: AbstractStore, number: int, actions: Sequence[Action]) -> None:
        for action in actions:
            self._written[number].append(self._done(store, number, action))
            self._stage.end_operation()

    def _disturb(self, store: AbstractStore, fault: Fault) -> None:
        try:
            for _ in range(_DISTURBANCES):
                if not fault.disturb(store, self):
                    return
        except StoreError:
            return  # refused, as any operation may be
        except Exception:
            self._stage.fail(raised("crash", f"fault {fault.name}"))

    def interrupt(self, error: type[BaseException]) -> bool:
        """Do nothing: here exceptions are injected at points of their own, see `_plan_exception`."""
        return False

    def _plan_exception(self) -> None:
        """Choose one point where a worker is interrupted, if that fault is enabled."""
        for fault in self._faults:
            if isinstance(fault, Exceptions):
                self._checks_left = fault.check_of_error(self._program.size * _CHECKS)
                self._stage.scheduler.at_check = self._count_down

    def _count_down(self, task: Task) -> None:
        self._checks_left -= 1
        number = self._worker()
        if self._checks_left <= 0 and number is not None and self._open[number] is not None:
            self._stage.scheduler.at_check = None
            self._note("exception")
            raise InjectedError

    def _note(self, name: str) -> None:
        self.marks.append(Mark(int(self._stage.scheduler.clock() * 10**9), name, self._worker()))

    def _worker(self) -> int | None:
        """Return the number of the calling worker thread; None for other threads."""
        number = self._stage.number()
        return number if number is not None and number < len(self._written) else None

    def _done(self, store: AbstractStore, number: int, action: Action) -> Operation:
        outcome: Outcome = "ok"
        result = None
        begin = self._stage.tick()
        end: int | None = None
        try:
            for fault in self._faults:
                fault.before_action(store, action.key)
            begin = self._stage.tick()
            self._open[number] = (action, begin)
            self._stage.begin_operation(action.name)
            result = action.run(store)
            end = self._stage.tick()
        except (RolledBackError, StoreError) as error:
            outcome = outcome_of(error)
            end = self._stage.tick() if outcome == "fail" else None
        except InjectedError:
            outcome = "info"
            task = current_task()
            assert task is not None
            self._stage.scheduler.tracer.start(task)
        except Exception:
            self._stage.fail(raised("crash", f"{action.name} of {action.key!r}"))
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

    def operations(self) -> Iterator[Operation]:
        """Return the recorded operations, interrupted ones included."""
        for number, written in enumerate(self._written):
            yield from written
            broken_off = self._open[number]
            if broken_off is not None:
                action, begin = broken_off
                yield Operation(number, action.name, action.key, action.argument, None, begin, None, "info")
