"""Tasks: the scheduler's view of the threads of a run.

Thread safety: as in ``scheduler.py``: the thread that has the turn may access everything.
"""

from __future__ import annotations

import _thread
import threading
from threading import get_ident
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from latchstore.stress.lock_order import NamedLock

if TYPE_CHECKING:
    from latchstore.stress.scheduler import Scheduler

#: The tasks by thread identifier; shows whether a thread is controlled.
TASKS: dict[int, Task] = {}


class TaskExit(BaseException):
    """Ends a thread when its run is over."""


class Turn(NamedTuple):
    """One turn of a task in a schedule.

    Attributes
    ----------
    task : int
    points : int
        Number of points in the turn.
    interrupted : bool
        Whether the task could have continued.
    ready : tuple of int
        The tasks that could have had the next turn.
    """

    task: int
    points: int
    interrupted: bool
    ready: tuple[int, ...]


class Task:
    """One thread of a run.

    Attributes
    ----------
    number : int
        Its number in schedules.
    shown : int
        Its number in reports.
    name : str
    waiting : object or None
        What it waits for; None if it can run.
    deadline : float or None
        In seconds of the run's clock.
    jumps : int
        Number of clock jumps to its deadline since a thread was last woken, started or ended.
    helper : bool
        Whether the code under test has started it, outside the bodies: it may poll forever.
    aside : bool
        Whether it blocks outside control, and gets no turn until it returns; only helpers.
    held : list of NamedLock
        The locks that it holds.
    in_order : list of NamedLock
        The held locks that count for the lock order: reader/writer locks as a whole, not their parts.
    """

    def __init__(self, scheduler: Scheduler, number: int, name: str) -> None:
        self.scheduler = scheduler
        self.number = number
        self.shown = number
        self.name = name
        self.waiting: object | None = None
        self.deadline: float | None = None
        self.timed_out = False
        self.asleep = False
        # Whether the run has continued, or ended, without it, as it blocks outside control.
        self.abandoned = False
        self.helper = False
        self.aside = False
        # Its points as a helper since its last wait.
        self.polled = 0
        self.jumps = 0
        # Points that its last sleep left to others, and the point at which it ended.
        self.nap = 0
        self.awake = 0
        self.done = False
        self.held: list[NamedLock] = []
        self.in_order: list[NamedLock] = []
        self.frame: FrameType | None = None
        # Released by the thread that passes the turn to this task, acquired by the task.
        self.gate: threading.Lock = _thread.allocate_lock()
        self.gate.acquire()
        self.refused = 0
        # The identifier of its thread in the operating system.
        self.native = 0

    @property
    def ready(self) -> bool:
        """Whether it can run."""
        return not self.done and self.waiting is None

    def __repr__(self) -> str:
        return f"<Task {self.number} {self.name}>"


def current_task() -> Task | None:
    """Return the task of the calling thread, if it is controlled."""
    return TASKS.get(get_ident())
