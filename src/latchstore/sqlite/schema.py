"""The tables of the file: those that `DictMemoryStore.save` writes, and those that only this package reads.

``log`` has a row for each change of each commit, see ``log.py``. ``items`` has a row for each value of an
indexed metadata item: its position in the order of values, ``rank`` and ``value``, and the key. ``indexed``
has one row: the indexes, as JSON. A file that has had a cache also has the tables and triggers of
``books.py``.

Thread safety: functions of a connection that no other thread uses.
"""

from __future__ import annotations

import sqlite3

from latchstore.contract.encoding import decode_metadata, encode_metadata
from latchstore.contract.errors import StoreFormatError
from latchstore.engine.saving import APPLICATION, FORMAT, FORMAT_WITHOUT_TAGS, TABLES
from latchstore.sqlite import books
from latchstore.sqlite.rows import name_of

_LOG = (
    "CREATE TABLE log (id INTEGER PRIMARY KEY, key NOT NULL, "
    "data, metadata TEXT, created REAL, modified REAL, "
    "old_data, old_metadata TEXT, old_modified REAL, old_revision INTEGER, "
    "old_created REAL, cause TEXT, author)"
)
_ITEMS = (
    "CREATE TABLE items (name NOT NULL, rank INTEGER NOT NULL, value, key NOT NULL, "
    "PRIMARY KEY (name, rank, value, key)) WITHOUT ROWID"
)
_INDEXED = "CREATE TABLE indexed (names TEXT NOT NULL)"

#: The tables that every store has.
_SAVED = {name: TABLES[name] for name in ("about", "entries")}
_ADDED = {"log": _LOG, "items": _ITEMS, "indexed": _INDEXED}


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Prepare a new file, or one that a store has saved, for use by this package.

    Raises
    ------
    StoreFormatError
        If it is another kind of database, has different tables, views or triggers of other programs, or a
        newer format.
    """
    if is_ready(connection, path):
        connection.execute("PRAGMA journal_mode = WAL")
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not is_ready(connection, path):
            _make(connection)
        connection.execute("COMMIT")
    finally:
        connection.rollback()


def is_ready(connection: sqlite3.Connection, path: str) -> bool:
    """Return whether all tables exist; refuse a file that no store has made."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    tables = _tables_of(connection, path)
    if application == 0 and not tables:
        return False
    if application != APPLICATION:
        raise StoreFormatError(f"{path!r} is a SQLite database of another program")
    if not FORMAT_WITHOUT_TAGS <= version <= FORMAT:
        raise StoreFormatError(
            f"{path!r} has format {version}, but this version of latchstore supports formats up to {FORMAT}"
        )
    expected = {**_SAVED, **_ADDED} if "indexed" in tables else _SAVED
    if "bounds" in tables:
        expected = {**expected, **books.TABLES}
    for name, sql in expected.items():
        if tables.get(name) != sql:
            raise StoreFormatError(
                f"{path!r} is not a file of a store: its table {name!r} is missing or different"
            )
    return "indexed" in tables and version == FORMAT


def _tables_of(connection: sqlite3.Connection, path: str) -> dict[str, str]:
    """Return the SQL of all tables; refuse objects that would run code of whoever wrote the file."""
    tables = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        if kind in ("view", "trigger") and books.TRIGGERS.get(name) != sql:
            raise StoreFormatError(
                f"{path!r} is not a file of a store: it has a {kind}, {name!r}, which stores do not make"
            )
        if kind == "table":
            tables[name] = sql
    return tables


def _make(connection: sqlite3.Connection) -> None:
    """Make the missing tables."""
    ((version,),) = connection.execute("PRAGMA user_version")
    if version == 0:
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        for sql in _SAVED.values():
            connection.execute(sql)
        connection.execute("INSERT INTO about VALUES (0, 0)")
    for sql in _ADDED.values():
        connection.execute(sql)
    connection.execute("INSERT INTO indexed VALUES ('[]')")
    if version == FORMAT_WITHOUT_TAGS:
        _upgrade(connection)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _upgrade(connection: sqlite3.Connection) -> None:
    """Rewrite metadata in which an object would be mistaken for a tagged value."""
    rows = connection.execute("SELECT key, metadata FROM entries WHERE instr(metadata, '\"$')").fetchall()
    for key, metadata in rows:
        name = name_of(key)
        text = encode_metadata(name, decode_metadata(metadata, name, tags=False))
        connection.execute("UPDATE entries SET metadata = ? WHERE key = ?", (text, key))
