"""Locks, queues, threads and clocks that the scheduler controls, in place of the system's.

During a search, the blocking functions of the standard library are replaced by name in all imported modules;
in the modules under test also where they are attributes of classes or defaults of parameters, together with
locks that these modules made before (``standing.py``). Threads that are not controlled get real locks under
any name. Conditions, events, semaphores, barriers, timers, queues and executors are written in Python on top
of these, so the scheduler controls them as well.

Thread safety: as in ``scheduler.py``: the thread that has the turn may access everything.
"""

from __future__ import annotations

import _thread
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, GenericAlias, ModuleType
from typing import Any, cast

from latchstore.delivery.waiting import Bell, clock
from latchstore.stress.lock_order import NamedLock, maker_of, note_handles
from latchstore.stress.scheduler import Scheduler
from latchstore.stress.standing import replace_standing
from latchstore.stress.substitution import substituted
from latchstore.stress.tasks import Task, current_task

_Lock = _thread.allocate_lock
_SimpleQueue = queue.SimpleQueue


class _Outside(threading.local):
    """The calling thread as the holder of locks while it is not controlled: before, after or beside a run."""

    def __init__(self) -> None:
        self.task = Task(cast("Scheduler", None), -1, "outside of the run")


_outside = _Outside()


class _Real(threading.local):
    """Whether this thread runs code of ``threading`` itself, whose locks stay real."""

    wanted = False


_real = _Real()


def _note(task: Task, lock: NamedLock, blocking: bool = True) -> list[NamedLock]:
    # A lock acquired without blocking is never waited for, so it needs no place in the lock order.
    if blocking:
        task.scheduler.lock_order.note(f"thread {task.shown}", task.in_order, lock)
    task.in_order.append(lock)
    return task.in_order


def _begin(lock: NamedLock) -> list[NamedLock] | None:
    task = current_task()
    return None if task is None else _note(task, lock)


class CooperativeLock:
    """Replaces ``threading.Lock``; excludes threads that are not controlled from each other as well.

    Attributes
    ----------
    holder : Task or None
        The task that holds it.
    label : str
        Where it was made.
    owner : object
        The reader/writer lock that it is a part of, otherwise itself.
    for_waiting : bool
        Whether a Condition or code of this package uses it to wait: then its holder is not responsible for
        the wait.
    """

    only_holder_releases = False  # any thread can release it

    def __init__(
        self, task: Task | None, label: str, owner: object | None = None, for_waiting: bool = False
    ) -> None:
        self.holder: Task | None = None
        self._real = _Lock()  # for threads that are not controlled: code may keep the locks of a run
        self.for_waiting = for_waiting
        self.label = label
        self.owner: object = self if owner is None else owner
        # The handles of a reader/writer lock record its lock order, so its parts do not.
        self._noted = not for_waiting and not (owner and note_handles(owner, self.label, _begin))
        if task is not None and not for_waiting:
            task.scheduler.locks.append(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock; let others run until it is free."""
        task = current_task()
        if task is None:
            return self._acquire_outside(blocking, timeout)
        scheduler = task.scheduler
        scheduler.point_at_lock(task)
        deadline = None if timeout < 0 else scheduler.clock() + timeout
        while self.holder is not None:
            left = None if deadline is None else deadline - scheduler.clock()
            if not blocking or (left is not None and left <= 0):
                return False
            if not scheduler.wait(task, self, left):
                return False
        self.holder = task
        if not self.for_waiting:
            task.held.append(self)
        if self._noted:
            _note(task, self, blocking)
        return True

    def release(self) -> None:
        """Release the lock; any thread may."""
        holder, self.holder = self.holder, None
        if holder is None:
            raise RuntimeError("release unlocked lock")
        if holder.number < 0:
            self._real.release()
        else:
            if not self.for_waiting:
                holder.held.remove(self)
            if self._noted:
                holder.in_order.remove(self)
            holder.scheduler.wake(self)
        task = current_task()
        if task is not None:
            task.scheduler.point_at_lock(task)

    def locked(self) -> bool:
        """Return whether the lock is held."""
        return self.holder is not None

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()

    def forget(self) -> None:
        """Become free, whoever held the lock: the run of that task is over."""
        self.holder = None
        self._real = _Lock()

    def _at_fork_reinit(self) -> None:
        self.forget()

    def _acquire_outside(self, blocking: bool, timeout: float) -> bool:
        """Acquire the lock for a thread that is not controlled, while no thread of a run executes."""
        holder = self.holder
        if holder is not None and holder.number >= 0:
            if blocking and timeout < 0:
                raise RuntimeError(f"the lock made at {self.label} is held by {holder!r}, which has stopped")
            return False
        if not self._real.acquire(blocking, timeout):
            return False
        self.holder = _outside.task
        return True


class CooperativeRLock(CooperativeLock):
    """Replaces ``threading.RLock``."""

    only_holder_releases = True

    def __init__(self, task: Task | None, label: str) -> None:
        super().__init__(task, label)
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        task = current_task() or _outside.task
        acquired = self.holder is task or super().acquire(blocking, timeout)
        self._count += acquired
        return acquired

    __enter__ = acquire

    def release(self) -> None:
        if self.holder is not (current_task() or _outside.task):
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            super().release()

    def forget(self) -> None:
        super().forget()
        self._count = 0

    # The methods that a Condition requires.

    def _is_owned(self) -> bool:
        return self.holder is (current_task() or _outside.task)

    def _recursion_count(self) -> int:
        return self._count if self._is_owned() else 0

    def _release_save(self) -> int:
        count, self._count = self._count, 0
        super().release()
        return count

    def _acquire_restore(self, count: int) -> None:
        super().acquire()
        self._count = count


class CooperativeQueue:
    """Replaces ``queue.SimpleQueue``."""

    def __init__(self) -> None:
        # Threads that are not controlled wait in it.
        self._items: _SimpleQueue[Any] = _SimpleQueue()

    def __repr__(self) -> str:
        return "an item in a queue"

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an item; never blocks."""
        self._items.put(item)
        task = current_task()
        if task is not None:
            task.scheduler.wake(self)
            task.scheduler.point(task)

    put_nowait = put

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Remove the first item; let others run until there is one."""
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        task = current_task()
        if task is None:
            return self._items.get(block, timeout)
        scheduler = task.scheduler
        scheduler.point(task)
        deadline = None if timeout is None else scheduler.clock() + timeout
        while self._items.empty() and block:
            left = None if deadline is None else max(0.0, deadline - scheduler.clock())
            if not scheduler.wait(task, self, left):
                break
        return self._items.get(False)

    def get_nowait(self) -> Any:
        """Remove the first item, if there is one."""
        return self.get(False)

    def empty(self) -> bool:
        """Return whether the queue is empty."""
        return self._items.empty()

    def qsize(self) -> int:
        """Return the number of items."""
        return self._items.qsize()


# -- replacements of the standard library's functions --------------------------------------------------


def _controlled() -> Task | None:
    return None if _real.wanted else current_task()


class _Kind(type):
    """Metaclass of the replacement of a class, or of a function that makes objects.

    The replacement is a class, so it is not bound as a method when it is a class attribute, and it works in
    annotations. In threads that are not controlled, a call makes a real object.
    """

    kinds: tuple[type, ...] = ()

    def __call__(cls, *args: Any, **options: Any) -> Any:
        task = _controlled()
        # The frame of the code that makes the object.
        return cls.real(*args, **options) if task is None else cls.make(task, sys._getframe(1))

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.kinds)

    def real(cls, *args: Any, **options: Any) -> Any:
        """Make a real object."""
        raise NotImplementedError

    def make(cls, task: Task, frame: FrameType) -> Any:
        """Make a cooperative object."""
        raise NotImplementedError


class _LockKind(_Kind):
    kinds = (_thread.LockType, CooperativeLock)

    def real(cls, *args: Any, **options: Any) -> Any:
        return _thread.allocate_lock()

    def make(cls, task: Task, frame: FrameType) -> Any:
        if isinstance(frame.f_locals.get("self"), Bell):
            return CooperativeLock(task, "a bell", for_waiting=True)
        owner, label = maker_of(frame)
        return CooperativeLock(task, label, owner)


class _RLockKind(_Kind):
    kinds = (_thread.RLock, CooperativeRLock)

    def real(cls, *args: Any, **options: Any) -> Any:
        return _thread.RLock(*args, **options)

    def make(cls, task: Task, frame: FrameType) -> Any:
        return CooperativeRLock(task, maker_of(frame)[1])


class _SimpleQueueKind(_Kind):
    kinds = (_SimpleQueue, CooperativeQueue)

    def real(cls, *args: Any, **options: Any) -> Any:
        return _SimpleQueue(*args, **options)

    def make(cls, task: Task, frame: FrameType) -> Any:
        return CooperativeQueue()


class Lock(metaclass=_LockKind):
    """Replaces the class ``threading.Lock``."""


class RLock(metaclass=_RLockKind):
    """Replaces ``threading.RLock``."""


class SimpleQueue(metaclass=_SimpleQueueKind):
    """Replaces the class ``queue.SimpleQueue``."""

    __class_getitem__: Any = classmethod(GenericAlias)


def _waiter() -> Any:
    task = _controlled()
    return _Lock() if task is None else CooperativeLock(task, "a condition", for_waiting=True)


def _sleep(seconds: float) -> None:
    task = current_task()
    if task is None:
        _REAL_TIMES["sleep"](seconds)
    else:
        task.scheduler.sleep(task, seconds)


#: Seconds that code under test needs to read a clock, as it may read it until a moment has come.
_READING = 1e-6


def _clock(name: str, unit: float | int, start: float | int) -> Callable[[], Any]:
    real = _REAL_TIMES[name]

    def read() -> Any:
        task = current_task()
        return real() if task is None else start + type(unit)(task.scheduler.clock(_READING) * unit)

    return read


_REAL_TIMES: dict[str, Callable[..., Any]] = {
    name: getattr(time, name)
    for name in ("sleep", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
}
_START = 1_700_000_000

_init, _start, _join = threading.Thread.__init__, threading.Thread.start, threading.Thread.join


@contextmanager
def _real_locks() -> Iterator[None]:
    _real.wanted = True
    try:
        yield
    finally:
        _real.wanted = False


def _thread_init(thread: threading.Thread, *args: Any, **options: Any) -> None:
    with _real_locks():
        _init(thread, *args, **options)


def _thread_start(thread: threading.Thread) -> None:
    caller = current_task()
    started: threading.Event = thread._started  # type: ignore[attr-defined]
    if caller is None or started.is_set():
        _start(thread)
        return
    # The new thread sets it before it is controlled, so it must be a real event.
    with _real_locks():
        thread._started = threading.Event()  # type: ignore[attr-defined]
    started.set()  # a subclass in the store may hold a lock until then
    task = caller.scheduler.adopt(thread.name)
    body = thread.run
    thread.run = lambda: caller.scheduler.control(task, body)  # type: ignore[method-assign]
    thread._task = task  # type: ignore[attr-defined]
    try:
        with _real_locks():
            _start(thread)
    except RuntimeError:
        task.done = True  # the system can start no thread, so no thread will pass the turn on
        raise
    caller.scheduler.point(caller)


def _thread_join(thread: threading.Thread, timeout: float | None = None) -> None:
    caller, task = current_task(), getattr(thread, "_task", None)
    if caller is None or task is None:
        _join(thread, timeout)
        return
    while not task.done:
        if not caller.scheduler.wait(caller, task, timeout):
            return
    with _real_locks():
        _join(thread)


def _replacements() -> list[tuple[object, object]]:
    """Return each original and its replacement."""
    return [
        (_Lock, Lock),
        (threading.Lock, Lock),
        (threading.RLock, RLock),
        (_thread.RLock, RLock),
        (_SimpleQueue, SimpleQueue),
        (_REAL_TIMES["sleep"], _sleep),
        (_REAL_TIMES["time"], _clock("time", 1.0, float(_START))),
        (_REAL_TIMES["time_ns"], _clock("time_ns", 10**9, _START * 10**9)),
        (_REAL_TIMES["monotonic"], _clock("monotonic", 1.0, 0.0)),
        (_REAL_TIMES["monotonic_ns"], _clock("monotonic_ns", 10**9, 0)),
        (clock, _clock("monotonic", 1.0, 0.0)),
        (_REAL_TIMES["perf_counter"], _clock("perf_counter", 1.0, 0.0)),
        (_REAL_TIMES["perf_counter_ns"], _clock("perf_counter_ns", 10**9, 0)),
    ]


#: Replacements of locks that existed before the runs.
_standing: list[CooperativeLock] = []


def _stand_in(lock: Any, name: str) -> Any:
    """Return the replacement of a lock or queue that the code under test has made before."""
    if isinstance(lock, _SimpleQueue):
        queue_of_run = CooperativeQueue()
        for _ in range(lock.qsize()):
            item = lock.get_nowait()
            lock.put(item)
            queue_of_run.put(item)
        return queue_of_run
    if repr(lock).startswith("<locked"):
        return None
    new = (CooperativeRLock if isinstance(lock, _thread.RLock) else CooperativeLock)(None, name)
    _standing.append(new)
    return new


def _real_one(stand_in: Any, name: str) -> Any:
    """Return the real object for a replacement that a module made while it was imported."""
    if isinstance(stand_in, CooperativeQueue):
        return _SimpleQueue()
    return _thread.RLock() if isinstance(stand_in, CooperativeRLock) else _thread.allocate_lock()


def begin_run(scheduler: Scheduler) -> None:
    """Free locks that are older than the run, as an interrupted run may have left them held."""
    for lock in _standing:
        lock.forget()
    scheduler.locks.extend(_standing)


@contextmanager
def cooperative(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Replace blocking names in all modules, and the locks of the modules under test."""
    under_test = list(modules)
    thread = threading.Thread
    patches = (
        (threading, "_allocate_lock", _waiter),
        (thread, "__init__", _thread_init),
        (thread, "start", _thread_start),
        (thread, "join", _thread_join),
    )
    undo: list[Callable[[], None]] = []
    with substituted(under_test, _replacements(), patches, everywhere=True) as change:
        try:
            undo = replace_standing(under_test, _stand_in)
            yield
        finally:
            _standing.clear()
            # Modules imported meanwhile have made cooperative objects; make them real.
            replace_standing(change.newly_loaded(), _real_one, CooperativeLock | CooperativeQueue)
            for step in reversed(undo):
                step()
