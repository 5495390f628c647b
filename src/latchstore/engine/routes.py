"""To which open transaction the calls of each thread go.

Thread safety: each item is read and written by the thread that is its key, by single operations of the dict.
An item that remains of a struck block is taken away when its thread next calls the store.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING

from latchstore.contract.errors import TransactionError
from latchstore.delivery.waiting import this_thread
from latchstore.engine.owner import Claim, Route

if TYPE_CHECKING:
    from latchstore.engine.transaction import Transaction


class Routes(dict[int, Route]):
    """The route of each thread that is in a transaction, by the thread's identifier."""

    __slots__ = ()

    def current(self) -> Transaction | None:
        """Return the innermost open transaction of the calling thread."""
        ident = get_ident()
        if ident not in self:
            return None
        route: Route | None = self[ident]
        while route is not None:
            transaction: Transaction | None = route()  # type: ignore[assignment]
            if transaction is not None and not transaction._left:
                # If it is another thread's, that has ended, and this one has got its identifier. It may also
                # be one that is being entered.
                return transaction if transaction._thread is this_thread.thread else None
            # Its end was struck by an exception.
            outer = route.outer
            if outer is None:
                self.pop(ident, None)
            else:
                if transaction is None and route.batch is not None and outer.claim is route.claim:
                    route.batch.rollback_to(route.savepoint)
                self[ident] = outer
            route = outer
        return None

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
        if ident in self:
            other: Transaction | None = self[ident]()  # type: ignore[assignment]
            if other is not None and other._thread is None:
                route.outer = self[ident]
        self[ident] = route

    def forget(self, claim: Claim) -> None:
        """Take away the route of a transaction that has ended, wherever its innermost block is."""
        ident = claim.ident
        if ident in self:
            route: Route | None = self[ident]
            if route is None or route.claim is not claim:
                return
            while route is not None and route.claim is claim:
                route = route.outer
            if route is None:
                del self[ident]
            else:
                self[ident] = route
