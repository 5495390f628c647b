"""Functions that a dispatcher's thread calls once, some time from now.

Thread safety:

1. The heap is changed by the dispatcher's thread alone. A new timer gets there by way of `TimerHeap.new`,
   which any thread changes by single operations of a dict.
2. A timer that is cancelled leaves `new` at once. In the heap it is only counted, and as soon as more than
   half of the heap are such timers, the thread takes them out. The count may be off by a few where threads
   run without the GIL, so they stay a little longer.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import weakref
from collections.abc import Callable
from typing import Any, Protocol

logger: logging.Logger = logging.getLogger("latchstore")

#: So many cancelled timers may stay, however few others there are: they cost less than to wake the thread.
_FEW = 100

_MISSING: Any = object()


class TimerOwner(Protocol):
    """What a timer needs of its dispatcher."""

    def timer_cancelled(self, timer: Timer) -> None:
        """Free a timer that is not to be called any more."""


class Timer:
    """A function that the dispatcher's thread calls once, some time from now."""

    __slots__ = ("_function", "_heap", "_owner", "due")

    def __init__(
        self, due: float, function: Callable[[], object], heap: TimerHeap, owner: TimerOwner
    ) -> None:
        #: When it is called, in monotonic seconds.
        self.due: float = due
        # None as soon as it is not needed: the thread may wait for long with the timer at hand.
        self._function: Callable[[], object] | None = function
        self._heap = heap
        self._owner = weakref.ref(owner)

    @property
    def waiting(self) -> bool:
        """Whether it was neither called nor cancelled."""
        return self._function is not None

    @property
    def active(self) -> bool:
        """Whether the function is still to be called; in a forked child, no timer of the parent's is."""
        return self.waiting and self._heap.live and self._owner() is not None

    def cancel(self) -> None:
        """Have the function not be called, if it has not been."""
        if self._function is not None:
            self._function = None
            owner = self._owner()
            if owner is not None and self._heap.live:
                owner.timer_cancelled(self)

    def fire(self) -> None:
        """Call the function, unless the timer was cancelled; what it raises is logged."""
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
        Those that the thread has not taken into the heap yet.
    heap : list
        All others, the first one that is due first.
    held : bool
        Whether none is to be called, as the store is closed.
    live : bool
        Whether this process calls them; in a forked child, those of the parent are not called.
    """

    __slots__ = ("_cancelled", "_numbers", "heap", "held", "live", "new")

    def __init__(self, held: bool = False) -> None:
        self.new: dict[Timer, None] = {}
        self.heap: list[tuple[float, int, Timer]] = []
        self.held: bool = held
        self.live: bool = True
        # How many in the heap were cancelled.
        self._cancelled = 0
        # Of two timers that are due at the same time, the one that was made first is called first.
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self.heap) + len(self.new)

    def discard(self, timer: Timer) -> bool:
        """Free a cancelled timer; return whether the thread is to be woken, as there are many of them."""
        if self.new.pop(timer, _MISSING) is None:
            return False
        self._cancelled += 1
        return self._has_many_cancelled()

    def fire_due(self, clock: Callable[[], float]) -> float | None:
        """Call those that are due; return the seconds until the next one is, or None if there is none.

        Those that they make are not called yet, so that events are not held up for ever.
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
            # In this order: an exception in between makes two of one, of which one is called.
            heapq.heappush(self.heap, (timer.due, next(self._numbers), timer))
            if self.new.pop(timer, _MISSING) is _MISSING:
                self._cancelled += 1  # meanwhile

    def _has_many_cancelled(self) -> bool:
        return self._cancelled > _FEW and 2 * self._cancelled > len(self.heap)

    def _drop_cancelled(self) -> None:
        left = [item for item in self.heap if item[2].waiting]
        heapq.heapify(left)
        self.heap = left
        self._cancelled = 0
