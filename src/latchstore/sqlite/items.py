"""The indexes: which there are, and the items of entries that they have.

The file has one list of indexes, for all processes: whoever commits keeps all of them, in the same commit. An
index on a metadata item is rows of ``items``; one on a fact of all entries is an index of SQLite's.

Thread safety: functions of a connection that nobody else uses.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from latchstore.contract.encoding import decode_metadata
from latchstore.contract.ordering import Item, Ordered
from latchstore.contract.values import Change, Entry
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

Index = str | Ordered

#: The facts that SQLite has an index on if it is asked for; the one on keys is always there.
_FACTS = ("created", "modified", "revision")


class Indexes(NamedTuple):
    """Which indexes there are.

    Attributes
    ----------
    listed : tuple of str and Ordered
        In the order in which they were added.
    names : tuple of str
        The metadata items among them.
    """

    listed: tuple[Index, ...]
    names: tuple[str, ...]


@lru_cache(16)
def indexes_of(text: str) -> Indexes:
    """Return the indexes that a text of the file names."""
    listed = tuple(map(_index_of, json.loads(text)))
    names = [_item_of(index) for index in listed]
    return Indexes(listed, tuple(dict.fromkeys([name for name in names if name is not None])))


def _index_of(item: tuple[str, str]) -> Index:
    kind, name = item
    if kind == "hashed":
        return name
    return Ordered(name if kind == "fact" else Item(name))


def _text_of(listed: Iterable[Index]) -> str:
    return json.dumps([_item_for(index) for index in listed])


def _item_for(index: Index) -> tuple[str, str]:
    if isinstance(index, str):
        return "hashed", index
    return "fact" if index.order.is_fact else "ordered", index.order.name


def _item_of(index: Index) -> str | None:
    """Return the metadata item that an index is on."""
    if isinstance(index, str):
        return index
    return None if index.order.is_fact else index.order.name


def read(connection: sqlite3.Connection) -> Indexes:
    """Return the indexes that there are."""
    ((text,),) = connection.execute(INDEXED)
    return indexes_of(text)


def add(connection: sqlite3.Connection, index: Index) -> None:
    """Add an index if there is none; in a transaction."""
    listed, names = read(connection)
    if index in listed:
        return
    name = _item_of(index)
    if name is None:
        fact = _item_for(index)[1]
        if fact in _FACTS:
            connection.execute(f"CREATE INDEX entries_{fact} ON entries ({fact}, key)")
    elif name not in names:
        connection.executemany(ADD_ITEM, _rows_for(connection, name))
    connection.execute(SET_INDEXED, (_text_of([*listed, index]),))


def _rows_for(connection: sqlite3.Connection, name: str) -> Iterator[tuple[Any, ...]]:
    stored = stored_key(name)
    for key, metadata in connection.execute(ITEM_SOURCES):
        entry = decode_metadata(metadata, name_of(key))
        if name in entry:
            yield (stored, *stored_position(entry[name]), key)


def remove(connection: sqlite3.Connection, index: Index) -> None:
    """Remove an index, in a transaction; KeyError if there is none."""
    listed, _ = read(connection)
    if index not in listed:
        raise KeyError(index)
    left = _text_of([each for each in listed if each != index])
    name = _item_of(index)
    if name is None:
        connection.execute(f"DROP INDEX IF EXISTS entries_{_item_for(index)[1]}")
    elif name not in indexes_of(left).names:
        connection.execute(FORGET_ITEMS, (stored_key(name),))
    connection.execute(SET_INDEXED, (left,))


def update(connection: sqlite3.Connection, names: Sequence[str], changes: Iterable[Change]) -> None:
    """Put the items of entries after a commit in the place of those before."""
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
