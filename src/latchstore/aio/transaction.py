"""Transactions of tasks, which stay open while their task awaits, and attempts at them.

Thread safety: only the task that has entered an `AsyncTransaction` uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from latchstore.aio.calls import Caller, Calls
from latchstore.aio.methods import AsyncMethods
from latchstore.aio.threads import call_for
from latchstore.contract.arguments import checked_timeout
from latchstore.contract.errors import TransactionClosedError, TransactionConflictError, TransactionError
from latchstore.delivery.async_waiting import running_loop, sleep_async
from latchstore.engine.attempts import Attempts
from latchstore.engine.task_transaction import (
    TaskTransaction,
    beginnings_wait,
    call_back,
    reads_wait,
    refuse_others,
    run_for,
    task_transaction,
    transaction_of_task,
)
from latchstore.engine.transactional_store import TransactionalStore

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds
    from latchstore.contract.store import AbstractStore

T = TypeVar("T")


class AsyncTransaction(AsyncMethods):
    """An asynchronous block of changes that is committed as a whole or not at all.

    ``AsyncStore.transaction()`` makes it. Only the task that entered it can use it, inside its block.

    Parameters
    ----------
    store : TransactionalStore
    notes : str
    timeout : float or None

    Thread safety
    -------------
    A transaction belongs to the task that entered it.
    """

    def __init__(self, store: TransactionalStore, notes: str, timeout: float | None) -> None:
        self._store = store
        self._calls = Calls(store)
        self._notes = notes
        self._timeout = timeout
        self._transaction: TaskTransaction | None = None
        # Whether it is inside a block of the thread, so that no other thread can work for it.
        self._stays_here = False

    async def __aenter__(self) -> Self:
        if self._transaction is not None:
            raise TransactionClosedError(f"{self!r} was entered before; each block needs its own")
        if asyncio.current_task(running_loop()) is None:
            raise TransactionError(
                "an asynchronous transaction needs a task of asyncio, but there is none here"
            )
        store = self._store
        outer = transaction_of_task(store)
        self._stays_here = outer is None and store.current_transaction() is not None
        self._transaction = transaction = task_transaction(store, self._notes, self._timeout)
        try:
            if self._stays_here or not beginnings_wait(store):
                transaction.__enter__()
            else:
                await self._calls.call_for(outer, transaction.__enter__)
        except BaseException as error:
            # The task may have been cancelled, or closed with its loop, after the block had begun.
            if transaction.is_connected():
                run_for(transaction, partial(transaction.__exit__, type(error), error, error.__traceback__))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transaction = self._entered
        if kind is GeneratorExit:
            # The coroutine is being closed, as its loop was, and cannot await any more.
            run_for(transaction, lambda: transaction.__exit__(kind, error, traceback))
            call_back(transaction)
            return
        await self._end(lambda: transaction.__exit__(kind, error, traceback))

    async def _end(self, function: Callable[[], T]) -> T:
        transaction = self._entered
        try:
            refuse_others(transaction)
            if self._stays_here:
                return function()
            return await self._calls.call_for(transaction, function)
        finally:
            call_back(transaction)

    @property
    def _entered(self) -> TaskTransaction:
        if self._transaction is None:
            raise TransactionClosedError(f"{self!r} is used outside its block: it was not entered")
        return self._transaction

    @property
    def _target(self) -> AbstractStore:
        return self._entered

    async def _read(self, function: Callable[[], T]) -> T:
        return await self._scan(function) if reads_wait(self._store) else function()

    async def _scan(self, function: Callable[[], T]) -> T:
        return await self._call(partial(self._calls.call_for, self._entered), function)

    async def _write(self, function: Callable[[], T]) -> T:
        return await self._read(function)

    async def _write_streams(self, function: Callable[[], T]) -> T:
        if not reads_wait(self._store):
            return function()
        return await self._call(partial(call_for, self._entered), function)

    async def _call(self, call: Caller, function: Callable[[], T]) -> T:
        transaction = self._entered
        if self._stays_here or not transaction.is_connected():
            return function()  # may raise an error that explains why
        refuse_others(transaction)
        return await call(function)

    @property
    def notes(self) -> str:
        """Description of the transaction."""
        return self._notes

    @property
    def revision(self) -> int | None:
        """Revision of the commit, once it is made; that of the store if nothing was changed.

        Always None for an inner block, which is committed with the outermost one.
        """
        return None if self._transaction is None else self._transaction.revision

    async def commit(self) -> None:
        """Commit now; the rest of the block cannot use the transaction, and its end does nothing.

        Raises
        ------
        TransactionConflictError
            If something that it has read was changed.
        TransactionClosedError
            If it was committed, rolled back or doomed before, or an inner block is open.
        """
        await self._end(self._entered.commit)

    async def rollback(self) -> None:
        """Roll back all changes of the block now; its end then does nothing.

        Raises
        ------
        TransactionClosedError
            If it was committed or rolled back before, or an inner block is open.
        """
        await self._end(self._entered.rollback)

    def doom(self) -> None:
        """Let the block roll back at its end, without an exception."""
        self._entered.doom()

    def on_commit(self, function: Callable[[], object]) -> None:
        """Call `function` in the loop's thread once the outermost block has committed the changes.

        Its exceptions are logged, as the commit is final.
        """
        self._entered.on_commit(function)

    def on_rollback(self, function: Callable[[], object]) -> None:
        """Call `function` once the changes of this block are rolled back; otherwise like `on_commit`."""
        self._entered.on_rollback(function)

    def transaction(self, notes: str = "", *, timeout: Seconds | None = None) -> AsyncTransaction:
        """Return a block inside this one: a savepoint."""
        return AsyncTransaction(self._store, notes, checked_timeout(timeout))

    def __repr__(self) -> str:
        if self._transaction is None:
            return f"<new asynchronous transaction {self._notes!r}>"
        return f"<asynchronous {repr(self._transaction).removeprefix('<')}"


class AsyncAttempt:
    """One attempt: a context manager for the transaction, which suppresses a conflict unless it is the last.

    Parameters
    ----------
    attempts : Attempts
    number : int
        1 for the first attempt.
    make : callable
        Makes the transaction.
    """

    def __init__(self, attempts: Attempts, number: int, make: Callable[[], AsyncTransaction]) -> None:
        self.number: int = number
        self._attempts = attempts
        self._make = make
        self._transaction: AsyncTransaction | None = None

    @property
    def entered(self) -> bool:
        """Whether the block has begun."""
        return self._transaction is not None

    async def __aenter__(self) -> AsyncTransaction:
        if self._transaction is not None:
            raise TransactionClosedError(f"attempt {self.number} was entered before")
        self._transaction = self._make()
        return await self._transaction.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        transaction = self._transaction
        assert transaction is not None
        try:
            await transaction.__aexit__(kind, error, traceback)
        except TransactionConflictError as conflict:
            await sleep_async(self._attempts.pause_after(self.number, conflict))
            return True
        if isinstance(error, TransactionConflictError) and transaction.revision is None:
            # From tx.commit() inside the block. After a commit, the conflict is another store's, and
            # propagates.
            await sleep_async(self._attempts.pause_after(self.number, error))
            return True
        self._attempts.finished = True
        return False


async def each_attempt(
    attempts: Attempts, make: Callable[[], AsyncTransaction]
) -> AsyncIterator[AsyncAttempt]:
    """Make attempts until one is committed."""
    running_loop()  # raises at once if there is none, so that nothing is left open
    number = 0
    while not attempts.finished:
        number += 1
        attempt = AsyncAttempt(attempts, number, make)
        yield attempt
        if not attempt.entered:
            raise TransactionClosedError(
                f"attempt {number} was not entered: each attempt needs its block, `async with attempt as tx:`"
            )
