"""A whole run of the harness, as it was ordered: rounds on native threads, or a search for a schedule.

Thread safety: one run at a time in a process.
"""

from __future__ import annotations

import importlib
import inspect
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from latchstore.contract.store import AbstractStore
from latchstore.delivery.event_manager import EventManager
from latchstore.stress.controlled import Laboratory
from latchstore.stress.faults import Fault
from latchstore.stress.figures import Figures, OperationFigures
from latchstore.stress.history import History, environment
from latchstore.stress.lock_order import LockOrder
from latchstore.stress.native import HangError, WorkerError, run_native
from latchstore.stress.recording import recorded
from latchstore.stress.result import LockEdge, Mark, Problem, Result
from latchstore.stress.scope import Scope
from latchstore.stress.search import Found, Mode, Settings, search
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Workload

#: The store that is put under stress if none is named.
OUR_STORE = "latchstore:DictMemoryStore"

ScheduleKind = Literal["native", "random", "pct", "exhaustive"]
SCHEDULES: tuple[ScheduleKind, ...] = ("native", "random", "pct", "exhaustive")

#: Operations of one round on native threads, all threads together.
_ROUND = 20_000

Factory = Callable[..., AbstractStore]


class PlanError(ValueError):
    """A run was ordered that cannot be; one line says why."""


@dataclass(frozen=True)
class Plan:
    """What was ordered.

    Attributes
    ----------
    store : str
        ``"module:Class"``.
    workloads : sequence of Workload
    threads : int
    seconds : float or None
        How long the run goes on; None: until `operations` are done.
    operations : int or None
        How many operations, of all threads; the run ends after the round or the schedule in which they are.
        On native threads it does not end before each workload had a round.
    seed : int
    schedule : str
        ``"native"``, ``"random"``, ``"pct"`` or ``"exhaustive"``.
    length : int or None
        How many operations each thread does in one round or schedule.
    faults : sequence of classes
    switch_interval : float
        Seconds; of native threads.
    preemptions : int
        Of exhaustive schedules.
    shrink : bool
        Whether a schedule that fails is made small.
    """

    workloads: Sequence[Workload]
    store: str = OUR_STORE
    threads: int = 4
    seconds: float | None = 10.0
    operations: int | None = None
    seed: int = 0
    schedule: ScheduleKind = "native"
    length: int | None = None
    faults: Sequence[type[Fault]] = ()
    switch_interval: float = 1e-6
    preemptions: int = 1
    shrink: bool = True

    @property
    def operations_each(self) -> int:
        """How many operations each thread does in one round or schedule."""
        if self.length is not None:
            return self.length
        if self.schedule == "native":
            total = _ROUND if self.operations is None else min(_ROUND, self.operations)
            return -(-total // self.threads)
        return 2 if self.schedule == "exhaustive" else 3

    def command(self, *, seed: int, workloads: Sequence[str]) -> str:
        """Return the command that runs one round or schedule again."""
        words = ["python", "-m", "latchstore", "stress"]
        if self.store != OUR_STORE:
            words += ["--store", self.store]
        words += ["--workload", ",".join(workloads), "--schedule", self.schedule]
        words += ["--threads", str(self.threads), "--length", str(self.operations_each)]
        words += ["--seed", str(seed)]
        if self.schedule != "exhaustive":
            words += ["--ops", "1"]
        elif self.preemptions != 1:
            words += ["--preemptions", str(self.preemptions)]
        if self.faults:
            words += ["--faults", ",".join(fault.name for fault in self.faults)]
        if self.schedule == "native":
            words += ["--switch-interval", f"{self.switch_interval:g}"]
        return shlex.join(words)


@dataclass
class Progress:
    """How far a run has come."""

    seconds: float = 0.0
    operations: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Outcome:
    """A result, and what was counted on the way to it."""

    result: Result
    operations: int
    figures: list[OperationFigures] = field(default_factory=list)
    complete: bool = False


def store_factory(name: str) -> Factory:
    """Return what makes a store that is named as ``"module:Class"``.

    Raises
    ------
    PlanError
        If there is no such thing, or it makes no store.
    """
    factory = named_object(name, "store")
    return factory_of(factory, name)


def named_object(name: str, what: str) -> Any:
    """Return what is named as ``"module:Class"``.

    Raises
    ------
    PlanError
        If there is no such thing; `what` says what it is.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise PlanError(f"{what} must be named as module:Class, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as ``python -m`` does: a module in the current directory is found
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise PlanError(f"{what} {name!r}: cannot import {module_name!r}: {error}") from error
    except AttributeError as error:
        raise PlanError(f"{what} {name!r}: module {module_name!r} has no {attribute!r}") from error
    return found


def factory_of(factory: object, name: str) -> Factory:
    """Return what makes stores by a class or a function, whose name is for messages."""
    if not callable(factory):
        raise PlanError(f"store {name!r} is not callable, got {type(factory).__qualname__}")
    return _Factory(factory, name)


class _Factory:
    """Makes stores; each has an event manager of its own if it takes one."""

    def __init__(self, factory: Callable[..., object], name: str) -> None:
        self._factory = factory
        self._name = name
        # What Scope looks for the code under test by.
        self.__wrapped__ = factory
        self._takes_event_manager = "event_manager" in _parameters(factory)

    def __call__(self, **options: object) -> AbstractStore:
        if self._takes_event_manager:
            # One of its own, or stores of a run would share listeners by that of the process.
            options["event_manager"] = EventManager()
        store = self._factory(**options)
        if not isinstance(store, AbstractStore):
            raise PlanError(
                f"store {self._name!r} must make an AbstractStore, got {type(store).__module__}."
                f"{type(store).__qualname__}"
            )
        return store


def _parameters(factory: Callable[..., object]) -> Collection[str]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return ()  # written in C, perhaps


def checked_factory(factory: Factory, faults: Sequence[type[Fault]]) -> None:
    """Raise PlanError if no store can be made, or not with the options that the faults need."""
    for options in ({}, *(dict(fault.options) for fault in faults)):
        try:
            store = factory(**options)
        except PlanError:
            raise
        except Exception as error:
            given = f" with {options}" if options else ""
            raise PlanError(f"no store can be made{given}: {error!r}") from error
        store.close()


def carry_out(plan: Plan, factory: Factory, progress: Callable[[Progress], None]) -> Outcome:
    """Do what was ordered.

    Parameters
    ----------
    plan : Plan
    factory : callable
        As `store_factory` returns it.
    progress : callable
        Called now and then.
    """
    checked_factory(factory, plan.faults)
    for fault in plan.faults:
        if not (fault.native if plan.schedule == "native" else fault.controlled):
            raise PlanError(f"fault {fault.name!r} does not work with --schedule {plan.schedule}")
    if plan.schedule == "native":
        return _run_native(plan, factory, progress)
    return _run_search(plan, plan.schedule, factory, progress)


class _Clock:
    """Whether a run has gone on long enough."""

    def __init__(self, plan: Plan, progress: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._told = progress
        self._begun = time.monotonic()
        self.state = Progress()

    def after(self, operations: int) -> bool:
        """Count a round, and tell whether it was the last."""
        state = self.state
        state.operations += operations
        state.rounds += 1
        state.seconds = time.monotonic() - self._begun
        self._told(state)
        plan = self._plan
        if plan.operations is not None:
            return state.operations >= plan.operations
        return plan.seconds is not None and state.seconds >= plan.seconds


# -- schedules ----------------------------------------------------------------------------------------


def _run_search(plan: Plan, mode: Mode, factory: Factory, progress: Callable[[Progress], None]) -> Outcome:
    clock = _Clock(plan, progress)
    figures = Figures()

    def enough(found: Found) -> bool:
        figures.add(found.run.history.operations)
        return clock.after(found.program.size)

    settings = Settings(mode, plan.threads, plan.operations_each, plan.seed, plan.preemptions, plan.shrink)
    laboratory = Laboratory(factory, plan.faults)
    with laboratory.open():
        found = search(laboratory, plan.workloads, settings, enough)
    workload = found.program.workload.name
    header = {
        **environment(),
        **found.run.history.header,
        "seed": found.seed,
        "threads": plan.threads,
        "operations": plan.operations_each,
        "workloads": [workload],
        "schedule": plan.schedule,
    }
    result = Result(
        plan.command(seed=found.seed, workloads=[workload]),
        History(found.run.history.operations, header),
        {workload: found.run.verdicts} if found.run.verdicts else {},
        tuple(found.run.problems),
        tuple(found.run.steps),
        tuple(found.lock_edges.values()),
        tuple(found.run.marks),
        clock.state.seconds,
        found.schedules,
    )
    if not found.run.failed:
        # Every schedule was checked, and found valid; one verdict for each workload says so.
        verdicts = {
            each.name: found.verdicts.get(each.name, {}) for each in plan.workloads[: found.schedules]
        }
        result = replace(result, verdicts=verdicts)
    return Outcome(result, found.operations, figures.rows(clock.state.seconds), found.complete)


# -- native threads -----------------------------------------------------------------------------------


def _run_native(plan: Plan, factory: Factory, progress: Callable[[Progress], None]) -> Outcome:
    clock = _Clock(plan, progress)
    figures = Figures()
    edges: dict[tuple[str, str], LockEdge] = {}
    gil = _gil_enabled()
    verdicts: dict[str, dict[str, Verdict]] = {}
    crews = _crews(plan.workloads)
    for number in range(sys.maxsize):
        seed = plan.seed + number
        workloads = crews[number % len(crews)]
        history, problems, marks, order = _native_round(plan, workloads, factory, seed)
        for edge in order.edges():
            edges.setdefault((edge.held, edge.taken), edge)
        if _gil_enabled() != gil:
            problems.append(Problem("gil", "the interpreter has turned its GIL on during the run"))
        now = {} if problems else _verdicts(workloads, history)
        verdicts = worst_of(verdicts, now)
        figures.add(history.operations)
        bad = problems or any(each.answer != "valid" for all_ in now.values() for each in all_.values())
        if (clock.after(len(history.operations)) and number + 1 >= len(crews)) or bad:
            break
    result = Result(
        plan.command(seed=seed, workloads=[workload.name for workload in workloads]),
        history,
        verdicts,
        tuple(problems),
        (),
        tuple(edges.values()),
        tuple(marks),
        clock.state.seconds,
        clock.state.rounds,
    )
    return Outcome(result, clock.state.operations, figures.rows(clock.state.seconds))


def _crews(workloads: Sequence[Workload]) -> list[Sequence[Workload]]:
    """Return which workloads share a store: each crew has its rounds, in turn."""
    shared = [workload for workload in workloads if not workload.alone]
    return [*([shared] if shared else []), *([workload] for workload in workloads if workload.alone)]


def _native_round(
    plan: Plan, workloads: Sequence[Workload], factory: Factory, seed: int
) -> tuple[History, list[Problem], list[Mark], LockOrder]:
    """Run one store for a while."""
    order = LockOrder()
    marks: list[Mark] = []
    faults = [
        fault(seed, lambda name: marks.append(Mark(time.monotonic_ns(), name))) for fault in plan.faults
    ]
    options = {name: value for fault in plan.faults for name, value in fault.options.items()}
    problems: list[Problem] = []
    history = History(())
    try:
        recording = all(fault.recorded for fault in plan.faults)
        with recorded(Scope(factory, AbstractStore), order) if recording else nullcontext():
            store = factory(**options)
            history = run_native(
                store,
                workloads,
                threads=plan.threads,
                operations=plan.operations_each,
                seed=seed,
                switch_interval=plan.switch_interval,
                faults=faults,
            )
            store.close()
    except HangError as error:
        problems.append(Problem("hang", str(error)))
    except WorkerError as error:
        problems.append(Problem("crash", "".join(traceback.format_exception(error.__cause__ or error))))
    except Exception:
        problems.append(Problem("crash", f"outside of all operations:\n{traceback.format_exc()}"))
    circle = order.problem()
    if circle is not None:
        problems.append(circle)
    return history, problems, marks, order


def _verdicts(workloads: Sequence[Workload], history: History) -> dict[str, dict[str, Verdict]]:
    return {workload.name: workload.verdicts(history) for workload in workloads}


def worst_of(
    before: dict[str, dict[str, Verdict]], now: dict[str, dict[str, Verdict]]
) -> dict[str, dict[str, Verdict]]:
    """Return the worse of two verdicts of each checker."""
    order = {"valid": 0, "unknown": 1, "invalid": 2}
    merged = {name: dict(checks) for name, checks in before.items()}
    for name, checks in now.items():
        mine = merged.setdefault(name, {})
        for check, verdict in checks.items():
            if check not in mine or order[verdict.answer] > order[mine[check].answer]:
                mine[check] = verdict
    return merged


def _gil_enabled() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
