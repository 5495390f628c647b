"""The connections of one process to a database file.

Thread safety: `idle` is changed by single operations of the list. A connection belongs to whoever has taken
it.
"""

from __future__ import annotations

import sqlite3


class Connections:
    """Opens connections, and keeps those that nobody uses.

    Parameters
    ----------
    path : str
    synchronous : str
        What SQLite's pragma of that name is set to.
    timeout : float
        Seconds to wait for a lock of another program.
    """

    __slots__ = ("_closed", "_synchronous", "_timeout", "idle", "path")

    def __init__(self, path: str, synchronous: str, timeout: float) -> None:
        self.path: str = path
        self._synchronous = synchronous
        self._timeout = timeout
        self._closed = False
        self.idle: list[sqlite3.Connection] = []

    def take(self) -> sqlite3.Connection:
        """Return a connection that nobody else uses."""
        try:
            return self.idle.pop()
        except IndexError:
            return self.open()

    def give(self, connection: sqlite3.Connection) -> None:
        """Take back a connection in which no transaction is open."""
        self.idle.append(connection)
        if self._closed:
            self.close()

    def open(self) -> sqlite3.Connection:
        """Return a new connection."""
        connection = sqlite3.connect(
            self.path,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        return connection

    def reopen(self) -> None:
        """Keep connections again."""
        self._closed = False

    def close(self) -> None:
        """Close what nobody uses, and what is given from now on."""
        self._closed = True
        while self.idle:
            try:
                connection = self.idle.pop()
            except IndexError:
                return
            connection.close()

    def renew_in_child(self) -> None:
        """Forget the parent's, in a forked child."""
        self.idle = []

    def __del__(self) -> None:
        self.close()
