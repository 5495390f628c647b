"""`SqliteStore`: a store over a `SqliteEngine`.

Thread safety: that of ``engine.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    checked_count,
    checked_path,
    checked_timeout,
    describe,
)
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.ordering import Ordered
from latchstore.engine.publishing import Publisher
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.sqlite.engine import SqliteEngine

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}


class SqliteStore(TransactionalStore):
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
        file = os.path.abspath(checked_path(path))
        timeout = checked_timeout(lock_timeout, "lock_timeout")
        if timeout is None:
            raise TypeError("lock_timeout must be a number of seconds, got None")
        if durability not in _SYNCHRONOUS:
            raise ValueError(f"durability must be 'full', 'normal' or 'off', got {describe(durability)}")
        interval = checked_timeout(poll_interval, "poll_interval")
        if interval is None:
            raise TypeError("poll_interval must be a number of seconds, got None")
        kept = checked_count(history, "history", 1)

        def make_engine(publisher: Publisher) -> SqliteEngine:
            self._sqlite = SqliteEngine(file, _SYNCHRONOUS[durability], timeout, kept, interval, publisher)
            return self._sqlite

        super().__init__(event_manager, max_pending_events, 0, make_engine)
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

    # -- reading single keys ----------------------------------------------------------------------

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        if type(key) is str and not self._sqlite.routes:
            data = self._sqlite.data(key)
            if data is not None:
                return data
        return self._entry(key).data
