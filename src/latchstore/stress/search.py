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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
    following_schedules,
    schedule_of,
    seed_of,
)
from latchstore.stress.tasks import Turn
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import Workload, shares

Mode = Literal["random", "pct", "mixed", "exhaustive"]

#: Modes that take turns in a mixed search.
_MIXED: tuple[Mode, ...] = ("random", "pct", "random")

#: Seconds after which a failure is left as small as it is by then.
_SHRINKING = 60.0

#: Schedules that are tried before it is believed that a smaller program does not fail.
_TRIES = 40

#: What it takes to begin and end a run, in points.
_POINTS_OF_A_START = 2_000

#: Points of the longest turn at random are those of an operation, but so many at the least.
_SHORTEST = 20

#: Orderings that `Priorities` looks for, in turn.
_DEPTHS = (2, 3, 4)


@dataclass(frozen=True)
class Settings:
    """How a search is made.

    Attributes
    ----------
    mode : str
        ``"random"``, ``"pct"`` (priorities that change at random), ``"mixed"`` (both in turn) or
        ``"exhaustive"``.
    threads, operations : int
        How many threads, and how many operations each of them does in one schedule.
    seed : int
    preemptions : int
        In exhaustive mode: how often at most a thread loses its turn though it could go on.
    shrink : bool
        Whether a failure is made small.
    """

    mode: Mode = "pct"
    threads: int = 3
    operations: int = 3
    seed: int = 0
    preemptions: int = 2
    shrink: bool = True


@dataclass
class Found:
    """What a search has found.

    Attributes
    ----------
    schedules, points, operations : int
        How many there were, of the search alone.
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
    complete: bool = False
    lock_edges: dict[tuple[str, str], LockEdge] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=dict)

    def count(self, program: Program, run: Run, mode: Mode) -> None:
        """Note one more run."""
        self.program, self.run, self.seed, self.mode = program, run, program.seed, mode
        self.schedules += 1
        self.points += run.points
        self.operations += program.size
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


def size_of(run: Run) -> Size:
    """Return the size of runs like this one, in which the operations came one after the other."""
    operations = run.history.operations
    ends = [operation.begin if operation.end is None else operation.end for operation in operations]
    nanoseconds = max(ends, default=0) - min((operation.begin for operation in operations), default=0)
    return Size(run.points, nanoseconds / 1_000 / max(1, len(operations)))


def strategy_for(settings: Settings, seed: int, size: Size) -> Strategy:
    """Return the strategy of the schedule with a seed, for a run of about such a size."""
    chance = random.Random(f"schedule {seed}")  # noqa: S311 (nothing secret)
    if settings.mode == "random":
        return AtRandom(chance, max(_SHORTEST, size.of_an_operation))
    return Priorities(chance, chance.choice(_DEPTHS), size.of_a_run)


def _sampled(
    laboratory: Laboratory, workloads: Sequence[Workload], settings: Settings
) -> Iterator[tuple[Program, Run, Mode]]:
    sizes: dict[str, Size] = {}
    every_share = shares(workloads)
    turns = [0] * len(every_share)
    spent = [0] * len(every_share)
    for number in itertools.count():
        which = min(range(len(every_share)), key=spent.__getitem__)
        share, turn = every_share[which], turns[which]
        workload = share[turn % len(share)]
        # The first runs import modules and fill caches, so they have other points; and they say how many.
        if workload.name not in sizes:
            program = Program.of(workload, 0, settings.threads, settings.operations)
            sizes[workload.name] = [size_of(laboratory.run(program, Replay(()))) for _ in range(2)][1]
        seed = seed_of(settings.seed, number)
        mode = settings.mode
        if mode == "mixed":
            # Each workload has both, whatever the number of workloads is.
            mode = _MIXED[(which + turn // len(share)) % len(_MIXED)]
        program = Program.of(workload, seed, settings.threads, settings.operations)
        strategy = strategy_for(replace(settings, mode=mode), seed, sizes[workload.name])
        run = laboratory.run(program, strategy)
        turns[which] += 1
        spent[which] += _POINTS_OF_A_START + run.points
        yield program, run, mode


def _exhaustive(
    laboratory: Laboratory, workloads: Sequence[Workload], settings: Settings
) -> Iterator[tuple[Program, Run, Mode]]:
    """Run all schedules without a preemption, then all with one, and so on; each of them once."""
    programs = [
        Program.of(workload, settings.seed, settings.threads, settings.operations) for workload in workloads
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


def shrunk(laboratory: Laboratory, program: Program, run: Run, settings: Settings) -> tuple[Program, Run]:
    """Return a smaller program that fails, with fewer preemptions, its steps written down."""
    sampled = replace(settings, mode="pct") if settings.mode == "exhaustive" else settings

    def failure_of(candidate: Program, before: Run) -> Run | None:
        strategies: Iterable[Strategy] = (
            Replay(schedule_of(before.turns)),
            *(strategy_for(sampled, candidate.seed + number, size_of(before)) for number in range(_TRIES)),
        )
        return first_failure(laboratory.run(candidate, strategy) for strategy in strategies)

    deadline = time.monotonic() + _SHRINKING
    program, run = fewer_calls(program, run, failure_of, deadline)
    if time.monotonic() < deadline:
        run = fewer_switches(run, lambda replay: laboratory.run(program, replay))
    again = laboratory.run(program, Replay(schedule_of(run.turns)), recording=True)
    return program, again if again.failed else run
