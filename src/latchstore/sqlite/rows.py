"""Conversion of entries to rows, and of rows to entries.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from latchstore.contract.encoding import decode_metadata
from latchstore.contract.values import Entry, ReferenceEntry
from latchstore.sqlite.statements import ENTRIES, SIZES

Row = Sequence[Any]

#: The row of a missing entry: this object itself.
NOTHING: Row = (None,) * 7
Key = str | bytes


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
        some = [key if key.isascii() else stored_key(key) for key in keys[start : start + AT_ONE_INSTANT]]
        size = next(size for size in SIZES if size >= len(some))
        some += [some[-1]] * (size - len(some))
        rows += connection.execute(ENTRIES[size], some).fetchall()
    return rows


#: Maximum number of keys that `rows_of` reads at one instant.
AT_ONE_INSTANT = SIZES[-1]
