"""Searches for a schedule in which a store fails, and reduces the failure.

Schedule number n of a search has its own seed, by `seed_of`, so each can be repeated by itself, and searches
with neighbouring seeds share no schedule. Each share of the workloads has about as many points as the others,
so one with short operations has more schedules. The workloads of a share take turns.

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
    OneByOne,
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
_MIXED: tuple[Mode, ...] = ("whole", "random", "whole", "random", "whole", "random", "pct")

#: Seconds after which the reduction of a failure stops.
_SHRINKING = 60.0

#: Number of schedules after which a smaller program counts as not failing.
_TRIES = 40

#: The points of a run's begin and end.
_POINTS_OF_A_START = 2_000

#: The longest random turn has as many points as an operation, but at least this many.
_SHORTEST = 20

#: The default number of operations of each thread in a schedule gives it about this many points, within these
#: bounds, unless its workload has its own.
_POINTS_OF_A_SCHEDULE = 8_000
_FEWEST, _MOST = 4, 20

#: The default number of operations of each thread in an exhaustive search.
_EXHAUSTIVE = 2

#: The actions of each thread in the runs that count points: later ones, as the first are of few kinds.
_MEASURED = tuple(range(24, 28))

#: Actions of each thread among which one of each name is looked for.
_LOOKED_THROUGH = 60

#: Values of `depth` for `Priorities`, in turn.
_DEPTHS = (2, 3, 4)


@dataclass(frozen=True)
class Settings:
    """The settings of a search.

    Attributes
    ----------
    mode : str
        ``"random"``, ``"whole"`` (`WholeOperations`), ``"pct"`` (priorities that change at random),
        ``"mixed"`` (these in turn) or ``"exhaustive"``.
    threads : int
    operations : int or None
        Number of operations of each thread in one schedule; None: see `operations_of`.
    seed : int
    preemptions : int
        In exhaustive mode: maximum number of times that a thread loses its turn while it could continue.
    shrink : bool
        Whether to reduce a failure.
    """

    mode: Mode = "pct"
    threads: int = 3
    operations: int | None = None
    seed: int = 0
    preemptions: int = 2
    shrink: bool = True

    def operations_of(self, workload: Workload, size: Size) -> int:
        """Return the number of operations of each thread: enough to make up for the start of a run."""
        given = self.operations if self.operations is not None else workload.length
        if given is not None:
            return given
        each = max(1.0, self.threads * size.of_an_operation)
        return max(_FEWEST, min(_MOST, round(_POINTS_OF_A_SCHEDULE / each)))


@dataclass
class Found:
    """The result of a search.

    Attributes
    ----------
    schedules, points, operations : int
        Counts of the search, without the reduction.
    length : int
        Number of operations of each thread in the last schedule, before its reduction.
    program, run : Program and Run
        The reduced failure, or the last schedule.
    seed : int
        Seed of that schedule.
    mode : str
        Mode of that schedule.
    complete : bool
        Whether all schedules within the bounds were run.
    lock_edges : dict
        Those of all schedules.
    verdicts : dict
        The worst verdict of each checker over all schedules, by workload and checker.
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
        """Add one run."""
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
    """Run schedules until one fails, or `enough` returns true; return the reduced failure.

    Parameters
    ----------
    laboratory : Laboratory
        An open one.
    workloads : sequence of Workload
        They take turns.
    settings : Settings
    enough : callable
        Called after each schedule; may show progress.
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
    """Approximate numbers of points."""

    of_a_run: int
    of_an_operation: float
    of_each: Mapping[str, float]

    def for_operations(self, number: int) -> Size:
        """Return the size of a run with this many operations."""
        return self._replace(of_a_run=max(1, int(number * self.of_an_operation)))


def size_of(points: int, lengths: Mapping[str, Sequence[float]]) -> Size:
    """Return the size of runs like one with so many points, and operations of these lengths by name."""
    everything = [length for each in lengths.values() for length in each]
    return Size(
        points,
        fmean(everything) if everything else 0.0,
        {name: fmean(each) for name, each in lengths.items()},
    )


def measured(laboratory: Laboratory, workload: Workload, threads: int) -> Size:
    """Return the size of runs of a workload."""

    def run_of(kept: Sequence[Sequence[int]]) -> tuple[int, dict[str, list[int]]]:
        strategy = OneByOne()
        run = laboratory.run(Program(workload, 0, tuple(map(tuple, kept))), strategy)
        return run.points, strategy.lengths

    # The first run imports modules and fills caches, for which a thread is enough.
    run_of([_MEASURED[:2]])
    points, lengths = run_of([_MEASURED] * threads)
    # Operations of unknown length would be interrupted as if they were as long as the others are on average.
    kept = _one_of_each(workload, threads, set(lengths))
    others = run_of(kept)[1] if any(kept) else {}
    size = size_of(points, lengths)
    return size._replace(of_each={**size_of(0, others).of_each, **size.of_each})


def _one_of_each(workload: Workload, threads: int, known: set[str]) -> list[list[int]]:
    """Return for each thread the numbers of some of its first actions: in all, one of each name not known."""
    program = Program.of(workload, 0, threads, _LOOKED_THROUGH)
    kept: list[list[int]] = []
    for thread in range(threads):
        kept.append([])
        for number, action in enumerate(program.actions(thread)):
            if action.name not in known:
                known.add(action.name)
                kept[thread].append(number)
    return kept


def _size_of_failed(run: Run) -> Size:
    lengths: dict[str, list[float]] = {}
    for operation in run.history.operations:
        if operation.end is not None:
            lengths.setdefault(operation.name, []).append((operation.end - operation.begin) / 1_000)
    return size_of(run.points, lengths)


def strategy_for(settings: Settings, seed: int, size: Size) -> Strategy:
    """Return the strategy of the schedule with a seed, for a run of about this size."""
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
        if workload.name not in sizes:
            sizes[workload.name] = measured(laboratory, workload, settings.threads)
        seed = seed_of(settings.seed, number)
        mode = settings.mode
        if mode == "mixed":
            # Each workload gets both modes, whatever the number of workloads.
            mode = _MIXED[(which + turn // len(share)) % len(_MIXED)]
        size = sizes[workload.name]
        length = settings.operations_of(workload, size)
        program = Program.of(workload, seed, settings.threads, length)
        strategy = strategy_for(replace(settings, mode=mode), seed, size.for_operations(program.size))
        run = laboratory.run(program, strategy)
        turns[which] += 1
        spent[which] += _POINTS_OF_A_START + run.points
        yield program, run, mode


def _exhaustive(
    laboratory: Laboratory, workloads: Sequence[Workload], settings: Settings
) -> Iterator[tuple[Program, Run, Mode]]:
    """Run all schedules without preemption, then all with one, and so on; each schedule once."""
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


# -- reduction ----------------------------------------------------------------------------------------


def _beginning(laboratory: Laboratory, program: Program, run: Run, deadline: float) -> tuple[Program, Run]:
    """Return the program without actions after the failure, by one run for each attempt."""
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
    """Return a smaller failing program with fewer preemptions, with its steps recorded."""
    sampled = replace(settings, mode="pct") if settings.mode == "exhaustive" else settings

    def failure_of(candidate: Program, before: Run) -> Run | None:
        # A single thread always does the same.
        tries = _TRIES if sum(map(bool, candidate.kept)) > 1 else 0
        strategies: Iterable[Strategy] = (
            Replay(schedule_of(before.turns)),
            *(
                strategy_for(sampled, candidate.seed + number, _size_of_failed(before))
                for number in range(tries)
            ),
        )
        return first_failure(laboratory.run(candidate, strategy) for strategy in strategies)

    deadline = time.monotonic() + _SHRINKING
    program, run = _beginning(laboratory, program, run, deadline)
    program, run = fewer_calls(program, run, failure_of, deadline)
    if time.monotonic() < deadline:
        run = fewer_switches(run, lambda replay: laboratory.run(program, replay))
    again = laboratory.run(program, Replay(schedule_of(run.turns)), recording=True)
    return program, again if again.failed else run
