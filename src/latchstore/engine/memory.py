"""`DictMemoryStore`: a store over a `Table`.

Thread safety: that of ``table.py``, which also explains what may be read without a lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    check_callable,
    checked_path,
    checked_timeout,
)
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.ordering import Ordered, checked_index, checked_indexes
from latchstore.contract.values import Entry
from latchstore.engine.bounded import BoundedStore
from latchstore.engine.bounded_table import BoundedTable
from latchstore.engine.guarded import Latches
from latchstore.engine.limits import Limits
from latchstore.engine.locks import AnyReadWriteLock, ReadWriteLock
from latchstore.engine.publishing import Publisher
from latchstore.engine.table import Table
from latchstore.engine.transactional_store import TransactionalStore

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class DictMemoryStore(TransactionalStore):
    """A key-value store in memory that any number of threads may share.

    Parameters
    ----------
    event_manager : BaseEventManager, optional
        Where events go, encore's own included; the process-wide default if None.
    indexes : iterable of str or Ordered
        Names of metadata items to keep an index on, so that ``query(name=...)`` costs what it returns
        and not what the store holds; ``Ordered("due")`` for queries in that order, with a limit, and for
        ranges.
    lock_timeout : Seconds
        Seconds that any wait for a lock may take before LockTimeoutError names its holder.
    lock_class : callable
        Makes the reader/writer lock around the dicts: a class of ``readerwriterlock``, or anything
        that returns objects with its ``gen_rlock`` and ``gen_wlock``. The default, ``ReadWriteLock``, is free
        after an exception wherever CPython raises one. Those of the library are written in Python, so an
        interrupt may leave them taken.
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

    Thread safety
    -------------
    Any number of threads may use a store at the same time. Reads of one key take no lock, reads of
    several keys share one, commits hold it alone for microseconds. No user code runs while it is held.
    Processes do not share a store: a forked child has a copy of its own.

    Examples
    --------
    >>> from latchstore import DictMemoryStore
    >>> with DictMemoryStore(indexes=["kind"]) as store:
    ...     store.set("greeting", (b"hello", {"kind": "text"}))
    ...     store.to_bytes("greeting"), list(store.query_keys(kind="text"))
    (b'hello', ['greeting'])
    """

    # hot path: what every read touches is in slots.
    __slots__ = ("_entries", "_table")

    def __init__(
        self,
        event_manager: BaseEventManager | None = None,
        *,
        indexes: Iterable[str | Ordered] = (),
        lock_timeout: Seconds = 30.0,
        lock_class: Callable[[], AnyReadWriteLock] = ReadWriteLock,
        max_pending_events: int | None = 100_000,
        history: int = 0,
    ) -> None:
        timeout = checked_timeout(lock_timeout, "lock_timeout")
        if timeout is None:
            raise TypeError("lock_timeout must be a number of seconds, got None")
        check_callable(lock_class, "lock_class")
        names = checked_indexes(indexes)

        def make_table(publisher: Publisher) -> Table:
            # Before others find the store: a forked child renews all that there are.
            self._table = Table(lock_class, timeout, publisher, names)
            self._entries = self._table.entries
            return self._table

        super().__init__(event_manager, max_pending_events, history, make_table)

    @property
    def _latches(self) -> Latches:
        """The lock and the owner, for those who look what is held."""
        return self._table.latches

    def _keep_within(self, limits: Limits) -> BoundedStore:
        """Keep to the limits of a cache: the seam of ``bounded.py``."""
        return BoundedTable(self, self._table, limits)

    # -- facts ------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        table = self._table
        return f"<DictMemoryStore {len(table.entries)} keys, revision {table.revision}>"

    # -- saving -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what the store holds at this moment to a SQLite file, while writers go on.

        The file is replaced at one instant, when all of it is on the disk: whatever happens meanwhile, the
        old one or the new one is there. Its mode is kept, its owner where that is allowed; what SQLite has
        left beside it (``-wal``, ``-shm``, ``-journal``) is removed. Inside a transaction of this thread the
        last commit is saved.

        Parameters
        ----------
        path : str or os.PathLike

        Raises
        ------
        TypeError
            If metadata has a value of a type that cannot be stored; names key, item, and what can be.
        KeptByReferenceError
            If a cache keeps an object by reference that is no string (of valid Unicode), no int of 64 bits
            and no finite float: those are saved, and come back, all others are refused with their key.
        OSError
            If the file cannot be written, or is open as a `SqliteStore`; its ``filename`` is the path, and
            the old file is whole.
        """
        from latchstore.engine.saving import write_file  # here, as sqlite3 takes long to load

        path = checked_path(path)
        # The clocks that the deadlines of entries are in.
        clocks = [bound.limits.clock() for bound in self._table.bounds if not bound.closed]
        with self.snapshot() as view:
            write_file(path, view._items(), view.revision, min(clocks, default=None))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], event_manager: BaseEventManager | None = None, **options: Any
    ) -> Self:
        """Return a new store with what `save` has written: data, metadata, times, revisions.

        It has no event. A file that somebody else has written runs no code: it is not unpickled, and without
        ``codec=`` a `Cache` or ``mapping()`` of the store takes and returns bytes. Name ``codec="pickle"``
        only for files that you trust.

        Parameters
        ----------
        path : str or os.PathLike
        event_manager : BaseEventManager, optional
        **options
            What else the constructor takes.

        Raises
        ------
        StoreFormatError
            If the file is damaged, has what `save` could not have written, or has a later format.
        OSError
            If the file is not there, cannot be read, or is being changed by another program.
        """
        from latchstore.contract.codec import UnnamedCodec  # as in `save`
        from latchstore.engine.loading import read_file

        entries, revision, clock = read_file(checked_path(path))
        store = cls(event_manager, **options)
        store.default_codec = UnnamedCodec()
        store._table.load(entries, revision, clock)
        store._first_revision = revision
        store._feed.begin(revision)
        return store

    # -- indexes ----------------------------------------------------------------------------------

    def add_index(self, name: str | Ordered) -> None:
        """Keep an index on a metadata item from now on; nothing happens if there is one.

        Takes time in proportion to the number of keys; readers go on meanwhile, writers wait, but not for an
        ordered index.

        Parameters
        ----------
        name : str or Ordered
            The metadata item; ``Ordered("due")`` for an index in order.

        Raises
        ------
        LockTimeoutError
            If another writer does not finish in time.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        name = checked_index(name, "name")
        self._refuse_in_transaction("add_index")
        self._table.add_index(name)

    def remove_index(self, name: str | Ordered) -> None:
        """Drop the index on a metadata item; queries for it scan again.

        Raises
        ------
        KeyError
            If there is no such index.
        LockTimeoutError, TransactionError
            As `add_index`.
        """
        name = checked_index(name, "name")
        self._refuse_in_transaction("remove_index")
        self._table.remove_index(name)

    # -- reading single keys ----------------------------------------------------------------------

    # hot path: these read as rule 4 of table.py has it, first the entry and then the gate, and leave to the
    # methods of the class above what is not usual: a missing or bad key, a commit that is being applied, and
    # a transaction of this thread. Mostly there is no detour, and no variable is assigned for it; if there is
    # one, it is looked at again, and any look after the read will do. The class is named, as a function with
    # `super()` in it takes longer to enter.

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        try:
            data = self._entries[key].data
            if self._table.detour is None or get_ident() not in (self._table.detour or ()):
                return data
        except (KeyError, TypeError):
            pass
        return TransactionalStore._entry(self, key).data

    def exists(self, key: str) -> bool:
        try:
            if key in self._entries:
                if self._table.detour is None or get_ident() not in (self._table.detour or ()):
                    return True
            elif type(key) is str and (
                self._table.detour is None or get_ident() not in (self._table.detour or ())
            ):
                return False
        except TypeError:
            pass
        return TransactionalStore.exists(self, key)

    def _entry(self, key: str) -> Entry:
        try:
            entry = self._entries[key]
            if self._table.detour is None or get_ident() not in (self._table.detour or ()):
                return entry
        except (KeyError, TypeError):
            pass
        return TransactionalStore._entry(self, key)
