"""To which open transaction the calls of each thread, and of tasks of asyncio within it, go.

Thread safety: each item is read by the thread, or the task, that is its key, and written by that one, or by a
thread that works for it while it waits, by single operations of the dict. So the items of two tasks are
independent of each other, though threads of a pool may write both at once. An item that remains of a struck
block is taken away when its thread next calls the store.
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
    """A transaction whose block runs.

    Attributes
    ----------
    number, notes, thread : int, str, str
        As `TransactionInfo` has them.
    seconds : float
        How long it has been open.
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
        # hot path: without a call, as the block that is found is open as a rule.
        transaction: Transaction | None = route()  # type: ignore[assignment]
        if transaction is None or transaction._left or transaction._thread is not this_thread.thread:
            return self._innermost(route)
        return transaction

    def _innermost(self, route: Route | None) -> Transaction | None:
        while route is not None:
            transaction: Transaction | None = route()  # type: ignore[assignment]
            if transaction is not None and not transaction._left:
                # If it is another thread's, that has ended, and this one has got its identifier. It may also
                # be one that is being entered.
                if transaction._thread is this_thread.thread or transaction._belongs_to_this_thread():
                    return transaction
                return None
            # Its end was struck by an exception.
            outer = route.outer
            inside = outer is not None and outer.claim is route.claim
            if inside and transaction is None and route.batch is not None:
                route.batch.rollback_to(route.savepoint)
            self.place(route.claim, outer)
            route = outer
        return None

    def place(self, claim: Claim, route: Route | None) -> None:
        """Have the calls of a claim's thread, or task, go to a block; None: to the store."""
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
        """Have the calls of this thread go to an outermost block.

        The thread may be entering one already, and be interrupted by a signal handler or a finalizer that
        has this one, and ends it: then its calls go to the other one again.
        """
        ident = route.claim.ident
        if type(ident) is not int:
            self.__class__ = RoutesOfTasks  # before it is there, and for good
        found = self.get(ident)
        if found is not None:
            other: Transaction | None = found()  # type: ignore[assignment]
            if other is not None and other._thread is None:
                route.outer = found
        self[ident] = route

    def forget(self, claim: Claim) -> None:
        """Take away the route of a transaction that has ended, wherever its innermost block is."""
        route = self.get(claim.ident)
        if route is None or route.claim is not claim:
            return
        while route is not None and route.claim is claim:
            route = route.outer
        if route is None:
            del self[claim.ident]  # hot path: no call
        else:
            self[claim.ident] = route

    def transactions(self) -> list[OpenTransaction]:
        """Return the transactions that are open, in the order in which they were entered; takes no lock."""
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
    """What `Routes` become when a transaction first belongs to a task: threads alone are looked up faster."""

    __slots__ = ()

    def current(self) -> Transaction | None:
        """Return the innermost open transaction of the task that runs here, or else of the thread."""
        task = task_reference()
        # All tasks of a thread go to the block of the thread, if it has one.
        return self._innermost((None if task is None else self.get(task)) or self.get(get_ident()))

    def __contains__(self, ident: object) -> bool:
        """Return whether the calling thread, of this identifier, or the task that runs in it has a route."""
        return ident in self.keys() or task_reference() in self.keys()
