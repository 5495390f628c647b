"""Tasks that run workloads, in event loops of their own.

In a loop of asyncio, the work of other threads for a task ends in real time. In a `RandomLoop` any ready
callback may be next, which a seed decides, and the work of other threads is done at once: the same seed gives
the same schedule. The task of a worker runs each action in another task, which may be cancelled.

Thread safety: as `Crew`; a task is cancelled in the thread of its loop.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from latchstore.aio import AsyncStore
from latchstore.contract.arguments import describe
from latchstore.contract.store import AbstractStore
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.stress.factories import PlanError
from latchstore.stress.faults import Cancellations, Fault
from latchstore.stress.native import Crew
from latchstore.stress.task_store import TaskStore
from latchstore.stress.testing.event_loop import RandomLoop
from latchstore.stress.workloads import Workload

try:
    from latchstore.aio.greenlets import call_awaiting
except ImportError:
    raise PlanError(
        "tasks need greenlet, which runs the plain code of workloads: "
        "run python -m pip install 'latchstore[tasks]'"
    ) from None

#: Fraction of cancelled actions: their outcome is unknown, so searches take longer.
_CANCELLED = 1 / 30

#: Maximum time until the cancellation: in turns of a loop; for loops of asyncio, in seconds.
_MOST_TURNS, _MOST_SECONDS = 20, 0.005


def checked(store: AbstractStore) -> TransactionalStore:
    """Return a store; raise PlanError unless `AsyncStore` accepts it."""
    if not isinstance(store, TransactionalStore):
        raise PlanError(f"tasks need a store that latchstore.aio.AsyncStore accepts, got {describe(store)}")
    return store


class StuckError(Exception):
    """Tasks wait for something that no task does."""


class TaskCrew(Crew):
    """The tasks of one run.

    Parameters
    ----------
    store, workloads, faults, lengths, seed
        As for `Crew`, with the lengths of all tasks.
    tasks : int
        Number of tasks in each event loop, which has a thread of its own.
    is_random : bool
        Whether the loops draw the next callback.
    """

    def __init__(
        self,
        store: AbstractStore,
        workloads: Sequence[Workload],
        faults: Sequence[Fault],
        lengths: Sequence[int],
        seed: int,
        *,
        tasks: int,
        is_random: bool,
    ) -> None:
        super().__init__(store, workloads, faults, lengths, seed)
        self._store: Any = TaskStore(AsyncStore(checked(store)))
        self._is_random = is_random
        self._cancelling = [each for each in faults if isinstance(each, Cancellations)]
        self._barrier = threading.Barrier(len(lengths) // tasks + len(faults))
        self._workers = [
            threading.Thread(
                target=self._run_loop,
                args=(range(first, first + tasks),),
                name=f"loop {first // tasks}",
                daemon=True,
            )
            for first in range(0, len(lengths), tasks)
        ]

    def _run_loop(self, numbers: range) -> None:
        try:
            self._barrier.wait()
            if self._is_random:
                self._run_at_random(numbers)
            else:
                asyncio.run(self._work_all(numbers))
        except BaseException as error:
            self._errors.append(error)

    def _run_at_random(self, numbers: range) -> None:
        loop = RandomLoop(random.Random(f"loop {self._seed} {numbers.start}"))  # noqa: S311 (nothing secret)
        try:
            asyncio.set_event_loop(loop)
            if not loop.play(self._work_all(numbers)):
                raise StuckError("the tasks wait for something that no task does")
        finally:
            loop.end()
            asyncio.set_event_loop(None)

    async def _work_all(self, numbers: range) -> None:
        await asyncio.gather(*(self._work_in_task(number) for number in numbers))

    async def _work_in_task(self, number: int) -> None:
        turns = self._turns(self._first + number)
        while self._has_left(number):
            self._left[number] -= 1
            doing = asyncio.create_task(call_awaiting(partial(self._do, next(next(turns)), number)))
            cancelling = [asyncio.create_task(self._cancel(fault, doing)) for fault in self._cancelling]
            await asyncio.wait((doing, *cancelling))
            if doing.cancelled():
                self._note_broken_off(number)
            elif (error := doing.exception()) is not None:
                self._errors.append(error)
                return

    async def _cancel(self, fault: Cancellations, doing: asyncio.Task[None]) -> None:
        """Cancel an action at a random time, if it is drawn for cancellation."""
        if fault.chance.random() > _CANCELLED:
            return
        if self._is_random:
            for _ in range(fault.chance.randrange(_MOST_TURNS)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(fault.chance.uniform(0, _MOST_SECONDS))
        if not doing.done():
            fault.note(fault.name)
            doing.cancel()
