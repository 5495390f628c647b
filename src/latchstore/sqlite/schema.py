"""The tables of the file: those that `DictMemoryStore.save` writes, and two that only this room reads.

``log`` has a row for each change of each commit: the key, what it has since then (NULL: it was deleted), what
it had before (NULL: it was not there), and why it was evicted; then the transaction's number within its
process, notes, thread and process. ``items`` has a row for each value of a metadata item that has an index:
its place in the order of values, ``rank`` and ``value``, and the key.

Thread safety: functions of a connection that nobody else uses.
"""

from __future__ import annotations

import sqlite3

from latchstore.contract.errors import StoreFormatError
from latchstore.engine.saving import APPLICATION, TABLES

#: The format that has what JSON does not bring back as it is, by the encoding of ``encoding.py``.
FORMAT = 2

_LOG = (
    "CREATE TABLE log (revision INTEGER NOT NULL, number INTEGER NOT NULL, key NOT NULL, "
    "data, metadata TEXT, created REAL, modified REAL, "
    "old_data, old_metadata TEXT, old_created REAL, old_modified REAL, old_revision INTEGER, "
    "cause TEXT, transaction_number INTEGER, notes TEXT, thread TEXT, process INTEGER, "
    "PRIMARY KEY (revision, number)) WITHOUT ROWID"
)
_ITEMS = (
    "CREATE TABLE items (name NOT NULL, rank INTEGER NOT NULL, value, key NOT NULL, "
    "PRIMARY KEY (name, rank, value, key)) WITHOUT ROWID"
)
_ADDED = {"log": _LOG, "items": _ITEMS}


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Make of a new file, or of one that a store has saved, one that this room can use.

    Raises
    ------
    StoreFormatError
        If it is a database of something else, or of a later format.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    if _version_of(connection, path) == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version_of(connection, path)
        if version == 0:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(TABLES["about"])
            connection.execute(TABLES["entries"])
            connection.execute("INSERT INTO about VALUES (0, 0)")
        if version != FORMAT:
            for sql in _ADDED.values():
                connection.execute(sql)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    finally:
        connection.rollback()


def _version_of(connection: sqlite3.Connection, path: str) -> int:
    """Return the format of a file, 0 if it is empty."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if application == 0 and not tables:
        return 0
    if application != APPLICATION:
        raise StoreFormatError(f"{path!r} is the database of something else")
    if not 1 <= version <= FORMAT:
        raise StoreFormatError(
            f"{path!r} has format {version}, and this version of latchstore reads formats up to {FORMAT}"
        )
    return int(version)
