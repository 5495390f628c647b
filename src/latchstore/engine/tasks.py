"""The task that runs in a thread: of asyncio, of trio, or a greenlet (gevent, eventlet).

None of these libraries is imported here; they are used only if the program has imported them.

Thread safety: the only state is asyncio's own function, which is assigned once.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from latchstore.delivery.waiting import this_thread

#: hot path: `sys.modules` is always the same dict.
MODULES: dict[str, Any] = sys.modules

#: asyncio's function that returns the event loop of this thread or None, once asyncio is imported.
_running_loop: Callable[[], object] | None = None


#: A reference to the task for which this thread works while the task awaits it, if any.
working_for: ContextVar[object | None] = ContextVar("latchstore_working_for", default=None)


def current_task() -> object | None:
    """Return the task that runs in this thread; None outside of tasks.

    An asyncio or trio task may use many greenlets, which wait for each other; then that task is returned. A
    greenlet is returned as a weak reference, always the same one, so that a transaction does not keep alive
    the greenlet that has it open. The thread's first greenlet is not a task.
    """
    modules = MODULES
    if "asyncio" in modules and (task := _asyncio_task()) is not None:
        return task
    if "trio" in modules and (task := _trio_task()) is not None:
        return task
    return _greenlet() if "greenlet" in modules else None


def task_reference() -> weakref.ref[object] | None:
    """Return a weak reference to the asyncio task of this thread, always the same one, or None."""
    task = _asyncio_task() if "asyncio" in MODULES else None
    return None if task is None else weakref.ref(task)


def caller() -> object:
    """Return the calling task, or else the thread.

    An asyncio task is referenced weakly: if its loop is closed, its transactions end when it is freed.
    """
    return working_for.get() or task_reference() or current_task() or this_thread.thread


def _asyncio_task() -> object | None:
    global _running_loop
    if _running_loop is None:
        # Another thread may be importing it right now.
        _running_loop = getattr(MODULES.get("asyncio"), "_get_running_loop", None)
        if _running_loop is None:
            return None
    # hot path: the loop first, as current_task() raises without one.
    if _running_loop() is None:
        return None
    task: object | None = MODULES["asyncio"].current_task()
    return task


def _trio_task() -> object | None:
    try:
        task: object = MODULES["trio"].lowlevel.current_task()
    except (AttributeError, KeyError, RuntimeError):
        return None  # another thread is importing it, or no task of it runs here
    return task


def _greenlet() -> object | None:
    getcurrent = getattr(MODULES.get("greenlet"), "getcurrent", None)
    greenlet = None if getcurrent is None else getcurrent()
    return None if greenlet is None or greenlet.parent is None else weakref.ref(greenlet)


def task_name(task: object | None) -> str:
    """Return the name of a task for errors."""
    if task is None:
        return "no task"
    return repr(task() if isinstance(task, weakref.ref) else task)
