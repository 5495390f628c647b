"""`DictMemoryStore`: a store over a `Table`.

Thread safety: that of ``table.py``, which also explains which reads take no lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    advising,
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
        Delivers the events, such as encore's event manager; the process-wide default if None.
    indexes : iterable of str or Ordered
        Names of metadata items to index, so that the cost of ``query(name=...)`` depends on the size of its
        result and not of the store; ``Ordered("due")`` for queries in that order, with a limit, and for
        ranges.
    lock_timeout : Seconds
        The most seconds to wait for any lock before LockTimeoutError names its holder.
    lock_class : callable
        Returns the reader/writer lock around the dicts: a class of ``readerwriterlock``, or any callable that
        returns objects with its ``gen_rlock`` and ``gen_wlock``. The default, ``ReadWriteLock``, is released
        after an exception at any point where CPython can raise one. Those of the library are written in
        Python, so an interrupt may leave them acquired.
    max_pending_events : int or None
        The number of pending events from which writers block, for at most `lock_timeout` seconds; None for
        no limit. Writers admitted before may exceed it.
    history : int
        The number of commits to keep for ``watch(since=...)``.

    Notes
    -----
    A store works whether or not it is connected. ``close()`` ends its thread and refuses writes until
    ``connect()``; a closed store can still be read. One background thread delivers events; it is started when
    the first event has a listener.

    Thread safety
    -------------
    Any number of threads may use a store at the same time. Reads of one key take no lock, reads of
    several keys share one, a commit holds it exclusively for microseconds, without running user code.
    Processes do not share a store: a forked child has a copy of its own.

    Examples
    --------
    >>> from latchstore import DictMemoryStore
    >>> with DictMemoryStore(indexes=["kind"]) as store:
    ...     store.set("greeting", (b"hello", {"kind": "text"}))
    ...     store.to_bytes("greeting"), list(store.query_keys(kind="text"))
    (b'hello', ['greeting'])
    """

    # hot path: the attributes that every read uses are in slots.
    __slots__ = ("_entries", "_table")

    @advising
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
            # Assigned before other threads find the store: a forked child renews all stores.
            self._table = Table(lock_class, timeout, publisher, names)
            self._entries = self._table.entries
            return self._table

        super().__init__(event_manager, max_pending_events, history, make_table)

    @property
    def _latches(self) -> Latches:
        """The lock and the owner, for programs that check what is held; some are not in this repository."""
        return self._table.latches

    def _keep_within(self, limits: Limits) -> BoundedStore:
        """Keep to the limits of a cache: the interface of ``bounded.py``."""
        return BoundedTable(self, self._table, limits)

    # -- facts ------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        table = self._table
        return f"<DictMemoryStore {len(table.entries)} keys, revision {table.revision}>"

    # -- saving -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the current state of the store to a SQLite file; writers continue meanwhile.

        The file is replaced atomically, when all of it is on the disk: at any time, either the old or the new
        file is there. Its mode is kept, its owner where permitted; files that SQLite has left beside it
        (``-wal``, ``-shm``, ``-journal``) are removed. Inside a transaction of this thread the last commit is
        saved. The interpreter's switch interval is at most half a millisecond meanwhile, here and in `load`.

        Parameters
        ----------
        path : str or os.PathLike

        Raises
        ------
        TypeError
            If metadata has a value of a type that cannot be stored; names the key, the item and the storable
            types.
        KeptByReferenceError
            If a cache keeps an object by reference that is not a string (of valid Unicode), an int of 64 bits
            or a finite float; only those can be saved. Names the key.
        OSError
            If the file cannot be written, or is open as a `SqliteStore`; its ``filename`` is the path, and
            the old file is unchanged.
        """
        from latchstore.engine.saving import write_file  # imported here, since sqlite3 is slow to import

        path = checked_path(path)
        # The clocks of the deadlines of entries.
        clocks = [bound.limits.clock() for bound in self._table.bounds if not bound.closed]
        with self.snapshot() as view:
            write_file(path, view._items(), view.revision, min(clocks, default=None))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], event_manager: BaseEventManager | None = None, **options: Any
    ) -> Self:
        """Return a new store with the content of a saved file: data, metadata, times, revisions.

        Loading emits no events. A file from somebody else runs no code: its data is not unpickled, and
        without ``codec=`` a `Cache` or ``mapping()`` of the store accepts and returns bytes. Pass
        ``codec="pickle"`` only for files that you trust.

        Parameters
        ----------
        path : str or os.PathLike
        event_manager : BaseEventManager, optional
        **options
            Further arguments of the constructor.

        Raises
        ------
        StoreFormatError
            If the file is damaged, was not written by `save`, or has a later format.
        OSError
            If the file does not exist, cannot be read, or is being changed by another program.
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
        """Add an index on a metadata item; do nothing if it exists.

        Takes time in proportion to the number of keys. Readers continue meanwhile; writers wait, unless the
        index is ordered.

        Parameters
        ----------
        name : str or Ordered
            The metadata item; ``Ordered("due")`` for an ordered index.

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
        """Remove the index on a metadata item; queries for it scan all entries again.

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

    # hot path: these follow rule 4 of table.py, first the entry and then the gate. They leave unusual cases
    # to the methods of the base class: a missing or wrong key, a commit that is being applied, and a
    # transaction of this thread. Mostly there is no detour, so no variable is assigned for it; if there is
    # one it is read again, since any read after that of the entry is enough. The base class is named, since a
    # function with `super()` is slower to enter.

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
