"""Transactions: changes that become one commit, or none.

Thread safety:

1. A transaction belongs to the thread, and within it to the asyncio task, that entered it. Every method
   checks that.
2. An exclusive transaction holds the writer mutex from entry to exit, so what it reads beneath its
   batch cannot change, and the next revision is known: entries are built whole when they are put.
3. An optimistic transaction holds nothing. It reads a snapshot, and takes the writer mutex at commit to
   see whether what it has read still stands, and to do its edits on the entries of that moment.
4. Other threads see nothing of a batch before the store applies it.
5. What `on_commit` and `on_rollback` were given runs when the mutex has been given back.
6. The store refers to a transaction weakly. So one whose block is left without its ``__exit__`` (a generator
   that is dropped, or an exception that strikes ``__exit__`` before its first bytecode) is rolled back as
   soon as nobody holds it any more, which CPython notices at once.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from threading import get_ident
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from latchstore.contract.arguments import check_callable, checked_key, describe
from latchstore.contract.errors import TransactionClosedError, TransactionError, WrongThreadError
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.events import StoreEvent, StoreTransactionEndEvent, StoreTransactionStartEvent
from latchstore.contract.glob_pattern import matching_keys
from latchstore.contract.values import Entry
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.entry_store import Edit, EntryStore, Progress
from latchstore.engine.locking import WriterClaim, surely, this_thread, thread_name

logger = logging.getLogger("latchstore")

_transaction_numbers = itertools.count(1)


class TransactionInfo(NamedTuple):
    """Which transaction made an event.

    Attributes
    ----------
    number : int
        Counts the transactions of this process, in the order in which they were entered.
    notes : str
        What ``store.transaction(notes)`` was given.
    thread : str
        The name of the thread that it ran in.
    """

    number: int
    notes: str
    thread: str


class Left(NamedTuple):
    """What an open block leaves behind, if nobody holds its transaction any more."""

    store: Committer
    thread: int
    batch: WriteBatch
    outer: Transaction | None
    savepoint: int
    claim: WriterClaim | None
    info: TransactionInfo | None
    start: Delivery | None


class Routing(weakref.ref["Transaction"]):
    """A transaction as the store knows it.

    Attributes
    ----------
    left : Left or None
        While the block is open.
    """

    __slots__ = ("left",)

    left: Left | None


def _abandon(routing: weakref.ref[Transaction]) -> None:
    """End a block whose transaction is gone, as its ``__exit__`` was never called: rule 6.

    This is no ``__del__``, which would run at the end of each transaction, and in which Python drops what a
    signal handler or another thread raises.
    """
    if _end_left is None:
        # Python 3.13 without the GIL empties modules before it drops what their globals have held.
        return
    try:
        _end_left(routing)
    except BaseException:
        # Nobody will be called again for this block, and others wait for it.
        _end_left(routing)
        raise


def _end_left(routing: weakref.ref[Transaction]) -> None:
    assert isinstance(routing, Routing)
    left = getattr(routing, "left", None)
    if left is not None:
        heir = Transaction(left.store, "", None)
        heir._batch, heir._outer, heir._savepoint = left.batch, left.outer, left.savepoint
        heir._claim, heir._info, heir._start, heir._thread = left.claim, left.info, left.start, left.thread
        heir._routing, heir._routed = routing, True
        surely(heir._finish)


class Committer(Protocol):
    """What a transaction needs of the store that it belongs to."""

    event_manager: BaseEventManager
    _has_listeners: Callable[[Any], bool]

    def _begin_exclusive(self, claim: WriterClaim, timeout: float | None) -> WriteBatch:
        """Wait at the door, take the writer mutex and return an empty batch."""

    def _commit_batch(self, batch: WriteBatch, transaction: Transaction) -> None:
        """Apply the batch at one instant; `_tell` says which revision it has come to be."""

    def _begin_optimistic(self, purpose: str, timeout: float | None) -> OptimisticBatch:
        """Wait at the door and return an empty batch over a snapshot."""

    def _commit_optimistic(
        self, batch: OptimisticBatch, claim: WriterClaim, timeout: float | None, transaction: Transaction
    ) -> None:
        """Take the writer mutex, validate the batch and commit it."""

    def _tell(self, claim: WriterClaim) -> None:
        """Queue the events of the commit that was made by this claim, if one was, and set its revision."""

    def _end_write(self, claim: WriterClaim) -> None:
        """Tell, and give the writer mutex back; nothing happens if the claim does not hold it."""

    def _delivery(self, event: StoreEvent) -> Delivery:
        """Return what is queued to have an event heard."""

    def _queue(self, delivery: Delivery) -> None:
        """Have a delivery heard in its turn, once, however often it is queued."""

    def _start_dispatcher_if_needed(self) -> None:
        """Have what is queued be heard; no lock is held."""

    def _transaction_of_this_thread(self) -> Transaction | None:
        """Return the innermost open transaction of the calling thread."""

    def _transaction_of_thread(self, thread: int) -> Transaction | None:
        """Return the innermost open transaction of a thread, by its identifier."""

    def _route(self, thread: int, block: Routing) -> None:
        """Send the thread's calls to this transaction."""

    def _unroute(self, thread: int, block: Routing, outer: Routing | None) -> None:
        """If the thread's calls go to this transaction, send them to the outer one again, or to the store."""

    def _is_routed(self, thread: int, block: Routing) -> bool:
        """Tell whether the thread's calls go to this transaction."""

    def _indexed_candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return what the table knows of `terms`; the caller holds the writer mutex."""

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        """As `EntryStore._progress`."""


#: asyncio's own function, once asyncio is loaded: the event loop that runs in this thread, or None.
_running_loop: Callable[[], object] | None = None


def _current_task() -> object | None:
    """Return the asyncio task that runs in this thread, if asyncio is in use at all."""
    global _running_loop
    if _running_loop is None:
        # It may be that another thread is importing it just now.
        _running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
        if _running_loop is None:
            return None
    # Asking for the loop first: current_task() raises where there is none, which takes 0.5 us.
    if _running_loop() is None:
        return None
    task: object | None = sys.modules["asyncio"].current_task()
    return task


class Transaction(EntryStore):
    """A block of changes that is committed whole or not at all; ``store.transaction()`` makes it.

    It is a store itself: its methods, like the store's own while the block runs, read and write what
    the transaction sees. It can be used inside its block only, by the thread and asyncio task that
    entered it.

    Parameters
    ----------
    store : Committer
    notes : str
        What the transaction is about.
    timeout : float or None
        Seconds to wait for other writers; None for the store's own ``lock_timeout``.
    optimistic : bool
        Whether to hold no lock and to validate at commit; an inner block is as the outermost is.

    Attributes
    ----------
    notes : str
    optimistic : bool
    revision : int or None
        The revision of the commit, once there is one; that of the store if nothing was changed. Always
        None for an inner block, which is committed with the outermost one.
    """

    def __init__(self, store: Committer, notes: str, timeout: float | None, optimistic: bool = False) -> None:
        super().__init__(store.event_manager)
        self.notes = notes
        self.optimistic = optimistic
        self.revision: int | None = None
        self._has_listeners = store._has_listeners
        self._store = store
        self._timeout = timeout
        self._outer: Transaction | None = None
        self._batch: WriteBatch | None = None
        self._savepoint = 0
        self._thread: int | None = None
        self._owner: threading.Thread | None = None
        self._task: object | None = None
        self._info: TransactionInfo | None = None
        # To the writer mutex; from entry to exit.
        self._claim: WriterClaim | None = None
        # The batch from the moment when the block begins to end, until it has.
        self._ending: WriteBatch | None = None
        # Whether an inner block leaves its changes to the outer one.
        self._kept = False
        # What says that the block has begun, and that it has failed.
        self._start: Delivery | None = None
        self._failure: Delivery | None = None
        # The store knows its transactions by weak references: see rule 6.
        self._routed = False
        self._routing = Routing(self, _abandon)
        self._routing.left = None
        self._forked = False
        self._doomed = False
        # True from commit() or rollback() to the end of the block.
        self._settled = False
        self._after_commit: list[Callable[[], object]] = []
        self._after_rollback: list[Callable[[], object]] = []

    # -- the block --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise TransactionClosedError(f"{self!r} was entered before; each block needs its own")
        try:
            try:
                self._enter()
            except BaseException:
                self._finish()
                raise
        except BaseException:
            surely(self._finish)
            raise
        return self

    def _enter(self) -> None:
        outer = self._store._transaction_of_this_thread()
        if outer is None:
            self._begin()
        else:
            self._outer = outer
            batch = outer._open_batch()
            self._savepoint = batch.savepoint()
            self._batch = batch
            self._info = outer._info
            self.optimistic = outer.optimistic
        self._task = _current_task()
        self._owner = this_thread.thread
        self._thread = get_ident()
        self._routed = True
        open_batch, claim, start = self._batch, self._claim, self._start
        assert open_batch is not None
        self._routing.left = Left(
            self._store, self._thread, open_batch, outer, self._savepoint, claim, self._info, start
        )
        self._store._route(self._thread, self._routing)

    @property
    def _purpose(self) -> str:
        return f"transaction {self.notes!r}"

    def _begin(self) -> None:
        thread = this_thread.thread
        self._info = info = TransactionInfo(next(_transaction_numbers), self.notes, thread.name)
        claim = self._claim = (thread, self._purpose)
        if self.optimistic:
            self._batch = self._store._begin_optimistic(claim[1], self._timeout)
        else:
            self._batch = self._store._begin_exclusive(claim, self._timeout)
        if self._has_listeners(StoreTransactionStartEvent):
            self._start = self._store._delivery(StoreTransactionStartEvent(self._store, transaction=info))
            self._store._queue(self._start)

    def transaction_info(self) -> TransactionInfo | None:
        """Return what the events of the commit say of the transaction."""
        return self._info

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._settled or (self._routing.left is None and self._thread is not None and kind is not None):
            self._settled = False
            return
        try:
            self._open_batch()
            if kind is None:
                # Else a block inside may be left open, as what is raised has struck its `__exit__`.
                self._check_innermost()
        except BaseException:
            # A generator that was dropped ends its block wherever the collector runs. Its transaction
            # is rolled back all the same, or the store would be stuck.
            if self._batch is not None:
                self._end(committing=False)
            raise
        self._end(committing=kind is None and not self._doomed)

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
        self._settled = True
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
        self._settled = True
        self._end(committing=False)

    def doom(self) -> None:
        """Have the block rolled back at its end, without an exception."""
        self._open_batch()
        self._doomed = True

    def on_commit(self, function: Callable[[], object]) -> None:
        """Call `function` once the changes are committed, by the outermost block.

        It runs in this thread, after the locks were given back, in the order of registration. What it
        raises is logged, as the commit stands; other functions are called all the same.
        """
        self._register(function, self._after_commit)

    def on_rollback(self, function: Callable[[], object]) -> None:
        """Call `function` once the changes of this block are taken back; otherwise as `on_commit`."""
        self._register(function, self._after_rollback)

    def _register(self, function: Callable[[], object], functions: list[Callable[[], object]]) -> None:
        self._open_batch()
        check_callable(function, "function")
        functions.append(function)

    def _check_innermost(self) -> None:
        # Not by way of the transaction itself, which the collector may be about to free.
        if not self._store._is_routed(get_ident(), self._routing):
            innermost = self._store._transaction_of_this_thread()
            raise TransactionClosedError(f"{self!r} cannot end before {innermost!r} inside it")

    def _end(self, committing: bool) -> None:
        """End the block. Whatever happens, routing and locks are as before it when this returns."""
        try:
            try:
                self._stop()
                if committing:
                    self._commit()
                self._finish()
            except BaseException:
                self._finish()
                raise
            finally:
                self._call_back()
        except BaseException:
            surely(self._finish)
            raise

    def _stop(self) -> None:
        """Take no more calls, and give the thread's back to the outer block."""
        if self._batch is not None:
            self._ending = self._batch
            self._batch = None
        thread, store = self._thread, self._store
        if thread is None or not self._routed:
            return
        self._end_inner_blocks(thread)
        # If they do not go here, a new thread has the identifier of one that has ended, and its own block.
        store._unroute(thread, self._routing, None if self._outer is None else self._outer._routing)
        self._routed = False

    def _end_inner_blocks(self, thread: int) -> None:
        """End blocks inside that are still open."""
        innermost = block = self._store._transaction_of_thread(thread)
        while block is not None and block is not self:
            block = block._outer
        if block is self and innermost is not None:
            while innermost is not self:
                innermost._stop()
                innermost._ending = None
                innermost = innermost._outer
                assert innermost is not None

    def _commit(self) -> None:
        batch, outer, claim = self._ending, self._outer, self._claim
        assert batch is not None
        if outer is not None:
            outer._after_commit.extend(self._after_commit)
            outer._after_rollback.extend(self._after_rollback)
            self._kept = True
            return
        assert claim is not None
        if isinstance(batch, OptimisticBatch):
            self._store._commit_optimistic(batch, claim, self._timeout, self)
        else:
            self._store._commit_batch(batch, self)

    def _finish(self) -> None:
        """Leave nothing held, queued or routed that belongs to the block; may be done twice."""
        self._stop()
        self._take_back()
        self._routing.left = None

    def _take_back(self) -> None:
        batch, claim = self._ending, self._claim
        if self._outer is not None:
            if batch is not None and not self._kept:
                batch.rollback_to(self._savepoint)
            self._ending = None
        elif claim is not None:
            try:
                self._store._tell(claim)
                if self.revision is None:
                    self._tell_failure()
            finally:
                # An event manager of somebody else's may fail each time that it is asked.
                self._store._end_write(claim)
                if isinstance(batch, OptimisticBatch):
                    batch.close()
            self._ending = None
            self._claim = None
            self._store._start_dispatcher_if_needed()

    def _tell_failure(self) -> None:
        if self._start is not None:
            self._store._queue(self._start)  # an exception may have struck before it was
        if (
            self._ending is not None
            and self._failure is None
            and self._has_listeners(StoreTransactionEndEvent)
        ):
            event = StoreTransactionEndEvent(self._store, transaction=self._info, state="failed")
            self._failure = self._store._delivery(event)
        if self._failure is not None:
            self._store._queue(self._failure)

    def forget_in_child(self) -> None:
        """End the block, and those around it, without any effect: this is a forked child's copy."""
        block: Transaction | None = self
        while block is not None:
            block._forked = True
            block._batch = block._ending = block._claim = block._routing.left = None
            block._routed = False
            block = block._outer

    def _call_back(self) -> None:
        called, passed_over = self._after_commit, self._after_rollback
        if self._outer is not None or self.revision is None:
            called, passed_over = passed_over, called
        # Also what the outer block has now: a log that keeps a traceback may keep this transaction.
        passed_over.clear()
        if self._outer is None or not self._kept:
            _call_all(called)
        called.clear()

    def belongs_to_this_thread(self) -> bool:
        """Tell whether the calling thread is the one that entered the block."""
        return self._owner is this_thread.thread

    def _open_batch(self) -> WriteBatch:
        """Return the batch, or raise the error that says why there is none to use."""
        batch = self._batch
        if batch is not None and self._owner is this_thread.thread and self._task is _current_task():
            return batch
        if self._owner is None:
            raise TransactionClosedError(f"{self!r} is used outside its block: it was never entered")
        if not self.belongs_to_this_thread():
            raise WrongThreadError(
                f"{self!r} belongs to thread {thread_name(self._owner)!r}, "
                f"but was used by thread {this_thread.thread.name!r}"
            )
        if self._task is not _current_task():
            raise WrongThreadError(
                f"{self!r} belongs to {self._task or 'no asyncio task'}, "
                f"but was used by {_current_task() or 'no asyncio task'}"
            )
        if self._forked:
            raise TransactionClosedError(
                f"{self!r} was open when this process was forked, and goes on in the parent alone"
            )
        raise TransactionClosedError(f"{self!r} is used after its end")

    def transaction(
        self, notes: str = "", *, timeout: float | None = None, optimistic: bool = False
    ) -> Transaction:
        """Return a block inside this one: a savepoint."""
        return Transaction(self._store, notes, timeout, optimistic)

    # -- the store's methods, on the batch --------------------------------------------------------

    def _entry(self, key: str) -> Entry:
        key = checked_key(key)
        entry = self._open_batch().current(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def _entries_of(self, keys: list[str]) -> list[Entry]:
        return [self._entry(key) for key in keys]

    def _items(self) -> Iterable[tuple[str, Entry]]:
        return self._candidates({})

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        batch = self._open_batch()
        if isinstance(batch, OptimisticBatch):
            return batch.overlay(batch.candidates(terms))
        return batch.overlay(self._store._indexed_candidates(terms))

    def _keys_like(self, pattern: str) -> list[str]:
        """Return the keys that match, asking for no more than that: so only keys can conflict."""
        batch = self._open_batch()
        if isinstance(batch, OptimisticBatch):
            found = batch.overlay(batch.items_like(pattern))
        else:
            found = batch.overlay(self._store._indexed_candidates({}))
        return matching_keys(pattern, [key for key, _ in found])

    def glob(self, pattern: str) -> Iterator[str]:
        matching_keys(pattern, ())  # a bad pattern is refused before it is noted
        return iter(self._keys_like(pattern))

    def query_keys(self, **kwargs: Any) -> Iterator[str]:
        return super().query_keys(**kwargs) if kwargs else iter(self._keys_like("*"))

    def __len__(self) -> int:
        return len(self._keys_like("*"))

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        batch = self._batch
        # The usual answers of `_open_batch`, without its two calls: 0.15 of 2.7 us a key.
        if (
            batch is None
            or self._owner is not this_thread.thread
            or (
                "asyncio" in sys.modules
                if _running_loop is None
                else self._task is not None or _running_loop() is not None
            )
        ):
            batch = self._open_batch()  # or the error that says why there is none
        batch.put(key, edit)

    def _write(self, edits: Iterable[tuple[str, Edit]], purpose: str) -> None:
        batch = self._open_batch()
        savepoint = batch.savepoint()
        try:
            for key, edit in edits:
                batch.put(key, edit)
        except BaseException:
            batch.rollback_to(savepoint)
            raise

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        return self._store._progress(key, metadata, steps)

    def connect(self, credentials: object = None) -> None:
        """Do nothing: a transaction is connected while its block runs."""

    def disconnect(self) -> None:
        """Do nothing: a transaction is connected while its block runs."""

    def is_connected(self) -> bool:
        """Tell whether the block is running."""
        return self._batch is not None

    def flush(self, timeout: float | None = 30.0) -> None:
        """Refuse: the events of the block are made when it has ended.

        Raises
        ------
        TransactionError
            Always.
        """
        raise TransactionError(f"flush() cannot be called inside {self!r}")

    def info(self) -> dict[str, Any]:
        """Return ``readonly``, ``notes`` and ``keys``, the number of keys as the block sees them."""
        return {"readonly": False, "notes": self.notes, "keys": len(self)}

    def __repr__(self) -> str:
        state = "new" if self._thread is None else "ended" if self._batch is None else "open"
        return f"<{state} transaction {self.notes!r}>"


def _call_all(functions: list[Callable[[], object]]) -> None:
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
        function = None  # this frame is in that traceback, too
