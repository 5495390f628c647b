"""Save the entries of a store to a SQLite file that anyone can open: the format, and writing it.

There are two tables. ``entries`` has a row for each key (``key``, ``data``, ``metadata`` as JSON, ``created``
and ``modified`` in seconds since the epoch, ``revision``). ``about`` has one row: the ``revision`` of the
last commit, and the number of ``entries``. If a cache was on the store, ``clock`` has the time of its clock.
An object that a cache keeps by reference is text, an integer or a real number in place of the data, if SQLite
stores it exactly; no other object can be saved. ``sizes`` has the weights of such objects other than 1. A key
that is not valid Unicode (a lone surrogate) is a blob, UTF-8 with the surrogate in it. ``application_id``
identifies the file as ours, ``user_version`` is the version of the format. Other programs may change rows and
add tables and indexes; ``loading.py`` refuses anything that could not have been written here.

SQLite writes the file under its unfinished name (``contract/files.py``). It needs no locks and no journal,
since no other program has the file, and an interrupted file is thrown away. SQLite releases the interpreter
lock several times in each ``execute`` and once for each statement of a script; a thread that computes then
keeps it for five milliseconds. So the tables are created before SQLite opens the file, rows are made and
inserted by the thousand, each insert is a transaction of its own, and the file is flushed once, before the
rename.

Thread safety: any number of threads and processes may save and load at the same time; the last to finish
wins.
"""

from __future__ import annotations

import errno
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cache, partial
from itertools import chain, islice, repeat
from operator import attrgetter
from pathlib import Path
from typing import Any

from latchstore.contract.arguments import describe
from latchstore.contract.encoding import encode_metadata, encode_plain
from latchstore.contract.file_locks import check_unshared
from latchstore.contract.files import Unfinished, replace_file, write_all
from latchstore.contract.switching import switching_often
from latchstore.contract.values import Entry

#: "ltch", in the header of every file, and the version of the format. In the first version an object in
#: metadata was a dict whatever its names were; the second has tags (``contract/encoding.py``).
APPLICATION = 0x6C746368
FORMAT = 2
FORMAT_WITHOUT_TAGS = 1

#: The statement that creates each table.
TABLES = {
    "about": "CREATE TABLE about (revision INTEGER NOT NULL, entries INTEGER NOT NULL)",
    "entries": (
        "CREATE TABLE entries (key PRIMARY KEY NOT NULL, data BLOB NOT NULL, metadata TEXT NOT NULL, "
        "created REAL NOT NULL, modified REAL NOT NULL, revision INTEGER NOT NULL)"
    ),
    "clock": "CREATE TABLE clock (reading REAL NOT NULL)",
    "sizes": "CREATE TABLE sizes (key PRIMARY KEY NOT NULL, size INTEGER NOT NULL)",
}

#: The triggers in the file of a `SqliteStore` that had a cache. Loading does not run them.
TRIGGERS = frozenset({"cache_inserted", "cache_updated", "cache_deleted"})

#: The script that creates a database without rows.
_EMPTY = f"""
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = {FORMAT};
    {TABLES["about"]};
    {TABLES["entries"]};
"""

#: The bound of SQLite's integers, which have 64 bits.
_BEYOND = 2**63

#: The bytes that an entry may take in the file beside its data and metadata.
_MARGIN = 1_000

#: The columns of `entries`, which has more than the other tables.
_COLUMNS = 6

_content = attrgetter("content")
_FACTS = (attrgetter("created"), attrgetter("modified"), attrgetter("revision"))

#: The entries whose rows are made together.
_TOGETHER = 1_000

#: The most rows, and bytes, that one statement inserts.
_BATCH_ROWS = 5_000
_BATCH_BYTES = 8_000_000


@switching_often
def write_file(
    path: str, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None = None
) -> None:
    """Write entries to a file, which is replaced atomically or stays unchanged.

    The target of a link is replaced; an existing file keeps its permissions.

    Raises
    ------
    TypeError
        If metadata has a value of a type that cannot be stored; names key and item.
    KeptByReferenceError
        If SQLite cannot store an object that is kept by reference exactly; names the key.
    ValueError
        If an entry is too large, or its metadata is nested too deeply; names the key.
    OSError
        If the file cannot be written.
    """
    check_unshared(path)
    replace_file(path, partial(_write, items=items, revision=revision, clock=clock))


#: The values of a row, in the order of the columns.
Row = tuple[Any, ...]


def _write(
    unfinished: Unfinished, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None
) -> sqlite3.Connection:
    """Write the whole file; return the connection to close."""
    address = f"{Path(unfinished.name).as_uri()}?mode=rw&nolock=1"
    file = None
    try:
        empty = _empty_database()
        write_all(unfinished, empty)
        # Few statements are cached, since each one for many rows takes a megabyte.
        file = sqlite3.connect(address, uri=True, isolation_level=None, cached_statements=2)
        if not empty:
            file.executescript(_EMPTY)
        _fill(file, items, revision, clock)
    except BaseException as error:
        if file is not None:
            file.close()
        if isinstance(error, sqlite3.Error):
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), unfinished.name) from error
            raise OSError(errno.EIO, str(error), unfinished.name) from error
        raise
    return file


@cache
def _empty_database() -> bytes:
    """Return the bytes of a database with our tables and no rows; empty if this SQLite cannot serialize."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        if not hasattr(database, "serialize"):
            return b""
        database.executescript(_EMPTY)
        return database.serialize()


def _fill(
    file: sqlite3.Connection, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None
) -> None:
    # `replace_file` flushes the file.
    file.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
    sizes: list[tuple[str | bytes, int]] = []
    limit = file.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _MARGIN
    most = min(_BATCH_ROWS, file.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // _COLUMNS)
    entries = _insert(file, "entries", _groups(limit, min(_TOGETHER, most), sizes, items), most)
    if clock is not None:
        file.execute(TABLES["clock"])
        _insert(file, "clock", [(0, [(clock,)])], most)
    if sizes:
        file.execute(TABLES["sizes"])
        _insert(file, "sizes", [(len(row[0]), [row]) for row in sizes], most)
    file.executescript(f"INSERT INTO about VALUES ({revision:d}, {entries:d})")  # noqa: S608 (two integers)


def _insert(file: sqlite3.Connection, table: str, groups: Iterable[tuple[int, list[Row]]], most: int) -> int:
    """Insert rows, up to `most` at a time, given in groups with their size in bytes; return their number."""
    count = 0
    for batch in _batches(groups, most):
        places = f"({', '.join('?' * len(batch[0]))})"
        values = ", ".join([places] * len(batch))
        statement = f"INSERT INTO {table} VALUES {values}"  # noqa: S608 (the name is one of `TABLES`)
        file.execute(statement, list(chain.from_iterable(batch)))
        count += len(batch)
    return count


def _batches(groups: Iterable[tuple[int, list[Row]]], most: int) -> Iterator[list[Row]]:
    """Join groups of rows up to `most` rows and about `_BATCH_BYTES`."""
    batch: list[Row] = []
    left = _BATCH_BYTES
    for size, rows in groups:
        if batch and (size > left or len(batch) + len(rows) > most):
            yield batch
            batch, left = [], _BATCH_BYTES
        batch += rows
        left -= size
    if batch:
        yield batch


def _groups(
    limit: int, together: int, sizes: list[tuple[str | bytes, int]], items: Iterable[tuple[str, Entry]]
) -> Iterator[tuple[int, list[Row]]]:
    """Iterate over the rows of all items, many together if they need no closer look, with their bytes."""
    items = iter(items)
    while some := list(islice(items, together)):
        group = _plain_rows(*zip(*some, strict=True))
        if group is not None and group[0] <= min(limit, _BATCH_BYTES):
            yield group
        else:
            yield from map(partial(_sized_row, limit, sizes), some)


def _plain_rows(keys: tuple[str, ...], entries: tuple[Entry, ...]) -> tuple[int, list[Row]] | None:
    """Return what `_sized_row` returns for each entry, as one group; None if one needs a closer look.

    Every loop is in C: a thread that computes does not take the interpreter between the rows.
    """
    contents = list(map(_content, entries))
    metadata = encode_plain(entries)
    if metadata is None or set(map(type, contents)) != {bytes}:
        return None
    try:
        size = len("".join(keys).encode())
    except UnicodeEncodeError:  # a lone surrogate
        return None
    size += sum(map(len, chain(contents, metadata)))
    return size, list(zip(keys, contents, metadata, *map(map, _FACTS, repeat(entries)), strict=True))


def _sized_row(
    limit: int, sizes: list[tuple[str | bytes, int]], item: tuple[str, Entry]
) -> tuple[int, list[Row]]:
    """Return the size in bytes of an entry, and its row; add its weight to `sizes` if it is not 1."""
    key, entry = item
    content = entry.content
    if type(content) is not bytes:
        content = _saveable(entry)
    # hot path: most entries have no metadata, and most keys are ASCII.
    metadata = encode_metadata(key, entry) if entry else "{}"
    stored, length = (key, len(key)) if key.isascii() else _stored_key(key)
    size = length + len(metadata) + (len(content) if type(content) is bytes else _length_of(content))
    if size > limit:
        raise ValueError(f"key {describe(key)}: {size} bytes cannot be saved, the maximum is {limit}")
    if type(content) is not bytes and entry.size != 1:
        sizes.append((stored, entry.size))
    return size, [(stored, content, metadata, entry.created, entry.modified, entry.revision)]


def _stored_key(key: str) -> tuple[str | bytes, int]:
    """Return the stored form of a key, and its size in bytes."""
    name = key.encode("utf-8", "surrogatepass")
    try:
        key.encode()
    except UnicodeEncodeError:
        return name, len(name)
    return key, len(name)


def _saveable(entry: Entry) -> bytes | str | int | float:
    """Return the content of an entry if SQLite stores it exactly; raise KeptByReferenceError otherwise."""
    content = entry.content
    return content if is_saveable(content) else entry.data


def is_saveable(content: object) -> bool:
    """Return whether an object that is kept by reference can be saved. Exact types only."""
    if type(content) is str:
        try:
            content.encode()
        except UnicodeEncodeError:  # a lone surrogate
            return False
        return True
    if type(content) is int:
        return -_BEYOND <= content < _BEYOND
    return type(content) is float and math.isfinite(content)


def _length_of(content: bytes | str | int | float) -> int:
    """Return the most bytes that a value takes in the file."""
    if isinstance(content, str):
        return len(content.encode())
    return len(content) if isinstance(content, bytes) else 8
