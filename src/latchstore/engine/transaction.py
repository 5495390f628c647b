"""Transactions: changes that become one commit, or none.

Thread safety:

1. A transaction belongs to the thread, and within it to the task (of asyncio, of trio, or a greenlet), that
   entered it. Every method checks that.
2. An exclusive transaction is the owner from entry to exit (``owner.py``): its reads beneath its batch cannot
   change, and the next revision is known. No lock is held meanwhile.
3. An optimistic transaction holds nothing. It reads a view, and commits if what it has read is unchanged at
   that instant; its edits are applied to the entries at that instant.
4. Other threads see nothing of a batch before the engine commits it.
5. The functions of `on_commit` and `on_rollback` run after the transaction has stopped being the owner.
6. The store references a transaction weakly. So one whose block ends without its ``__exit__`` (a generator
   that is dropped, an exception that interrupts its entry) is rolled back as soon as it is unreferenced.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, Self

from latchstore.contract.arguments import check_function, checked_timeout, describe, document_as
from latchstore.contract.errors import TransactionClosedError, WrongThreadError
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.values import Entry
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.delivery.waiting import this_thread, thread_name, warn_if_patched_later
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.batch_store import BatchStore
from latchstore.engine.entry_store import Progress
from latchstore.engine.interface import Engine
from latchstore.engine.owner import Claim, Route, TransactionInfo
from latchstore.engine.tasks import MODULES, current_task, task_name

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

__all__ = ["Transaction", "TransactionInfo"]

logger: logging.Logger = logging.getLogger("latchstore")


class Host(Protocol):
    """The store of a transaction, as far as the transaction uses it besides the engine."""

    event_manager: BaseEventManager
    default_codec: Any
    _closed: bool
    _dispatcher: EventDispatcher
    _engine: Engine
    _has_listeners: Callable[[Any], bool]

    def _admit_writer(self, purpose: str, timeout: float | None = None) -> None:
        """Wait for room for events, or raise BackpressureError or StoreClosedError; no lock is held."""

    def _deliver(self) -> None:
        """Make sure that queued events are delivered; no lock is held."""

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        """Return a context manager that reports the progress of reading a stream."""


#: What was registered with `on_commit` or `on_rollback`.
Functions = list[Callable[[], object]] | tuple[()]

#: For errors about functions of `on_commit` and `on_rollback`.
_ADVICE = "a plain function that starts a task, such as loop.create_task"


class Transaction(BatchStore):
    """A block of changes that is committed completely or not at all; returned by ``store.transaction()``.

    It is a store itself: its methods, like the store's own while the block runs, read and write what
    the transaction sees. It can be used only inside its block, by the thread, and the task of asyncio,
    trio or gevent, that entered it.

    Parameters
    ----------
    store : Host
    notes : str
        A description of the transaction.
    timeout : float or None
        The most seconds to wait for other writers; None for the store's ``lock_timeout``.
    optimistic : bool
        Whether to block no other writers and validate at commit; a nested block is like the outermost one.

    Attributes
    ----------
    notes : str
    optimistic : bool

    Thread safety
    -------------
    A transaction belongs to the thread and the task (of asyncio, trio or gevent) that entered it; others
    get a `WrongThreadError`.
    """

    # hot path: slots are read faster than attributes of the class.
    __slots__ = (
        "_after_commit",
        "_after_rollback",
        "_claim",
        "_doomed",
        "_ended_early",
        "_engine",
        "_forked",
        "_has_listeners",
        "_kept",
        "_left",
        "_outer",
        "_route",
        "_savepoint",
        "_store",
        "_timeout",
        "event_manager",
        "notes",
        "optimistic",
    )

    _claim_class: ClassVar[type[Claim]] = Claim

    def __init__(self, store: Host, notes: str, timeout: float | None, optimistic: bool = False) -> None:
        self.event_manager: BaseEventManager = store.event_manager  # hot path: no inherited constructors
        self.notes: str = notes
        self.optimistic: bool = optimistic
        self._has_listeners = store._has_listeners
        self._store, self._engine = store, store._engine
        self._timeout = timeout
        self._batch = self._thread = self._task = None
        self._left = False
        self._claim: Claim | None = None
        self._route: Route | None = None
        self._outer: Transaction | None = None
        self._savepoint = 0
        # Whether a nested block has left its changes to the outer one.
        self._kept = False
        self._doomed = False
        # From commit() or rollback() to the end of the block.
        self._ended_early = False
        self._forked = False
        self._after_commit: Functions = ()
        self._after_rollback: Functions = ()

    @property
    def revision(self) -> int | None:
        """The revision of the commit, once there is one; that of the store if nothing was changed.

        Always None for a nested block, which is committed with the outermost one.
        """
        return None if self._claim is None or self._outer is not None else self._claim.revision

    @property
    def default_codec(self) -> Any:
        """The default codec of the store."""
        return self._store.default_codec

    @property
    def _is_open(self) -> bool:
        """Whether the block is running."""
        return self._batch is not None

    # -- the block --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise TransactionClosedError(f"{self!r} was entered before: make one for each block")
        routes = self._engine.routes
        try:
            outer = routes.current() if routes else None
            if "greenlet" in MODULES:  # which gevent and eventlet import
                warn_if_patched_later()
                self._task = current_task()
            elif "asyncio" in MODULES or "trio" in MODULES:
                self._task = current_task()
            if outer is None:
                self._begin()
            else:
                self._begin_inside(outer)
        except BaseException:
            self._finish()
            raise
        return self

    def _begin(self) -> None:
        engine, store = self._engine, self._store
        self._claim = claim = self._claim_class(self, engine.abandon, "", self.notes)
        route = claim.route
        assert route is not None
        if store._closed or store._dispatcher.throttled:  # hot path: as in `TransactionalStore._write_one`
            store._admit_writer(claim.purpose, self._timeout)
        if self.optimistic:
            claim.since = time.time()  # it never waits, so it is open from now on
        view = engine.begin(claim, not self.optimistic, self._timeout)
        if claim.start is not None:
            store._deliver()
        route.batch = batch = (
            WriteBatch(engine, engine.revision + 1) if view is None else OptimisticBatch(engine, view, claim)
        )
        self._route = route
        self._thread = claim.thread
        self._batch = batch

    def _begin_inside(self, outer: Transaction) -> None:
        batch, claim = outer._open_batch(), outer._claim
        assert claim is not None
        self._outer, self._claim, self.optimistic = outer, claim, outer.optimistic
        self._savepoint = batch.savepoint()
        route = Route(self)
        route.claim, route.outer = claim, outer._route
        route.batch, route.savepoint = batch, self._savepoint
        # The thread of the claim, or one that works for the claim's task.
        self._thread = this_thread.thread
        routes, ident = self._engine.routes, claim.ident
        # No calls from here on, so that no signal handler or finalizer can end the outer block in between.
        if outer._batch is None:
            raise TransactionClosedError(f"{outer!r} was ended while a nested block was being entered")
        self._route, self._batch = route, batch
        routes[ident] = route

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ended_early or (self._batch is None and self._thread is not None and kind is not None):
            self._ended_early = False
            return
        try:
            # An exception that leaves the block may have interrupted the `__exit__` of a nested one.
            self._check_end(kind is None)
        except BaseException:
            # A dropped generator ends its block wherever the collector runs: nobody else would roll it back.
            if self._batch is not None:
                self._end(committing=False)
            raise
        self._end(kind is None and not self._doomed)

    async def __aenter__(self) -> NoReturn:
        raise TypeError(
            "a transaction of a store is entered by `with`, and its block must not await; for `async with`, "
            "use latchstore.aio.AsyncStore(store).transaction()"
        )

    async def __aexit__(self, *error: object) -> NoReturn:
        raise TypeError("for `async with`, use latchstore.aio.AsyncStore(store).transaction()")

    def commit(self) -> None:
        """Commit now; the rest of the block cannot use the transaction, and its end does nothing.

        In a nested block it keeps the block's changes for the commit of the outermost one.

        Raises
        ------
        TransactionConflictError
            If the transaction is optimistic and another commit has changed what it has read.
        TransactionClosedError
            If it was committed, rolled back or doomed before, or a nested block is open.
        """
        self._check_end()
        if self._doomed:
            raise TransactionClosedError(f"{self!r} is doomed and can only be rolled back")
        self._ended_early = True
        self._end(committing=True)

    def rollback(self) -> None:
        """Roll back all changes of the block now; its end then does nothing.

        Raises
        ------
        TransactionClosedError
            If it was committed or rolled back before, or a nested block is open.
        """
        self._check_end()
        self._ended_early = True
        self._end(committing=False)

    def doom(self) -> None:
        """Mark the block to be rolled back at its end, without an exception."""
        self._open_batch()
        self._doomed = True

    def on_commit(self, function: Callable[[], object]) -> None:
        """Register a function to call once the outermost block has committed the changes.

        It runs in this thread, after other writers were admitted, in the order of registration. An exception
        that it raises is logged, since the commit is made; the other functions are still called.
        """
        self._open_batch()
        check_function(function, "function", _ADVICE)
        self._after_commit = _extended(self._after_commit, [function])

    def on_rollback(self, function: Callable[[], object]) -> None:
        """Register a function to call once the changes of this block are rolled back; else as `on_commit`."""
        self._open_batch()
        check_function(function, "function", _ADVICE)
        self._after_rollback = _extended(self._after_rollback, [function])

    def _check_end(self, innermost: bool = True) -> None:
        """Raise an error if the block cannot end now; `innermost`: or a nested block is open."""
        # hot path: the usual case of `_open_batch`, inlined.
        if (
            self._batch is None
            or self._thread is not this_thread.thread
            or self._task is not None
            or "asyncio" in MODULES
            or "trio" in MODULES
            or "greenlet" in MODULES
        ):
            self._open_batch()
        # Not through the transaction itself, which the collector may be about to free.
        route, routes = self._route, self._engine.routes
        if innermost and route is not None and routes.get(route.claim.ident) is not route:
            raise TransactionClosedError(f"{self!r} cannot end before the nested {routes.current()!r}")

    def _end(self, committing: bool) -> None:
        """End the block. Whatever happens, it is neither routed nor the owner when this returns.

        An exception may also interrupt the call of `_finish`; then the second call does the work. If that is
        interrupted as well, the block is rolled back by rule 6, or when this thread next writes.
        """
        try:
            try:
                batch = self._stop()
                if committing and batch is not None:
                    self._commit(batch)
            finally:
                self._finish()
                if self._after_commit or self._after_rollback:
                    self._call_back()
        except BaseException:
            self._finish()
            raise

    def _stop(self) -> WriteBatch | None:
        """Refuse further calls, and route the thread's calls to the outer block; return the batch."""
        batch, route, outer = self._batch, self._route, self._outer
        self._left = True
        self._batch = None
        if route is not None:
            routes, claim = self._engine.routes, route.claim
            innermost = routes.get(claim.ident)
            if innermost is not route:
                self._end_inner_blocks(innermost)
            # The engine removes the route of the outermost block, with the commit or after it.
            if outer is not None and innermost is not None and innermost.claim is claim:
                while outer is not None and outer._route is None:
                    outer = outer._outer  # a signal handler or finalizer has ended the one between
                # No call between the look and the place, in which one may end it.
                if outer is not None and (above := outer._route) is not None:
                    routes[claim.ident] = above
                else:
                    routes.forget(claim)
        return batch

    def _end_inner_blocks(self, innermost: Route | None) -> None:
        """End nested blocks that are still open; their changes end with this block's."""
        inside = []
        while innermost is not None and innermost is not self._route:
            inside.append(innermost())
            innermost = innermost.outer
        # Otherwise a new thread has the identifier of one that has ended, and its own block.
        if innermost is self._route:
            for block in inside:
                if isinstance(block, Transaction):
                    block._left, block._batch = True, None

    def _commit(self, batch: WriteBatch) -> None:
        outer, claim = self._outer, self._claim
        assert claim is not None
        if outer is not None:
            outer._after_commit = _extended(outer._after_commit, self._after_commit)
            outer._after_rollback = _extended(outer._after_rollback, self._after_rollback)
            self._kept = True
            for functions in (self._after_commit, self._after_rollback):
                if functions:
                    functions.clear()  # a nested block may be about to extend it, and to pass it on
            if outer._left and outer._kept:  # a signal handler or finalizer has ended it meanwhile
                outer._commit(batch)
            elif outer._left:
                outer._call_back()
            return
        check = None
        if self.optimistic:
            check = batch.check
            if self._store._closed or self._store._dispatcher.throttled:
                self._store._admit_writer(claim.purpose, self._timeout)
        if self._engine.commit(batch.edits(), claim, check, self._timeout):
            self._store._deliver()

    def _finish(self) -> None:
        """Clean up after a block that was not committed; may be repeated."""
        if self._batch is not None:
            self._stop()
        route, claim = self._route, self._claim
        batch = None if route is None else route.batch
        if self._outer is not None:
            if batch is not None and not self._kept:
                batch.rollback_to(self._savepoint)
        elif claim is not None:
            if not claim.ended:
                self._engine.end(claim)
                self._store._deliver()
            if self.optimistic and batch is not None:
                batch.close()
        # So that nothing happens when this is freed: the block has ended.
        self._route = None

    def _forget_in_child(self) -> None:
        """End the block and its outer ones without any effect: this is a forked child's copy."""
        block: Transaction | None = self
        while block is not None:
            block._forked = True
            if block._claim is not None:
                block._claim.ended, block._claim.route = True, None
            block._batch = block._route = None
            block = block._outer

    def _call_back(self) -> None:
        """Call the functions registered for this end, once; drop the others, which may reference this."""
        committed = self._outer is None and self.revision is not None
        functions = self._after_commit if committed else self._after_rollback
        self._after_commit = self._after_rollback = ()
        if functions and not self._kept:
            call_all(functions)

    def _belongs_to_this_thread(self) -> bool:
        """Return whether the calling thread is the one that entered the block."""
        return self._thread is this_thread.thread

    def _open_batch(self) -> WriteBatch:
        """Return the batch, or raise an error that explains why it cannot be used."""
        batch = self._batch
        if batch is not None and self._thread is this_thread.thread and self._task is current_task():
            return batch
        if self._thread is None:
            raise TransactionClosedError(f"{self!r} is used outside its block: it was never entered")
        if not self._belongs_to_this_thread():
            raise WrongThreadError(
                f"{self!r} belongs to thread {thread_name(self._thread)!r}, "
                f"but was used by thread {this_thread.thread.name!r}"
            )
        if self._task is not current_task():
            raise self._error_of_task(self._task)
        raise self._error_of_end()

    def _error_of_task(self, owner: object | None) -> WrongThreadError:
        return WrongThreadError(
            f"{self!r} belongs to {task_name(owner)}, but was used by {task_name(current_task())}"
        )

    def _error_of_end(self) -> TransactionClosedError:
        if self._forked:
            return TransactionClosedError(
                f"{self!r} was open when this process was forked, and continues in the parent only"
            )
        return TransactionClosedError(f"{self!r} is used after its end")

    def transaction(
        self, notes: str = "", *, timeout: Seconds | None = None, optimistic: bool = False
    ) -> Transaction:
        """Return a nested block: a savepoint."""
        return Transaction(self._store, notes, checked_timeout(timeout), optimistic)

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        return self._store._progress(key, metadata, steps)

    def __repr__(self) -> str:
        state = "new" if self._thread is None else "ended" if self._batch is None else "open"
        return f"<{state} transaction {self.notes!r}>"


def _extended(functions: Functions, more: Functions) -> Functions:
    """Return both sequences joined; a list is extended in place, since there may be many functions."""
    if functions:
        functions.extend(more)
        return functions
    # Not ``list(more)``: without memory CPython 3.11 and 3.12 keep what it was given, forever.
    return more[:]


def call_all(functions: list[Callable[[], object]]) -> None:
    """Call the functions in turn; log exceptions, and let a log that keeps one keep nothing else alive."""
    functions.reverse()
    while functions:
        function = functions.pop()
        try:
            function()
        except Exception as error:
            logger.exception("%s, registered with a transaction, failed", describe(function))
            traceback.clear_frames(error.__traceback__)
        del function  # the traceback refers to this frame as well


document_as("Transaction", BatchStore)
