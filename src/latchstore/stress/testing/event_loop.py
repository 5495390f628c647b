"""An asyncio event loop that chooses the next callback at random, with simulated time.

asyncio's own loop runs callbacks in the order in which they become ready, so tasks interleave in only one of
the possible ways. Here any ready callback may be next, as if networks and timers were faster or slower.

Thread safety: like asyncio: one thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from random import Random
from typing import Any

#: Maximum number of cancellations of a task that continues.
_CANCELLATIONS = 20

#: Callbacks after which the clock jumps although others are ready, which may poll without a pause.
_BETWEEN_JUMPS = 100

#: Callbacks without a begin or end of a call after which tasks count as polling: the clock jumps to a timer
#: that is older than as many callbacks, at most so often. If there is none, tasks wait forever.
_PATIENCE = 500
_OLDER = 20


class RandomLoop(asyncio.SelectorEventLoop):
    """Runs ready callbacks in random order.

    Sleeps and timeouts take no time: when nothing else is ready, the clock jumps to the first of them.
    Functions for an executor run at once, in this thread. Sockets and processes are not supported.

    Parameters
    ----------
    chance : Random
    detects_polling : bool
        Whether the clock also jumps while tasks only poll, and the run ends if that does not help. Who runs
        the loop then calls `note_call`.

    Attributes
    ----------
    ending : bool
        Whether tasks are being cancelled because the run is over.
    """

    def __init__(self, chance: Random, detects_polling: bool = False) -> None:
        super().__init__()
        self._chance = chance
        self._detects_polling = detects_polling
        self._pending: list[tuple[asyncio.Handle, Callable[..., object], tuple[Any, ...], Any]] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Callable[..., object], Any]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        self._pumping = False
        # Callbacks since the last jump of the clock, and since a call has begun or returned.
        self._since_jump = 0
        self._since_call = 0
        # Timers with smaller numbers are older than that; none at first.
        self._mark = -1
        self._jumps = 0
        self.ending: bool = False

    def note_call(self) -> None:
        """Note that a call has begun or returned: tasks do not only poll."""
        self._since_call = self._jumps = 0
        self._mark = -1

    def time(self) -> float:
        """Return the time of the loop, in seconds."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Schedule a callback for one of the next turns."""
        context = context or contextvars.copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._pending.append((handle, callback, args, context))
        self._pump_soon()
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Schedule a callback for when nothing else is ready."""
        context = context or contextvars.copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle, callback, (args, context)))
        self._pump_soon()
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Schedule a callback after some seconds of the loop's time."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in this thread; the result arrives in one of the next turns."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            self.call_soon(_settle, future, None, error)
        else:
            self.call_soon(_settle, future, result, None)
        return future

    def play(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Run a coroutine to its end; return False if it waits forever."""
        task = self.create_task(coroutine)
        task.add_done_callback(lambda done: self.stop())
        self.run_forever()
        if task.done():
            task.result()
        return task.done()

    def end(self) -> None:
        """Cancel all waiting tasks, and close the loop."""
        self.ending = True
        for _ in range(_CANCELLATIONS):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            # Until no callback is ready, or a task polls in spite of it.
            self.note_call()
            self._pump_soon()
            self.run_forever()
        self.close()

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            super().call_soon(self._pump)

    def _pump(self) -> None:
        """Run one ready callback."""
        self._pumping = False
        if self._detects_polling:
            self._since_jump += 1
            self._since_call += 1
        if self._since_call > _PATIENCE and not self._jump_to_older():
            self.stop()
            return
        while self._timers and (not self._pending or self._is_due(self._timers[0][0])):
            when, number, timer, callback, (args, context) = heapq.heappop(self._timers)
            if not timer.cancelled():
                self._since_jump = 0
                if number < self._mark:
                    self._since_call = 0
                self._now = max(self._now, when)
                self._pending.append((timer, callback, args, context))
        if not self._pending:
            self.stop()
            return
        handle, callback, args, context = self._pending.pop(self._chance.randrange(len(self._pending)))
        self._pump_soon()
        if handle.cancelled():
            return
        try:
            context.run(callback, *args)
        except Exception as error:
            self.call_exception_handler({"message": f"error in {callback!r}", "exception": error})

    def _jump_to_older(self) -> bool:
        """Let the time pass until the first older timer; return whether tasks may go on."""
        mark, self._mark = self._mark, next(self._numbers)
        self._since_call = 0
        if mark < 0:
            return True
        older = [when for when, number, timer, *_ in self._timers if number < mark and not timer.cancelled()]
        self._jumps += 1
        if not older or self._jumps > _OLDER:
            return False
        self._now = max(self._now, min(older))
        return True

    def _is_due(self, when: float) -> bool:
        return when <= self._now or self._since_jump > _BETWEEN_JUMPS


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
