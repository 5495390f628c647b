"""Conversion of entries to rows, and of rows to entries.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from latchstore.contract.encoding import decode_metadata
from latchstore.contract.values import Entry, ReferenceEntry
from latchstore.sqlite.statements import AT_ONCE, ENTRIES, SIZES

Row = Sequence[Any]

#: The row of a missing entry: this object itself.
NOTHING: Row = (None,) * 7
Key = str | bytes

#: Bytes of data that are copied for `bound`.
_SHORT = 1_000


def stored_key(key: str) -> Key:
    """Return the stored form of a key: a key with a lone surrogate, which is not valid text, is a blob."""
    if key.isascii():
        return key
    try:
        key.encode()
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")
    return key


def name_of(key: Key) -> str:
    """Return the key of a stored form."""
    return key if type(key) is str else key.decode("utf-8", "surrogatepass")  # type: ignore[union-attr]


def bound(data: object) -> object:
    """Return data in the form in which the module `sqlite3` takes it fastest.

    It looks for adapters of each ``bytes`` object, which takes longer than to copy one that is short.
    """
    return bytearray(data) if type(data) is bytes and len(data) <= _SHORT else data


def entry_of(
    key: str,
    data: object,
    metadata: str,
    created: float,
    modified: float,
    revision: int,
    stored: object = None,
    number: object = None,
) -> Entry:
    """Return the entry for a key and `statements.COLUMNS` or `statements.ROW`."""
    entry = Entry() if metadata == "{}" else decode_metadata(metadata, key)
    if type(data) is bytes:
        entry.content = data
    elif data is not None:
        # Stored by reference in a cache, on the store in memory that has saved the file.
        entry = ReferenceEntry(key, data, items=entry)
    entry.created = created
    entry.modified = modified
    entry.revision = revision
    return entry


def pairs_of(rows: Iterable[Row]) -> list[tuple[str, Entry]]:
    """Return keys and entries for rows of `statements.ROW`."""
    # hot path: most keys are text.
    return [(key := row[5] if type(row[5]) is str else name_of(row[5]), entry_of(key, *row)) for row in rows]


def rows_of(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Row]:
    """Return the rows of those keys that exist, in any order: of one instant if there are few keys.

    Otherwise the caller needs a transaction.
    """
    rows: list[Row] = []
    for start in range(0, len(keys), AT_ONE_INSTANT):
        # hot path: most keys are ASCII, which is stored unchanged.
        some: list[Key | None] = [
            key if key.isascii() else stored_key(key) for key in keys[start : start + AT_ONE_INSTANT]
        ]
        size = next(size for size in SIZES if size >= len(some))
        some += [None] * (size - len(some))
        rows += connection.execute(ENTRIES[size], some).fetchall()
    return rows


def execute_all(connection: sqlite3.Connection, sql: str, many: str, rows: Sequence[Row]) -> None:
    """Execute a statement for each row, `AT_ONCE` of them by another one that does the same."""
    rest = len(rows) % AT_ONCE
    last = len(rows) - rest
    for start in range(0, last, AT_ONCE):
        connection.execute(many, list(chain.from_iterable(rows[start : start + AT_ONCE])))
    if rest == 1:
        connection.execute(sql, rows[-1])  # hot path: most commits change one key
    elif rest:
        connection.executemany(sql, rows[last:])


#: Maximum number of keys that `rows_of` reads at one instant.
AT_ONE_INSTANT = SIZES[-1]
