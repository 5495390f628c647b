"""The threads of this process that wait to write, in the order in which they came.

For engines whose commits go to a file or a server. Such a commit takes so long that whoever has made one is
back before a thread that it has woken runs: without an order, one of them would write and all others wait.
Who has waited for a moment is let in first; until then others may go before, as it costs much to have another
thread write each time.

Thread safety: a turn lasts until its thread clears a list, by one call in C where it leaves. So whatever
strikes a thread, it keeps nobody from writing; a weak reference would not do, as the traceback of what has
struck it may be kept. `_turns` is changed by single operations.
"""

from __future__ import annotations

from collections import deque

from latchstore.delivery.waiting import LOOK_AGAIN, Bell, clock, thread_name
from latchstore.engine.owner import Claim, Waiting

#: Seconds that others may go before a thread that waits.
_PATIENCE = 0.002


class Turn:
    """A thread's place among those that wait.

    Parameters
    ----------
    stay : list
        Its thread clears it when it waits no more.
    claim : Claim

    Attributes
    ----------
    claim : Claim
        What its thread waits for.
    bell : Bell
        Rung when it may try.
    since : float
        When it came, in seconds of `clock`.
    """

    __slots__ = ("_stay", "bell", "claim", "since")

    def __init__(self, stay: list[None], claim: Claim) -> None:
        self._stay = stay
        self.claim: Claim = claim
        self.bell: Bell = Bell()
        self.since: float = clock()

    @property
    def is_over(self) -> bool:
        """Whether its thread waits no more."""
        return not self._stay

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
        self._turns: deque[Turn] = deque()

    def join(self, stay: list[None], claim: Claim) -> Turn:
        """Return a place at the end, which lasts until the list is cleared."""
        turn = Turn(stay, claim)
        stay.append(None)
        self._turns.append(turn)
        return turn

    def may_try(self, turn: Turn | None) -> bool:
        """Return whether a thread, which may have a turn, may try to become the owner."""
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

    def waiting(self) -> list[Waiting]:
        """Return who waits, and for how long; takes no lock."""
        now = clock()
        return [
            Waiting(thread_name(turn.claim.thread), turn.claim.purpose, max(0.0, now - turn.since))
            for turn in tuple(self._turns)
            if not turn.is_over
        ]

    def _first(self) -> Turn | None:
        turns = self._turns
        while turns:
            try:
                turn = turns[0]
                if not turn.is_over:
                    return turn
                turns.remove(turn)
            except (IndexError, ValueError):
                continue  # another thread was quicker
        return None
