"""The threads of this process that wait to write, in the order in which they came.

A commit takes SQLite so long that whoever has made one is back before a thread that it has woken runs:
without an order, one of them would write and all others wait. Who has waited for a moment is let in first;
until then others may go before, as it costs much to have another thread write each time.

Thread safety: a turn is referred to weakly, and lasts as long as its thread waits. So whatever strikes a
thread, it keeps nobody from writing. `_turns` is changed by single operations.
"""

from __future__ import annotations

import weakref
from collections import deque

from latchstore.delivery.waiting import LOOK_AGAIN, Bell, clock

#: Seconds that others may go before a thread that waits.
_PATIENCE = 0.002


class Turn:
    """A thread's place among those that wait.

    Attributes
    ----------
    bell : Bell
        Rung when it may try.
    since : float
        When it came, in seconds of `clock`.
    """

    __slots__ = ("__weakref__", "bell", "since")

    def __init__(self) -> None:
        self.bell: Bell = Bell()
        self.since: float = clock()

    def sleep(self, left: float) -> float:
        """Sleep until it may try, or for a moment; return what is left of the time, negative for ever."""
        seconds = LOOK_AGAIN if left < 0 else min(left, LOOK_AGAIN)
        begun = clock()
        if self.bell.sleep(seconds):
            seconds = clock() - begun
        return left if left < 0 else max(0.0, left - seconds)


class Turns:
    """Those who wait, the first one first."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: deque[weakref.ref[Turn]] = deque()

    def join(self) -> Turn:
        """Return a place at the end."""
        turn = Turn()
        self._turns.append(weakref.ref(turn))
        return turn

    def may_try(self, turn: Turn | None) -> bool:
        """Tell whether a thread, which may have a turn, may try to become the owner."""
        if not self._turns:
            return True  # hot path: mostly nobody waits
        first = self._first()
        return first is None or first is turn or clock() - first.since < _PATIENCE

    def ring(self) -> None:
        """Wake the first."""
        if self._turns:
            first = self._first()
            if first is not None:
                first.bell.ring()

    def _first(self) -> Turn | None:
        turns = self._turns
        while turns:
            try:
                reference = turns[0]
                turn = reference()
                if turn is not None:
                    return turn
                turns.remove(reference)
            except (IndexError, ValueError):
                continue  # another thread was quicker
        return None
