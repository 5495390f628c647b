"""Entries as rows, and rows as entries.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from latchstore.contract.encoding import decode_metadata
from latchstore.contract.values import Entry, ReferenceEntry
from latchstore.sqlite.statements import ENTRIES, SIZES

Row = Sequence[Any]
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


def entry_of(key: str, row: Row) -> Entry:
    """Return the entry of a row with `statements.COLUMNS`."""
    data, metadata, created, modified, revision = row
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
    """Return keys and entries of rows with a key and `statements.COLUMNS`."""
    return [(name := name_of(row[0]), entry_of(name, row[1:])) for row in rows]


def rows_of(connection: sqlite3.Connection, keys: Sequence[str]) -> Iterator[Row]:
    """Go through the rows of keys that are there, in any order: of one instant if the keys are few.

    Else it is for the caller to have a transaction.
    """
    for start in range(0, len(keys), AT_ONE_INSTANT):
        # hot path: most keys are ASCII, and are stored as they are.
        some = [key if key.isascii() else stored_key(key) for key in keys[start : start + AT_ONE_INSTANT]]
        size = next(size for size in SIZES if size >= len(some))
        some += [some[-1]] * (size - len(some))
        yield from connection.execute(ENTRIES[size], some).fetchall()


#: How many keys `rows_of` reads at one instant.
AT_ONE_INSTANT = SIZES[-1]
