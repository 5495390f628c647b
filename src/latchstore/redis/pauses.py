"""The pauses of those who wait for something that others have, or do.

Thread safety: a `Pauses` belongs to one call.
"""

from __future__ import annotations

import random
import sys
import time

from latchstore.delivery.waiting import clock

#: Seconds between two looks at whether others have ended, first and longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_5, 0.01


class Pauses:
    """The pauses of a wait for what another process has, which grow.

    Parameters
    ----------
    timeout : float
        Seconds that may pass from now on, in pauses or otherwise; negative for ever.

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
        """How many of the seconds are left; negative for ever."""
        return self.timeout if self.timeout < 0 else max(0.0, self.timeout - (clock() - self._begun))

    @property
    def are_over(self) -> bool:
        """Whether there is no time left, or nobody runs any more who could end the wait."""
        return self.left == 0 or sys.is_finalizing()

    def sleep(self) -> None:
        """Sleep for the next one."""
        seconds = self._next * random.uniform(0.5, 1)  # noqa: S311 (so that those who wait do not meet again)
        left = self.left
        time.sleep(seconds if left < 0 else min(seconds, left))
        self._next = min(2 * self._next, _LONGEST_PAUSE)
