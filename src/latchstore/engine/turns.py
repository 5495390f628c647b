"""The threads of this process that wait to write, in order of arrival.

For engines that commit to a file or a server. Such a commit takes so long that its thread is back for the
next one before a woken thread runs: without an order, one thread would write and all others would wait. A
thread that has waited for a moment is admitted first; until then others may overtake it, since changing the
writing thread each time is expensive.

Thread safety: a turn lasts until its thread clears a list, by one call in C at its end. So an interrupted
thread blocks no others; a weak reference would not do, since the traceback of the interruption may be kept.
`_turns` is changed by single operations.
"""

from __future__ import annotations

from collections import deque

from latchstore.delivery.waiting import LOOK_AGAIN, Bell, clock, thread_name
from latchstore.engine.owner import Claim, Waiting

#: The seconds for which other threads may overtake a waiting one.
_PATIENCE = 0.002


class Turn:
    """A thread's place among the waiting ones.

    Parameters
    ----------
    stay : list
        Its thread clears it when it stops waiting.
    claim : Claim

    Attributes
    ----------
    claim : Claim
        The claim of its thread.
    bell : Bell
        Rung when the thread may try.
    since : float
        The time of its arrival, in seconds of `clock`.
    """

    __slots__ = ("_stay", "bell", "claim", "since")

    def __init__(self, stay: list[None], claim: Claim) -> None:
        self._stay = stay
        self.claim: Claim = claim
        self.bell: Bell = Bell()
        self.since: float = clock()

    @property
    def is_over(self) -> bool:
        """Whether its thread has stopped waiting."""
        return not self._stay

    def sleep(self, left: float) -> float:
        """Sleep until the bell rings, or for a moment; return the remaining time, negative for no limit."""
        seconds = LOOK_AGAIN if left < 0 else min(left, LOOK_AGAIN)
        begun = clock()
        if self.bell.sleep(seconds):
            seconds = clock() - begun
        return left if left < 0 else max(0.0, left - seconds)


class Turns:
    """The waiting threads, the first one first."""

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
        """Return whether a thread, with or without a turn, may try to become the owner."""
        if not self._turns:
            return True  # hot path: mostly no thread waits
        first = self._first()
        return first is None or first is turn or clock() - first.since < _PATIENCE

    def ring(self) -> None:
        """Wake the first thread."""
        if self._turns:
            first = self._first()
            if first is not None:
                first.bell.ring()

    def waiting(self) -> list[Waiting]:
        """Return the waiting threads with their seconds of waiting; acquires no lock."""
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
                continue  # another thread has removed it
        return None
