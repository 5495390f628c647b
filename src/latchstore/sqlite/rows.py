"""Entries as rows, and rows as entries.

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

#: The row of an entry that is not there: this object itself.
NOTHING: Row = (None,) * 7
Key = str | bytes


def stored_key(key: str) -> Key:
    """Return what stands for a key: one with a lone surrogate, which no text has, is a blob."""
    if key.isascii():
        return key
    try:
        key.encode()
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")
    return key


def name_of(key: Key) -> str:
    """Return the key that something stands for."""
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
    """Return the entry of a key with `statements.COLUMNS`, or with `statements.ROW`."""
    entry = Entry() if metadata == "{}" else decode_metadata(metadata, key)
    if type(data) is bytes:
        entry.content = data
    elif data is not None:
        # A cache has kept it by reference, in the store in memory that has saved the file.
        entry = ReferenceEntry(key, data, items=entry)
    entry.created = created
    entry.modified = modified
    entry.revision = revision
    return entry


def pairs_of(rows: Iterable[Row]) -> list[tuple[str, Entry]]:
    """Return keys and entries of rows with `statements.ROW`."""
    # hot path: most keys are text.
    return [(key := row[5] if type(row[5]) is str else name_of(row[5]), entry_of(key, *row)) for row in rows]


def rows_of(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Row]:
    """Return the rows of keys that are there, in any order: of one instant if the keys are few.

    Else it is for the caller to have a transaction.
    """
    rows: list[Row] = []
    for start in range(0, len(keys), AT_ONE_INSTANT):
        # hot path: most keys are ASCII, and are stored as they are.
        some = [key if key.isascii() else stored_key(key) for key in keys[start : start + AT_ONE_INSTANT]]
        size = next(size for size in SIZES if size >= len(some))
        some += [some[-1]] * (size - len(some))
        rows += connection.execute(ENTRIES[size], some).fetchall()
    return rows


#: How many keys `rows_of` reads at one instant.
AT_ONE_INSTANT = SIZES[-1]
