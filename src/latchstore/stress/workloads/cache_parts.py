"""What the threads of the cache workload share: a clock that they advance, and the call that each makes.

Thread safety: the state of a call is that of its thread; the clock advances by one operation of a list.
"""

from __future__ import annotations

import threading


class SteppedClock:
    """A clock that advances only by `advance`."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._ticks: list[None] = []

    def __call__(self) -> float:
        return self._start + len(self._ticks)

    def advance(self) -> float:
        """Advance by one second; return the time."""
        self._ticks.append(None)
        return self()


class RunningCall(threading.local):
    """The present call of the thread.

    Attributes
    ----------
    token : str
        Identifies the call.
    weight : int
        Weight of a value that it loads.
    inside : bool
        Whether the call is inside a transaction.
    count : int
        Number of values that it has made.
    """

    token = ""
    weight = 0
    inside = False
    count: int = 0

    def new_name(self) -> str:
        """Return a name for a value."""
        self.count += 1
        return f"{self.token}/{self.count}"
