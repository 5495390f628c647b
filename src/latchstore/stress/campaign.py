"""A whole run of the harness, as planned: rounds on native threads, or a search for a schedule.

Thread safety: one run at a time in a process.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from math import inf

from latchstore.contract.store import AbstractStore
from latchstore.stress.controlled import Laboratory
from latchstore.stress.factories import Factory, checked_factory, shared_stores
from latchstore.stress.figures import Figures, OperationFigures, together
from latchstore.stress.history import History, environment
from latchstore.stress.lock_order import LockOrder
from latchstore.stress.native import CrewMaker, HangError, WorkerError, run_native
from latchstore.stress.plan import Plan
from latchstore.stress.recording import recorded
from latchstore.stress.reduction import smallest
from latchstore.stress.result import LockEdge, Mark, Problem, Result
from latchstore.stress.schedules import PARTS, ScheduleKind, check_faults, parts_for
from latchstore.stress.scope import Scope
from latchstore.stress.search import Found, Mode, Settings, search
from latchstore.stress.strategies import seed_of
from latchstore.stress.tracebacks import raised
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Workload, shares, store_for

#: The fraction of a mixed run for controlled schedules; native threads have the rest, and find little where a
#: GIL lets one run at a time.
_CONTROLLED = 0.8 if not getattr(sys, "_is_gil_enabled", lambda: True)() else 0.9

#: The fraction of a mixed run of tasks in which they run in random order.
_AT_RANDOM = 0.6

#: The fraction of its time in which a round on native threads begins operations; the rest is for checking
#: them.
_BEGINNING = 0.8

#: Rounds go on after the end of a run's time, so that each workload has one: for this fraction of the time,
#: and for at least this many seconds.
_OVERTIME, _SHORTEST_OVERTIME = 0.25, 1.0


@dataclass
class Progress:
    """The progress of a run."""

    seconds: float = 0.0
    operations: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Outcome:
    """A result, counts of the run, and the workloads for which there was no time."""

    result: Result
    operations: int
    figures: list[OperationFigures] = field(default_factory=list)
    complete: bool = False
    not_run: tuple[str, ...] = ()


def carry_out(plan: Plan, factory: Factory, progress: Callable[[Progress], None]) -> Outcome:
    """Run a plan.

    Parameters
    ----------
    plan : Plan
    factory : callable
        As `store_factory` returns it.
    progress : callable
        Called from time to time.
    """
    check_faults(plan.faults, plan.schedule, plan.processes, plan.tasks)
    checked_factory(factory, plan.faults)
    outcome = _carried_out(plan, factory, progress)
    names = (workload.name for workload in plan.workloads)
    return replace(outcome, not_run=tuple(name for name in names if name not in outcome.result.verdicts))


def _carried_out(plan: Plan, factory: Factory, progress: Callable[[Progress], None]) -> Outcome:
    if plan.tasks:
        return _run_tasks(plan, factory, progress)
    if plan.schedule == "native":
        return _run_native(plan, factory, progress)
    if plan.schedule == "mixed":
        return _run_mixed(plan, factory, progress)
    return _run_search(plan, plan.schedule, factory, progress)


def _run_tasks(plan: Plan, factory: Factory, progress: Callable[[Progress], None]) -> Outcome:
    """Run tasks in random order, and then in loops of asyncio, unless the first run fails."""
    # Loaded when used: nobody else needs asyncio.
    from latchstore.stress.task_crew import checked

    checked(factory()).close()
    if plan.schedule != "mixed":
        return _run_native(plan, factory, progress)
    begun = time.monotonic()
    first = _run_native(replace(_part_of(plan, _AT_RANDOM), schedule="random"), factory, progress)
    if first.result.answer == "invalid" or first.result.problems:
        return first
    rest = replace(_part_of(plan, 1 - _AT_RANDOM), schedule="native")
    second = _run_native(rest, factory, progress)
    return _together(first, second, time.monotonic() - begun)


def _run_mixed(plan: Plan, factory: Factory, progress: Callable[[Progress], None]) -> Outcome:
    """Run schedules, and then threads of the system, unless a schedule fails."""
    parts: set[str] = set.intersection(PARTS["mixed"], *map(parts_for, plan.faults))
    if len(parts) == 1:
        only: ScheduleKind = "native" if "native" in parts else "random"
        return _carried_out(replace(plan, schedule=only), factory, progress)
    begun = time.monotonic()
    first = _run_search(_part_of(plan, _CONTROLLED), "mixed", factory, progress)
    if first.result.answer == "invalid" or first.result.problems:
        return first
    rest = replace(_part_of(plan, 1 - _CONTROLLED), schedule="native", length=None)
    if plan.seconds is not None:
        rest = replace(rest, seconds=max(0.1, plan.seconds - (time.monotonic() - begun)))
    return _together(first, _run_native(rest, factory, progress), time.monotonic() - begun)


def _part_of(plan: Plan, part: float) -> Plan:
    return replace(
        plan,
        seconds=None if plan.seconds is None else plan.seconds * part,
        operations=None if plan.operations is None else max(1, int(plan.operations * part)),
    )


def _together(first: Outcome, second: Outcome, seconds: float) -> Outcome:
    """Return the outcome of two runs of which the first found nothing."""
    one, other = first.result, second.result
    met = Counter(one.met or {})
    met.update(other.met or {})
    result = replace(
        other,
        verdicts=worst_of(
            {name: dict(checks) for name, checks in one.verdicts.items()},
            {name: dict(checks) for name, checks in other.verdicts.items()},
        ),
        lock_edges=tuple(
            {(each.held, each.taken): each for each in (*one.lock_edges, *other.lock_edges)}.values()
        ),
        seconds=seconds,
        schedules=one.schedules + other.schedules,
        met=met,
        switched_within=one.switched_within,
    )
    return Outcome(
        result,
        first.operations + second.operations,
        together(first.figures, second.figures, one.seconds, other.seconds),
    )


class _Clock:
    """Decides when a run has lasted long enough."""

    def __init__(self, plan: Plan, progress: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._told = progress
        self._begun = time.monotonic()
        self.state = Progress()

    def left(self) -> float:
        """Return the remaining seconds; infinity if the run has no time limit."""
        seconds = self._plan.seconds
        return inf if seconds is None else max(0.0, self._begun + seconds - time.monotonic())

    def is_late(self) -> bool:
        """Return whether a time limit is over for so long that what is left of the first rounds must wait."""
        seconds = self._plan.seconds
        if seconds is None:
            return False
        return self.state.seconds >= seconds + max(_SHORTEST_OVERTIME, _OVERTIME * seconds)

    def after(self, operations: int) -> bool:
        """Count a round; return whether it was the last."""
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

    settings = Settings(mode, plan.threads, plan.length, plan.seed, plan.preemptions, plan.shrink)
    laboratory = Laboratory(factory, plan.faults, plan.modules)
    with laboratory.open():
        found = search(laboratory, plan.workloads, settings, enough)
    workload = found.program.workload.name
    header = {
        **environment(),
        **found.run.history.header,
        "seed": found.seed,
        "threads": plan.threads,
        "operations": found.length,
        "workloads": [workload],
        "schedule": found.mode,
        "switched_within": laboratory.scope.switched_within(),
    }
    result = Result(
        replace(plan, schedule=found.mode).command(
            seed=found.seed, workloads=[workload], length=found.length
        ),
        History(found.run.history.operations, header),
        {workload: found.run.verdicts} if found.run.verdicts else {},
        tuple(found.run.problems),
        tuple(found.run.steps),
        tuple(found.lock_edges.values()),
        tuple(found.run.marks),
        clock.state.seconds,
        found.schedules,
        figures.met,
        laboratory.scope.switched_within(),
    )
    if not found.run.failed:
        # Every schedule was checked and valid; report one verdict for each workload.
        verdicts = {
            each.name: found.verdicts[each.name] for each in plan.workloads if each.name in found.verdicts
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
    crews = shares(plan.workloads)
    plan = replace(plan, length=_operations_of_a_round(plan, len(crews)))
    for number in itertools.count():
        seed = seed_of(plan.seed, number)
        workloads = crews[number % len(crews)]
        share = clock.left() / max(1, len(crews) - number)
        run_round = _round_of_processes if plan.processes > 1 else _native_round
        history, problems, marks, order = run_round(plan, workloads, factory, seed, share)
        for edge in order.edges():
            edges.setdefault((edge.held, edge.taken), edge)
        if _gil_enabled() != gil:
            problems.append(Problem("gil", "the interpreter enabled its GIL during the run"))
        now = {} if problems else _verdicts(workloads, history)
        verdicts = worst_of(verdicts, now)
        figures.add(history.operations)
        bad = problems or any(each.answer != "valid" for all_ in now.values() for each in all_.values())
        is_over = clock.after(len(history.operations))
        if (is_over and (number + 1 >= len(crews) or clock.is_late())) or bad:
            break
    if now:
        history = smallest(history, workloads, now)
    result = Result(
        plan.command(
            seed=seed,
            workloads=[workload.name for workload in workloads],
            length=plan.length_of_a_round,
        ),
        history,
        verdicts,
        tuple(problems),
        (),
        tuple(edges.values()),
        tuple(marks),
        clock.state.seconds,
        clock.state.rounds,
        figures.met,
    )
    return Outcome(result, clock.state.operations, figures.rows(clock.state.seconds))


def _operations_of_a_round(plan: Plan, rounds: int) -> int:
    """Return the number of operations of each thread in a round, with one round for each share."""
    if plan.length is not None or plan.operations is None:
        return plan.length_of_a_round
    return -(-plan.length_of_a_round // rounds)


def _crew_of(plan: Plan) -> CrewMaker | None:
    """Return what makes the tasks of a round; None if it has threads."""
    if not plan.tasks:
        return None
    # Loaded when used: nobody else needs asyncio.
    from latchstore.stress.task_crew import TaskCrew

    return functools.partial(TaskCrew, tasks=plan.tasks, is_random=plan.schedule == "random")


def _native_round(
    plan: Plan, workloads: Sequence[Workload], factory: Factory, seed: int, seconds: float
) -> tuple[History, list[Problem], list[Mark], LockOrder]:
    """Run one store for a while, so that running and checking take about this many seconds."""
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
            store = store_for(workloads[0], functools.partial(factory, **options))
            history = run_native(
                store,
                workloads,
                threads=plan.workers,
                operations=plan.length_of_a_round,
                seed=seed,
                switch_interval=plan.switch_interval,
                faults=faults,
                timeout=plan.timeout,
                seconds=_BEGINNING * seconds,
                make_crew=_crew_of(plan),
            )
            store.close()
    except HangError as error:
        history = error.history
        problems.append(Problem("hang", str(error)))
    except WorkerError as error:
        history = error.history
        problems.append(raised("crash", "a thread of the run", error.__cause__ or error))
    except Exception:
        problems.append(raised("crash", "outside of all operations"))
    circle = order.problem()
    if circle is not None:
        problems.append(circle)
    return history, problems, marks, order


def _round_of_processes(
    plan: Plan, workloads: Sequence[Workload], factory: Factory, seed: int, seconds: float
) -> tuple[History, list[Problem], list[Mark], LockOrder]:
    """Run one store in several processes, so that running and checking take about this many seconds."""
    # Imported when used: nothing else needs multiprocessing.
    from latchstore.stress.processes.round import ProcessRound

    run = ProcessRound(
        shared_stores(factory, plan.store),
        workloads,
        plan.processes,
        plan.threads,
        plan.length_of_a_round,
        seed,
        plan.switch_interval,
        plan.faults,
        None if seconds == inf else _BEGINNING * seconds,
        plan.timeout,
    )
    try:
        history = run.run()
    except Exception:
        history = History(())
        run.problems.append(raised("crash", "outside of all operations"))
    return history, run.problems, run.marks, LockOrder()


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
