"""Reduces a failure: fewer calls, fewer threads, fewer switches.

Thread safety: used by one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from random import Random

from latchstore.stress.scheduler import Strategy
from latchstore.stress.shrinking import fewer_calls, fewer_switches, first_failure
from latchstore.stress.strategies import AtRandom, Priorities, Replay, schedule_of
from latchstore.stress.testing.execution import Run
from latchstore.stress.testing.program import Program

#: Seconds that the reduction may take at most: calls of a slow class are not made hundreds of times.
LONGEST = 10.0

#: Number of schedules after which a smaller program counts as not failing.
_TRIES = 40

#: The same for runs of native threads or tasks.
_RUNS = 50

#: Values of `depth` for `Priorities`, and the approximate points of a run.
_DEPTHS = (2, 3, 4)
_POINTS = (20, 60, 200, 600)

#: Points of the longest turn of `AtRandom`: operations of small classes have tens of points, others hundreds.
_LONGEST_TURNS = (30.0, 100.0, 300.0, 1_000.0)

#: Runs a program under a strategy, and records the steps if the third argument is true.
Runner = Callable[[Program, Strategy, bool], Run]


def strategy_of(chance: Random) -> Strategy:
    """Return a strategy, of a random kind."""
    own = Random(chance.random())  # noqa: S311 (nothing secret)
    if chance.random() < 0.5:
        return AtRandom(own, chance.choice(_LONGEST_TURNS))
    return Priorities(own, chance.choice(_DEPTHS), chance.choice(_POINTS))


def shrunk(program: Program, run: Run, runner: Runner, chance: Random, seconds: float) -> tuple[Program, Run]:
    """Return a smaller failing program with fewer switches, with its steps recorded."""
    deadline = time.monotonic() + seconds

    def failure_of(candidate: Program, before: Run) -> Run | None:
        strategies: Iterable[Strategy] = (
            Replay(schedule_of(before.turns)),
            *(strategy_of(chance) for _ in range(_TRIES)),
        )
        return first_failure((runner(candidate, strategy, False) for strategy in strategies), deadline)

    program, run = fewer_calls(program, run, failure_of, deadline)
    run = fewer_switches(run, lambda replay: runner(program, replay, False), deadline)
    again = runner(program, Replay(schedule_of(run.turns)), True)
    return program, again if again.failed else run


def shrunk_by_trying(
    program: Program, run: Run, runner: Callable[[Program], Run], seconds: float
) -> tuple[Program, Run]:
    """Return a smaller program that fails in one of several runs, which cannot be repeated exactly."""
    deadline = time.monotonic() + seconds

    def failure_of(candidate: Program, before: Run) -> Run | None:
        return first_failure((runner(candidate) for _ in range(_RUNS)), deadline)

    if run.native and run.stuck:
        return program, run
    return fewer_calls(program, run, failure_of, deadline)
