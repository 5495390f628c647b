"""The threads of a run, as the scheduler sees them.

Thread safety: as in ``scheduler.py``: whoever has the turn may touch everything.
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

#: The tasks by the identifiers of their threads; how a thread finds out whether it is controlled.
TASKS: dict[int, Task] = {}


class TaskExit(BaseException):
    """Ends a thread when its run is over."""


class Turn(NamedTuple):
    """One turn of a task in a schedule.

    Attributes
    ----------
    task : int
    points : int
        How many points it had.
    interrupted : bool
        Whether the task could have gone on.
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
        That of schedules.
    shown : int
        The number by which people know the thread.
    name : str
    waiting : object or None
        What it waits for; None if it can run.
    deadline : float or None
        On the clock of the run: seconds.
    jumps : int
        How often the clock has jumped to its deadline since a thread was last woken, started or ended.
    helper : bool
        Whether the code under test has started it, as no part of what is tried: it may poll for ever.
    aside : bool
        Whether it waits in earnest and is not to have a turn until it comes back; of helpers.
    held : list of NamedLock
        The locks that it has taken and not given back.
    in_order : list of NamedLock
        Those that count for the order of locks: reader/writer locks as a whole, not their parts.
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
        # Whether the run has gone on, or ended, without it, as it waits in earnest.
        self.abandoned = False
        self.helper = False
        self.aside = False
        # Points that it has had as a helper since it has last waited.
        self.polled = 0
        self.jumps = 0
        # Points that its last sleep was to let others have, and the point at which that ended.
        self.nap = 0
        self.awake = 0
        self.done = False
        self.held: list[NamedLock] = []
        self.in_order: list[NamedLock] = []
        self.frame: FrameType | None = None
        # Released by whoever gives the turn to this task, acquired by itself.
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
    """Return the task that the calling thread is, if it is controlled."""
    return TASKS.get(get_ident())
