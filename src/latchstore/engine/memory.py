"""`DictMemoryStore`: the parts wired together.

Thread safety: that of ``locking.py`` (the order of the locks) and ``table.py`` (what may be read how),
and the gate:

1. The gate says which threads may not take what a lock-free read gave them. None: no such thread. The
   dict of open transactions: the threads in it, whose calls go to their transaction. An `_Applying`: a
   commit of several keys is being applied, and all see what stood there before.
2. It is set by single assignments under a lock of its own, read without one after the entry was read.
   Why that is enough stands in ``table.py``.
"""

from __future__ import annotations

import functools
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from threading import get_ident
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    check_callable,
    checked_count,
    checked_key,
    checked_keys,
    checked_path,
    checked_timeout,
    describe,
    exact_string,
)
from latchstore.contract.errors import (
    FlushTimeoutError,
    LockTimeoutError,
    StoreClosedError,
    TransactionConflictError,
    TransactionError,
)
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.events import (
    BaseEvent,
    StoreEvent,
    StoreProgressManager,
    StoreTransactionEndEvent,
)
from latchstore.contract.glob_pattern import checked_pattern, escaped
from latchstore.contract.values import Change, Entry, Value, deletion, entry_from_metadata
from latchstore.delivery.change_feed import ChangeBuffer, ChangeFeed, Commit, Interest
from latchstore.delivery.commit_events import (
    MODIFICATION_EVENTS,
    CommitDelivery,
    EventDelivery,
    event_class_of,
    has_listeners_of,
)
from latchstore.delivery.dispatcher import Delivery, EventDispatcher, Timer
from latchstore.delivery.event_manager import listener_name
from latchstore.delivery.watch import Watch, wait_until
from latchstore.engine.attempts import Attempts
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.entry_store import Edit, EntryStore, Progress, cause_of_edit
from latchstore.engine.locking import (
    Latch,
    Latches,
    ReaderWriterLock,
    SharedLatch,
    WriterClaim,
    surely,
    this_thread,
)
from latchstore.engine.snapshot import Snapshot
from latchstore.engine.table import Table
from latchstore.engine.transaction import Routing, Transaction

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Applying:
    """The gate while a commit is applied: every thread sees what stood there before, and waits for nothing.

    Attributes
    ----------
    before : dict
        The keys that the commit changes, each with its entry before it, or None; others may be among them,
        with what they have.
    """

    __slots__ = ("before",)

    def __init__(self, before: dict[str, Entry | None]) -> None:
        self.before = before

    def __contains__(self, thread: int) -> bool:
        return True


class _Committing:
    """A commit that is about to be made, and, if its revision is the table's, was.

    Attributes
    ----------
    changes : sequence of Change
        Those of a batch are listed if they are heard, or by `list_changes`.
    revision : int
    heard : bool
        Whether anybody listened to events of the changes when it began.
    transaction : Transaction or None
        The block that is to know its revision.
    deliveries : list of Delivery or None
        Made when it is told of. Each is heard once, however often it is queued.
    """

    __slots__ = ("_batch", "changes", "deliveries", "heard", "revision", "transaction")

    def __init__(
        self,
        changes: Sequence[Change],
        revision: int,
        heard: bool,
        transaction: Transaction | None,
        batch: WriteBatch | None = None,
    ) -> None:
        self.changes = changes
        self.revision = revision
        self.heard = heard
        self.transaction = transaction
        self.deliveries: list[Delivery] | None = None
        self._batch = batch

    def list_changes(self) -> Sequence[Change]:
        """Return the changes; those of a batch are listed now, as somebody is to be told of them."""
        if self._batch is not None:
            self.changes = self._batch.net_changes()
            self._batch = None
        return self.changes


class DictMemoryStore(EntryStore):
    """A key-value store in memory that any number of threads may share.

    Parameters
    ----------
    event_manager : BaseEventManager, optional
        Where events go, encore's own included; the process-wide default if None.
    indexes : iterable of str
        Names of metadata items to keep an index on, so that ``query(name=...)`` costs what it returns
        and not what the store holds.
    lock_timeout : float
        Seconds that any wait for a lock may take before LockTimeoutError names its holder.
    lock_class : callable
        Makes the reader/writer lock around the dicts: a class of ``readerwriterlock``, or anything
        that returns objects with its ``gen_rlock`` and ``gen_wlock``. The default, `SharedLatch`, is free
        after an exception between any two bytecodes, which those of the library are not.
    max_pending_events : int or None
        How many events may wait for their listeners before writers have to, at most `lock_timeout`
        seconds; None for any number. Writers that have been let in may go beyond it.
    history : int
        How many of the last commits are kept for ``watch(since=...)``.

    Notes
    -----
    A store works whether or not it is connected. ``close()`` ends its thread and refuses changes until
    ``connect()``; what the store holds can still be read. Events are delivered by one background
    thread, which is started when the first event has a listener.

    Examples
    --------
    >>> from latchstore import DictMemoryStore
    >>> with DictMemoryStore(indexes=["kind"]) as store:
    ...     store.set("greeting", (b"hello", {"kind": "text"}))
    ...     store.to_bytes("greeting"), list(store.query_keys(kind="text"))
    (b'hello', ['greeting'])
    """

    # What every read touches: a slot is read faster than an instance attribute, 5 of 65 ns.
    __slots__ = ("_entries", "_gate")

    def __init__(
        self,
        event_manager: BaseEventManager | None = None,
        *,
        indexes: Iterable[str] = (),
        lock_timeout: float = 30.0,
        lock_class: Callable[[], ReaderWriterLock] = SharedLatch,
        max_pending_events: int | None = 100_000,
        history: int = 0,
    ) -> None:
        if event_manager is not None and not callable(getattr(event_manager, "emit", None)):
            raise TypeError(f"event_manager must have an emit method, got {describe(event_manager)}")
        super().__init__(event_manager)
        timeout = checked_timeout(lock_timeout, "lock_timeout")
        if timeout is None:
            raise TypeError("lock_timeout must be a number of seconds, got None")
        check_callable(lock_class, "lock_class")
        self._latches = Latches(lock_class, timeout)
        self._table = Table(self._latches, checked_keys(indexes, "indexes"))
        self._entries = self._table.entries
        self._open_transactions: dict[int, Routing] = {}
        self._gate: dict[int, Routing] | _Applying | None = None
        # Guards that _gate, unless a commit is being applied, says what _open_transactions says. Below the
        # table lock in the order of locking.py; nothing is called under it.
        self._gate_latch = Latch()
        limit = (
            None if max_pending_events is None else checked_count(max_pending_events, "max_pending_events", 1)
        )
        self._dispatcher = EventDispatcher(limit=limit, listener_name=listener_name)
        self._feed = ChangeFeed(checked_count(history, "history", 0))
        # The commit that is under way, and the last one that has been told of; both are assigned under the
        # writer mutex.
        self._committing: _Committing | None = None
        self._told_revision = 0
        # The revision at which the store began; that of what it was loaded from.
        self._first_revision = 0
        self._connected = False
        self._closed = False
        self._has_listeners = has_listeners_of(self.event_manager)
        _stores.add(self)
        # The dispatcher's thread does not keep the store alive; when nobody does, it ends the thread.
        weakref.finalize(self, self._dispatcher.stop_soon).atexit = False

    # -- lifecycle --------------------------------------------------------------------------------

    def connect(self, credentials: object = None) -> None:
        """Connect to the store, and open it again if it was closed.

        Parameters
        ----------
        credentials : object, optional
            Ignored: the store does not authenticate.
        """
        self._closed = False
        self._connected = True
        self._dispatcher.resume()

    def disconnect(self) -> None:
        """Disconnect from the store; there is nothing to give up, and everything still works."""
        self._connected = False

    def is_connected(self) -> bool:
        return self._connected

    def close(self, timeout: float | None = 30.0) -> None:
        """Let all pending events be heard, end the thread, refuse changes until ``connect()``.

        What the store holds can still be read. Closing twice is harmless.

        Parameters
        ----------
        timeout : float or None
            Seconds that this may take; None for as long as it needs.

        Raises
        ------
        FlushTimeoutError
            If events are still waiting then; it says how many and for which listener. The store is closed,
            and they will be delivered yet.
        DispatcherThreadError
            If a listener calls it.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        timeout = checked_timeout(timeout)
        self._refuse_in_transaction("close")
        self._dispatcher.refuse_on_own_thread("close")
        self._closed = True
        self._connected = False
        self._dispatcher.hold_timers()
        timeout = self._wait_for_last_writer(timeout)
        self._feed.end()
        self._dispatcher.stop(timeout)

    def flush(self, timeout: float | None = 30.0, revision: int | None = None) -> None:
        """Wait until all events of what was committed before the call have been heard.

        Parameters
        ----------
        timeout : float or None
            Seconds; None for as long as it takes.
        revision : int, optional
            Wait for the events of commits up to this one only, such as the ``revision`` of a transaction.

        Raises
        ------
        FlushTimeoutError
            If that takes longer; it says how many are pending, and for which listener.
        DispatcherThreadError
            If a listener calls it, which would wait for itself.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        timeout = checked_timeout(timeout)
        revision = None if revision is None else checked_count(revision, "revision", 0)
        self._refuse_in_transaction("flush")
        self._dispatcher.refuse_on_own_thread("flush")
        committed = self._table.revision
        if revision is not None and revision > committed:
            raise ValueError(f"revision must not be above the last commit's, {committed}, got {revision}")
        self._dispatcher.flush(
            self._wait_until_told(committed if revision is None else revision, timeout), revision
        )

    def _wait_for_last_writer(self, timeout: float | None) -> float | None:
        """Wait for whoever is writing: those who come after see that the store is closed.

        Returns
        -------
        timeout : float or None
            What is left of it.

        Raises
        ------
        FlushTimeoutError
            If the writer does not end in time; it says who it is.
        """
        begun = time.monotonic()
        try:
            self._latches.writing_within(-1 if timeout is None else timeout, "close", _do_nothing)
        except LockTimeoutError as error:
            raise FlushTimeoutError(str(error), self._dispatcher.pending, None) from error
        return None if timeout is None else max(0.0, begun + timeout - time.monotonic())

    def _wait_until_told(self, revision: int, timeout: float | None) -> float | None:
        """Wait until the events of a commit that can be seen are queued; return what is left of `timeout`.

        Its writer is about to do so, microseconds later and without user code in between.

        Raises
        ------
        FlushTimeoutError
            If it does not in time.
        """
        begun = time.monotonic()
        while self._told_revision < revision:
            over = timeout is not None and time.monotonic() - begun >= timeout
            if over or sys.is_finalizing():  # when nobody else runs any more
                raise FlushTimeoutError(
                    f"the events of revision {revision} are not queued yet: "
                    f"the writer mutex is {self._latches.writer.describe()}"
                )
            time.sleep(0.00005)
        return None if timeout is None else max(0.0, begun + timeout - time.monotonic())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def info(self) -> dict[str, Any]:
        """Return facts about the store, all of one instant.

        Returns
        -------
        info : dict
            ``readonly`` (False), ``connected``, ``closed``, ``keys`` (how many), ``revision`` (of the
            last commit), ``indexes`` (their names), ``pending_events`` (events not yet heard),
            ``snapshots`` (how many are open), ``oldest_snapshot`` (its age in seconds), and
            ``pinned_entries`` and ``pinned_bytes`` (what they keep of the past).
        """
        table = self._latches.table.excluding(self._table.facts)
        return {
            "readonly": False,
            "connected": self._connected,
            "closed": self._closed,
            **table,
            "pending_events": self._dispatcher.pending,
        }

    def stats(self) -> dict[str, Any]:
        """Return how busy the store and its listeners have been since it was made; no lock is taken.

        Returns
        -------
        stats : dict
            ``commits`` (how many), ``revision`` (of the last one), ``events_delivered`` (given to the
            event manager), ``events_pending`` (waiting for that or being heard), ``events_dropped``
            (changes that full buffers of watches have dropped), ``listener_errors`` (calls of listeners
            that raised something), ``slowest_listener`` (the name of the one that has taken longest in
            one call, or None), ``slowest_listener_seconds`` (how long), ``watches`` (how many are open).
        """
        dispatcher = self._dispatcher
        slowest, seconds = dispatcher.slowest
        return {
            "commits": self._table.revision - self._first_revision,
            "revision": self._table.revision,
            "events_delivered": dispatcher.delivered,
            "events_pending": dispatcher.pending,
            "events_dropped": self._feed.dropped,
            "listener_errors": dispatcher.listener_errors,
            "slowest_listener": slowest,
            "slowest_listener_seconds": seconds,
            "watches": self._feed.watches,
        }

    def __repr__(self) -> str:
        table = self._table
        return f"<DictMemoryStore {len(table.entries)} keys, revision {table.revision}>"

    # -- saving -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what the store holds at this moment to a SQLite file, while writers go on.

        The file is replaced at one instant, when all of it is on the disk: whatever happens meanwhile, the
        old one or the new one is there. Inside a transaction of this thread the last commit is saved.

        Parameters
        ----------
        path : str or os.PathLike

        Raises
        ------
        TypeError
            If metadata has a value that JSON does not bring back as it is; names key and item.
        OSError
            If the file cannot be written.
        """
        from latchstore.engine.saving import write_file  # here, as sqlite3 takes 5 ms to load

        path = checked_path(path)
        with self.snapshot() as view:
            write_file(path, view.entries(), view.revision)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], event_manager: BaseEventManager | None = None, **options: Any
    ) -> Self:
        """Return a new store with what `save` has written: data, metadata, times, revisions.

        No event tells of it.

        Parameters
        ----------
        path : str or os.PathLike
        event_manager : BaseEventManager, optional
        **options
            What else the constructor takes.

        Raises
        ------
        StoreFormatError
            If the file is damaged, was not written by `save`, or has a later format.
        OSError
            If the file is not there or cannot be read.
        """
        from latchstore.engine.saving import read_file  # as in `save`

        entries, revision = read_file(checked_path(path))
        store = cls(event_manager, **options)
        store._table.load(entries, revision)
        store._first_revision = store._told_revision = revision
        store._feed.begin(revision)
        return store

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a store cannot be pickled or copied: save(path) writes what it holds, load(path) reads it back"
        )

    def _renew_in_child(self) -> None:
        """Make of a forked child's copy a store of its own: whole, with free locks, and nothing under way.

        Other threads of the parent may have been anywhere, and are not here. This one is alone.
        """
        self._latches.renew()
        self._table.settle()
        self._gate_latch = Latch()
        for block in list(self._open_transactions.values()):
            transaction = block()
            block.left = None
            if transaction is not None:
                transaction.forget_in_child()
        self._open_transactions.clear()
        self._gate = None
        self._committing = None
        self._told_revision = self._table.revision
        self._feed.renew()
        self._dispatcher.renew_in_child()

    # -- indexes ----------------------------------------------------------------------------------

    def add_index(self, name: str) -> None:
        """Keep an index on a metadata item from now on; nothing happens if there is one.

        Takes time in proportion to the number of keys; readers go on meanwhile, writers wait.

        Parameters
        ----------
        name : str
            The metadata item.

        Raises
        ------
        LockTimeoutError
            If another writer does not finish in time.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        name = checked_key(name, "name")
        self._refuse_in_transaction("add_index")
        self._latches.writing("add_index", self._table.add_index, name)

    def remove_index(self, name: str) -> None:
        """Drop the index on a metadata item; queries for it scan again.

        Raises
        ------
        KeyError
            If there is no such index.
        LockTimeoutError, TransactionError
            As `add_index`.
        """
        name = checked_key(name, "name")
        self._refuse_in_transaction("remove_index")
        self._latches.writing("remove_index", self._table.remove_index, name)

    # -- reading ----------------------------------------------------------------------------------

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        # Reads as `_entry` does, to save a call, and so does `exists`: 2.0 times a bare dict.get and not
        # 3.1 times (benchmarks/operations.py).
        try:
            data = self._entries[key].data  # type: ignore[union-attr]
            gate = self._gate
            if gate is None or get_ident() not in gate:
                return data
        except (KeyError, TypeError, AttributeError):
            pass  # missing, being created or deleted, or no string: found out at leisure
        return self._entry_carefully(key).data

    def exists(self, key: str) -> bool:
        # Rule 3 again, for what a call of `_entry` costs: 2.3 times a bare ``in`` and not 4 times
        # (benchmarks/operations.py).
        try:
            if self._entries[key] is not None:
                gate = self._gate
                if gate is None or get_ident() not in gate:
                    return True
        except KeyError:
            # It is missing, unless a commit is being applied or this thread is in a transaction: first the
            # key, then the gate. A cache asks for what is missing at each miss (0.3 of 0.6 us).
            gate = self._gate
            if type(key) is str and (gate is None or get_ident() not in gate):
                return False
        except TypeError:
            pass
        return self._exists_carefully(key)

    def _exists_carefully(self, key: str) -> bool:
        key = checked_key(key)
        transaction = self._transaction_of_this_thread()
        return self._entry_or_none(key) is not None if transaction is None else transaction.exists(key)

    def _entry(self, key: str) -> Entry:
        # Rule 3 of table.py: the entry first, then the gate.
        try:
            entry = self._entries[key]
        except (KeyError, TypeError):
            return self._entry_carefully(key)
        gate = self._gate
        if entry is not None and (gate is None or get_ident() not in gate):
            return entry
        return self._entry_carefully(key)

    def _entry_carefully(self, key: str) -> Entry:
        """Read one entry when the quick way could not: bad or missing key, commit, transaction."""
        key = checked_key(key)
        transaction = self._transaction_of_this_thread()
        if transaction is not None:
            return transaction._entry(key)
        entry = self._entry_or_none(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def _entry_or_none(self, key: str) -> Entry | None:
        """Read one entry outside of all transactions; a commit that is being applied is not seen yet."""
        try:
            entry = self._entries[key]
        except KeyError:
            entry = None
        gate = self._gate
        return gate.before.get(key, entry) if type(gate) is _Applying else entry

    def _entries_of(self, keys: list[str]) -> list[Entry]:
        transaction = self._transaction_of_this_thread()
        if transaction is not None:
            return transaction._entries_of(keys)
        table = self._table
        entries = self._entries
        # First without the lock: if no commit was made meanwhile and none is under way, this was one
        # instant. 2 us cheaper than the read lock, and readers do not meet. Each key is read once, even
        # if it is named twice: a commit of that one key is noted only after it can be seen.
        revision = table.revision
        try:
            found = {key: entries[key] for key in dict.fromkeys(keys)}
        except KeyError:
            found = None
        if found is None or type(self._gate) is _Applying or table.revision != revision:
            found = self._latches.table.reading(
                lambda: {key: entries[key] if key in entries else None for key in keys}
            )
        for key, entry in found.items():
            if entry is None:
                raise KeyError(key)
        return [found[key] for key in keys]  # type: ignore[misc]

    def _items(self) -> Iterable[tuple[str, Entry]]:
        return self._candidates({})

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        transaction = self._transaction_of_this_thread()
        if transaction is not None:
            return transaction._candidates(terms)
        return self._latches.table.reading(self._table.candidates, terms)

    def query_keys(self, **kwargs: Any) -> Iterator[str]:
        transaction = self._transaction_of_this_thread()
        if transaction is not None:
            return transaction.query_keys(**kwargs)
        if kwargs:
            return super().query_keys(**kwargs)
        return iter(self._latches.table.reading(list, self._table.entries))

    def glob(self, pattern: str) -> Iterator[str]:
        transaction = self._transaction_of_this_thread()
        return super().glob(pattern) if transaction is None else transaction.glob(pattern)

    def __len__(self) -> int:
        transaction = self._transaction_of_this_thread()
        if transaction is not None:
            return len(transaction)
        return self._latches.table.reading(len, self._table.entries)

    # -- writing ----------------------------------------------------------------------------------

    def transaction(
        self, notes: str = "", *, timeout: float | None = None, optimistic: bool = False
    ) -> Transaction:
        """Return a context manager that makes all changes of its block one commit, or none.

        An exclusive block, the default, holds up other writers from its beginning to its end, so nothing
        that it reads can change under it. An optimistic one holds up nobody: it reads the store as it was
        at its beginning, and if something that it has read was changed by its end, queries and globs
        included, it raises TransactionConflictError. It suits blocks that take long and seldom meet;
        `attempts` tries again.

        Reads by other threads never wait for either and see the last commit. The store's methods, called
        by the block's thread, read and write inside it. A block inside a block is a savepoint.

        Parameters
        ----------
        notes : str
            What the transaction is about; shown in error messages and events.
        timeout : float, optional
            Seconds to wait for other writers, ``lock_timeout`` if None.
        optimistic : bool
            Whether to hold no lock while the block runs.

        Raises
        ------
        LockTimeoutError
            If another writer does not finish in time; it names the writer. On entry, or for an
            optimistic block at its end.
        TransactionConflictError
            At the end of an optimistic block, naming the keys.
        """
        return Transaction(self, _checked_notes(notes), checked_timeout(timeout), bool(optimistic))

    def attempts(self, notes: str = "", *, tries: int = 100, timeout: float | None = None) -> Attempts:
        """Return an iterator over attempts at one optimistic transaction, which ends with its commit.

        ``for attempt in store.attempts("move"): with attempt as tx: ...`` runs the block again, after a
        short random pause, as long as it meets a conflict.

        Parameters
        ----------
        notes : str
            What the transaction is about.
        tries : int
            How many attempts there are at the most.
        timeout : float, optional
            Seconds after which no further attempt is begun.

        Raises
        ------
        TransactionConflictError
            After the last attempt; it says how many there were.
        """
        notes = _checked_notes(notes)
        if not isinstance(tries, int) or isinstance(tries, bool):
            raise TypeError(f"tries must be an int, got {describe(tries)}")
        if tries < 1:
            raise ValueError(f"tries must be at least 1, got {tries}")
        make = functools.partial(self.transaction, notes, optimistic=True)
        return Attempts(make, notes, tries, checked_timeout(timeout))

    def transactional(
        self, notes: str | None = None, *, tries: int = 100, timeout: float | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator that runs a function in `attempts`: again after each conflict.

        Parameters
        ----------
        notes : str, optional
            What the transaction is about; the function's name if None.
        tries, timeout
            As for `attempts`.
        """
        self.attempts(
            "" if notes is None else notes, tries=tries, timeout=timeout
        )  # bad arguments are told here

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            name = function.__qualname__ if notes is None else notes

            @functools.wraps(function)
            def run(*args: P.args, **kwargs: P.kwargs) -> R:
                for attempt in self.attempts(name, tries=tries, timeout=timeout):
                    with attempt:
                        result = function(*args, **kwargs)
                return result

            return run

        return decorate

    def current_transaction(self) -> Transaction | None:
        """Return the innermost open transaction of this thread, to which its calls go, or None."""
        return self._transaction_of_this_thread()

    def snapshot(self) -> Snapshot:
        """Return a read-only store that stays as the last commit has left this one.

        Opening it takes the same time whatever the size of the store. While it is open it costs the old
        entries of what is changed; use it as a context manager, or close it.
        """
        return Snapshot(self.event_manager, self._table)

    # -- following changes ------------------------------------------------------------------------

    def watch(
        self,
        glob: str = "*",
        filter: Mapping[str, Any] | None = None,
        since: int | None = None,
        *,
        max_buffer: int = 10_000,
        on_overflow: str = "drop",
    ) -> Watch:
        """Return an iterator over the changes that are committed from now on.

        Each watch has a buffer of its own, so a slow reader holds up nobody.

        Parameters
        ----------
        glob : str
            A pattern of keys, as for `glob`.
        filter : mapping of str to object, optional
            Metadata items and the values that they must have, as for `query`, before the change or after
            it: a change that ends a match is given, too.
        since : int, optional
            Begin with the changes that were committed after this revision, which the store's `history`
            must still have. By default the watch begins now.
        max_buffer : int
            How many changes are kept for the reader.
        on_overflow : str
            What happens when more come: ``"drop"`` forgets the oldest and gives one `EventsLost` in their
            place; ``"coalesce"`` keeps the latest change of each key, with the value from before the
            first, however many keys there are, and leaves out keys that came and went.

        Raises
        ------
        CompactedError
            If the history does not reach back to `since`.
        StoreClosedError
            If the store is closed.
        """
        glob = checked_pattern(glob, "glob")
        interest = Interest(glob, entry_from_metadata({} if filter is None else filter, "filter"))
        since = None if since is None else checked_count(since, "since", 0)
        limit = checked_count(max_buffer, "max_buffer", 1)
        if on_overflow not in ("drop", "coalesce"):
            raise ValueError(f"on_overflow must be 'drop' or 'coalesce', got {describe(on_overflow)}")
        if self._closed:
            raise StoreClosedError("watch: the store is closed; connect() opens it again")
        buffer = ChangeBuffer(interest, limit, on_overflow == "coalesce")
        watch = Watch(self, self._feed, buffer, interest, glob)
        watch.begin(self._latches.table.excluding(self._add_buffer, buffer, since))
        return watch

    def _add_buffer(self, buffer: ChangeBuffer, since: int | None) -> list[Commit]:
        """Have the feed fill a buffer from one moment on; the caller holds the table lock."""
        now = self._table.revision
        begin = now if since is None else since
        if begin > now:
            raise ValueError(f"since must not be above the last commit's revision, {now}, got {begin}")
        return self._feed.add(buffer, now, begin)

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = 30.0) -> T:
        """Wait until a predicate about the store is true; return its result.

        Parameters
        ----------
        predicate : callable
            Called with no arguments, in this thread with no lock held, now and after changes. For what
            several keys have at one instant, let it open a snapshot.
        timeout : float or None
            Seconds; None for as long as it takes.

        Raises
        ------
        WaitTimeoutError
            If it is not true in time.
        WatchClosedError
            If the store is closed meanwhile.
        TransactionError
            If it is called inside a transaction of this thread, which keeps others from changing anything.
        """
        check_callable(predicate, "predicate")
        timeout = checked_timeout(timeout)
        self._refuse_in_transaction("wait_for")
        with self.watch(max_buffer=1) as changes:
            return wait_until(predicate, changes, timeout, listener_name(predicate))

    def wait_for_key(self, key: str, timeout: float | None = 30.0) -> Value:
        """Wait until a key is in the store; return its value.

        Parameters
        ----------
        key : str
        timeout : float or None
            Seconds; None for as long as it takes.

        Raises
        ------
        WaitTimeoutError, WatchClosedError, TransactionError
            As `wait_for`.
        """
        key = checked_key(key)
        timeout = checked_timeout(timeout)
        self._refuse_in_transaction("wait_for_key")

        def value() -> Value | None:
            try:
                return self.get(key)
            except KeyError:
                return None

        with self.watch(escaped(key), max_buffer=1) as changes:
            found = wait_until(value, changes, timeout, f"key {key!r}")
        assert found is not None
        return found

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Have the store's own thread call a function once, between two events.

        It may use the store as a listener may. What it raises is logged. A closed store calls it when it is
        open again; a store that is freed, and a forked child, do not.

        Parameters
        ----------
        seconds : float
            From now.
        function : callable
            Called without arguments.

        Returns
        -------
        timer : Timer
            It has ``cancel()``, and ``active``, whether the call is still to come.
        """
        checked = checked_timeout(seconds, "seconds")
        if checked is None:
            raise TypeError("seconds must be a number of seconds, got None")
        check_callable(function, "function")
        return self._dispatcher.call_later(checked, function)

    # -- committing -------------------------------------------------------------------------------

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        """Commit one edit: what `_write` does, without the batch, which takes as long again."""
        open_transactions = self._open_transactions
        if open_transactions:
            block = open_transactions.get(get_ident())
            transaction = None if block is None else block()
            # As `belongs_to_this_thread` says it, without the call.
            if transaction is not None and transaction._owner is this_thread.thread:
                transaction._write_one(key, edit, purpose)
                return
        if self._closed or self._dispatcher.crowded:
            self._check_door(purpose)
        latches = self._latches
        table = self._table
        claim = (this_thread.thread, purpose)
        change = None
        try:
            try:
                now = latches.writer.acquire_as_writer(claim, latches.timeout)
                if self._closed:
                    self._refuse_if_closed(purpose)
                entries = self._entries
                # Not ``get``: the free-threaded 3.13 locks the dict for it and, if it meets a key or an entry
                # of another thread, asks for that lock once more and waits for itself: 20 us, and 0.1 to 2 ms
                # where more threads run than there are processors (3.14 does not). Nobody else changes
                # anything now.
                current = entries[key] if key in entries else None
                revision = table.revision + 1
                change = (key, current, edit.revise(key, current, revision, now))
                if change[2] is None:
                    change = deletion(key, current, cause_of_edit(edit))
                # Mostly nobody listens to anything. Loaded first: a call of what is no method of the class is
                # not specialised by CPython 3.11. Both together 0.1 of 1.8 us.
                has_listeners = self._has_listeners
                heard = has_listeners(MODIFICATION_EVENTS) and has_listeners(event_class_of(change))
                table.apply_one(change, revision)
                if heard or self._feed.active:
                    self._committing = _Committing((change,), revision, heard, None)
                    self._tell(claim)
                self._told_revision = revision
                latches.writer.release(claim)
            except BaseException:
                self._end_write_after_error(claim, change)
                raise
        except BaseException:
            surely(self._end_write_after_error, claim, change)
            raise
        if heard:
            self._dispatcher.start_if_needed()

    def _claim(self, purpose: str) -> WriterClaim:
        """Return a new claim of this thread to the writer mutex."""
        return this_thread.thread, purpose

    def _end_write_after_error(self, claim: WriterClaim, change: Change | None) -> None:
        """End a write of one key, which may have been made all the same, and not told of yet."""
        if change is not None and self._latches.writer.claim is claim and self._committing is None:
            # The one revision after the last that was told of, if this commit has not been told of itself.
            revision = self._told_revision + 1
            if self._table.revision == revision:
                heard = self._has_listeners(event_class_of(change))
                self._committing = _Committing((change,), revision, heard, None)
        self._end_write(claim)

    def _end_write(self, claim: WriterClaim) -> None:
        """Tell of the commit that was made, if one was, and give the mutex back; may be done twice."""
        writer = self._latches.writer
        if writer.claims.get(0) is claim:
            if self._committing is not None:
                self._tell(claim)
            self._told_revision = self._table.revision
            writer.release(claim)

    def _write(self, edits: Iterable[tuple[str, Edit]], purpose: str) -> None:
        transaction = self._transaction_of_this_thread()
        if transaction is not None:
            transaction._write(edits, purpose)
            return
        claim = self._claim(purpose)
        try:
            try:
                batch = self._begin_exclusive(claim, None)
                for key, edit in edits:
                    batch.put(key, edit)
                self._commit_batch(batch, None)
                self._end_write(claim)
            except BaseException:
                self._end_write(claim)
                raise
        except BaseException:
            surely(self._end_write, claim)
            raise
        self._start_dispatcher_if_needed()

    def _check_door(self, purpose: str, timeout: float | None = None) -> None:
        """Let a writer in, before it asks for a lock. Listeners always are: nothing waits for itself.

        Raises
        ------
        StoreClosedError
            If the store is closed.
        BackpressureError
            If too many events are waiting for listeners, and still are when the time is over.
        """
        dispatcher = self._dispatcher
        if dispatcher.on_dispatcher_thread():
            return
        self._refuse_if_closed(purpose)
        if dispatcher.crowded:
            dispatcher.wait_for_room(purpose, self._latches.timeout if timeout is None else timeout)

    def _refuse_if_closed(self, purpose: str) -> None:
        """Raise StoreClosedError if the store is closed, but let listeners go on to the end.

        Asked again by whoever has the writer mutex: `close` waits for that, so nobody writes after it.
        """
        if self._closed and not self._dispatcher.on_dispatcher_thread():
            raise StoreClosedError(f"{purpose}: the store is closed; connect() opens it again")

    def _apply(self, batch: WriteBatch, revision: int) -> None:
        """Apply the changes with the gate shut: others see what stood there before."""
        try:
            try:
                self._set_gate(_Applying(batch.before))
                self._table.apply(batch.before, batch.after, revision, self._open_gate)
            except BaseException:
                self._open_gate()  # there was no room, or no lock: nothing was applied
                raise
        except BaseException:
            surely(self._open_gate)
            raise

    def _open_gate(self) -> None:
        self._set_gate(None)

    def _set_gate(self, applying: _Applying | None) -> None:
        self._gate_latch.during(self._put_gate, applying)

    def _put_gate(self, applying: _Applying | None) -> None:
        self._gate = applying or self._open_transactions or None

    def _tell(self, claim: WriterClaim) -> None:
        """Hand on what is to be told of a commit, if it was made; may be done twice."""
        committing = self._committing
        if committing is None or self._latches.writer.claims.get(0) is not claim:
            return
        if committing.revision <= self._table.revision:
            if committing.transaction is not None:
                committing.transaction.revision = committing.revision
            if committing.deliveries is None:
                # From here on these and no others are queued.
                committing.deliveries = self._deliveries_of(committing)
            for delivery in committing.deliveries:
                self._dispatcher.submit(delivery)
            if self._feed.active and (changes := committing.list_changes()):
                transaction = committing.transaction
                info = None if transaction is None else transaction.transaction_info()
                self._feed.publish(Commit(committing.revision, changes, info))
            self._told_revision = committing.revision
        self._committing = None

    def _deliveries_of(self, committing: _Committing) -> list[Delivery]:
        transaction = committing.transaction
        info = None if transaction is None else transaction.transaction_info()
        deliveries: list[Delivery] = []
        if info is not None and self._has_listeners(StoreTransactionEndEvent):
            event = StoreTransactionEndEvent(self, transaction=info, state="done")
            deliveries.append(EventDelivery(self.event_manager, event))
        if committing.heard:
            changes, revision = committing.changes, committing.revision
            deliveries.append(CommitDelivery(self.event_manager, self, changes, revision, info))
        return deliveries

    # -- Committer: what transactions ask of the store --------------------------------------------

    def _begin_exclusive(self, claim: WriterClaim, timeout: float | None) -> WriteBatch:
        purpose = claim[1]
        self._check_door(purpose, timeout)
        latches = self._latches
        latches.writer.acquire_as_writer(claim, latches.timeout if timeout is None else timeout)
        self._refuse_if_closed(purpose)
        return WriteBatch(self._entries, self._table.revision + 1)

    def _commit_batch(self, batch: WriteBatch, transaction: Transaction | None) -> None:
        committing = _Committing((), self._table.revision, False, transaction, batch)
        changed = batch.changes_anything()
        if changed:
            committing.revision = batch.revision
            # One question first, which mostly is answered with no: 0.1 of 1.3 us for each key.
            has_listeners = self._has_listeners
            committing.heard = has_listeners(MODIFICATION_EVENTS) and any(
                map(has_listeners, map(event_class_of, committing.list_changes()))
            )
        self._committing = committing
        if changed:
            self._apply(batch, batch.revision)

    def _transaction_of_this_thread(self) -> Transaction | None:
        if not self._open_transactions:
            return None
        transaction = self._transaction_of_thread(get_ident())
        if transaction is None or not transaction.belongs_to_this_thread():
            return None
        return transaction

    def _transaction_of_thread(self, thread: int) -> Transaction | None:
        block = self._open_transactions.get(thread)
        return None if block is None else block()

    def _begin_optimistic(self, purpose: str, timeout: float | None) -> OptimisticBatch:
        self._check_door(purpose, timeout)
        return OptimisticBatch(Snapshot(self.event_manager, self._table))

    def _commit_optimistic(
        self, batch: OptimisticBatch, claim: WriterClaim, timeout: float | None, transaction: Transaction
    ) -> None:
        exclusive = self._begin_exclusive(claim, timeout)
        keys = batch.conflicts(self._entries)
        if keys:
            raise TransactionConflictError(
                f"{claim[1]}: changed by others since it was read: {_shown(keys)}", tuple(keys)
            )
        self._commit_batch(batch.rebased(self._entries, exclusive.revision), transaction)

    def _route(self, thread: int, block: Routing) -> None:
        self._gate_latch.during(self._put_route, thread, block)

    def _put_route(self, thread: int, block: Routing) -> None:
        self._open_transactions[thread] = block
        self._note_routes()

    def _unroute(self, thread: int, block: Routing, outer: Routing | None) -> None:
        # A block that was left open is ended by a finalizer, which may come in the middle of another call.
        self._gate_latch.during_or_after(self._take_route, thread, block, outer)

    def _take_route(self, thread: int, block: Routing, outer: Routing | None) -> None:
        if self._is_routed(thread, block):
            if outer is None:
                del self._open_transactions[thread]
            else:
                self._open_transactions[thread] = outer
        self._note_routes()

    def _note_routes(self) -> None:
        if type(self._gate) is not _Applying:
            self._gate = self._open_transactions or None

    def _is_routed(self, thread: int, block: Routing) -> bool:
        return self._open_transactions.get(thread) is block

    def _indexed_candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        assert self._latches.writer.held_by_this_thread()
        return self._table.candidates(terms)

    def _delivery(self, event: StoreEvent) -> Delivery:
        return EventDelivery(self.event_manager, event)

    def _queue(self, delivery: Delivery) -> None:
        self._dispatcher.submit(delivery)

    def _progress(self, key: str, metadata: Entry | None, steps: int) -> AbstractContextManager[Progress]:
        if self._dispatcher.crowded and self._transaction_of_this_thread() is None:
            self._check_door(f"reading the stream of {key!r}")
        return StoreProgressManager(
            _QueuedEvents(self),
            source=self,
            steps=steps,
            message=f"Storing {key!r}",
            key=key,
            metadata={} if metadata is None else metadata.isolated_metadata(),
        )

    # -- odds -------------------------------------------------------------------------------------

    def _start_dispatcher_if_needed(self) -> None:
        """Start the thread if something is queued and it does not run; no lock is held."""
        self._dispatcher.start_if_needed()

    def _refuse_in_transaction(self, operation: str) -> None:
        transaction = self._transaction_of_this_thread()
        if transaction is not None:
            raise TransactionError(f"{operation}() cannot be called inside {transaction!r}")


class _QueuedEvents:
    """Emits by way of the store's queue, so that progress is heard in order with everything else."""

    __slots__ = ("_store",)

    def __init__(self, store: DictMemoryStore) -> None:
        self._store = store

    def emit(self, event: BaseEvent, /) -> None:
        self._store._dispatcher.submit(EventDelivery(self._store.event_manager, event))
        self._store._dispatcher.ensure_running()


# Every store alive, for children that this process forks.
_stores: weakref.WeakSet[DictMemoryStore] = weakref.WeakSet()


def _renew_stores_in_child() -> None:
    failures = []
    for store in list(_stores):
        try:
            store._renew_in_child()
        except Exception as error:  # a lock_class that fails, say, which is to harm no other store
            failures.append(error)
    if failures:
        raise ExceptionGroup("stores that cannot be used in this forked child", failures)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_stores_in_child)


def _checked_notes(notes: str) -> str:
    if not isinstance(notes, str):
        raise TypeError(f"notes must be a str, got {describe(notes)}")
    return exact_string(notes)


def _shown(keys: list[str]) -> str:
    """Name up to five keys."""
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(map(repr, sorted(keys)[:5])) + more


def _do_nothing() -> None:
    pass
