"""To which open transaction the calls of each thread, and of tasks of asyncio within it, go.

Thread safety: each item is read by the thread that is its key, and written by that thread, or by one that
works for it while it waits, by single operations of the dict. An item that remains of a struck block is taken
away when its thread next calls the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import get_ident
from typing import TYPE_CHECKING

from latchstore.contract.errors import TransactionError
from latchstore.delivery.waiting import this_thread
from latchstore.engine.owner import Claim, Route
from latchstore.engine.tasks import current_task

if TYPE_CHECKING:
    from latchstore.engine.transaction import Transaction


class TaskRoutes(dict[object, Route]):
    """The routes of one thread by task: that of None is the thread's own, to which all of its tasks go."""

    __slots__ = ()


class Routes(dict[int, "Route | TaskRoutes"]):
    """The route of each thread that is in a transaction, by the thread's identifier.

    A thread with transactions that belong to tasks has a `TaskRoutes` there.
    """

    __slots__ = ()

    def current(self) -> Transaction | None:
        """Return the innermost open transaction of the calling thread, or of the task that runs in it."""
        ident = get_ident()
        if ident not in self:
            return None
        route: Route | TaskRoutes | None = self[ident]
        if type(route) is TaskRoutes:
            route = route.get(current_task()) or route.get(None)
        while route is not None:
            assert isinstance(route, Route)
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

    def innermost(self, claim: Claim) -> Route | None:
        """Return the route of the thread, or task, that a claim belongs to."""
        found = self.get(claim.ident)
        if type(found) is TaskRoutes:
            return found.get(claim.task)
        assert found is None or isinstance(found, Route)
        return found if claim.task is None else None

    def place(self, claim: Claim, route: Route | None) -> None:
        """Have the calls of a claim's thread, or task, go to a block; None: to the store."""
        ident, task = claim.ident, claim.task
        found = self.get(ident)
        if type(found) is TaskRoutes or task is not None:
            self._place_by_task(ident, task, route)
        elif route is None:
            self.pop(ident, None)
        else:
            self[ident] = route

    def _place_by_task(self, ident: int, task: object, route: Route | None) -> None:
        tasks = self.get(ident)
        if type(tasks) is not TaskRoutes:
            own = tasks
            tasks = TaskRoutes()
            if isinstance(own, Route):
                tasks[None] = own
            if route is None and not tasks:
                return
            self[ident] = tasks
        if route is not None:
            tasks[task] = route
            self[ident] = tasks
            return
        tasks.pop(task, None)
        if not tasks:
            self.pop(ident, None)
            if tasks:
                self[ident] = tasks  # another thread, which works for this one, has added one in between

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
        claim = route.claim
        if claim.task is None and claim.ident not in self:
            self[claim.ident] = route  # hot path
            return
        found = self.innermost(claim)
        if found is not None:
            other: Transaction | None = found()  # type: ignore[assignment]
            if other is not None and other._thread is None:
                route.outer = found
        self.place(claim, route)

    def forget(self, claim: Claim) -> None:
        """Take away the route of a transaction that has ended, wherever its innermost block is."""
        ident = claim.ident
        if ident in self:
            found = self[ident]
            route = found.get(claim.task) if isinstance(found, TaskRoutes) else found
            if route is None or route.claim is not claim:
                return
            while route is not None and route.claim is claim:
                route = route.outer
            if route is None and type(found) is not TaskRoutes:
                del self[ident]  # hot path
            else:
                self.place(claim, route)

    def blocks(self) -> Iterator[object]:
        """Return the innermost open block of each thread and task."""
        for found in list(self.values()):
            for route in [*found.values()] if type(found) is TaskRoutes else [found]:
                assert isinstance(route, Route)
                block = route()
                if block is not None:
                    yield block
