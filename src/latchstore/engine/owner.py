"""The owner: the exclusive transaction that alone may commit.

Thread safety:

1. A claim becomes the owner's by one ``dict.setdefault``, without the table lock, and is taken away under it.
   Whoever commits sets the holder of the table lock first and then looks for an owner; whoever becomes the
   owner looks for a holder after that, and waits for the end of its section. So of a commit and a beginning
   at the same time one at least finds the other.
2. Nothing in an engine refers to an open transaction strongly: a `Claim` does not at all, a `Route` weakly.
   So a block whose end was struck by an exception, and that nobody holds any more, owns nothing: its route is
   put on `abandoned`, by one ``deque.append`` in C, wherever the last reference goes. Whoever next holds the
   table lock ends it as rolled back.
3. Who waits for the owner sleeps with no lock held, and looks again by itself after a moment: a wake-up may
   be lost with an exception that strikes the thread which was to give it.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from threading import Thread, get_ident
from types import FrameType
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from latchstore.contract.errors import LockTimeoutError
from latchstore.delivery.waiting import LOOK_AGAIN, YIELDS, Waiters, clock, this_thread, thread_name

if TYPE_CHECKING:
    from latchstore.delivery.dispatcher import Delivery
    from latchstore.engine.batch import WriteBatch


_transaction_numbers = itertools.count(1)

#: The one key of `Ownership.claims`.
OWNER = "owner"


class TransactionInfo(NamedTuple):
    """Which transaction made an event.

    Attributes
    ----------
    number : int
        Counts the transactions of the process that it ran in, in the order in which they were entered.
    notes : str
        What ``store.transaction(notes)`` was given.
    thread : str
        The name of the thread that it ran in; if that was in another process, the process is named as well.
    """

    number: int
    notes: str
    thread: str


class Claim:
    """An outermost block of this thread, as the engine refers to it, for as long as somebody holds the block.

    Parameters
    ----------
    block : object
    abandoned : deque
        Of the engine, where the route goes when the block is freed.
    purpose : str
    notes : str, optional
        Of a transaction.

    Attributes
    ----------
    thread : Thread
        Where it runs.
    ident : int or weak reference
        For whom the calls are that go to the block: the thread's identifier; or, if it belongs to a task of
        asyncio, that task, which is not kept alive by this: it may have the block open when its loop is gone.
    purpose : str
        What it is for, for error messages.
    notes : str or None
        Of the transaction; None if it is none.
    since : float
        When it became the owner, or last tried to, in seconds since the epoch.
    revision : int or None
        The revision of its commit, assigned in the same section that makes the commit.
    start : Delivery or None
        The event of its beginning that was queued, if anybody listens.
    failure : Delivery or None
        The event of its rollback that was queued.
    route : Route or None
        To the block; None when that has ended, so that nothing happens when it is freed.
    ended : bool
        Whether it was committed or rolled back.
    here : bool
        Whether its end is an event of this store object: it is.
    """

    here: ClassVar[bool] = True

    __slots__ = (
        "_info",
        "_number",
        "ended",
        "failure",
        "ident",
        "notes",
        "purpose",
        "revision",
        "route",
        "since",
        "start",
        "thread",
    )

    def __init__(
        self, block: object, abandoned: deque[Route], purpose: str, notes: str | None = None
    ) -> None:
        self.thread: Thread = this_thread.thread
        self.ident: int | weakref.ref[object] = get_ident()
        self.purpose: str = purpose
        self.notes: str | None = notes
        self.since: float = 0.0
        self.revision: int | None = None
        self.start: Delivery | None = None
        self.failure: Delivery | None = None
        self.ended: bool = False
        self._info: TransactionInfo | None = None
        self._number = 0 if notes is None else next(_transaction_numbers)
        route = Route(block, abandoned.append)
        self.route: Route | None = route
        route.claim = self
        route.outer = route.batch = None
        route.savepoint = 0

    @property
    def info(self) -> TransactionInfo | None:
        """What the events of the transaction have of it; None if it is none."""
        if self._info is None and self.notes is not None:
            self._info = TransactionInfo(self._number, self.notes, self.thread.name)
        return self._info


class Route(weakref.ref[object]):
    """A weak reference to an open block, by which a thread's calls go to it.

    Attributes
    ----------
    claim : Claim
        The outermost block's.
    outer : Route or None
        That of the block around it.
    batch : WriteBatch or None
    savepoint : int
        What the batch is rolled back to if the block is abandoned.
    """

    __slots__ = ("batch", "claim", "outer", "savepoint")

    claim: Claim
    outer: Route | None
    batch: WriteBatch | None
    savepoint: int


class Writer(NamedTuple):
    """Who alone may write at a moment.

    Attributes
    ----------
    thread, purpose : str
        The name of its thread, and what it writes for.
    seconds : float
        For how long it has been the writer.
    process : int
        The process that it runs in.
    host : str or None
        The machine, if that may be another one.
    """

    thread: str
    purpose: str
    seconds: float
    process: int
    host: str | None = None


class Waiting(NamedTuple):
    """A thread of this process that waits to write: its name, what for, and for how many seconds."""

    thread: str
    purpose: str
    seconds: float


class Activity(NamedTuple):
    """Who writes, and who waits for that."""

    writer: Writer | None = None
    waiting: Sequence[Waiting] = ()


def writer_of(claim: Claim) -> Writer:
    """Return the writer that an owner's claim is of."""
    held = max(0.0, time.time() - claim.since)
    return Writer(thread_name(claim.thread), claim.purpose, held, os.getpid())


class Ownership:
    """Who may commit, and who waits for that.

    Attributes
    ----------
    claims : dict
        The owner's claim under `OWNER`; empty if anybody may commit.
    """

    __slots__ = ("_waiting", "abandoned", "claims", "waiters")

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.waiters: Waiters = Waiters()
        # What the threads wait for that sleep now, and since when, by identifier.
        self._waiting: dict[int, tuple[Thread, str, float]] = {}
        # Routes of blocks that were freed without an end: rule 2.
        self.abandoned: deque[Route] = deque()

    @property
    def claim(self) -> Claim | None:
        """The exclusive transaction that alone may commit, or None."""
        return self.claims.get(OWNER)

    def wait(self, claim: Claim | None, purpose: str, left: float, timeout: float) -> float:
        """Wait until the owner may have changed; return the seconds that are left.

        Parameters
        ----------
        claim : Claim or None
            Of whoever waits, if it is a transaction.
        purpose : str
        left : float
            Seconds that may be waited yet; negative for ever.
        timeout : float
            Of the whole wait, for the error.

        Raises
        ------
        LockTimeoutError
            If no time is left, or this thread is the owner; it names the owner.
        """
        owner = self.claim
        if not self.is_to_be_waited_for(purpose, left, timeout):
            return left
        begun = clock()
        seconds = LOOK_AGAIN if left < 0 else min(left, LOOK_AGAIN)
        waiting, ident = self._waiting, get_ident()
        try:
            waiting[ident] = (this_thread.thread, purpose, begun - max(0.0, timeout - left))
            if self.waiters.wait(lambda: self.claim is not owner or self.abandoned, seconds, yields=YIELDS):
                seconds = clock() - begun
        finally:
            waiting.pop(ident, None)
        return left if left < 0 else max(0.0, left - seconds)

    def activity(self) -> Activity:
        """Return the owner, and who waits for it; takes no lock."""
        owner, now = self.claim, clock()
        waiting = [
            Waiting(thread_name(thread), purpose, max(0.0, now - since))
            for thread, purpose, since in tuple(self._waiting.values())
        ]
        return Activity(None if owner is None else writer_of(owner), waiting)

    def is_to_be_waited_for(self, purpose: str, left: float, timeout: float) -> bool:
        """Return whether there is an owner that may end yet; parameters and errors as for `wait`."""
        owner = self.claim
        if owner is None:
            return False  # it has ended since it was found: whoever waits now would wait for the next one
        if owner.thread is this_thread.thread and not self.abandoned:
            if _was_left(owner):
                assert owner.route is not None
                self.abandoned.append(owner.route)
                return False
            raise LockTimeoutError(
                f"{purpose}: this thread is already writing ({owner.purpose}) and would wait for itself"
            )
        if left == 0 or sys.is_finalizing():  # when nobody else runs any more
            raise LockTimeoutError(f"{purpose}: no write lock in {timeout:g} s, {self.describe()}")
        return True

    def describe(self) -> str:
        """Name the owner: thread, purpose and for how long."""
        owner = self.claim
        if owner is None:
            return "which is free now"
        held = max(0.0, time.time() - owner.since)
        return f"held for {held:.3f} s by thread {thread_name(owner.thread)!r} ({owner.purpose})"


def _was_left(owner: Claim) -> bool:
    """Return whether exceptions have interrupted the end of a block of this thread, so it has not ended.

    Somebody holds the block yet. It is neither open nor being entered or left on the stack of this thread; if
    it is being left, a signal handler or a finalizer calls in the middle of that.
    """
    block = None if owner.route is None else owner.route()
    if block is None or getattr(block, "_is_open", False):
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in _ENDS and frame.f_locals.get("self") is block:
            return False
        frame = frame.f_back
    return True


#: Methods in which a block is entered and left.
_ENDS = frozenset({"__enter__", "__exit__", "commit", "rollback"})
