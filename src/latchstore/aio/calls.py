"""How calls of tasks to one store are made: directly, in other threads, or on connections of the loop.

1. Calls that never wait are made directly.
2. If the store's engine supports it, calls await its server in the loop (``greenlets.py``).
3. All others run in a thread (``threads.py``), and so do reads of the user's streams, which may block.

Thread safety: a `Calls` may be used in any number of loops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from latchstore.aio.threads import call_for, call_in_thread, call_loader, call_to_its_end
from latchstore.engine.task_transaction import TaskTransaction, reads_wait, waits_in_loops
from latchstore.engine.transactional_store import TransactionalStore

T = TypeVar("T")


class Caller(Protocol):
    """Calls a function for a task."""

    def __call__(self, function: Callable[[], T]) -> Awaitable[T]:
        """Call the function; return its result."""


class Calls:
    """Makes the calls of tasks to one store.

    Parameters
    ----------
    store : TransactionalStore

    Attributes
    ----------
    reads_at_once : bool
        Whether reads of single keys never wait, so that they are called directly.
    """

    def __init__(self, store: TransactionalStore) -> None:
        self._store = store
        self.reads_at_once: bool = not reads_wait(store)
        self._awaiting = _awaiting() if waits_in_loops(store) else None

    async def call_here(self, function: Callable[[], T]) -> T:
        """Call a function that reads a key: in the loop's thread, unless it may wait."""
        return function() if self.reads_at_once else await self.call_elsewhere(function)

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function that writes: elsewhere, unless it only adds to a batch in memory."""
        if self.reads_at_once and self._store.current_transaction() is not None:
            return function()
        return await self.call_elsewhere(function)

    async def call_elsewhere(self, function: Callable[[], T]) -> T:
        """Call a function that may take long: outside the loop's thread, or awaiting the server."""
        if self._awaiting is None:
            return await self.call_in_thread(function)
        transaction = self._store.current_transaction()
        if transaction is None or isinstance(transaction, TaskTransaction):
            return await self._awaiting(function)
        return function()  # the block belongs to the thread

    async def call_in_thread(self, function: Callable[[], T]) -> T:
        """Call a function that may take long and cannot await: in a thread, unless in a block of its own."""
        transaction = self._store.current_transaction()
        if transaction is None:
            return await call_in_thread(function)
        if isinstance(transaction, TaskTransaction):
            return await call_for(transaction, function)
        return function()  # another thread must not use that block

    async def call_for(self, transaction: TaskTransaction | None, function: Callable[[], T]) -> T:
        """Call a function that begins, uses or ends a transaction of the task; wait for the end of the call.

        If the task is cancelled meanwhile, a thread continues to the end of the call. A call that awaits is
        interrupted; before it returns it determines the outcome of a commit, if that is possible.
        """
        if self._awaiting is not None:
            return await self._awaiting(function)
        if transaction is None:
            return await call_to_its_end(function)
        return await call_for(transaction, function)

    async def call_loader(self, function: Callable[[], T]) -> T:
        """Call a function of the user in a thread of the loop's own pool."""
        transaction = self._store.current_transaction()
        if transaction is None or isinstance(transaction, TaskTransaction):
            return await call_loader(transaction, function)
        return function()


def _awaiting() -> Caller | None:
    """Return the caller for functions that await; None if greenlet is not installed."""
    try:
        from latchstore.aio.greenlets import call_awaiting
    except ImportError:
        return None
    return call_awaiting
