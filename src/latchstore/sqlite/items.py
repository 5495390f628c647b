"""The indexes of the file, and the indexed items of entries.

The file has one list of indexes, for all processes: each commit maintains all of them. An index on a metadata
item is rows of ``items``; an index on a fact of all entries is an index of SQLite.

Thread safety: functions of a connection that no other thread uses.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from latchstore.contract.encoding import decode_metadata
from latchstore.contract.values import Change, Entry
from latchstore.engine.index_list import Index, Indexes, fact_of, indexes_of, item_of
from latchstore.sqlite.positions import stored_position
from latchstore.sqlite.rows import Key, name_of, stored_key
from latchstore.sqlite.statements import (
    ADD_ITEM,
    FORGET_ITEMS,
    INDEXED,
    ITEM_SOURCES,
    REMOVE_ITEM,
    SET_INDEXED,
)

#: The facts for which SQLite has an index on request; the one on keys always exists.
_FACTS = ("created", "modified", "revision")


def read(connection: sqlite3.Connection) -> Indexes:
    """Return the existing indexes."""
    ((text,),) = connection.execute(INDEXED)
    return indexes_of(text)


def add(connection: sqlite3.Connection, index: Index) -> None:
    """Add an index if it does not exist; in a transaction."""
    indexes = read(connection)
    if index in indexes.listed:
        return
    name, fact = item_of(index), fact_of(index)
    if name is not None and name not in indexes.names:
        connection.executemany(ADD_ITEM, _rows_for(connection, name))
    elif fact in _FACTS:
        connection.execute(f"CREATE INDEX entries_{fact} ON entries ({fact}, key)")
    connection.execute(SET_INDEXED, (indexes.with_index(index),))


def _rows_for(connection: sqlite3.Connection, name: str) -> Iterator[tuple[Any, ...]]:
    stored = stored_key(name)
    for key, metadata in connection.execute(ITEM_SOURCES):
        entry = decode_metadata(metadata, name_of(key))
        if name in entry:
            yield (stored, *stored_position(entry[name]), key)


def remove(connection: sqlite3.Connection, index: Index) -> None:
    """Remove an index, in a transaction; KeyError if it does not exist."""
    indexes = read(connection)
    if index not in indexes.listed:
        raise KeyError(index)
    left = indexes.without(index)
    name = item_of(index)
    if name is None:
        connection.execute(f"DROP INDEX IF EXISTS entries_{fact_of(index)}")
    elif name not in indexes_of(left).names:
        connection.execute(FORGET_ITEMS, (stored_key(name),))
    connection.execute(SET_INDEXED, (left,))


def update(connection: sqlite3.Connection, names: Sequence[str], changes: Iterable[Change]) -> None:
    """Replace the items of entries before a commit by those after it."""
    removed: list[tuple[Any, ...]] = []
    added: list[tuple[Any, ...]] = []
    for key, old, new in changes:
        stored = stored_key(key)
        for name in names:
            before, after = _row_of(name, old, stored), _row_of(name, new, stored)
            if before != after:
                if before is not None:
                    removed.append(before)
                if after is not None:
                    added.append(after)
    if removed:
        connection.executemany(REMOVE_ITEM, removed)
    if added:
        connection.executemany(ADD_ITEM, added)


def _row_of(name: str, entry: Entry | None, key: Key) -> tuple[Any, ...] | None:
    if entry is None or name not in entry:
        return None
    return (stored_key(name), *stored_position(entry[name]), key)
