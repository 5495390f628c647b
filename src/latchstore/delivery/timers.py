"""Timers: functions that a dispatcher's thread calls once, after some time.

Thread safety:

1. Only the dispatcher's thread changes the heap. A new timer is added to `TimerHeap.new`, which any thread
   changes by single operations of a dict.
2. A cancelled timer is removed from `new` at once. In the heap it is only counted, and when more than half of
   the heap are cancelled, the thread removes them. The count may be off by a few where threads run without
   the GIL; then they are removed a little later.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import weakref
from collections.abc import Callable
from typing import Any, Protocol

logger: logging.Logger = logging.getLogger("latchstore")

#: The number of cancelled timers that is always tolerated: keeping them costs less than waking the thread.
_FEW = 100

_MISSING: Any = object()


class TimerOwner(Protocol):
    """The dispatcher of a timer."""

    def timer_cancelled(self, timer: Timer) -> None:
        """Drop a cancelled timer."""


class Timer:
    """A function that the dispatcher's thread calls once, after some time."""

    __slots__ = ("_function", "_heap", "_owner", "due")

    def __init__(
        self, due: float, function: Callable[[], object], heap: TimerHeap, owner: TimerOwner
    ) -> None:
        #: The time of the call, in monotonic seconds.
        self.due: float = due
        # None once it is not needed, since the thread may hold the timer for long.
        self._function: Callable[[], object] | None = function
        self._heap = heap
        self._owner = weakref.ref(owner)

    @property
    def waiting(self) -> bool:
        """Whether the timer was neither called nor cancelled."""
        return self._function is not None

    @property
    def active(self) -> bool:
        """Whether the function will be called; in a forked child, the parent's timers are inactive."""
        return self.waiting and self._heap.live and self._owner() is not None

    def cancel(self) -> None:
        """Cancel the call, unless it has been made."""
        if self._function is not None:
            self._function = None
            owner = self._owner()
            if owner is not None and self._heap.live:
                owner.timer_cancelled(self)

    def fire(self) -> None:
        """Call the function, unless the timer was cancelled; log an exception that it raises."""
        function, self._function = self._function, None
        if function is None:
            return
        try:
            function()
        except BaseException:
            logger.exception("%r, called by a timer, failed", function)


class TimerHeap:
    """The timers of a dispatcher.

    Attributes
    ----------
    new : dict of Timer to None
        The timers that the thread has not moved to the heap yet.
    heap : list
        All others, the earliest first.
    held : bool
        Whether no timer is called, since the store is closed.
    live : bool
        Whether this process calls the timers; a forked child does not call those of its parent.
    """

    __slots__ = ("_cancelled", "_numbers", "heap", "held", "live", "new")

    def __init__(self, held: bool = False) -> None:
        self.new: dict[Timer, None] = {}
        self.heap: list[tuple[float, int, Timer]] = []
        self.held: bool = held
        self.live: bool = True
        # The number of cancelled timers in the heap.
        self._cancelled = 0
        # Of two timers with the same time, the one created first is called first.
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self.heap) + len(self.new)

    def discard(self, timer: Timer) -> bool:
        """Drop a cancelled timer; return whether to wake the thread, since many are cancelled."""
        if self.new.pop(timer, _MISSING) is None:
            return False
        self._cancelled += 1
        return self._has_many_cancelled()

    def fire_due(self, clock: Callable[[], float]) -> float | None:
        """Call the timers whose time has come; return the seconds until the next one, or None.

        Timers that they create are not called yet, so that events are not delayed forever.
        """
        self._take_new()
        if self._has_many_cancelled():
            self._drop_cancelled()
        heap = self.heap
        while heap and self.live and not self.held:
            due, _, timer = heap[0]
            if timer.waiting:
                left = due - clock()
                if left > 0:
                    return left
                timer.fire()
            else:
                self._cancelled -= 1
            heapq.heappop(heap)
        return None

    def _take_new(self) -> None:
        for timer in list(self.new):
            # In this order: an interruption in between duplicates the timer, of which only one is called.
            heapq.heappush(self.heap, (timer.due, next(self._numbers), timer))
            if self.new.pop(timer, _MISSING) is _MISSING:
                self._cancelled += 1  # cancelled meanwhile

    def _has_many_cancelled(self) -> bool:
        return self._cancelled > _FEW and 2 * self._cancelled > len(self.heap)

    def _drop_cancelled(self) -> None:
        left = [item for item in self.heap if item[2].waiting]
        heapq.heapify(left)
        self.heap = left
        self._cancelled = 0
