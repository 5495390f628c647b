"""Transactions: changes that become one commit, or none.

Thread safety:

1. A transaction belongs to the thread, and within it to the task (of asyncio, of trio, or a greenlet), that
   entered it. Every method checks that.
2. An exclusive transaction is the owner from entry to exit (``owner.py``): what it reads beneath its batch
   cannot change, and the next revision is known. No lock is held meanwhile.
3. An optimistic transaction holds nothing. It reads a view, and commits if what it has read still stands at
   that instant; its edits are done on the entries of then.
4. Other threads find nothing of a batch before the engine commits it.
5. What `on_commit` and `on_rollback` were given runs when the transaction is the owner no more.
6. The store refers to a transaction weakly. So one whose block is left without its ``__exit__`` (a generator
   that is dropped, or an exception that strikes ``__exit__`` where it is entered) is rolled back as soon as
   nobody holds it any more, which CPython notices at once.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from latchstore.contract.arguments import check_callable, checked_timeout, describe
from latchstore.contract.errors import TransactionClosedError, WrongThreadError
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.values import Entry
from latchstore.delivery.waiting import this_thread, thread_name, warn_if_patched_later
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.batch_store import BatchStore
from latchstore.engine.entry_store import Progress
from latchstore.engine.interface import Engine
from latchstore.engine.owner import Claim, Route, TransactionInfo
from latchstore.engine.tasks import current_task, task_name

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

__all__ = ["Transaction", "TransactionInfo"]

logger: logging.Logger = logging.getLogger("latchstore")


class Host(Protocol):
    """What a transaction needs of the store that it belongs to, beside the store's engine."""

    event_manager: BaseEventManager
    default_codec: Any
    _engine: Engine
    _has_listeners: Callable[[Any], bool]

    def _admit_writer(self, purpose: str, timeout: float | None = None) -> None:
        """Wait for room for events, or raise BackpressureError or StoreClosedError; no lock is held."""

    def _deliver(self) -> None:
        """Have what is queued be heard; no lock is held."""

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        """Return what reports the reading of a stream."""


class Transaction(BatchStore):
    """A block of changes that is committed whole or not at all; ``store.transaction()`` makes it.

    It is a store itself: its methods, like the store's own while the block runs, read and write what
    the transaction sees. It can be used inside its block only, by the thread, and the task of asyncio,
    trio or gevent, that entered it.

    Parameters
    ----------
    store : Host
    notes : str
        What the transaction is about.
    timeout : float or None
        Seconds to wait for other writers; None for the store's own ``lock_timeout``.
    optimistic : bool
        Whether to keep nobody out and to validate at commit; an inner block is as the outermost is.

    Attributes
    ----------
    notes : str
    optimistic : bool

    Thread safety
    -------------
    A transaction belongs to the thread and the task (of asyncio, trio or gevent) that entered it; others
    get a `WrongThreadError`.
    """

    # hot path: slots are read faster than what stands in the class.
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

    def __init__(self, store: Host, notes: str, timeout: float | None, optimistic: bool = False) -> None:
        self.event_manager: BaseEventManager = store.event_manager  # without the constructors above: hot path
        self.notes: str = notes
        self.optimistic: bool = optimistic
        self._has_listeners = store._has_listeners
        self._store = store
        self._engine = store._engine
        self._timeout = timeout
        self._batch = self._thread = self._task = None
        # Whether the block has been left.
        self._left = False
        self._claim: Claim | None = None
        self._route: Route | None = None
        self._outer: Transaction | None = None
        self._savepoint = 0
        # Whether an inner block leaves its changes to the outer one.
        self._kept = False
        self._doomed = False
        # From commit() or rollback() to the end of the block.
        self._ended_early = False
        self._forked = False
        # What on_commit() and on_rollback() were given.
        self._after_commit: Sequence[Callable[[], object]] = ()
        self._after_rollback: Sequence[Callable[[], object]] = ()

    @property
    def revision(self) -> int | None:
        """The revision of the commit, once there is one; that of the store if nothing was changed.

        Always None for an inner block, which is committed with the outermost one.
        """
        return None if self._claim is None or self._outer is not None else self._claim.revision

    @property
    def default_codec(self) -> Any:
        """That of the store."""
        return self._store.default_codec

    @property
    def _is_open(self) -> bool:
        """Whether the block is running."""
        return self._batch is not None

    # -- the block --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise TransactionClosedError(f"{self!r} was entered before; each block needs its own")
        routes = self._engine.routes
        try:
            outer = routes.current() if routes else None
            self._task = current_task()
            warn_if_patched_later()
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
        purpose = f"transaction {self.notes!r}"
        self._claim = claim = self._make_claim(purpose)
        route = claim.route
        assert route is not None
        store._admit_writer(purpose, self._timeout)
        if self.optimistic:
            claim.since = time.time()  # nothing keeps it waiting: it is open from now on
        view = engine.begin(claim, not self.optimistic, self._timeout)
        if claim.start is not None:
            store._deliver()
        route.batch = batch = (
            WriteBatch(engine, engine.revision + 1)
            if view is None
            else OptimisticBatch(engine, view, purpose)
        )
        self._route = route
        self._thread = claim.thread
        self._batch = batch

    def _make_claim(self, purpose: str) -> Claim:
        return Claim(self, self._engine.abandoned, purpose, self.notes)

    def _begin_inside(self, outer: Transaction) -> None:
        batch, claim = outer._open_batch(), outer._claim
        assert claim is not None
        self._outer, self._claim, self.optimistic = outer, claim, outer.optimistic
        self._savepoint = batch.savepoint()
        self._route = route = Route(self)
        route.claim, route.outer = claim, outer._route
        route.batch, route.savepoint = batch, self._savepoint
        # That of the claim, or one that works for the claim's task.
        self._thread = this_thread.thread
        self._batch = batch
        self._engine.routes.place(claim, route)

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
            self._open_batch()
            # Else a block inside may be left open, as what is raised has struck its `__exit__`.
            if kind is None:
                self._check_innermost()
        except BaseException:
            # A generator that was dropped ends its block wherever the collector runs. Its transaction
            # is rolled back all the same, or the store would be stuck.
            if self._batch is not None:
                self._end(committing=False)
            raise
        self._end(committing=kind is None and not self._doomed)

    async def __aenter__(self) -> NoReturn:
        raise TypeError(
            "a transaction of a store is entered by `with`, and its block does not await: "
            "`async with` is for latchstore.aio.AsyncStore(store).transaction()"
        )

    async def __aexit__(self, *error: object) -> NoReturn:
        raise TypeError("`async with` is for latchstore.aio.AsyncStore(store).transaction()")

    def commit(self) -> None:
        """Commit now; the rest of the block cannot use the transaction, and its end does nothing.

        In an inner block it keeps the block's changes for the outermost one to commit.

        Raises
        ------
        TransactionConflictError
            If the transaction is optimistic and what it has read was changed.
        TransactionClosedError
            If it was committed, rolled back or doomed before, or a block inside it is open.
        """
        self._open_batch()
        self._check_innermost()
        if self._doomed:
            raise TransactionClosedError(f"{self!r} is doomed and can only be rolled back")
        self._ended_early = True
        self._end(committing=True)

    def rollback(self) -> None:
        """Take back all changes of the block now; its end does nothing then.

        Raises
        ------
        TransactionClosedError
            If it was committed or rolled back before, or a block inside it is open.
        """
        self._open_batch()
        self._check_innermost()
        self._ended_early = True
        self._end(committing=False)

    def doom(self) -> None:
        """Have the block rolled back at its end, without an exception."""
        self._open_batch()
        self._doomed = True

    def on_commit(self, function: Callable[[], object]) -> None:
        """Call `function` once the changes are committed, by the outermost block.

        It runs in this thread, after other writers were let in, in the order of registration. What it
        raises is logged, as the commit stands; other functions are called all the same.
        """
        self._open_batch()
        check_callable(function, "function")
        self._after_commit = _extended(self._after_commit, [function])

    def on_rollback(self, function: Callable[[], object]) -> None:
        """Call `function` once the changes of this block are taken back; otherwise as `on_commit`."""
        self._open_batch()
        check_callable(function, "function")
        self._after_rollback = _extended(self._after_rollback, [function])

    def _check_innermost(self) -> None:
        # Not by way of the transaction itself, which the collector may be about to free.
        route, routes = self._route, self._engine.routes
        if route is not None and routes.get(route.claim.ident) is not route:
            raise TransactionClosedError(f"{self!r} cannot end before {routes.current()!r} inside it")

    def _end(self, committing: bool) -> None:
        """End the block. Whatever happens, it is not routed and not the owner when this returns.

        An exception may strike the call of `_finish` as well: then the second one does it. If that is struck
        as well, the block is rolled back as rule 6 has it, or when this thread next writes.
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
        """Take no more calls, and give the thread's back to the outer block; return the batch."""
        batch, route, outer = self._batch, self._route, self._outer
        self._left = True
        self._batch = None
        if route is not None:
            routes, claim = self._engine.routes, route.claim
            innermost = routes.get(claim.ident)
            if innermost is not route:
                self._end_inner_blocks(innermost)
            # The outermost block's is taken away by the engine, with the commit or after it.
            if outer is not None and innermost is not None and innermost.claim is claim:
                assert outer._route is not None
                routes.place(claim, outer._route)
        return batch

    def _end_inner_blocks(self, innermost: Route | None) -> None:
        """End blocks inside that are still open; their changes go with this block's."""
        inside = []
        while innermost is not None and innermost is not self._route:
            inside.append(innermost())
            innermost = innermost.outer
        # Else a new thread has the identifier of one that has ended, and its own block.
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
            return
        check = None
        if self.optimistic:
            check = batch.check
            self._store._admit_writer(claim.purpose, self._timeout)
        if self._engine.commit(batch.edits(), claim.purpose, claim, check, self._timeout):
            self._store._deliver()

    def _finish(self) -> None:
        """Leave nothing behind of a block that was not committed; may be done twice."""
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
        # So that nothing happens when this is freed: it has had its end.
        self._route = None

    def _forget_in_child(self) -> None:
        """End the block, and those around it, without any effect: this is a forked child's copy."""
        block: Transaction | None = self
        while block is not None:
            block._forked = True
            if block._claim is not None:
                block._claim.ended, block._claim.route = True, None
            block._batch = block._route = None
            block = block._outer

    def _call_back(self) -> None:
        """Call what was registered for this end, once; forget the rest, which may hold this transaction."""
        committed = self._outer is None and self.revision is not None
        functions = list(self._after_commit if committed else self._after_rollback)
        self._after_commit = self._after_rollback = ()
        if not self._kept:
            call_all(functions)

    def _belongs_to_this_thread(self) -> bool:
        """Return whether the calling thread is the one that entered the block."""
        return self._thread is this_thread.thread

    def _open_batch(self) -> WriteBatch:
        """Return the batch, or raise the error that explains why there is none to use."""
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
                f"{self!r} was open when this process was forked, and goes on in the parent alone"
            )
        return TransactionClosedError(f"{self!r} is used after its end")

    def transaction(
        self, notes: str = "", *, timeout: Seconds | None = None, optimistic: bool = False
    ) -> Transaction:
        """Return a block inside this one: a savepoint."""
        return Transaction(self._store, notes, checked_timeout(timeout), optimistic)

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        return self._store._progress(key, metadata, steps)

    def __repr__(self) -> str:
        state = "new" if self._thread is None else "ended" if self._batch is None else "open"
        return f"<{state} transaction {self.notes!r}>"


def _extended(
    functions: Sequence[Callable[[], object]], more: Sequence[Callable[[], object]]
) -> Sequence[Callable[[], object]]:
    """Return both; a list takes what is to come in place, as there may be many."""
    if isinstance(functions, list):
        functions.extend(more)
        return functions
    return list(more) if more else functions


def call_all(functions: list[Callable[[], object]]) -> None:
    """Call them in turn; what one raises is logged, and a log that keeps it keeps alive nothing else."""
    functions.reverse()
    function: Callable[[], object] | None
    while functions:
        function = functions.pop()
        try:
            function()
        except Exception as error:
            logger.exception("%s, registered with a transaction, failed", describe(function))
            traceback.clear_frames(error.__traceback__)
        function = None  # this frame is in that traceback as well
