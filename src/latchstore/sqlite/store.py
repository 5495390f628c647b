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
    advising,
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
    """Return ``time.time()``, looked up at each call, as tests replace it."""
    return time.time()


class SqliteStore(SharedStore):
    """A key-value store in a SQLite file that any number of threads and processes of a machine share.

    Parameters
    ----------
    path : str or os.PathLike
        The file, which is created if it does not exist. Files with the suffixes ``-wal``, ``-shm`` and
        ``-writer`` exist beside it while it is open.
    event_manager : BaseEventManager, optional
        Receives the events, encore's own included; the process-wide default if None.
    indexes : iterable of str or Ordered
        Names of metadata items to index. One index serves equality, ranges, order and limit; all processes
        maintain the indexes that any of them has added.
    lock_timeout : Seconds
        Maximum seconds to wait for another writer, before a LockTimeoutError that names it.
    durability : str
        What survives a power failure. ``"full"``: every commit that has returned. ``"normal"``: the store is
        intact, but may lack the last commits. ``"off"``: the file may be damaged. All three survive the end
        of any process at any moment.
    max_pending_events : int or None
        Maximum number of events that wait for their listeners; then writers wait, at most `lock_timeout`
        seconds. None for no limit.
    history : int
        Number of commits that the file keeps for ``watch(since=...)``, and for processes that read the
        commits of others.
    poll_interval : Seconds
        Seconds between two checks for commits of other processes, in a process with listeners or watches.

    Raises
    ------
    StoreFormatError
        If the file is damaged, not the file of a store, or of a newer format.
    OSError
        If the file cannot be opened: it or its directory is not writable, it is not a regular file, it has a
        hard link, or it is on a network file system, which SQLite's write-ahead log does not support.

    Thread safety
    -------------
    Any number of threads of any number of processes may use the file at the same time. Each process opens
    a store of its own; a store that was opened before a fork may be used in the child.
    """

    __slots__ = ("_sqlite",)

    @advising
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
        # Other programs may have written the file: nothing in it is unpickled unless that codec is named.
        self.default_codec: Any = UnnamedCodec()
        self._sqlite.add_indexes(wanted)
        # A listener may have been connected before the store was made.
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
        """Write the current contents of the store to another file, while writers continue.

        The file has the format of `DictMemoryStore.save`, without the history; both kinds of store read it.
        It replaces an old file atomically, when it is complete and on disk. Inside a transaction of this
        thread, the last commit is saved.

        Parameters
        ----------
        path : str or os.PathLike

        Raises
        ------
        ValueError
            If the path is the file of the store itself.
        OSError
            If the file cannot be written; its ``filename`` is the path, and the old file is intact.
        """
        file = checked_path(path)
        if os.path.exists(file) and os.path.samefile(file, self._sqlite.path):
            raise ValueError(f"{path!r} is the file of the store itself; give another path")
        view = self._sqlite.view()
        try:
            write_file(file, view.items(), view.revision)
        finally:
            view.close()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], event_manager: BaseEventManager | None = None, **options: Any
    ) -> Self:
        """Open an existing file, after checking all of it.

        Parameters
        ----------
        path : str or os.PathLike
            As for the constructor; may be a file that `save` of either kind of store has written.
        event_manager : BaseEventManager, optional
        **options
            Other arguments of the constructor.

        Raises
        ------
        StoreFormatError
            If the file is damaged, not the file of a store, or of a newer format.
        OSError
            If the file does not exist, or cannot be opened.
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
        """Return the bound that enforces the limits of a cache."""
        # Imported late: stores without a cache do not need it.
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
