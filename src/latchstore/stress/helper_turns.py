"""Turns of helpers: threads that the code under test has started by itself.

A *helper* may poll as long as its store exists: without ever waiting, or by waits outside control, such as
reading a socket with a timeout. So it also passes its turn on before and after the bodies. If it blocks
outside control, it is set aside: others continue, and it waits for its turn when it returns. From then on a
run depends on real time.

Thread safety: as in ``scheduler.py``, and as documented at `HelperTurns.set_aside`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from latchstore.stress.standstill import circle_of_locks
from latchstore.stress.tasks import Task, TaskExit

if TYPE_CHECKING:
    from latchstore.stress.scheduler import Strategy

#: Points without a wait after which a helper sleeps, and the length of that sleep in seconds of the run's
#: clock. More points than a thread needs for one piece of work, such as calling a listener: if it slept in
#: the middle of that, it would meet no writer in the middle of a commit.
_HELPER_TURN, _HELPER_SLEEP = 2_000, 1e-3

#: Points after which a thread passes its turn on whatever the strategy plans: it may spin until another one
#: has done something.
LONGEST_TURN = 20_000

#: Points for which threads may wait for each other's locks while others go on: any thread may release a lock,
#: as the last reader releases what the first one has acquired.
_DOUBT = 10_000

#: Checks of a waiting helper after which it is set aside.
LOOKS_AT_HELPER = 1

#: Seconds of real time for which threads that cannot continue wait for helpers that are set aside, and the
#: step of that wait.
LONGEST_ASIDE, STEP_ASIDE = 1.0, 0.001

#: What a helper that was set aside waits for, in reports.
_IN_EARNEST = "something outside control"


class HelperTurns:
    """The scheduler's handling of helpers, and its choice of the next task."""

    free: bool
    pinned: int
    tasks: list[Task]
    next_choice: float
    now: int
    _due: float
    #: The point at which threads that wait for each other's locks still do so if it is a deadlock.
    _doubt_at: float = inf
    _ending: bool
    _jumped: float
    _limit: int
    _running: Task | None
    _strategy: Strategy
    _turn_began: int

    def point_of_helper(self, task: Task) -> None:
        """Let others continue if a helper has had many points, even where the strategy is not consulted."""
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
        """End a helper whose run is over; its clean-up runs undisturbed."""
        task.refused += 1
        if task.refused == 1:
            raise TaskExit

    def can_set_aside(self, task: Task) -> bool:
        """Return whether another thread can continue, now or later, while a helper waits."""
        others = [each for each in self.tasks if each is not task]
        return not self._ending and any(each.ready or each.deadline is not None for each in others)

    def set_aside(self, task: Task) -> None:
        """Let others continue while a helper blocks outside control; called by the watching thread."""
        task.aside = True
        task.waiting = _IN_EARNEST
        self._end_turn(task)
        if not self.ready():
            deadlines = {each: each.deadline for each in self.tasks if each.deadline is not None}
            first = min(deadlines, key=lambda each: deadlines[each])
            self._jumped += max(0.0, deadlines[first] - self.clock())
            self._time_out(first)
        chosen = self._chosen_of(self.ready())
        self._running = chosen
        chosen.gate.release()

    def come_back(self, task: Task) -> None:
        """Make a helper that was set aside wait for its turn."""
        task.aside = False
        task.waiting = None
        task.gate.acquire()
        self._refuse_if_ending(task)

    # -- the next task -----------------------------------------------------------------------------

    def ready(self) -> list[Task]:
        """Return the tasks that can run."""
        # hot path: the conditions of `Task.ready`, without a call for each task.
        return [each for each in self.tasks if each.waiting is None and not each.done]

    def _ask_at(self, point: float) -> None:
        """Let the strategy choose at a point; at every point while a thread is set aside."""
        self._due = point
        self.next_choice = -1 if True in [each.aside for each in self.tasks] else point

    def begin_operation(self, task: Task, name: str) -> None:
        """Notify the strategy of the begin of an operation; it may change the end of the turn."""
        self._end_turn_at(self._strategy.operation_began(task, name, self.now))

    def end_operation(self, task: Task) -> None:
        """Notify the strategy of the end of an operation, a point at which the next one has not begun yet."""
        self._end_turn_at(self._strategy.operation_ended(task, self.now))
        self.point(task)

    def point_at_lock(self, task: Task) -> None:
        """Have a point before the acquisition of a lock, or after its release."""
        if not self.free:
            self._end_turn_at(self._strategy.at_lock(self.now))
        self.point(task)

    def _end_turn_at(self, end: float | None) -> None:
        if end is not None and not self.free:
            self._ask_at(min(end, self.now + LONGEST_TURN, self._doubt_at, self._limit + 1))

    def _fair(self, task: Task, chosen: Task) -> Task:
        """Return the chosen task, or another one if the running one would have the turn for too long."""
        if chosen is not task or self.now - self._turn_began < LONGEST_TURN:
            return chosen
        ready = self.ready()
        return ready[(ready.index(task) + 1) % len(ready)]

    def _closed_circle(self, task: Task, what: object) -> str:
        """Return the circle of locks that a wait closes, as text; empty if another thread may open it.

        That one has some time for it: see `_lasting_circle`.
        """
        stuck = circle_of_locks(task, what, owned=True)
        if not stuck and self._doubt_at == inf and circle_of_locks(task, what, owned=False):
            self._doubt_at = self.now + _DOUBT
        return stuck

    def _lasting_circle(self) -> str:
        """Return a circle of locks that no thread has opened for long, as text."""
        self._doubt_at = inf
        found = (circle_of_locks(each, each.waiting, owned=False) for each in self.tasks)
        return next(filter(None, found), "")

    def _chosen_of(self, ready: Sequence[Task]) -> Task:
        """Return the next task when the running one cannot continue."""
        if self.free:
            self._ask_at(inf)
            return ready[0]
        self.pinned += 1  # the strategy may call code under test
        chosen = self._strategy.choose(None, ready)
        self.pinned -= 1
        self._end_turn_at(self._strategy.next_choice(self.now))
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
    def clock(self, reading: float = 0.0) -> float: ...

    @abstractmethod
    def _end_turn(self, task: Task) -> None: ...

    @abstractmethod
    def _refuse_if_ending(self, task: Task) -> None: ...
