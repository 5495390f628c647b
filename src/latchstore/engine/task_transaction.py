"""Transactions of an asyncio task, which stay open while the task awaits.

Thread safety: such a transaction is optimistic, so it blocks no other writer while its task waits. It is used
by the task that entered it, and by one other thread at a time that works for the task while the task awaits
that thread (`run_for`). Other tasks of the same thread do not use it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import Thread, get_ident
from typing import TYPE_CHECKING, Self, TypeVar

from latchstore.delivery.waiting import this_thread
from latchstore.engine.batch import WriteBatch
from latchstore.engine.owner import Claim, Route
from latchstore.engine.tasks import current_task, task_reference
from latchstore.engine.transaction import Functions, Host, Transaction, call_all

if TYPE_CHECKING:
    from latchstore.engine.transactional_store import TransactionalStore

T = TypeVar("T")


class TaskClaim(Claim):
    """The claim of a task's transaction: it is the task's, whichever thread works for that."""

    __slots__ = ()

    def __init__(
        self, block: TaskTransaction, abandon: Callable[[Route], None], purpose: str, notes: str
    ) -> None:
        super().__init__(block, abandon, purpose, notes)
        self.thread, self.ident = block._home, block._reference
        assert self.info is not None  # created now, with the name of the loop's thread


class TaskTransaction(Transaction):
    """An optimistic transaction of the task that creates it.

    Parameters
    ----------
    store : Host
    notes : str
    timeout : float or None
        As for `Transaction`.
    """

    __slots__ = ("_callbacks", "_home", "_home_ident", "_owner", "_reference", "_working")

    _claim_class = TaskClaim

    def __init__(self, store: Host, notes: str, timeout: float | None) -> None:
        super().__init__(store, notes, timeout, optimistic=True)
        self._owner: object = current_task()
        reference = task_reference()
        assert reference is not None
        self._reference: weakref.ref[object] = reference
        self._home: Thread = this_thread.thread
        self._home_ident: int = get_ident()
        # The identifier of the thread that works for the task, or 0.
        self._working: int = 0
        self._callbacks: Functions = ()

    def __enter__(self) -> Self:
        super().__enter__()
        self._thread, self._task = self._home, self._owner
        return self

    def _commit(self, batch: WriteBatch) -> None:
        if self._claim is not None and self._outer is None:
            # It may be the owner for a moment, and must not wait for itself.
            self._claim.thread = this_thread.thread
        super()._commit(batch)

    def _belongs_to_this_thread(self) -> bool:
        return self._working == get_ident() or (
            self._home is this_thread.thread and current_task() is self._owner
        )

    def _open_batch(self) -> WriteBatch:
        if self._thread is None:
            return super()._open_batch()
        if not self._belongs_to_this_thread():
            raise self._error_of_task(self._owner)
        if self._batch is None:
            raise self._error_of_end()
        return self._batch

    def _call_back(self) -> None:
        """Keep the functions registered for this end, for `call_back`."""
        committed = self._outer is None and self.revision is not None
        functions = self._after_commit if committed else self._after_rollback
        self._after_commit = self._after_rollback = ()
        if not self._kept:
            self._callbacks = functions


def call_back(transaction: TaskTransaction) -> None:
    """Call the functions registered for the end of a transaction that has ended, once."""
    functions, transaction._callbacks = transaction._callbacks, ()
    if functions:
        call_all(functions)


def task_transaction(store: TransactionalStore, notes: str, timeout: float | None) -> TaskTransaction:
    """Return a new transaction of the running task."""
    return TaskTransaction(store, notes, timeout)


def transaction_of_task(store: TransactionalStore) -> TaskTransaction | None:
    """Return the innermost open transaction of the running task, if it is a `TaskTransaction`."""
    routes = store._engine.routes
    transaction = routes.current() if routes else None
    return transaction if isinstance(transaction, TaskTransaction) else None


def refuse_others(transaction: TaskTransaction) -> None:
    """Raise WrongThreadError unless the running task has entered the block."""
    if not transaction._belongs_to_this_thread():
        raise transaction._error_of_task(transaction._owner)


def run_for(transaction: TaskTransaction, function: Callable[[], T]) -> T:
    """Call a function in this thread on behalf of a transaction's task, which awaits it or has ended."""
    routes, ident = transaction._engine.routes, get_ident()
    claim, is_home = transaction._claim, ident == transaction._home_ident
    route = None if claim is None else routes.get(claim.ident)
    working: list[TaskTransaction] = [transaction]
    block: object = None if route is None else route()
    while isinstance(block, Transaction):
        if isinstance(block, TaskTransaction) and block is not transaction:
            working.append(block)
        block = block._outer
    try:
        for each in working:
            each._working = ident
        if route is not None and not is_home:
            routes[ident] = route
        return function()
    finally:
        if not is_home:
            routes.pop(ident, None)
        for each in working:
            each._working = 0


def reads_wait(store: TransactionalStore) -> bool:
    """Return whether reads of a store may block, on a disk or a server."""
    return store._engine.reads_wait


def waits_in_loops(store: TransactionalStore) -> bool:
    """Return whether a task that calls awaits what the store waits for (``delivery/awaiting.py``)."""
    return store._engine.waits_in_loops


def beginnings_wait(store: TransactionalStore) -> bool:
    """Return whether beginning a transaction may block: on the same, or until there is room for events."""
    return store._engine.reads_wait or store._dispatcher.throttled
