"""`SqliteStore`: a store over a `SqliteEngine`.

Thread safety: that of ``engine.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    checked_count,
    checked_path,
    checked_timeout,
    describe,
)
from latchstore.contract.codec import UnnamedCodec
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.ordering import Ordered, checked_indexes
from latchstore.engine.bounded import BoundedStore, Traits
from latchstore.engine.limits import Limits
from latchstore.engine.publishing import Publisher
from latchstore.engine.saving import write_file
from latchstore.engine.shared_store import SharedIndexes, SharedStore
from latchstore.engine.store_access import StoreAccess
from latchstore.sqlite.engine import SqliteEngine
from latchstore.sqlite.file_checks import checked_file

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}


def wall_clock() -> float:
    """Return what ``time.time`` returns, which a test may have replaced meanwhile."""
    return time.time()


class SqliteStore(SharedStore):
    """A key-value store in a SQLite file that any number of threads and processes of a machine share.

    Parameters
    ----------
    path : str or os.PathLike
        The file, which is made if it is not there. ``-wal``, ``-shm`` and ``-writer`` lie beside it while
        it is open.
    event_manager : BaseEventManager, optional
        Where events go, encore's own included; the process-wide default if None.
    indexes : iterable of str or Ordered
        Names of metadata items to keep an index on. One index serves equality, ranges, order and limit; all
        processes keep the indexes that any of them has asked for.
    lock_timeout : Seconds
        Seconds that any wait for another writer may take before LockTimeoutError names it.
    durability : str
        What survives a loss of power. ``"full"``: every commit that has returned. ``"normal"``: the store is
        whole, but may lack the last commits. ``"off"``: the file may be damaged. All of them survive the
        end of any process at any moment.
    max_pending_events : int or None
        How many events may wait for their listeners before writers have to, at most `lock_timeout`
        seconds; None for any number.
    history : int
        How many of the last commits the file has for ``watch(since=...)``, and for processes that read
        what others have committed.
    poll_interval : Seconds
        How often a process that has listeners or watches looks for commits of others.

    Raises
    ------
    StoreFormatError
        If the file is damaged, no store's, or of a later format.
    OSError
        If it cannot be opened: it or its directory may not be written, it is no regular file, it has a hard
        link, or it is on a network file system, which SQLite's write-ahead log is not for.

    Thread safety
    -------------
    Any number of threads of any number of processes may use the file at the same time. Each process opens
    a store of its own; a store that was opened before a fork may be used in the child.
    """

    __slots__ = ("_sqlite",)

    def __init__(
        self,
        path: str | os.PathLike[str],
        event_manager: BaseEventManager | None = None,
        *,
        indexes: Iterable[str | Ordered] = (),
        lock_timeout: Seconds = 30.0,
        durability: str = "full",
        max_pending_events: int | None = 100_000,
        history: int = 10_000,
        poll_interval: Seconds = 0.002,
    ) -> None:
        file = checked_file(checked_path(path))
        timeout = checked_timeout(lock_timeout, "lock_timeout")
        if timeout is None:
            raise TypeError("lock_timeout must be a number of seconds, got None")
        if durability not in _SYNCHRONOUS:
            raise ValueError(f"durability must be 'full', 'normal' or 'off', got {describe(durability)}")
        interval = checked_timeout(poll_interval, "poll_interval")
        if interval is None:
            raise TypeError("poll_interval must be a number of seconds, got None")
        wanted = checked_indexes(indexes)
        kept = checked_count(history, "history", 1)

        def make_engine(publisher: Publisher) -> SqliteEngine:
            self._sqlite = SqliteEngine(file, _SYNCHRONOUS[durability], timeout, kept, interval, publisher)
            return self._sqlite

        super().__init__(event_manager, max_pending_events, 0, make_engine)
        # Others may have written the file: nothing in it is unpickled unless that codec is named.
        self.default_codec: Any = UnnamedCodec()
        self._sqlite.add_indexes(wanted)
        # Somebody may have listened before the store was there.
        self._sqlite.follow()

    def __repr__(self) -> str:
        return f"<SqliteStore {self._sqlite.path!r}>"

    def close(self, timeout: Seconds | None = 30.0) -> None:
        super().close(timeout)
        self._sqlite.give_up()

    def _renew_in_child(self) -> None:
        super()._renew_in_child()
        self._sqlite.follow()

    # -- saving -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what the store holds at this moment to another file, while writers go on.

        It is a file as `DictMemoryStore.save` writes it, without the history, and either kind of store reads
        it. It is replaced at one instant, when all of it is on the disk. Inside a transaction of this thread
        the last commit is saved.

        Parameters
        ----------
        path : str or os.PathLike

        Raises
        ------
        ValueError
            If it is the file of the store itself.
        OSError
            If the file cannot be written; its ``filename`` is the path, and the old file is whole.
        """
        file = checked_path(path)
        if os.path.exists(file) and os.path.samefile(file, self._sqlite.path):
            raise ValueError(f"{path!r} is the file of the store itself, which has what is committed")
        view = self._sqlite.view()
        try:
            write_file(file, view.items(), view.revision)
        finally:
            view.close()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], event_manager: BaseEventManager | None = None, **options: Any
    ) -> Self:
        """Open a file that is there, and look at all of it before.

        Parameters
        ----------
        path : str or os.PathLike
            As the constructor takes it, and as `save` of either kind of store has written it.
        event_manager : BaseEventManager, optional
        **options
            What else the constructor takes.

        Raises
        ------
        StoreFormatError
            If the file is damaged, is no store's, or has a later format.
        OSError
            If the file is not there, or cannot be opened.
        """
        os.stat(checked_path(path))
        store = cls(path, event_manager, **options)
        try:
            store._sqlite.check_file()
        except BaseException:
            store.close()
            raise
        return store

    @property
    def _indexes(self) -> SharedIndexes:
        return self._sqlite

    # -- caches -----------------------------------------------------------------------------------

    _cache_traits = Traits(wall_clock, "json", frozenset({"pickle"}), "write the file")

    def _keep_within(self, limits: Limits) -> BoundedStore:
        """Return what keeps the store within the limits of a cache."""
        # Loaded late: stores without a cache do not need it.
        from latchstore.sqlite.bounded_file import BoundedFile

        return BoundedFile(StoreAccess(self), self._sqlite, limits)

    # -- reading single keys ----------------------------------------------------------------------

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        engine = self._sqlite
        if not engine.routes and type(key) is str and key.isascii():
            data = engine.data(key)
            if data is not None:
                return data
        return super().to_bytes(key)
