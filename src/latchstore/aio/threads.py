"""Calls that may wait for a lock, a disk or a server: they run in another thread while a task awaits them.

Thread safety: each process makes the pool once, under a lock. Its threads run calls of this package, but no
loaders and no listeners: so none of them waits for another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from latchstore.delivery.async_waiting import running_loop
from latchstore.engine.task_transaction import TaskTransaction, run_for
from latchstore.engine.tasks import task_reference, working_for

T = TypeVar("T")

#: Maximum number of calls that wait at the same time; further calls are queued.
_THREADS = 32

# Guards the creation of the pool.
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
#: The process that made the pool: a child does not inherit the threads of its parent.
_process = 0


def _threads() -> ThreadPoolExecutor:
    global _pool, _process
    if _process != os.getpid() or _pool is None:
        with _lock:
            if _process != os.getpid() or _pool is None:
                _pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="latchstore-aio")
                _process = os.getpid()
    return _pool


async def call_in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of the pool, in the context of the task; return its result.

    If the task is cancelled, the call continues, and its result is dropped.
    """
    return await _submitted(function)


def _submitted(function: Callable[[], T]) -> asyncio.Future[T]:
    return running_loop().run_in_executor(_threads(), _context().run, function)


def _context() -> contextvars.Context:
    """Return the context of the task, for a thread that works for it."""
    context = contextvars.copy_context()
    context.run(working_for.set, working_for.get() or task_reference())
    return context


async def call_for(transaction: TaskTransaction, function: Callable[[], T]) -> T:
    """Call a function in a thread of the pool, in a transaction of the task.

    If the task is cancelled, this waits for the end of the call: two threads must not use one transaction.
    """
    return await _undisturbed(_submitted(lambda: run_for(transaction, function)))


async def call_to_its_end(function: Callable[[], T]) -> T:
    """Like `call_in_thread`, but wait for the end of the call even if the task is cancelled."""
    return await _undisturbed(_submitted(function))


async def _undisturbed(future: asyncio.Future[T]) -> T:
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return future.result()
    if not future.cancelled():
        future.exception()  # retrieved, so that asyncio does not log it
    raise cancelled


async def call_loader(transaction: TaskTransaction | None, function: Callable[[], T]) -> T:
    """Call a function of the user in a thread of the loop's own pool, on behalf of the task."""
    loop = running_loop()
    if transaction is None:
        return await loop.run_in_executor(None, contextvars.copy_context().run, function)
    working = partial(run_for, transaction, function)
    return await _undisturbed(loop.run_in_executor(None, _context().run, working))


def _renew_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
