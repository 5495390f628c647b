"""Calls that may wait for a lock, a disk or a server, made in another thread while a task awaits them.

Thread safety: the pool is made once by each process, under a lock. Its threads run calls of this package, and
no loader and no listener: so none of them waits for another one.
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

#: How many calls may wait at once; more wait for one of these to end.
_THREADS = 32

# Guards the making of the pool.
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
#: The process that has made it: the threads of a parent are not in its children.
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

    If the task is cancelled the call goes on, and its result is dropped.
    """
    return await _submitted(function)


def _submitted(function: Callable[[], T]) -> asyncio.Future[T]:
    return running_loop().run_in_executor(_threads(), _context().run, function)


def _context() -> contextvars.Context:
    """Return that of the task, for a thread that works for it."""
    context = contextvars.copy_context()
    context.run(working_for.set, working_for.get() or task_reference())
    return context


async def call_for(transaction: TaskTransaction, function: Callable[[], T]) -> T:
    """Call a function in a thread of the pool as if in the task, which is in a transaction.

    If the task is cancelled, it waits for the end of the call all the same: no two threads use a transaction.
    """
    return await _undisturbed(_submitted(lambda: run_for(transaction, function)))


async def call_to_its_end(function: Callable[[], T]) -> T:
    """Do what `call_in_thread` does, and wait for its end also if the task is cancelled."""
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
        future.exception()  # it is known: asyncio need not log that nobody has asked for it
    raise cancelled


async def call_loader(transaction: TaskTransaction | None, function: Callable[[], T]) -> T:
    """Call a function of the user's in a thread of the loop's own pool, as if in the task."""
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
