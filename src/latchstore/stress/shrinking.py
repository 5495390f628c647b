"""Reduces a failing program: fewer calls, fewer threads, fewer switches.

Thread safety: used by one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Protocol, Self, TypeVar

from latchstore.stress.strategies import Replay, schedule_of
from latchstore.stress.tasks import Turn


class Shrinkable(Protocol):
    """The program of a run's threads."""

    def smaller(self) -> Iterator[Self]:
        """Yield programs with something omitted, the largest omissions first."""


class Outcome(Protocol):
    """The outcome of a run."""

    @property
    def failed(self) -> bool: ...

    @property
    def turns(self) -> list[Turn]: ...


P = TypeVar("P", bound=Shrinkable)
R = TypeVar("R", bound=Outcome)


def fewer_calls(
    program: P, run: R, failure_of: Callable[[P, R], R | None], deadline: float = inf
) -> tuple[P, R]:
    """Return the smallest failing program found, and its run.

    Parameters
    ----------
    program, run : object
        The failing program and its run.
    failure_of : callable
        Called with a smaller program and the last failing run; returns a failing run of it, or None.
    deadline : float
        When to stop, in monotonic seconds.
    """
    smaller = True
    while smaller:
        smaller = False
        for candidate in program.smaller():
            if time.monotonic() > deadline:
                return program, run
            failure = failure_of(candidate, run)
            if failure is not None:
                program, run, smaller = candidate, failure, True
                break
    return program, run


def fewer_switches(run: R, again: Callable[[Replay], R], deadline: float = inf) -> R:
    """Remove interruptions of threads one after the other, as long as the run fails.

    Parameters
    ----------
    run : object
        The failing run.
    again : callable
        Runs the same program with a given schedule.
    deadline : float
        When to stop, in monotonic seconds.
    """
    place = 0
    while place < len(run.turns) and time.monotonic() < deadline:
        if run.turns[place].interrupted:
            schedule = list(schedule_of(run.turns))
            schedule[place] = (schedule[place][0], None)
            candidate = again(Replay(tuple(schedule)))
            if candidate.failed and _interruptions(candidate) < _interruptions(run):
                run = candidate
                continue
        place += 1
    return run


def first_failure(runs: Iterable[R], deadline: float = inf) -> R | None:
    """Return the first failing run before the deadline, if any; later ones are not made."""
    for run in runs:
        if run.failed:
            return run
        if time.monotonic() > deadline:
            break
    return None


def _interruptions(run: Outcome) -> int:
    return sum(turn.interrupted for turn in run.turns)
