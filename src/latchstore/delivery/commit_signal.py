"""Waking threads that sleep until a commit has changed what they wait for; the changes are not kept.

Thread safety:

1. `CommitSignal.offer` is called by one thread at a time, under the lock that commits are applied under. It
   runs builtin code alone, and wakes sleepers by single calls in C.
2. Whoever is to sleep first puts a bell among the `waiters`, then looks at the store, and then sleeps
   (`Waiters.wait`). A commit can be seen before it is offered. So one that the look has not found finds the
   bell.
3. An exception may strike whoever was woken before it has done anything. All others look again by themselves
   after `LOOK_AGAIN` seconds.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable

from latchstore.contract.values import Change
from latchstore.delivery.change_buffer import Published
from latchstore.delivery.waiting import Waiters

#: Seconds after which a sleeper looks by itself: a wake-up is lost only if an exception strikes who was
#: woken.
LOOK_AGAIN = 1.0


class CommitSignal:
    """Wakes sleepers when a commit has a change that is of interest to them.

    Parameters
    ----------
    wakes : callable
        Called with a change; returns how many sleepers it is to wake. Runs builtin code alone.

    Attributes
    ----------
    waiters : Waiters
    ended : bool
        Whether no more commits come, as the store was closed.
    """

    __slots__ = ("__weakref__", "_abandoned", "_revision", "_user", "_wakes", "ended", "waiters")

    def __init__(self, wakes: Callable[[Change], int]) -> None:
        self._wakes = wakes
        self.waiters: Waiters = Waiters()
        self.ended: bool = False
        # Of the last commit that has woken somebody. One may be offered again.
        self._revision = 0
        self._user: weakref.ref[object] | None = None
        self._abandoned: deque[object] = deque()
        _all_signals.add(self)

    def belong_to(self, user: object) -> None:
        """Have the store let go of the signal when nobody holds its user any more."""
        self._user = weakref.ref(user, self._abandoned.append)

    @property
    def closed(self) -> bool:
        """Whether the store is to let go of it."""
        return bool(self._abandoned)

    def offer(self, commit: Published) -> None:
        """Wake those whom a commit concerns; may be done again. Never waits."""
        waiters = self.waiters
        if not waiters.bells or commit.revision <= self._revision:
            return
        for change in commit.changes:
            for _ in range(min(self._wakes(change), len(waiters.bells))):
                waiters.ring()
        self._revision = commit.revision

    def end(self) -> None:
        """Wake all, as the store is closed."""
        self.ended = True
        self.waiters.ring_all()

    def renew(self) -> None:
        """Go on without the sleepers of the parent, in a forked child."""
        self.waiters = Waiters()


# Every signal alive, for children that this process forks.
_all_signals: weakref.WeakSet[CommitSignal] = weakref.WeakSet()


def _renew_signals_in_child() -> None:
    for signal in list(_all_signals):
        signal.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_signals_in_child)
