"""Threads that run one at a time and switch only where a strategy decides: a schedule that can be replayed.

Each thread of a run is a `Task`. The threads are real, but each waits at a gate of its own unless it has the
turn. While a task runs, the trace function of its thread is called before each bytecode (``sys.settrace``
with opcode events). Bytecodes at which threads can interact, such as loading an attribute or calling a
function, are *points*. At a point the strategy may pass the turn to another task. A task that must wait for a
lock, a queue or another thread passes its turn on by itself (``cooperative.py``).

The clock of a run counts points, a microsecond each, and jumps ahead when all tasks wait with a timeout; only
sleeps time out before that. So a run does not depend on the speed of the machine: the same strategy gives the
same run.

A thread may wait by polling: it checks, sleeps for a moment, and checks again. Each consecutive sleep lets
others run for longer, so that checks without a result do not fill the schedule.

Thread safety: the thread that has the turn may access everything here; passing the turn through the gates'
locks publishes the changes.
"""

from __future__ import annotations

import _thread
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from threading import get_ident
from types import CodeType, FrameType
from typing import Any, Protocol

from latchstore.contract.frames import frames_of_threads
from latchstore.stress.helper_turns import LONGEST_ASIDE, LOOKS_AT_HELPER, STEP_ASIDE, HelperTurns
from latchstore.stress.lock_order import LockOrder, frame_outside
from latchstore.stress.real_waits import LOOK_EVERY, RealWaitWatch, describe_wait
from latchstore.stress.recorder import StepRecorder
from latchstore.stress.result import Problem, Step
from latchstore.stress.standstill import Blocked, blocked_of, nobody_wakes, stuck_on_locks, table_of
from latchstore.stress.tasks import TASKS, Task, TaskExit, Turn
from latchstore.stress.tracing import Tracer

#: The duration of a point, in seconds of the run's clock.
_POINT = 1e-6

#: Points after which a run counts as hanging.
LIMIT = 300_000

#: The minimum points of others that a sleep allows: one for the first of consecutive sleeps, twice as many
#: for each further one, up to this number.
_LONGEST_NAP = 64

#: Points between two sleeps that count as consecutive.
_BETWEEN_NAPS = 100

#: How often the clock may jump to the deadline of each waiting thread without any effect.
_FRUITLESS_JUMPS = 500

#: How often a thread that must end may continue.
_PATIENCE = 50


class Strategy(Protocol):
    """Decides which thread gets the turn, and when."""

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        """Return one of the ready tasks; `running` is among them, or None if it cannot continue."""

    def next_choice(self, now: int) -> float:
        """Return the next point at which the strategy chooses, even if the running task can continue."""

    def operation_began(self, task: Task, name: str, now: int) -> float | None:
        """Return another end of the turn, as its task begins an operation; None: unchanged."""

    def operation_ended(self, task: Task, now: int) -> float | None:
        """Return another end of the turn, as its task has ended an operation; None: unchanged."""

    def at_lock(self, now: int) -> float | None:
        """Return another end of the turn, before a lock is acquired or after a release; None: unchanged."""

    def started(self, task: Task) -> None:
        """Get notified of a new task."""


class Scheduler(HelperTurns):
    """One run.

    Parameters
    ----------
    strategy : Strategy
    traced : callable
        Returns whether a code object is under test, so that threads may switch inside it.
    limit : int
        Points after which the run counts as hanging.
    recording : bool
        Whether to record the steps for reports, which takes time.
    """

    def __init__(
        self,
        strategy: Strategy,
        traced: Callable[[CodeType], bool],
        limit: int = LIMIT,
        recording: bool = False,
    ) -> None:
        self._strategy = strategy
        self._traced = traced
        self.tracer: Tracer = Tracer(self, traced)
        self._limit = limit
        #: Records the steps; None if there is no report.
        self.recorder: StepRecorder | None = (
            StepRecorder(self.frame_of, lambda: self._ticked) if recording else None
        )
        self._running: Task | None = None
        self._ending = False
        self.free: bool = True
        #: Whether threads started from now on are helpers.
        self.has_helpers: bool = False
        #: Number of open sections in which a task keeps its turn, such as imports.
        self.pinned: int = 0
        #: The next point at which the strategy chooses; the trace function reads it at each point.
        self.next_choice: float = inf
        # The same, ignoring threads that are set aside: while there is one, every point is a choice.
        self._due: float = inf
        # Released when the last task has ended; a raw lock, as Event is made cooperative.
        self._finished = _thread.allocate_lock()
        # Always held: acquiring it with a timeout is a real sleep.
        self._pause = _thread.allocate_lock()
        self._pause.acquire()
        self._jumped = 0.0
        self._ticked = 0
        self._turn_began = 0
        self.tasks: list[Task] = []
        self.now: int = 0
        self.problem: Problem | None = None
        self.lock_order: LockOrder = LockOrder()
        self.locks: list[Any] = []
        self.turns: list[Turn] = []
        #: The threads that had not ended at the last call of `table`: when the run failed.
        self.blocked: list[Blocked] = []
        #: If set, called where CPython may raise an exception from outside; injects faults.
        self.at_check: Callable[[Task], None] | None = None

    # -- the run ----------------------------------------------------------------------------------

    def run(self, body: Callable[[], None], timeout: float = 60.0) -> bool:
        """Run a body as the first task, with all threads that it starts; return whether it ended.

        Parameters
        ----------
        body : callable
            Runs without switches until `release` is called.
        timeout : float
            Seconds of real time after which the run is abandoned. A thread that blocks outside control is
            abandoned much sooner.
        """
        task = self.adopt("main")
        thread = threading.Thread(target=self.control, args=(task, body), daemon=True)
        self._running = task
        self._finished.acquire()
        task.gate.release()
        thread.start()
        ended = self._watch(timeout)
        if ended and not task.abandoned:
            thread.join(timeout)
        return ended

    def _watch(self, timeout: float) -> bool:
        """Wait for the end; end the run if a thread blocks outside control."""
        watch = RealWaitWatch()
        for _ in range(max(1, int(timeout / LOOK_EVERY))):
            if self._finished.acquire(timeout=LOOK_EVERY):
                return True
            running = self._running
            ident = None if running is None else self.ident_of(running)
            if running is None or ident is None:
                continue
            if running.helper and self.can_set_aside(running):
                if watch.is_blocked(ident, running.native, self.now, LOOKS_AT_HELPER):
                    self.set_aside(running)
            elif watch.is_blocked(ident, running.native, self.now):
                others = {
                    f"thread {each.shown}": self.ident_of(each) for each in self.tasks if each is not running
                }
                text = describe_wait(f"thread {running.shown}", ident, self.frame_of(running), others)
                self.problem = self.problem or Problem("blocked", f"{text}\n{self.table()}")
                return self._abandon(running, timeout)
        running = self._running
        if running is not None:
            self._abandon(running, 0.0)
        return False

    def _abandon(self, task: Task, timeout: float) -> bool:
        """End the run without a task that cannot be ended; return whether all others have ended."""
        task.abandoned = True
        self._ending = True
        self.next_choice = -1
        logging.disable(logging.CRITICAL)
        # If it continues, it ends at its next point. Setting an exception in it (PyThreadState_SetAsyncExc)
        # would make all traced threads hang on Python 3.11 until it continues.
        left = self._left()
        if left:
            self._running = left[0]
            left[0].gate.release()
            return self._finished.acquire(timeout=timeout)
        return True

    def ident_of(self, task: Task) -> int | None:
        """Return the identifier of the thread of a task."""
        return next((ident for ident, each in list(TASKS.items()) if each is task), None)

    def _left(self) -> list[Task]:
        return [each for each in self.tasks if not (each.done or each.abandoned)]

    def release(self) -> None:
        """Let the strategy choose from now on."""
        self.free = False
        self._turn_began = self.now
        self._end_turn_at(self._strategy.next_choice(self.now))

    def hold(self) -> None:
        """Let tasks switch only where they must."""
        self.free = True
        self._ask_at(inf)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep other tasks from running, unless the calling one blocks."""
        self.pinned += 1
        try:
            yield
        finally:
            self.pinned -= 1

    def adopt(self, name: str) -> Task:
        """Make a task for a thread that is about to start and will call `control`."""
        task = Task(self, len(self.tasks), name)
        task.helper = self.has_helpers
        self.tasks.append(task)
        self._note_change()
        self._strategy.started(task)
        return task

    def control(self, task: Task, body: Callable[[], None]) -> None:
        """Run a body in the calling thread, as a task."""
        TASKS[get_ident()] = task
        task.native = threading.get_native_id()
        task.gate.acquire()
        try:
            if not self._ending:
                self.tracer.start(task)
                body()
        except TaskExit:
            pass
        finally:
            sys.settrace(None)
            del TASKS[get_ident()]
            task.frame = None
            task.done = True
            self._leave(task)

    def _leave(self, task: Task) -> None:
        """Pass the turn on for good."""
        if task.abandoned:
            return  # the other tasks are ending
        if task.number == 0:
            self._ending = True
            for each in self.tasks:
                each.abandoned = each.abandoned or each.aside  # such tasks end at their next point
        self._note_change()
        self.wake(task)
        left = self._left()
        if self._ending and left:
            # Suppress logs of operations that are interrupted now.
            logging.disable(logging.CRITICAL)
        if not left:
            self._finished.release()
        elif self._ending:
            # The tasks end one after the other.
            self._hand_over(task, left[0], wait=False)
        else:
            try:
                following = self._choose_other(task)
            except TaskExit:
                following = left[0]
            self._hand_over(task, following, wait=False)

    # -- turns ------------------------------------------------------------------------------------

    def point(self, task: Task) -> None:
        """Let the strategy pass the turn to another task, if this is a point of choice."""
        self.now += 1
        if self.now >= self.next_choice:
            self.ask(task)

    def ask(self, task: Task) -> None:
        """Let the strategy pass the turn to another task, at a point of choice."""
        if task.abandoned and not task.helper:
            raise TaskExit
        if task.abandoned:
            self.refuse_once(task)
        elif task.aside:
            self.come_back(task)
        if task.abandoned or self._ending or self.free or self.pinned or self.now < self._due:
            return
        if self.now > self._limit:
            self.fail(Problem("hang", f"no end after {self._limit:,} points\n{self.table()}"))
        if self.now >= self._doubt_at and (stuck := self._lasting_circle()):
            self.fail(Problem("deadlock", f"{stuck}\n{self.table()}"))
        clock = self.clock()
        for each in self.tasks:
            if each.asleep and each.deadline is not None and each.deadline <= clock:
                self._time_out(each)
        chosen = self._fair(task, self._strategy.choose(task, self.ready()))
        self._end_turn_at(self._strategy.next_choice(self.now))
        if chosen is not task:
            self._hand_over(task, chosen)

    def wait(self, task: Task, what: object, timeout: float | None) -> bool:
        """Wait until `wake` is called for an object; return whether that was before the timeout."""
        # hot path: of a traced thread, each of the following calls takes five times as long.
        sys.settrace(None)
        try:
            if task.aside:
                self.come_back(task)
            self._refuse_if_ending(task)
            if timeout is None and (stuck := self._closed_circle(task, what)):
                task.waiting = what
                self.fail(Problem("deadlock", f"{stuck}\n{self.table()}"))
            task.polled = 0
            task.waiting = what
            task.deadline = None if timeout is None or timeout < 0 else self.clock() + timeout
            task.timed_out = False
            chosen = self._choose_other(task)
            if chosen is not task:
                self._hand_over(task, chosen)
            task.waiting = None
            task.deadline = None
            return not task.timed_out
        finally:
            self.tracer.start(task)

    def sleep(self, task: Task, seconds: float) -> None:
        """Let others run for some time, and for longer if the task only sleeps."""
        in_a_row = self.now - task.awake <= _BETWEEN_NAPS
        task.nap = min(2 * task.nap, _LONGEST_NAP) if in_a_row and task.nap else 1
        task.asleep = True
        try:
            self.wait(task, "its sleep to end", max(seconds, task.nap * _POINT))
        finally:
            task.asleep = False
        task.awake = self.now

    def wake(self, what: object) -> None:
        """Let all tasks that wait for an object continue."""
        for each in self.tasks:
            if each.waiting is what:
                each.waiting = None
                each.deadline = None
                self._note_change()

    def _note_change(self) -> None:
        for each in self.tasks:
            each.jumps = 0

    def clock(self, reading: float = 0.0) -> float:
        """Return the time of the run, in seconds, after that of reading it."""
        self._jumped += reading
        return self.now * _POINT + self._jumped

    def tick(self) -> int:
        """Return a time later than all before, in nanoseconds on the clock of the run."""
        self._ticked = max(self._ticked + 1, int(self.clock() * 10**9))
        return self._ticked

    @property
    def steps(self) -> list[Step]:
        """The recorded steps; empty without recording."""
        return [] if self.recorder is None else self.recorder.steps

    def _choose_other(self, task: Task) -> Task:
        """Return the next task when one cannot continue; advance the clock if none can."""
        ready = self.ready()
        asides = int(LONGEST_ASIDE / STEP_ASIDE)
        while not ready:
            sleepers = any(each.asleep for each in self.tasks)
            if asides and not sleepers and any(each.aside for each in self.tasks):
                asides -= 1
                self._pause.acquire(timeout=STEP_ASIDE)
            else:
                self._pass_time(task)
            ready = self.ready()
        return self._chosen_of(ready)

    def _pass_time(self, task: Task) -> None:
        """Jump to the first deadline.

        It is a deadlock if there is none, or if locks can never be released. A thread that waits with a
        timeout repeatedly, without letting another thread continue, depends on another one that has a
        deadline; if that holds for all of them, it is a deadlock as well.
        """
        stuck = stuck_on_locks(self.tasks)
        deadlines = {each: each.deadline for each in self.tasks if each.deadline is not None}
        first = [deadline for each, deadline in deadlines.items() if each.jumps < _FRUITLESS_JUMPS]
        if deadlines and not first:
            numbers = ", ".join(str(each.shown) for each in deadlines)
            repeatedly = f"threads wait repeatedly for something that no thread does: {numbers}"
            stuck = stuck_on_locks(self.tasks, certain=False) or repeatedly
        if stuck or not first:
            self.fail(Problem("deadlock", f"{stuck or nobody_wakes(self.tasks)}\n{self.table()}"))
        self._jumped += max(0.0, min(first) - self.clock())
        clock = self.clock()
        for each, deadline in deadlines.items():
            if deadline <= clock:
                each.jumps += 1
                self._time_out(each)

    def _hand_over(self, task: Task, chosen: Task, wait: bool = True) -> None:
        self._end_turn(task)
        self._running = chosen
        chosen.gate.release()
        if wait:
            task.gate.acquire()
            self._refuse_if_ending(task)

    def _end_turn(self, task: Task) -> None:
        if not self.free:
            points, self._turn_began = self.now - self._turn_began, self.now
            could = tuple([each.number for each in self.ready()])
            self.turns.append(Turn(task.number, points, task.ready, could))
            if self.recorder is not None:
                self.recorder.end_turn(task)

    def _refuse_if_ending(self, task: Task) -> None:
        if not self._ending:
            return
        task.refused += 1
        if task.refused > _PATIENCE:
            # It will not end. The thread is abandoned, and the others end.
            task.done = True
            self._leave(task)
            task.gate.acquire()
        raise TaskExit

    # -- failures ----------------------------------------------------------------------------------

    def fail(self, problem: Problem) -> None:
        """End the run with a problem; called by the thread that has the turn."""
        if self.problem is None:
            self.problem = problem
        if not self._ending:
            self._ending = True
            # Suppress logs of operations that are interrupted now.
            logging.disable(logging.CRITICAL)
        raise TaskExit

    def table(self) -> str:
        """Return a table of held locks and waits; store it in `blocked`.

        While the bodies run the first task only waits for them.
        """
        shown = (task for task in self.tasks if not task.done and (task.number or self.free))
        self.blocked = [blocked_of(task, self.frame_of(task)) for task in shown]
        return table_of(self.blocked)

    def kept_locks(self) -> Problem | None:
        """Return a problem if an ended thread still holds a lock."""
        for lock in self.locks:
            holder = lock.holder
            if holder is not None and holder.done and not lock.for_waiting:
                text = f"thread {holder.shown} ended without releasing the lock made at {lock.label}"
                return Problem("deadlock", text)
        return None

    # -- reports -----------------------------------------------------------------------------------

    def frame_of(self, task: Task) -> FrameType | None:
        """Return the innermost frame of a task in the code under test."""
        ident = self.ident_of(task)
        innermost = None if ident is None else frames_of_threads().get(ident)
        frame = innermost
        while frame is not None and not self._traced(frame.f_code):
            frame = frame.f_back
        return frame or frame_outside(innermost)
