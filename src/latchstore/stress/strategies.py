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
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import inf, log10

from latchstore.stress.tasks import Task, Turn

#: Which task runs, and for how many points; without a number until it cannot go on.
Schedule = tuple[tuple[int, int | None], ...]

#: How many operations a turn of whole ones has: one of these, each as likely.
_OPERATIONS = (1, 1, 1, 2)


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

    def operation_began(self, task: Task, name: str, now: int) -> None:
        """Not of interest."""

    def operation_ended(self, task: Task, now: int) -> None:
        """Not of interest."""

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return any task but the one that is running, if there is another."""
        others = [task for task in ready if task is not running]
        return self._chance.choice(others) if others else ready[0]


class WholeOperations:
    """One thread stops in the middle of an operation, and another does whole ones before it goes on.

    That is what most torn reads, lost updates and lost wake-ups need, and what turns that are all of random
    lengths seldom do. So turns that end at a random point of an operation alternate with turns that end with
    an operation. A short operation is interrupted as often as a long one, or more often.

    Parameters
    ----------
    chance : random.Random
    lengths : mapping
        About how many points an operation has, by its name.
    default : float
        How many points one has that is not among them.
    """

    def __init__(self, chance: random.Random, lengths: Mapping[str, float], default: float) -> None:
        self._chance = chance
        self._lengths = lengths
        self._default = default
        # Whether long operations are interrupted less often: others may have to wait for a writer that stops.
        self._sparing = chance.random() < 0.5
        # What each task is doing; nothing between two operations.
        self._operations: dict[Task, str] = {}
        self._running: Task | None = None
        # Whether the turn is one of whole operations, and how many it still has.
        self._whole = True
        self._waits = False
        self._left = 0

    def started(self, task: Task) -> None:
        """Not of interest."""

    def next_choice(self, now: int) -> float:
        """Return the end of a turn that ends within the operation under way; others end with one."""
        if not self._waits:
            self._whole = not self._whole
        operation = None if self._running is None else self._operations.get(self._running)
        # The end of one that was stopped before is none of them.
        self._left = self._chance.choice(_OPERATIONS) + (operation is not None)
        return inf if self._whole or operation is None else self._end_within(operation, now)

    def _end_within(self, operation: str, now: int) -> float:
        return now + 1 + self._chance.uniform(0, self._lengths.get(operation, self._default))

    def operation_began(self, task: Task, name: str, now: int) -> float | None:
        """Return the end of a turn that ends within this operation."""
        self._operations[task] = name
        length = self._lengths.get(name, self._default)
        if self._whole or (self._sparing and self._chance.random() * length > self._default):
            return None
        return self._end_within(name, now)

    def operation_ended(self, task: Task, now: int) -> float | None:
        """Return the present if the turn ends with this operation."""
        self._operations.pop(task, None)
        self._left -= 1
        if self._whole:
            return now if self._left <= 0 else None
        return inf

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return any task but the one that is running, if there is another."""
        # Who has to wait, for a writer that was stopped, leaves its kind of turn to the next.
        self._waits = running is None
        others = [task for task in ready if task is not running]
        self._running = self._chance.choice(others) if others else ready[0]
        return self._running


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

    def operation_began(self, task: Task, name: str, now: int) -> None:
        """Not of interest."""

    def operation_ended(self, task: Task, now: int) -> None:
        """Not of interest."""

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

    def operation_began(self, task: Task, name: str, now: int) -> None:
        """Not of interest."""

    def operation_ended(self, task: Task, now: int) -> None:
        """Not of interest."""

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
