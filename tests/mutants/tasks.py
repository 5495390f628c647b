"""What tasks use of a store with one thing broken, for the harness to find by tasks.

Thread safety: the package is broken before there are threads.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

from latchstore.aio.transaction import AsyncTransaction
from latchstore.engine.batch import OptimisticBatch
from latchstore.engine.task_transaction import TaskClaim, TaskTransaction
from latchstore.redis.loops import LoopConnection
from tests.mutants.mutant import Break, Mutant, replaces
from tests.mutants.redis import RedisMutant

TASK_MUTANTS: list[Mutant] = []

#: Those of what tasks use of a server, in loops of asyncio's own.
TASK_REDIS_MUTANTS: list[RedisMutant] = []


def task_mutant(workload: str, faults: str = "") -> Callable[[Break], Mutant]:
    """Return a decorator that makes a mutant of a function, with its docstring as the description."""

    def make(broken: Break) -> Mutant:
        TASK_MUTANTS.append(Mutant(broken, workload, faults))
        return TASK_MUTANTS[-1]

    return make


@task_mutant("transactions")
def block_of_all_tasks() -> None:
    """What any task of the thread calls goes to a block of one of them"""

    @replaces(TaskClaim, "__init__")
    def claim(original: Any, self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self.ident = get_ident()

    @replaces(TaskTransaction, "_belongs_to_this_thread")
    def belongs_to_this_thread(original: Any, self: Any) -> bool:
        return True


@task_mutant("bank")
def not_validated() -> None:
    """A block that has awaited is committed whatever was changed meanwhile of what it has read"""

    @replaces(OptimisticBatch, "_has_read")
    def has_read(original: Any, self: Any, *change: Any) -> bool:
        return False


@task_mutant("transactions", faults="cancel")
def cancelled_block_commits() -> None:
    """A block whose task is cancelled commits what it has written until then"""

    @replaces(AsyncTransaction, "__aexit__")
    def aexit(original: Any, self: Any, kind: Any, error: Any, traceback: Any) -> Any:
        if kind is asyncio.CancelledError:
            kind = error = traceback = None
        return original(self, kind, error, traceback)


def task_redis_mutant(workload: str, faults: str = "") -> Callable[[Callable[[], None]], RedisMutant]:
    """Return a decorator that makes a mutant of what tasks use of a server."""

    def make(broken: Callable[[], None]) -> RedisMutant:
        TASK_REDIS_MUTANTS.append(RedisMutant(broken, workload, faults))
        return TASK_REDIS_MUTANTS[-1]

    return make


@task_redis_mutant("registers", faults="cancel")
def reply_of_a_cancelled_call() -> None:
    """A call that reads an entry is given the reply to the one before it, if that was cancelled"""
    reads: weakref.WeakSet[Any] = weakref.WeakSet()

    @replaces(LoopConnection, "send")
    def send(original: Any, self: Any, command: Any) -> Any:
        reply = original(self, command)
        if b"HGETALL" in command[0]:
            reads.add(reply)
            reply.add_done_callback(partial(_swap_cancelled, weakref.ref(self), reads))
        return reply


def _swap_cancelled(reference: Any, reads: Any, reply: Any) -> None:
    """Have the next one, if it reads an entry as well, wait for the reply to one that was cancelled."""
    connection = reference()
    waiting: Any = () if connection is None or not reply.cancelled() else connection.waiting
    places = [place for place, each in enumerate(waiting) if each is reply and place + 1 < len(waiting)]
    for place in places:
        if waiting[place + 1] in reads:
            waiting[place], waiting[place + 1] = waiting[place + 1], waiting[place]
