"""Looking for a schedule in which a store fails, and making the failure small.

Schedule number n of a search has a seed of its own, by `seed_of`, so any of them can be run again by itself,
and searches with neighbouring seeds have no schedule in common. Each share of the workloads has about as many
points as the others, so one of short operations has more schedules. The workloads of a share take turns.

Thread safety: one search at a time in a process.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, NamedTuple

from latchstore.stress.controlled import Laboratory, Program, Run
from latchstore.stress.result import LockEdge
from latchstore.stress.scheduler import Strategy
from latchstore.stress.shrinking import fewer_calls, fewer_switches, first_failure
from latchstore.stress.strategies import (
    AtRandom,
    Priorities,
    Replay,
    Schedule,
    WholeOperations,
    following_schedules,
    schedule_of,
    seed_of,
)
from latchstore.stress.tasks import Turn
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Workload, shares

Mode = Literal["random", "whole", "pct", "mixed", "exhaustive"]

#: Modes that take turns in a mixed search.
_MIXED: tuple[Mode, ...] = ("whole", "random", "whole", "random", "pct")

#: Seconds after which a failure is left as small as it is by then.
_SHRINKING = 60.0

#: Schedules that are tried before it is believed that a smaller program does not fail.
_TRIES = 40

#: What it takes to begin and end a run, in points.
_POINTS_OF_A_START = 2_000

#: Points of the longest turn at random are those of an operation, but so many at the least.
_SHORTEST = 20

#: How many operations each thread does in a schedule, if that is not said: so many that it has about so many
#: points, but within these bounds.
_POINTS_OF_A_SCHEDULE = 8_000
_FEWEST, _MOST = 4, 20

#: How many operations each thread has if all schedules are tried, and that is not said.
_EXHAUSTIVE = 2

#: Operations of each thread in the runs whose points are counted.
_MEASURED = 8

#: Orderings that `Priorities` looks for, in turn.
_DEPTHS = (2, 3, 4)


@dataclass(frozen=True)
class Settings:
    """How a search is made.

    Attributes
    ----------
    mode : str
        ``"random"``, ``"whole"`` (`WholeOperations`), ``"pct"`` (priorities that change at random),
        ``"mixed"`` (these in turn) or ``"exhaustive"``.
    threads : int
    operations : int or None
        How many operations each thread does in one schedule; None: see `operations_of`.
    seed : int
    preemptions : int
        In exhaustive mode: how often at most a thread loses its turn though it could go on.
    shrink : bool
        Whether a failure is made small.
    """

    mode: Mode = "pct"
    threads: int = 3
    operations: int | None = None
    seed: int = 0
    preemptions: int = 2
    shrink: bool = True

    def operations_of(self, size: Size) -> int:
        """Return how many operations each thread does: so many that a schedule is worth its start."""
        if self.operations is not None:
            return self.operations
        each = max(1.0, self.threads * size.of_an_operation)
        return max(_FEWEST, min(_MOST, round(_POINTS_OF_A_SCHEDULE / each)))


@dataclass
class Found:
    """What a search has found.

    Attributes
    ----------
    schedules, points, operations : int
        How many there were, of the search alone.
    length : int
        How many operations each thread did in the last schedule, before that was made small.
    program, run : Program and Run
        Those of the failure, made small, or of the last schedule.
    seed : int
        Of that schedule.
    mode : str
        Of that schedule.
    complete : bool
        Whether all schedules within the bounds were tried.
    lock_edges : dict
        Of all schedules.
    verdicts : dict
        Of all schedules, the worst of each checker, by workload and checker.
    """

    program: Program
    run: Run
    seed: int
    mode: Mode
    schedules: int = 0
    points: int = 0
    operations: int = 0
    length: int = 0
    complete: bool = False
    lock_edges: dict[tuple[str, str], LockEdge] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=dict)

    def count(self, program: Program, run: Run, mode: Mode) -> None:
        """Note one more run."""
        self.program, self.run, self.seed, self.mode = program, run, program.seed, mode
        self.schedules += 1
        self.points += run.points
        self.operations += program.size
        self.length = max(map(len, program.kept))
        known = self.verdicts.setdefault(program.workload.name, {})
        for check, verdict in run.verdicts.items():
            if check not in known or known[check].answer == "valid":
                known[check] = verdict
        for edge in run.lock_edges:
            self.lock_edges.setdefault((edge.held, edge.taken), edge)


def search(
    laboratory: Laboratory,
    workloads: Sequence[Workload],
    settings: Settings,
    enough: Callable[[Found], bool],
) -> Found:
    """Run schedules until one fails, or until it is enough; return the failure, made small.

    Parameters
    ----------
    laboratory : Laboratory
        Open.
    workloads : sequence of Workload
        Each has its turn.
    settings : Settings
    enough : callable
        Asked after each schedule; may show progress.
    """
    if settings.mode == "exhaustive":
        runs = _exhaustive(laboratory, workloads, settings)
    else:
        runs = _sampled(laboratory, workloads, settings)
    found: Found | None = None
    for program, run, mode in runs:
        if found is None:
            found = Found(program, run, program.seed, mode)
        found.count(program, run, mode)
        if run.failed:
            if settings.shrink and not run.blocked:
                found.program, found.run = shrunk(laboratory, program, run, replace(settings, mode=mode))
            return found
        if enough(found):
            return found
    assert found is not None, "there is at least one schedule"
    found.complete = True
    return found


class Size(NamedTuple):
    """About how many points there are."""

    of_a_run: int
    of_an_operation: float
    of_each: Mapping[str, float]

    def for_operations(self, number: int) -> Size:
        """Return the size of a run with so many operations."""
        return self._replace(of_a_run=max(1, int(number * self.of_an_operation)))


def size_of(run: Run) -> Size:
    """Return the size of runs like this one, in which the operations came one after the other."""
    lengths: dict[str, list[float]] = {}
    for operation in run.history.operations:
        if operation.end is not None:
            lengths.setdefault(operation.name, []).append((operation.end - operation.begin) / 1_000)
    everything = [length for each in lengths.values() for length in each]
    return Size(
        run.points,
        fmean(everything) if everything else 0.0,
        {name: fmean(each) for name, each in lengths.items()},
    )


def strategy_for(settings: Settings, seed: int, size: Size) -> Strategy:
    """Return the strategy of the schedule with a seed, for a run of about such a size."""
    chance = random.Random(f"schedule {seed}")  # noqa: S311 (nothing secret)
    longest = max(_SHORTEST, size.of_an_operation)
    if settings.mode == "random":
        return AtRandom(chance, longest)
    if settings.mode == "whole":
        return WholeOperations(chance, size.of_each, longest)
    return Priorities(chance, chance.choice(_DEPTHS), size.of_a_run)


def _sampled(
    laboratory: Laboratory, workloads: Sequence[Workload], settings: Settings
) -> Iterator[tuple[Program, Run, Mode]]:
    sizes: dict[str, Size] = {}
    every_share = shares(workloads)
    turns = [0] * len(every_share)
    spent = [0] * len(every_share)
    weights = [share[0].weight for share in every_share]
    for number in itertools.count():
        which = min(range(len(every_share)), key=lambda place: spent[place] / weights[place])
        share, turn = every_share[which], turns[which]
        workload = share[turn % len(share)]
        # The first runs import modules and fill caches, so they have other points; and they say how many.
        if workload.name not in sizes:
            program = Program.of(workload, 0, settings.threads, _MEASURED)
            sizes[workload.name] = [size_of(laboratory.run(program, Replay(()))) for _ in range(2)][1]
        seed = seed_of(settings.seed, number)
        mode = settings.mode
        if mode == "mixed":
            # Each workload has both, whatever the number of workloads is.
            mode = _MIXED[(which + turn // len(share)) % len(_MIXED)]
        size = sizes[workload.name]
        program = Program.of(workload, seed, settings.threads, settings.operations_of(size))
        strategy = strategy_for(replace(settings, mode=mode), seed, size.for_operations(program.size))
        run = laboratory.run(program, strategy)
        turns[which] += 1
        spent[which] += _POINTS_OF_A_START + run.points
        yield program, run, mode


def _exhaustive(
    laboratory: Laboratory, workloads: Sequence[Workload], settings: Settings
) -> Iterator[tuple[Program, Run, Mode]]:
    """Run all schedules without a preemption, then all with one, and so on; each of them once."""
    programs = [
        Program.of(workload, settings.seed, settings.threads, settings.operations or _EXHAUSTIVE)
        for workload in workloads
    ]
    for program in programs:
        laboratory.run(program, Replay(()))
    known: set[object] = set()
    frontier: Iterable[tuple[Program, Schedule]] = [(program, ()) for program in programs]
    for bound in range(settings.preemptions + 1):
        ran: list[tuple[Program, int, list[Turn]]] = []
        for program, beginning in frontier:
            waiting = [beginning]
            while waiting:
                schedule = waiting.pop()
                run = laboratory.run(program, Replay(schedule))
                yield program, run, "exhaustive"
                key = (program, schedule_of(run.turns))
                if key not in known:
                    known.add(key)
                    waiting.extend(following_schedules(len(schedule), run.turns, preempt=False))
                    if bound < settings.preemptions:
                        ran.append((program, len(schedule), run.turns))
        frontier = _with_one_preemption_more(ran)


def _with_one_preemption_more(
    ran: Iterable[tuple[Program, int, list[Turn]]],
) -> Iterator[tuple[Program, Schedule]]:
    for program, given, turns in ran:
        for following in following_schedules(given, turns, preempt=True):
            yield program, following


# -- making it small --------------------------------------------------------------------------------


def _beginning(laboratory: Laboratory, program: Program, run: Run, deadline: float) -> tuple[Program, Run]:
    """Return the program without what its threads do after the failure, which takes one run for each try."""
    shorter = True
    while shorter:
        shorter = False
        for candidate in program.beginnings():
            if time.monotonic() > deadline:
                return program, run
            again = laboratory.run(candidate, Replay(schedule_of(run.turns)))
            if again.failed:
                program, run, shorter = candidate, again, True
                break
    return program, run


def shrunk(laboratory: Laboratory, program: Program, run: Run, settings: Settings) -> tuple[Program, Run]:
    """Return a smaller program that fails, with fewer preemptions, its steps written down."""
    sampled = replace(settings, mode="pct") if settings.mode == "exhaustive" else settings

    def failure_of(candidate: Program, before: Run) -> Run | None:
        # One thread by itself always does the same.
        tries = _TRIES if sum(map(bool, candidate.kept)) > 1 else 0
        strategies: Iterable[Strategy] = (
            Replay(schedule_of(before.turns)),
            *(strategy_for(sampled, candidate.seed + number, size_of(before)) for number in range(tries)),
        )
        return first_failure(laboratory.run(candidate, strategy) for strategy in strategies)

    deadline = time.monotonic() + _SHRINKING
    program, run = _beginning(laboratory, program, run, deadline)
    program, run = fewer_calls(program, run, failure_of, deadline)
    if time.monotonic() < deadline:
        run = fewer_switches(run, lambda replay: laboratory.run(program, replay))
    again = laboratory.run(program, Replay(schedule_of(run.turns)), recording=True)
    return program, again if again.failed else run
