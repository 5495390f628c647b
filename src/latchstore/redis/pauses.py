"""The pauses of a wait for other processes.

Thread safety: a `Pauses` belongs to one call.
"""

from __future__ import annotations

import random
import sys

from latchstore.delivery.awaiting import pause
from latchstore.delivery.waiting import clock

#: First and longest pause, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_5, 0.01


class Pauses:
    """The growing pauses of a wait for something that another process holds.

    Parameters
    ----------
    timeout : float
        Time limit in seconds from now on, pauses and other work included; negative for none.

    Attributes
    ----------
    timeout : float
    """

    __slots__ = ("_begun", "_next", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout: float = timeout
        self._begun = clock()
        self._next = _FIRST_PAUSE

    @property
    def left(self) -> float:
        """Remaining seconds; negative for no limit."""
        return self.timeout if self.timeout < 0 else max(0.0, self.timeout - (clock() - self._begun))

    @property
    def are_over(self) -> bool:
        """Whether no time is left, or the interpreter shuts down, so that no thread could end the wait."""
        return self.left == 0 or sys.is_finalizing()

    def sleep(self) -> None:
        """Sleep for the next pause."""
        seconds = self._next * random.uniform(0.5, 1)  # noqa: S311 (keeps waiters from colliding again)
        left = self.left
        pause(seconds if left < 0 else min(seconds, left))
        self._next = min(2 * self._next, _LONGEST_PAUSE)
