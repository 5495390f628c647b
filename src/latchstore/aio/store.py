"""`AsyncStore`: a store with awaitable methods, and transactions that stay open while their task awaits.

1. Reads of single keys of a store in memory are made in the loop's thread, as they wait for nobody. What may
   wait, for another writer, for room for events, a disk or a server, and what reads many keys, is made in
   another thread; calls of a `RedisStore` await its server in the loop (``calls.py``).
2. A transaction is optimistic: while it is open it holds no lock, whatever the task awaits. It belongs to the
   task that has entered it: calls of that task use it, through an `AsyncStore`, the store itself, or caches
   on it; calls of other tasks do not, including tasks that it starts.

Thread safety: an `AsyncStore` may be used in any number of loops, and the store beneath by any thread.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from latchstore.aio.calls import Calls
from latchstore.aio.methods import AsyncMethods
from latchstore.aio.threads import call_in_thread
from latchstore.aio.transaction import AsyncAttempt, AsyncTransaction, each_attempt
from latchstore.aio.watch import AsyncWatch
from latchstore.contract.arguments import check_callable, checked_key, checked_timeout, describe
from latchstore.contract.errors import (
    TransactionError,
    WaitTimeoutError,
    WatchClosedError,
)
from latchstore.delivery.async_waiting import Remaining
from latchstore.delivery.loop_listeners import wait_for_listeners
from latchstore.engine.transactional_store import TransactionalStore

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds
    from latchstore.contract.store import AbstractStore
    from latchstore.contract.values import Value

T = TypeVar("T")


class AsyncStore(AsyncMethods):
    """The methods of a store for tasks of asyncio.

    The store is the same one that threads use, and `store` returns it.

    Parameters
    ----------
    store : TransactionalStore
        A `DictMemoryStore`, `SqliteStore` or `RedisStore`.

    Thread safety
    -------------
    Tasks of any number of event loops may use it, while threads use the store beneath it.

    Examples
    --------
    >>> import asyncio
    >>> from latchstore import DictMemoryStore, EventManager
    >>> from latchstore.aio import AsyncStore
    >>> async def main() -> bytes:
    ...     async with AsyncStore(DictMemoryStore(EventManager())) as store:
    ...         async with store.transaction("a first entry") as tx:
    ...             await tx.from_bytes("greeting", b"hello")
    ...         return await store.to_bytes("greeting")
    >>> asyncio.run(main())
    b'hello'
    """

    def __init__(self, store: TransactionalStore) -> None:
        if not isinstance(store, TransactionalStore):
            raise TypeError(
                "store must be a store with transactions, such as DictMemoryStore, SqliteStore or "
                f"RedisStore, got {describe(store)}"
            )
        self._store = store
        self._calls = Calls(store)

    @property
    def store(self) -> TransactionalStore:
        """The wrapped store."""
        return self._store

    @property
    def _target(self) -> AbstractStore:
        return self._store

    async def _read(self, function: Callable[[], T]) -> T:
        return await self._calls.call_here(function)

    async def _scan(self, function: Callable[[], T]) -> T:
        return await self._calls.call_elsewhere(function)

    async def _write(self, function: Callable[[], T]) -> T:
        return await self._calls.call(function)

    async def _write_streams(self, function: Callable[[], T]) -> T:
        return await self._calls.call_in_thread(function)

    def _refuse_in_transaction(self, operation: str) -> None:
        transaction = self._store.current_transaction()
        if transaction is not None:
            raise TransactionError(f"{operation}() cannot be called inside {transaction!r}")

    # -- transactions -----------------------------------------------------------------------------

    def transaction(self, notes: str = "", *, timeout: Seconds | None = None) -> AsyncTransaction:
        """Return an asynchronous context manager that commits all changes of its block, or none.

        The transaction is optimistic: it reads the store as it was when the block began. If something that it
        has read was changed by its end, it raises TransactionConflictError; `attempts` tries again. A block
        inside a block of the same task is a savepoint.

        Parameters
        ----------
        notes : str
            Description of the transaction, for error messages and events.
        timeout : Seconds, optional
            Maximum seconds to wait for other writers at the end; ``lock_timeout`` if None.

        Raises
        ------
        TransactionConflictError
            At the end of the block; the error has the keys.
        LockTimeoutError
            At the end, if another writer does not finish in time.
        """
        self._store.transaction(notes, timeout=timeout)  # bad arguments raise here
        return AsyncTransaction(self._store, notes, checked_timeout(timeout))

    def attempts(
        self, notes: str = "", *, tries: int = 100, timeout: Seconds | None = None
    ) -> AsyncIterator[AsyncAttempt]:
        """Return an asynchronous iterator over attempts at one transaction, which ends with its commit.

        ``async for attempt in store.attempts("move"):`` ``async with attempt as tx: ...`` runs the block
        again after a short random pause, as long as it conflicts.

        Parameters
        ----------
        notes : str
            Description of the transaction.
        tries : int
            Maximum number of attempts.
        timeout : Seconds, optional
            Seconds after which no further attempt begins.

        Raises
        ------
        TransactionConflictError
            After the last attempt; the error has the number of attempts.
        """
        attempts = self._store.attempts(notes, tries=tries, timeout=timeout)
        return each_attempt(attempts, partial(self.transaction, notes))

    # -- following changes ------------------------------------------------------------------------

    def watch(
        self,
        glob: str = "*",
        filter: Mapping[str, Any] | None = None,
        since: int | None = None,
        *,
        max_buffer: int = 10_000,
        on_overflow: str = "drop",
    ) -> AsyncWatch:
        """Return an asynchronous iterator over the changes that are committed from now on.

        Parameters and errors are those of ``store.watch``. The watch is open when this method returns.
        """
        return AsyncWatch(
            self._store.watch(glob, filter, since, max_buffer=max_buffer, on_overflow=on_overflow)
        )

    @overload
    async def wait_for(self, predicate: Callable[[], Awaitable[T]], timeout: Seconds | None = 30.0) -> T: ...

    @overload
    async def wait_for(self, predicate: Callable[[], T], timeout: Seconds | None = 30.0) -> T: ...

    async def wait_for(self, predicate: Callable[[], Any], timeout: Seconds | None = 30.0) -> Any:
        """Wait until a predicate about the store is true; return its result.

        Parameters
        ----------
        predicate : callable
            A function or a coroutine function without arguments, called in the loop, now and after changes.
        timeout : Seconds or None
            Seconds; None for no limit.

        Raises
        ------
        WaitTimeoutError
            If it does not become true in time.
        WatchClosedError
            If the store is closed meanwhile.
        TransactionError
            If the task is in a transaction.
        """
        check_callable(predicate, "predicate")
        self._refuse_in_transaction("wait_for")

        async def call() -> Any:
            result = predicate()
            return await result if inspect.isawaitable(result) else result

        async with self.watch(max_buffer=1) as changes:
            return await _wait_until(call, changes, checked_timeout(timeout), describe(predicate))

    async def wait_for_key(self, key: str, timeout: Seconds | None = 30.0) -> Value:
        """Wait until a key exists; return its value.

        Parameters
        ----------
        key : str
        timeout : Seconds or None
            Seconds; None for no limit.

        Raises
        ------
        WaitTimeoutError, WatchClosedError, TransactionError
            As for `wait_for`.
        """
        key = checked_key(key)
        self._refuse_in_transaction("wait_for_key")

        async def value() -> Value | None:
            try:
                return await self.get(key)
            except KeyError:
                return None

        async with self.watch(_escaped(key)) as changes:
            found = await _wait_until(value, changes, checked_timeout(timeout), f"key {key!r}", "appear")
        assert found is not None
        return found

    # -- the rest ---------------------------------------------------------------------------------

    async def flush(self, timeout: Seconds | None = 30.0, revision: int | None = None) -> None:
        """Wait until the events of all commits so far are delivered; like ``store.flush``.

        It also awaits listeners of this loop that are coroutine functions; if one of them calls it, or a task
        started by one, it does not wait for them.
        """
        self._refuse_in_transaction("flush")
        remaining = Remaining(checked_timeout(timeout))
        await call_in_thread(lambda: self._store.flush(timeout, revision))
        await wait_for_listeners(remaining)

    async def close(self, timeout: Seconds | None = 30.0) -> None:
        """Close the store; like ``store.close``; wait for coroutine functions as `flush` does."""
        self._refuse_in_transaction("close")
        remaining = Remaining(checked_timeout(timeout))
        await call_in_thread(lambda: self._store.close(timeout))
        await wait_for_listeners(remaining)

    async def __aenter__(self) -> Self:
        self._store.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:
            # The coroutine is being closed, as its loop was, and cannot await any more.
            self._store.__exit__(kind, error, traceback)
            return
        await call_in_thread(lambda: self._store.__exit__(kind, error, traceback))
        await wait_for_listeners(Remaining(30.0))

    def __repr__(self) -> str:
        return f"<AsyncStore of {self._store!r}>"


async def _wait_until(
    predicate: Callable[[], Awaitable[T]],
    changes: AsyncWatch,
    timeout: float | None,
    what: str,
    do: str = "become true",
) -> T:
    """Await `predicate` now and after each change until its result is true; return that result."""
    remaining = Remaining(timeout)
    while True:
        result = await predicate()
        if result:
            return result
        left = remaining()
        try:
            if left == 0:
                raise WaitTimeoutError
            await changes.get(left)
        except WaitTimeoutError:
            raise WaitTimeoutError(f"{what} did not {do} in {timeout or 0:g} s") from None
        except WatchClosedError:
            raise WatchClosedError(f"the store was closed during the wait for {what}") from None


def _escaped(key: str) -> str:
    """Return a pattern that matches exactly one key."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in key)
