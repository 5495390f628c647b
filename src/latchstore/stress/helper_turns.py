"""Turns of helpers: threads that the code under test has started by itself, and that may poll for ever.

A *helper*, a thread that the code under test has started by itself, may poll as long as its store is there:
without ever waiting, or by waits that are not under control, such as a read of a socket with a timeout. So
it gives its turn away before and after the bodies as well. If it waits in earnest, it is set aside, others go
on, and it waits for its turn when it comes back. From then on a run depends on real time.

Thread safety: as in ``scheduler.py``, and as told of `HelperTurns.set_aside`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from latchstore.stress.tasks import Task, TaskExit

if TYPE_CHECKING:
    from latchstore.stress.scheduler import Strategy

#: Points without a wait after which a helper sleeps, and seconds of the clock of a run for which it does.
#: More points than a thread needs for what it has waited for, such as to call a listener: one that slept in
#: the middle of that would meet no writer in the middle of a commit.
_HELPER_TURN, _HELPER_SLEEP = 2_000, 1e-3

#: Looks at a helper after which it is set aside.
LOOKS_AT_HELPER = 1

#: Seconds of real time for which threads that cannot go on wait for helpers that are set aside, and in which
#: steps.
LONGEST_ASIDE, STEP_ASIDE = 1.0, 0.001

#: What a helper waits for that is set aside.
_IN_EARNEST = "what is not under control"


class HelperTurns:
    """What a scheduler does about helpers, and how it finds who is next."""

    free: bool
    pinned: int
    tasks: list[Task]
    next_choice: float
    now: int
    _due: float
    _ending: bool
    _jumped: float
    _limit: int
    _running: Task | None
    _strategy: Strategy

    def point_of_helper(self, task: Task) -> None:
        """Let others go on if a helper has had many points, even if nobody is asked who is next."""
        if task.abandoned:
            self.refuse_once(task)
            return
        if task.aside:
            self.come_back(task)
        if not self.free:
            self.point(task)
        task.polled += 1
        if task.polled >= _HELPER_TURN and not (self.pinned or self._ending):
            self.sleep(task, _HELPER_SLEEP)

    def refuse_once(self, task: Task) -> None:
        """End a helper whose run is over; what it does to end is done undisturbed."""
        task.refused += 1
        if task.refused == 1:
            raise TaskExit

    def can_set_aside(self, task: Task) -> bool:
        """Tell whether another thread can go on, now or in time, while a helper waits."""
        others = [each for each in self.tasks if each is not task]
        return not self._ending and any(each.ready or each.deadline is not None for each in others)

    def set_aside(self, task: Task) -> None:
        """Let others go on while a helper waits in earnest; called by the thread that watches the run."""
        task.aside = True
        task.waiting = _IN_EARNEST
        self._end_turn(task)
        if not any(each.ready for each in self.tasks):
            deadlines = {each: each.deadline for each in self.tasks if each.deadline is not None}
            first = min(deadlines, key=lambda each: deadlines[each])
            self._jumped += max(0.0, deadlines[first] - self.clock())
            self._time_out(first)
        chosen = self._chosen_of([each for each in self.tasks if each.ready])
        self._running = chosen
        chosen.gate.release()

    def come_back(self, task: Task) -> None:
        """Have a helper that was set aside wait for its turn."""
        task.aside = False
        task.waiting = None
        task.gate.acquire()
        self._refuse_if_ending(task)

    # -- who is next ------------------------------------------------------------------------------

    def _ask_at(self, point: float) -> None:
        """Have the strategy asked at a point, and threads that come back from being set aside at any."""
        self._due = point
        self.next_choice = -1 if any(each.aside for each in self.tasks) else point

    def begin_operation(self, task: Task, name: str) -> None:
        """Tell the strategy of an operation, that may want another end of the turn."""
        self._end_turn_at(self._strategy.operation_began(task, name, self.now))

    def end_operation(self, task: Task) -> None:
        """Tell the strategy of the end of an operation, which is a point: the next one has not begun yet."""
        self._end_turn_at(self._strategy.operation_ended(task, self.now))
        self.point(task)

    def _end_turn_at(self, end: float | None) -> None:
        if end is not None and not self.free:
            self._ask_at(min(end, self._limit + 1))

    def _chosen_of(self, ready: Sequence[Task]) -> Task:
        """Return who is next when the running task cannot go on."""
        if self.free:
            self._ask_at(inf)
            return ready[0]
        self.pinned += 1  # what the strategy calls may be under test
        chosen = self._strategy.choose(None, ready)
        self.pinned -= 1
        self._ask_at(min(self._strategy.next_choice(self.now), self._limit + 1))
        return chosen

    def _time_out(self, task: Task) -> None:
        task.waiting = None
        task.deadline = None
        task.timed_out = True

    # -- of the scheduler -------------------------------------------------------------------------

    @abstractmethod
    def point(self, task: Task) -> None: ...

    @abstractmethod
    def sleep(self, task: Task, seconds: float) -> None: ...

    @abstractmethod
    def clock(self) -> float: ...

    @abstractmethod
    def _end_turn(self, task: Task) -> None: ...

    @abstractmethod
    def _refuse_if_ending(self, task: Task) -> None: ...
