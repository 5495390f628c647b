"""Signals that wake waiting threads when a commit has a relevant change; they do not keep the changes.

Thread safety:

1. `CommitSignal.offer` is called by one thread at a time, under the lock that commits are applied under. It
   runs builtin code only, and wakes waiters by single calls in C.
2. A waiter first adds a bell to `waiters`, then reads the store, and then sleeps (`Waiters.wait`). A commit
   is visible before it is offered, so a commit that the read missed finds the bell.
3. An exception may interrupt a woken thread before it has done anything. The other waiters check again by
   themselves after `LOOK_AGAIN` seconds.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable

from latchstore.contract.values import Change
from latchstore.delivery.change_buffer import Published
from latchstore.delivery.waiting import Waiters

#: Seconds after which a waiter checks without a signal: a wake-up is lost only if an exception interrupts
#: the woken thread.
LOOK_AGAIN = 1.0


class CommitSignal:
    """Wakes waiters when a commit has a change that is relevant to them.

    Parameters
    ----------
    wakes : callable
        Called with a change; returns the number of waiters to wake. Runs builtin code only.

    Attributes
    ----------
    waiters : Waiters
    ended : bool
        Whether no more commits will come, since the store was closed.
    """

    __slots__ = ("__weakref__", "_abandoned", "_revision", "_user", "_wakes", "ended", "waiters")

    def __init__(self, wakes: Callable[[Change], int]) -> None:
        self._wakes = wakes
        self.waiters: Waiters = Waiters()
        self.ended: bool = False
        # The revision of the last commit that woke a waiter; a commit may be offered again.
        self._revision = 0
        self._user: weakref.ref[object] | None = None
        self._abandoned: deque[object] = deque()
        _all_signals.add(self)

    def belong_to(self, user: object) -> None:
        """Have the feed drop the signal when its user is collected."""
        self._user = weakref.ref(user, self._abandoned.append)

    @property
    def closed(self) -> bool:
        """Whether the feed should drop the signal."""
        return bool(self._abandoned)

    def offer(self, commit: Published) -> None:
        """Wake the waiters that a commit concerns; may be repeated, and never waits."""
        waiters = self.waiters
        if not waiters.bells or commit.revision <= self._revision:
            return
        for change in commit.changes:
            for _ in range(min(self._wakes(change), len(waiters.bells))):
                waiters.ring()
        self._revision = commit.revision

    def end(self) -> None:
        """Wake all waiters, since the store was closed."""
        self.ended = True
        self.waiters.ring_all()

    def renew(self) -> None:
        """Drop the parent's waiters, in a forked child."""
        self.waiters = Waiters()


# All existing signals, for forked children.
_all_signals: weakref.WeakSet[CommitSignal] = weakref.WeakSet()


def _renew_signals_in_child() -> None:
    for signal in list(_all_signals):
        signal.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_signals_in_child)
