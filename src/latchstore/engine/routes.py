"""Routes: the open transaction to which the calls of each thread, or of an asyncio task in it, go.

Thread safety: each item is read by the thread or task that is its key. It is written by that one, or by a
thread that works for it while it waits, by single dict operations. So the items of two tasks are independent,
though pool threads may write both at once. The leftover item of an interrupted block is removed when its
thread next calls the store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple

from latchstore.contract.errors import TransactionError
from latchstore.delivery.waiting import this_thread
from latchstore.engine.owner import Claim, Route
from latchstore.engine.tasks import task_reference

if TYPE_CHECKING:
    from latchstore.engine.transaction import Transaction


class OpenTransaction(NamedTuple):
    """A transaction whose block is running.

    Attributes
    ----------
    number, notes, thread : int, str, str
        As in `TransactionInfo`.
    seconds : float
        The time since it was opened.
    optimistic : bool
    """

    number: int
    notes: str
    thread: str
    seconds: float
    optimistic: bool


class Routes(dict[object, Route]):
    """The routes of the threads that are in transactions, by identifier, and of tasks, by reference."""

    __slots__ = ()

    def current(self) -> Transaction | None:
        """Return the innermost open transaction of the calling thread, or of the task that runs in it."""
        ident = get_ident()
        if ident not in self:
            return None
        route = self[ident]
        # hot path: no call, since the block is mostly open.
        transaction: Transaction | None = route()  # type: ignore[assignment]
        if transaction is None or transaction._left or transaction._thread is not this_thread.thread:
            return self._innermost(route)
        return transaction

    def _innermost(self, route: Route | None) -> Transaction | None:
        while route is not None:
            transaction: Transaction | None = route()  # type: ignore[assignment]
            if transaction is not None and not transaction._left:
                # One of another thread has ended, and this thread has got its identifier. Or the block is
                # being entered.
                if transaction._thread is this_thread.thread or transaction._belongs_to_this_thread():
                    return transaction
                return None
            # An exception has interrupted its end.
            outer = route.outer
            inside = outer is not None and outer.claim is route.claim
            if inside and transaction is None and route.batch is not None:
                route.batch.rollback_to(route.savepoint)
            self.place(route.claim, outer)
            route = outer
        return None

    def place(self, claim: Claim, route: Route | None) -> None:
        """Route the calls of a claim's thread or task to a block, or with None to the store."""
        if route is None:
            self.pop(claim.ident, None)
        else:
            self[claim.ident] = route

    def refuse(self, operation: str) -> None:
        """Raise TransactionError if the calling thread is in a transaction."""
        transaction = self.current()
        if transaction is not None:
            raise TransactionError(f"{operation}() cannot be called inside {transaction!r}")

    def begin(self, route: Route) -> None:
        """Route the calls of this thread to an outermost block.

        The thread may be entering another block, interrupted by a signal handler or finalizer that enters
        and ends this one; then its calls go to the other block again.
        """
        ident = route.claim.ident
        if type(ident) is not int:
            self.__class__ = RoutesOfTasks  # before the item is added, and permanently
        found = self.get(ident)
        if found is not None:
            other: Transaction | None = found()  # type: ignore[assignment]
            if other is not None and other._thread is None:
                route.outer = found
        self[ident] = route

    def forget(self, claim: Claim) -> None:
        """Remove the route of a transaction that has ended, wherever its innermost block is."""
        route = self.get(claim.ident)
        if route is None or route.claim is not claim:
            return
        while True:
            route = route.outer
            if route is None or route.claim is not claim:
                break
        if route is None:
            del self[claim.ident]  # hot path: no call
        else:
            self[claim.ident] = route

    def transactions(self) -> list[OpenTransaction]:
        """Return the open transactions in the order in which they were entered; acquires no lock."""
        now = time.time()
        found = {}
        for route in list(self.values()):
            claim, block = route.claim, route()
            if block is not None and claim.info is not None and not claim.ended:
                optimistic = bool(getattr(block, "optimistic", False))
                found[claim] = OpenTransaction(*claim.info, max(0.0, now - claim.since), optimistic)
        return sorted(found.values())

    def blocks(self) -> Iterator[object]:
        """Return the innermost open block of each thread and task."""
        for route in list(self.values()):
            block = route()
            if block is not None:
                yield block


class RoutesOfTasks(Routes):
    """The class of `Routes` once a transaction belongs to a task: without tasks, lookups are faster."""

    __slots__ = ()

    def current(self) -> Transaction | None:
        """Return the innermost open transaction of the task that runs here, or else of the thread."""
        task = task_reference()
        # All tasks of a thread use the block of the thread, if it has one.
        return self._innermost((None if task is None else self.get(task)) or self.get(get_ident()))

    def __contains__(self, ident: object) -> bool:
        """Return whether the calling thread, identified by `ident`, or the task in it has a route."""
        return ident in self.keys() or task_reference() in self.keys()
