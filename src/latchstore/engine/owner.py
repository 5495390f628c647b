"""The owner: the exclusive transaction that alone may commit.

Thread safety:

1. A claim becomes the owner's by one ``dict.setdefault``, without the table lock, and is removed under it.
   A committing thread sets the holder of the table lock first and then checks for an owner; a thread that
   becomes the owner then checks for a holder, and waits for the end of its section. So of a commit and a
   beginning at the same time at least one finds the other.
2. An engine references open transactions weakly only: a `Claim` does not reference its block, a `Route` does
   so weakly. So an unreferenced block whose end was interrupted by an exception owns nothing: its route is
   put on `abandoned`, by one ``deque.append`` in C, wherever the last reference is dropped. The next holder
   of the table lock rolls it back.
3. A thread that waits for the owner sleeps with no lock held, and checks again by itself after a moment: an
   exception that interrupts the waking thread may lose a wake-up.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
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
    """Identifies the transaction that made an event.

    Attributes
    ----------
    number : int
        Numbers the transactions of the process that ran it, in the order in which they were entered.
    notes : str
        The `notes` of ``store.transaction(notes)``.
    thread : str
        The name of the thread that ran it, and the process if that is another one.
    """

    number: int
    notes: str
    thread: str


class Claim:
    """The engine's record of an outermost block, valid as long as the block is referenced.

    Parameters
    ----------
    block : object
    abandon : callable
        The engine's, which receives the route when the block is freed.
    purpose : str, optional
        The name of the operation, if it is not a transaction.
    notes : str, optional
        The notes of a transaction.

    Attributes
    ----------
    thread : Thread
        The thread that runs it.
    ident : int or weak reference
        Identifies the calls that go to the block: the thread's identifier; or, for a block of an asyncio
        task, that task. The task is referenced weakly, since it may have the block open when its loop is
        gone.
    notes : str or None
        The notes of the transaction; None if it is not one.
    since : float
        When it became the owner, or last tried to, in seconds since the epoch.
    revision : int or None
        The revision of its commit, assigned in the section that makes the commit.
    start : Delivery or None
        The queued event of its beginning, if there are listeners.
    failure : Delivery or None
        The queued event of its rollback.
    route : Route or None
        The route to the block; None when the block has ended, so that nothing happens when it is freed.
    ended : bool
        Whether it was committed or rolled back.
    here : bool
        Whether its end is an event of this store object; always true.
    """

    here: ClassVar[bool] = True

    __slots__ = (
        "_info",
        "_number",
        "_purpose",
        "ended",
        "failure",
        "ident",
        "notes",
        "revision",
        "route",
        "since",
        "start",
        "thread",
    )

    def __init__(
        self, block: object, abandon: Callable[[Route], None], purpose: str = "", notes: str | None = None
    ) -> None:
        self.thread: Thread = this_thread.thread
        self.ident: int | weakref.ref[object] = get_ident()
        self._purpose = purpose
        self.notes: str | None = notes
        self.since: float = 0.0
        self.revision: int | None = None
        self.start: Delivery | None = None
        self.failure: Delivery | None = None
        self.ended: bool = False
        self._info: TransactionInfo | None = None
        self._number = 0 if notes is None else next(_transaction_numbers)
        route = Route(block, abandon)
        self.route: Route | None = route
        route.claim = self
        route.outer = route.batch = None
        route.savepoint = 0

    @property
    def purpose(self) -> str:
        """The name of the operation, for error messages."""
        # hot path: that of a transaction is mostly not needed.
        return self._purpose if self.notes is None else f"transaction {self.notes!r}"

    @property
    def info(self) -> TransactionInfo | None:
        """The `TransactionInfo` for events; None if it is not a transaction."""
        if self._info is None and self.notes is not None:
            self._info = TransactionInfo(self._number, self.notes, self.thread.name)
        return self._info


def purpose_of(operation: str | Claim) -> str:
    """Return the name of an operation, which may be a transaction, for error messages."""
    return operation if isinstance(operation, str) else operation.purpose


class Route(weakref.ref[object]):
    """A weak reference to an open block, by which a thread's calls go to it.

    Attributes
    ----------
    claim : Claim
        The claim of the outermost block.
    outer : Route or None
        The route of the enclosing block.
    batch : WriteBatch or None
    savepoint : int
        The savepoint to which the batch is rolled back if the block is abandoned.
    """

    __slots__ = ("batch", "claim", "outer", "savepoint")

    claim: Claim
    outer: Route | None
    batch: WriteBatch | None
    savepoint: int


class Writer(NamedTuple):
    """The only thread that may write at a moment.

    Attributes
    ----------
    thread, purpose : str
        The name of the thread, and of its operation.
    seconds : float
        The time since it became the writer.
    process : int
        The number of its process.
    host : str or None
        The machine, if that may be another one.
    """

    thread: str
    purpose: str
    seconds: float
    process: int
    host: str | None = None


class Waiting(NamedTuple):
    """A thread of this process that waits to write: its name, its operation, and its seconds of waiting."""

    thread: str
    purpose: str
    seconds: float


class Activity(NamedTuple):
    """The writer, and the threads that wait to write."""

    writer: Writer | None = None
    waiting: Sequence[Waiting] = ()


def writer_of(claim: Claim) -> Writer:
    """Return the writer of an owner's claim."""
    held = max(0.0, time.time() - claim.since)
    return Writer(thread_name(claim.thread), claim.purpose, held, os.getpid())


class Ownership:
    """The owner of an engine, and the threads that wait to become the owner.

    Attributes
    ----------
    claims : dict
        The owner's claim under `OWNER`; empty if there is no owner.
    """

    __slots__ = ("_waiting", "abandoned", "claims", "waiters")

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.waiters: Waiters = Waiters()
        # The waiting threads by identifier, with their operation and when they began to wait.
        self._waiting: dict[int, tuple[Thread, str, float]] = {}
        # Routes of blocks that were freed without being exited: rule 2.
        self.abandoned: deque[Route] = deque()

    @property
    def claim(self) -> Claim | None:
        """The claim of the owner, which alone may commit, or None."""
        return self.claims.get(OWNER)

    def wait(self, claim: Claim | None, purpose: str, left: float, timeout: float) -> float:
        """Wait until the owner may have changed; return the remaining seconds.

        Parameters
        ----------
        claim : Claim or None
            The claim of the waiting transaction, if it is one.
        purpose : str
        left : float
            The remaining seconds; negative waits forever.
        timeout : float
            The seconds of the whole wait, for the error.

        Raises
        ------
        LockTimeoutError
            If no time is left, or this thread is the owner; names the owner.
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
        """Return the owner and the threads that wait; acquires no lock."""
        owner, now = self.claim, clock()
        waiting = [
            Waiting(thread_name(thread), purpose, max(0.0, now - since))
            for thread, purpose, since in tuple(self._waiting.values())
        ]
        return Activity(None if owner is None else writer_of(owner), waiting)

    def is_to_be_waited_for(self, purpose: str, left: float, timeout: float) -> bool:
        """Return whether there is an owner that may still end; parameters and errors as for `wait`."""
        owner = self.claim
        if owner is None:
            return False  # it has ended since it was found; waiting now would be waiting for the next owner
        if owner.thread is this_thread.thread and not self.abandoned:
            if _was_left(owner):
                assert owner.route is not None
                self.abandoned.append(owner.route)
                return False
            raise LockTimeoutError(
                f"{purpose}: this thread is already writing ({owner.purpose}) and would wait for itself"
            )
        if left == 0 or sys.is_finalizing():  # at interpreter exit no other thread runs
            raise LockTimeoutError(f"{purpose}: no write lock in {timeout:g} s, {self.describe()}")
        return True

    def describe(self) -> str:
        """Return a description of the owner: thread, purpose and seconds."""
        owner = self.claim
        if owner is None:
            return "which is free now"
        held = max(0.0, time.time() - owner.since)
        return f"held for {held:.3f} s by thread {thread_name(owner.thread)!r} ({owner.purpose})"


def _was_left(owner: Claim) -> bool:
    """Return whether exceptions have interrupted the end of a block of this thread, so it has not ended.

    The block is still referenced. It is neither open nor being entered or left on the stack of this thread;
    if it is being left, a signal handler or finalizer calls in the middle of that.
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


#: The methods that enter and leave a block.
_ENDS = frozenset({"__enter__", "__exit__", "commit", "rollback"})
