"""Who gets the turn: at random, by priorities, as written down before, or each in turn.

`Priorities` is the scheduler of Burckhardt, Kothari, Musuvathi and Nagarakatte, "A randomized scheduler with
probabilistic guarantees of finding bugs" (ASPLOS 2010, section 3): of n threads with k points, each run
finds a bug that needs d orderings with a probability of at least 1 / (n * k ** (d - 1)). The bound on
preemptions of `following_schedules` is that of Musuvathi and Qadeer, "Iterative context bounding for
systematic testing of multithreaded programs" (PLDI 2007, section 2).

Thread safety: as in ``scheduler.py``: called by whoever has the turn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import inf, log10

from latchstore.stress.tasks import Task, Turn

#: Which task runs, and for how many points; without a number until it cannot go on.
Schedule = tuple[tuple[int, int | None], ...]


def seed_of(first: int, number: int) -> int:
    """Return the seed of schedule or round `number` of a run that was given a seed: that one, then hashes."""
    if not number:
        return first
    return int.from_bytes(blake2b(f"{first} {number}".encode(), digest_size=6).digest(), "big")


class AtRandom:
    """Turns of random lengths, and whoever comes then: as many short ones as long ones.

    A race needs one thread to stop at one of a few points, and another to get far meanwhile. So the lengths
    are spread evenly over the orders of magnitude, from one point to the longest.

    Parameters
    ----------
    chance : random.Random
    longest : float
        Points of the longest turn: some operations' worth, or few of them are ever interrupted.
    """

    def __init__(self, chance: random.Random, longest: float = 1_000.0) -> None:
        self._chance = chance
        self._magnitude = log10(longest)

    def started(self, task: Task) -> None:
        """Not of interest."""

    def next_choice(self, now: int) -> float:
        """Return the end of the turn."""
        return now + int(10 ** self._chance.uniform(0, self._magnitude))

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return any task but the one that is running, if there is another."""
        others = [task for task in ready if task is not running]
        return self._chance.choice(others) if others else ready[0]


class Priorities:
    """The task with the highest priority runs; at a few random points the running one's becomes the lowest.

    Parameters
    ----------
    chance : random.Random
    depth : int
        How many orderings a bug may need, 2 to 4 for most: there are ``depth - 1`` points of change.
    points : int
        About how many points a run has.
    """

    def __init__(self, chance: random.Random, depth: int, points: int) -> None:
        self._chance = chance
        self._changes = sorted(chance.randrange(1, max(2, points)) for _ in range(depth - 1))
        self._lowest = 0.0
        self._priorities: dict[Task, float] = {}
        self._due = False
        self._begun: int | None = None

    def started(self, task: Task) -> None:
        """Give a task its priority."""
        self._priorities[task] = 1 + self._chance.random()

    def next_choice(self, now: int) -> float:
        """Return the next point of change."""
        if self._begun is None:
            self._begun = now
        while self._changes and self._changes[0] + self._begun <= now:
            self._changes.pop(0)
        return self._changes[0] + self._begun if self._changes else inf

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return the one with the highest priority, the running one's lowered before."""
        if running is not None:
            self._lowest -= 1
            self._priorities[running] = self._lowest
        return max(ready, key=self._priorities.__getitem__)


class Replay:
    """Turns that were written down; after them each task runs as long as it can, the first one first.

    Parameters
    ----------
    schedule : sequence of pairs
        The number of a task, and for how many points it runs; None: until it cannot go on.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._turns = list(schedule)
        self._length: int | None = None
        self._begun = False

    def started(self, task: Task) -> None:
        """Not of interest."""

    def next_choice(self, now: int) -> float:
        """Return the end of the turn."""
        if not self._begun:
            # The first turn is that of the task that has started the others.
            self._begun = True
            self._length = self._turns.pop(0)[1] if self._turns else None
        return inf if self._length is None else now + self._length

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return the task of the next turn that can be taken."""
        numbers = {task.number: task for task in ready}
        while self._turns:
            number, self._length = self._turns.pop(0)
            if number in numbers:
                return numbers[number]
        self._length = None
        return ready[0]


def schedule_of(turns: Sequence[Turn]) -> Schedule:
    """Return the schedule that gives the same turns again."""
    return tuple((turn.task, turn.points if turn.interrupted else None) for turn in turns)


def following_schedules(given: int, turns: Sequence[Turn], preempt: bool) -> Iterator[Schedule]:
    """Return the schedules that are like a run up to some point, and then differ.

    Parameters
    ----------
    given : int
        How many of the turns were given; beyond them, each task ran as long as it could.
    turns : sequence of Turn
        All turns of the run.
    preempt : bool
        Whether they differ by a task that loses its turn though it could go on, or by who comes next when a
        task cannot go on.
    """
    schedule = schedule_of(turns)
    for place in range(max(0, given - 1), len(turns)):
        turn = turns[place]
        if turn.task == 0:
            continue  # the task that has started the others, and only waits for them
        following = turns[place + 1].task if place + 1 < len(turns) else None
        if not preempt:
            for other in turn.ready:
                if other not in (following, turn.task):
                    yield (*schedule[: place + 1], (other, None))
        else:
            # Those that could have had the turn themselves, or have become ready in it.
            ready = {*turns[place - 1].ready, *turn.ready} - {turn.task, 0}
            # The switch comes before the bytecode of a point, so the last point counts too.
            for points in range(1, turn.points + 1):
                for other in sorted(ready):
                    yield (*schedule[:place], (turn.task, points), (other, None))
