"""The file of a store, read without changing anything: for tools that inspect stores.

1. SQLite opens it with ``mode=ro``, and with ``readonly_shm=1`` (os_unix.c), which maps the index of the log
   for reading only. So neither the file nor the files beside it are written, whether a store has the file
   open or its process was killed, and no lock is acquired that blocks a writer.
2. Without a log beside the file, SQLite would create one in order to read. The file is opened with
   ``immutable=1`` instead, which acquires no lock: a reader checks `is_outdated` afterwards, and reads again
   if that is true.
3. If the log has lost its index, as in a copy of two of the three files, both are copied to a temporary
   directory and opened there.

Thread safety: that of `SqliteView`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from latchstore.contract.errors import StoreFormatError
from latchstore.contract.files import resolved
from latchstore.delivery.event_manager import EventManager
from latchstore.engine.snapshot import Snapshot
from latchstore.sqlite import items, log
from latchstore.sqlite.connections import Connection, Connections
from latchstore.sqlite.rows import name_of
from latchstore.sqlite.running import OPENING, run
from latchstore.sqlite.schema import is_ready
from latchstore.sqlite.view import SqliteView

_BOUNDS = "SELECT id, prefix, idle, entries, weight FROM bounds ORDER BY id"
_EVICTIONS = "SELECT cause, number FROM evictions WHERE bound = ? ORDER BY cause"
_HAS_BOUNDS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'bounds'"
_SIZE = "SELECT ifnull(sum(length(data)), 0) FROM entries"
_LARGEST = "SELECT key, length(data) FROM entries ORDER BY length(data) DESC, key LIMIT ?"


class _Connections(Connections):
    """Connections that only read."""

    def __init__(self, path: str, options: str, timeout: float) -> None:
        super().__init__(path, "OFF", timeout)
        self._uri = f"file:{quote(path)}?{options}"

    def _connect(self) -> Connection:
        return sqlite3.connect(
            self._uri,
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )


class ReadOnlyFile:
    """The file of a `SqliteStore`, as its last commit left it when it is opened.

    Parameters
    ----------
    path : str
    timeout : float
        Maximum seconds to wait for another program that locks the file.

    Attributes
    ----------
    snapshot : Snapshot

    Raises
    ------
    StoreFormatError
        If it is damaged, not the file of a store, or of a newer format.
    LockTimeoutError
        If the file is locked.
    OSError
        If the file cannot be read.
    """

    def __init__(self, path: str, timeout: float = 5.0) -> None:
        self._path = resolved(path)
        self._copy: TemporaryDirectory[str] | None = None
        self._view: SqliteView | None = None
        self._before = self._state()
        self._reads_log = self._has_log() and os.path.exists(f"{self._path}-shm")
        if self._reads_log:
            file, options = self._path, "mode=ro&readonly_shm=1"
        elif self._has_log():
            file, options = self._copied(), "mode=rw"
        else:
            file, options = self._path, "mode=ro&immutable=1"
        self._connections = _Connections(file, options, timeout)
        try:
            run(self._connections, OPENING, self._check)
            self._view = view = SqliteView(self._connections)
        except BaseException:
            self.close()
            raise
        self.snapshot: Snapshot = Snapshot(EventManager(), view)
        self._read = view.read

    def _state(self) -> tuple[int, ...]:
        status = os.stat(self._path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _has_log(self) -> bool:
        try:
            return os.stat(f"{self._path}-wal").st_size > 0
        except FileNotFoundError:
            return False

    def _copied(self) -> str:
        self._copy = TemporaryDirectory(prefix="latchstore-")
        copy = os.path.join(self._copy.name, "copy")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self._path}{suffix}", f"{copy}{suffix}")
        return copy

    def _check(self, connection: sqlite3.Connection) -> None:
        if not is_ready(connection, self._path):
            raise StoreFormatError(
                f"{self._path!r} was never opened as a SqliteStore by this version of latchstore"
            )

    @property
    def is_outdated(self) -> bool:
        """Whether the file has changed meanwhile so that earlier reads are invalid: rule 2."""
        if self._reads_log:
            return False
        return self._state() != self._before or (self._copy is None and self._has_log())

    def facts(self) -> dict[str, Any]:
        """Return the data of the file other than entries.

        Returns
        -------
        facts : dict
            ``oldest`` (the first revision of the history, or None), ``indexes`` (as the constructor of the
            store takes them), ``caches`` (a dict for each bound, with ``prefix``, ``entries``, ``bytes``,
            ``idle`` and ``evictions``).
        """
        return self._read(_facts)

    def sizes(self, most: int) -> tuple[int, list[tuple[str, int]]]:
        """Return the total length of the data of all keys, and the largest keys with their lengths."""
        return self._read(lambda connection: _sizes(connection, most))

    def close(self) -> None:
        """Close the file."""
        if self._view is not None:
            self._view.close()
        self._connections.close()
        if self._copy is not None:
            self._copy.cleanup()


def _facts(connection: sqlite3.Connection) -> dict[str, Any]:
    caches = []
    if connection.execute(_HAS_BOUNDS).fetchone():
        for number, prefix, idle, entries, weight in connection.execute(_BOUNDS).fetchall():
            evictions = dict(connection.execute(_EVICTIONS, (number,)).fetchall())
            caches.append(
                {
                    "prefix": prefix.decode("utf-8", "surrogatepass"),
                    "entries": entries,
                    "bytes": weight,
                    "idle": idle,
                    "evictions": evictions,
                }
            )
    return {
        "oldest": log.oldest(connection),
        "indexes": list(items.read(connection).listed),
        "caches": caches,
    }


def _sizes(connection: sqlite3.Connection, most: int) -> tuple[int, list[tuple[str, int]]]:
    ((total,),) = connection.execute(_SIZE)
    largest = connection.execute(_LARGEST, (most,)).fetchall()
    return total, [(name_of(key), size) for key, size in largest]
