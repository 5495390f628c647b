"""Strategies, which pass the turn: at random, by priorities, as recorded, or systematically.

`Priorities` is the scheduler of Burckhardt, Kothari, Musuvathi and Nagarakatte, "A randomized scheduler with
probabilistic guarantees of finding bugs" (ASPLOS 2010, section 3): of n threads with k points, each run
finds a bug that needs d orderings with a probability of at least 1 / (n * k ** (d - 1)). The bound on
preemptions of `following_schedules` is that of Musuvathi and Qadeer, "Iterative context bounding for
systematic testing of multithreaded programs" (PLDI 2007, section 2).

Thread safety: as in ``scheduler.py``: called by the thread that has the turn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import inf, log10

from latchstore.stress.tasks import Task, Turn

#: Task numbers, each with its number of points; without a number the task runs until it cannot continue.
Schedule = tuple[tuple[int, int | None], ...]

#: Number of operations of a whole turn: one of these, with equal probability.
_OPERATIONS = (1, 1, 1, 2)

#: Turns end at a lock after at most two to the power of this many points at locks.
_LOCKS = 4


def seed_of(first: int, number: int) -> int:
    """Return the seed of schedule or round `number` of a run with a seed: that seed first, then hashes."""
    if not number:
        return first
    return int.from_bytes(blake2b(f"{first} {number}".encode(), digest_size=6).digest(), "big")


class _Planned:
    """A strategy whose turns end where it has planned, whatever happens meanwhile."""

    def started(self, task: Task) -> None:
        """Do nothing."""

    def operation_began(self, task: Task, name: str, now: int) -> float | None:
        """Do nothing."""
        return None

    def operation_ended(self, task: Task, now: int) -> float | None:
        """Do nothing."""
        return None

    def at_lock(self, now: int) -> float | None:
        """Do nothing."""
        return None


class AtRandom(_Planned):
    """Turns of random lengths and random tasks, with lengths spread over orders of magnitude.

    A race needs one thread to stop at one of a few points, and another to get far meanwhile. So the
    logarithms of the lengths are uniformly distributed, from one point to the longest turn.

    Parameters
    ----------
    chance : random.Random
    longest : float
        Points of the longest turn: a few operations' worth, or operations are seldom interrupted.
    """

    def __init__(self, chance: random.Random, longest: float = 1_000.0) -> None:
        self._chance = chance
        self._magnitude = log10(longest)

    def next_choice(self, now: int) -> float:
        """Return the end of the turn."""
        return now + int(10 ** self._chance.uniform(0, self._magnitude))

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return a random task other than the running one, if there is one."""
        others = [task for task in ready if task is not running]
        return self._chance.choice(others) if others else ready[0]


class WholeOperations(_Planned):
    """One thread stops in the middle of an operation, and another completes whole ones before it continues.

    Most torn reads, lost updates and lost wake-ups need that, and turns of random lengths seldom do it. So
    turns that end at a random point of an operation alternate with turns that end with an operation. Short
    operations are interrupted at least as often as long ones. Half of these turns end earlier if a lock is
    about to be acquired or was released: what was read under one lock, or under none, may be outdated when
    the next one is held.

    Parameters
    ----------
    chance : random.Random
    lengths : mapping
        Approximate points of an operation, by its name.
    default : float
        Approximate points of any other operation.
    """

    def __init__(self, chance: random.Random, lengths: Mapping[str, float], default: float) -> None:
        self._chance = chance
        self._lengths = lengths
        self._default = default
        # Whether long operations are interrupted less often: others may have to wait for a stopped writer.
        self._sparing = chance.random() < 0.5
        # The present operation of each task; none between two operations.
        self._operations: dict[Task, str] = {}
        self._running: Task | None = None
        # Whether the turn is one of whole operations, and how many are left in it.
        self._whole = True
        self._waits = False
        self._left = 0
        # The number of points at locks until the turn ends; 0 if it does not end at a lock.
        self._locks = 0

    def next_choice(self, now: int) -> float:
        """Return the end of a turn that ends within the present operation; others end with an operation."""
        if not self._waits:
            self._whole = not self._whole
        operation = None if self._running is None else self._operations.get(self._running)
        # The end of an operation that was stopped before does not count.
        self._left = self._chance.choice(_OPERATIONS) + (operation is not None)
        self._locks = 0
        return inf if self._whole or operation is None else self._end_within(operation, now)

    def _end_within(self, operation: str, now: int) -> float:
        self._locks = int(2 ** self._chance.uniform(0, _LOCKS)) if self._chance.random() < 0.5 else 0
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
        self._locks = 0
        if self._whole:
            return now if self._left <= 0 else None
        return inf

    def at_lock(self, now: int) -> float | None:
        """Return the present if the turn ends with this point."""
        if not self._locks:
            return None
        self._locks -= 1
        return None if self._locks else now

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return a random task other than the running one, if there is one."""
        # A task that must wait, for a stopped writer, leaves its kind of turn to the next one.
        self._waits = running is None
        others = [task for task in ready if task is not running]
        self._running = self._chance.choice(others) if others else ready[0]
        return self._running


class Priorities(_Planned):
    """The ready task with the highest priority runs; at a few random points the running one gets the lowest.

    Parameters
    ----------
    chance : random.Random
    depth : int
        Number of orderings that a bug may need, 2 to 4 for most: there are ``depth - 1`` points of change.
    points : int
        Approximate points of a run.
    """

    def __init__(self, chance: random.Random, depth: int, points: int) -> None:
        self._chance = chance
        self._changes = sorted(chance.randrange(1, max(2, points)) for _ in range(depth - 1))
        self._lowest = 0.0
        self._priorities: dict[Task, float] = {}
        self._due = False
        self._begun: int | None = None

    def started(self, task: Task) -> None:
        """Assign a priority to a task."""
        self._priorities[task] = 1 + self._chance.random()

    def next_choice(self, now: int) -> float:
        """Return the next point of change."""
        if self._begun is None:
            self._begun = now
        while self._changes and self._changes[0] + self._begun <= now:
            self._changes.pop(0)
        return self._changes[0] + self._begun if self._changes else inf

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return the task with the highest priority, after lowering that of the running one."""
        if running is not None:
            self._lowest -= 1
            self._priorities[running] = self._lowest
        return max(ready, key=self._priorities.__getitem__)


class Replay(_Planned):
    """Recorded turns; after them each task runs as long as it can, in the order of their numbers.

    Parameters
    ----------
    schedule : sequence of pairs
        The number of a task and its number of points; None: until it cannot continue.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._turns = list(schedule)
        self._length: int | None = None
        self._begun = False

    def next_choice(self, now: int) -> float:
        """Return the end of the turn."""
        if not self._begun:
            # The first turn is that of the task that started the others.
            self._begun = True
            self._length = self._turns.pop(0)[1] if self._turns else None
        return inf if self._length is None else now + self._length

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return the task of the next turn that is possible."""
        numbers = {task.number: task for task in ready}
        while self._turns:
            number, self._length = self._turns.pop(0)
            if number in numbers:
                return numbers[number]
        self._length = None
        return ready[0]


class OneByOne(Replay):
    """Each task runs as long as it can; the points of each operation are counted.

    Only those of its own task count: neither those of others while it waits, nor the time of a sleep.

    Attributes
    ----------
    lengths : dict
        The points of the operations of each name.
    """

    def __init__(self) -> None:
        super().__init__(())
        self.lengths: dict[str, list[int]] = {}
        self._running: Task | None = None
        self._before: Task | None = None
        self._since = 0
        # The points of each task in its earlier turns; the open operations, with those before them.
        self._points: Counter[Task | None] = Counter()
        self._open: dict[Task, tuple[str, int]] = {}

    def next_choice(self, now: int) -> float:
        """Return the end of the turn."""
        self._points[self._before] += now - self._since
        self._since = now
        return super().next_choice(now)

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return the next task."""
        self._before, self._running = self._running, super().choose(running, ready)
        return self._running

    def operation_began(self, task: Task, name: str, now: int) -> None:
        """Note the begin of an operation."""
        self._open[task] = name, self._points[task] + now - self._since

    def operation_ended(self, task: Task, now: int) -> None:
        """Note the points of the operation that has ended."""
        name, begin = self._open.pop(task)
        self.lengths.setdefault(name, []).append(self._points[task] + now - self._since - begin)


def schedule_of(turns: Sequence[Turn]) -> Schedule:
    """Return the schedule that repeats these turns."""
    return tuple((turn.task, turn.points if turn.interrupted else None) for turn in turns)


def following_schedules(given: int, turns: Sequence[Turn], preempt: bool) -> Iterator[Schedule]:
    """Return the schedules that equal a run up to some point, and then differ.

    Parameters
    ----------
    given : int
        Number of turns that were given; after them, each task ran as long as it could.
    turns : sequence of Turn
        All turns of the run.
    preempt : bool
        Whether they differ by a task that loses its turn while it could continue, or by the next task when
        one cannot continue.
    """
    schedule = schedule_of(turns)
    for place in range(max(0, given - 1), len(turns)):
        turn = turns[place]
        if turn.task == 0:
            continue  # the task that started the others only waits for them
        following = turns[place + 1].task if place + 1 < len(turns) else None
        if not preempt:
            for other in turn.ready:
                if other not in (following, turn.task):
                    yield (*schedule[: place + 1], (other, None))
        else:
            # Tasks that could have had the turn, or became ready in it.
            ready = {*turns[place - 1].ready, *turn.ready} - {turn.task, 0}
            # A switch comes before the bytecode of a point, so the last point counts.
            for points in range(1, turn.points + 1):
                for other in sorted(ready):
                    yield (*schedule[:place], (turn.task, points), (other, None))
