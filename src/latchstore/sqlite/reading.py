"""Reading the committed entries of a SQLite file.

Thread safety: rule 1 of ``engine.py``. Each method takes a connection for its own time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from latchstore.contract.errors import StoreFormatError
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.interface import Engine, View
from latchstore.engine.selection import Overlay, Selected
from latchstore.sqlite import items, queries
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.rows import AT_ONE_INSTANT, Key, Row, entry_of, name_of, pairs_of, rows_of, stored_key
from latchstore.sqlite.running import failure_of, run, take
from latchstore.sqlite.statements import COUNT, DATA, ENTRY, KEYS, REVISION, REVISION_AND_COUNT
from latchstore.sqlite.view import SqliteView


class ReadingEngine(Engine):
    """The reading methods of an engine.

    Attributes
    ----------
    path : str
    connections : Connections
    """

    path: str
    connections: Connections

    @property
    def revision(self) -> int:  # type: ignore[override]
        """Revision of the last commit of any process."""
        ((revision,),) = self._rows(REVISION)
        return int(revision)

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return the rows of one statement."""
        idle = self.connections.idle
        try:
            connection = idle.pop()  # hot path: usually there is one
        except IndexError:
            connection = take(self.connections, "reading")
        try:
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise failure_of(error, self.path, "reading") from error
        finally:
            self.connections.give(connection)

    def entry(self, key: str) -> Entry | None:
        row = self._row(ENTRY, key if key.isascii() else stored_key(key))
        return None if row is None else entry_of(key, *row)

    def data(self, key: str) -> bytes | None:
        """Return the data of a key that is ASCII, or None if there is none, or it is not bytes."""
        row = self._row(DATA, key)
        return row[0] if row is not None and type(row[0]) is bytes else None

    def _row(self, sql: str, key: Key) -> Row | None:
        """Return the row of a statement with one row, or None; otherwise like `_rows`."""
        connections = self.connections
        try:
            connection = connections.idle.pop()
        except IndexError:
            connection = take(connections, "reading")
        try:
            # Reads to the end: a key has one row.
            row: Row | None = connection.execute(sql, (key,)).fetchone()
        except sqlite3.Error as error:
            raise failure_of(error, self.path, "reading") from error
        finally:
            connections.give(connection)
        return row

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        found = dict(pairs_of(run(self.connections, "reading", lambda each: _rows_at_once(each, keys))))
        return {key: found.get(key) for key in keys}

    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        return run(self.connections, "query", lambda connection: _candidates(connection, terms))

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        return run(self.connections, "query", lambda connection: _select(connection, request, overlay))

    def keys(self) -> list[str]:
        return [name_of(key) for (key,) in self._rows(KEYS)]

    def count(self) -> int:
        ((count,),) = self._rows(COUNT)
        return int(count)

    def view(self) -> View:
        return SqliteView(self.connections)

    def facts(self) -> dict[str, Any]:
        return run(self.connections, "info", _facts)

    def check_file(self) -> None:
        """Raise StoreFormatError if the file is damaged; reads the whole file."""
        try:
            found = self._rows("PRAGMA quick_check(1)")
        except OSError as error:
            raise StoreFormatError(f"{self.path!r} is damaged: {error}") from error
        if found != [("ok",)]:
            raise StoreFormatError(f"{self.path!r} is damaged: {found[0][0]}")


def _facts(connection: sqlite3.Connection) -> dict[str, Any]:
    connection.execute("BEGIN")
    ((revision, keys),) = connection.execute(REVISION_AND_COUNT)
    return {"keys": keys, "revision": revision, "indexes": list(items.read(connection).listed)}


def _candidates(connection: sqlite3.Connection, terms: Mapping[str, object]) -> list[tuple[str, Entry]]:
    if terms:
        connection.execute("BEGIN")  # indexes and entries must be of one instant
    return queries.candidates(connection, terms)


def _select(connection: sqlite3.Connection, request: Request, overlay: Overlay) -> Selected | None:
    connection.execute("BEGIN")
    return queries.select(connection, request, overlay)


def _rows_at_once(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Row]:
    """Return the rows of keys at one instant."""
    if len(keys) > AT_ONE_INSTANT:
        connection.execute("BEGIN")
    return rows_of(connection, keys)
