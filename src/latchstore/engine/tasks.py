"""Which of the tasks that share a thread runs: of asyncio, of trio, or a greenlet (gevent, eventlet).

None of these libraries is imported here; who has imported one, uses it.

Thread safety: the functions keep nothing but asyncio's own function, which is assigned once.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from latchstore.delivery.waiting import this_thread

#: hot path: the one dict that `sys.modules` is.
MODULES: dict[str, Any] = sys.modules

#: asyncio's own function, once asyncio is loaded: the event loop that runs in this thread, or None.
_running_loop: Callable[[], object] | None = None


#: A reference to the task for which this thread works while that awaits it, if it does.
working_for: ContextVar[object | None] = ContextVar("latchstore_working_for", default=None)


def current_task() -> object | None:
    """Return the task that runs in this thread; None if it is none, or the thread has no others.

    A greenlet may be one of many of an asyncio or trio task, which wait for each other: then it is that task.
    It is returned as a weak reference to it, always the same one, so that a transaction does not keep alive
    the greenlet that has it open. The thread's first greenlet is no task.
    """
    if "asyncio" in MODULES and (task := _asyncio_task()) is not None:
        return task
    if "trio" in MODULES and (task := _trio_task()) is not None:
        return task
    return _greenlet() if "greenlet" in MODULES else None


def task_reference() -> weakref.ref[object] | None:
    """Return a weak reference to the task of asyncio that runs in this thread, always the same; or None."""
    task = _asyncio_task() if "asyncio" in MODULES else None
    return None if task is None else weakref.ref(task)


def caller() -> object:
    """Return the task that calls, or the thread if it is none.

    That of asyncio is referred to weakly: what it has begun when its loop is closed ends when it is freed.
    """
    return working_for.get() or task_reference() or current_task() or this_thread.thread


def _asyncio_task() -> object | None:
    global _running_loop
    if _running_loop is None:
        # It may be that another thread is importing it just now.
        _running_loop = getattr(MODULES.get("asyncio"), "_get_running_loop", None)
        if _running_loop is None:
            return None
    # hot path: the loop first, as current_task() raises where there is none.
    if _running_loop() is None:
        return None
    task: object | None = MODULES["asyncio"].current_task()
    return task


def _trio_task() -> object | None:
    try:
        task: object = MODULES["trio"].lowlevel.current_task()
    except (AttributeError, KeyError, RuntimeError):
        return None  # another thread is importing it, or none of its tasks runs here
    return task


def _greenlet() -> object | None:
    getcurrent = getattr(MODULES.get("greenlet"), "getcurrent", None)
    greenlet = None if getcurrent is None else getcurrent()
    return None if greenlet is None or greenlet.parent is None else weakref.ref(greenlet)


def task_name(task: object | None) -> str:
    """Return what errors call a task."""
    if task is None:
        return "no task"
    return repr(task() if isinstance(task, weakref.ref) else task)
