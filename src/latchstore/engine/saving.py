"""What a store holds, as a SQLite file that anyone can open: the format, and writing it.

Two tables: ``entries`` has a row for each key (``key``, ``data``, ``metadata`` as JSON, ``created`` and
``modified`` in seconds since the epoch, ``revision``), ``about`` has one row: the ``revision`` of the last
commit, and how many ``entries`` there are. If a cache was on the store, ``clock`` has the reading of its
clock. What a cache keeps by reference is text, an integer or a real number in place of data, if it is one
that SQLite holds as it is, and nothing else; ``sizes`` has what such objects weigh that do not weigh 1. A
key that is no valid Unicode (a lone surrogate) is a blob, UTF-8 with the surrogate in it.
``application_id`` marks the file as ours, ``user_version`` is that of the format. Others may change rows and
add tables and indexes; what is no longer as it could have been written, ``loading.py`` refuses.

SQLite writes the file under the name that it has while it is unfinished (``contract/files.py``). It needs no
locks and no journal there, as nobody else has the file, and what is broken off is thrown away. It gives
up the interpreter at each statement, and a busy thread takes it for five milliseconds. So the tables are
there before SQLite opens the file, rows go in by the thousand, and ``COMMIT`` flushes the file, which leaves
nothing to do for the flush that comes before the file gets its name.

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
from itertools import chain
from pathlib import Path
from typing import Any

from latchstore.contract.arguments import describe
from latchstore.contract.encoding import encode_metadata
from latchstore.contract.file_locks import check_unshared
from latchstore.contract.files import Unfinished, replace_file, write_all
from latchstore.contract.values import Entry

#: "ltch", in the header of every file; and the version of what stands in it. In the first one an object in
#: metadata was a dict whatever its names were, since the second there are tags (``contract/encoding.py``).
APPLICATION = 0x6C746368
FORMAT = 2
FORMAT_WITHOUT_TAGS = 1

#: What each table is made by.
TABLES = {
    "about": "CREATE TABLE about (revision INTEGER NOT NULL, entries INTEGER NOT NULL)",
    "entries": (
        "CREATE TABLE entries (key PRIMARY KEY NOT NULL, data BLOB NOT NULL, metadata TEXT NOT NULL, "
        "created REAL NOT NULL, modified REAL NOT NULL, revision INTEGER NOT NULL)"
    ),
    "clock": "CREATE TABLE clock (reading REAL NOT NULL)",
    "sizes": "CREATE TABLE sizes (key PRIMARY KEY NOT NULL, size INTEGER NOT NULL)",
}

#: The triggers that a `SqliteStore` leaves in its file once a cache was on it. Loading runs none.
TRIGGERS = frozenset({"cache_inserted", "cache_updated", "cache_deleted"})

#: What makes a database without rows.
_EMPTY = f"""
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = {FORMAT};
    {TABLES["about"]};
    {TABLES["entries"]};
"""

#: The integers of SQLite have 64 bits: they are below this, and not below its negative.
_BEYOND = 2**63

#: Bytes that an entry may take in the file beside its data and metadata.
_MARGIN = 1_000

#: Rows, and bytes, that go into the file by one statement.
_BATCH_ROWS = 5_000
_BATCH_BYTES = 8_000_000


def write_file(
    path: str, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None = None
) -> None:
    """Put entries into a file, which is replaced at one instant, or stays as it is.

    Of a link, what it leads to is replaced; a file that was there before leaves its permissions.

    Raises
    ------
    TypeError
        If metadata has a value of a type that cannot be stored; names key and item.
    KeptByReferenceError
        If an object that is kept by reference is none that SQLite brings back as it is; names the key.
    ValueError
        If an entry is too large, or its metadata too deep; names the key.
    OSError
        If the system does not let the file be written.
    """
    check_unshared(path)
    replace_file(path, partial(_write, items=items, revision=revision, clock=clock))


#: The values of a row, in the order of its columns.
Row = tuple[Any, ...]


def _write(
    unfinished: Unfinished, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None
) -> sqlite3.Connection:
    """Write all of the file; return what has to be closed."""
    address = f"{Path(unfinished.name).as_uri()}?mode=rw&nolock=1"
    file = None
    try:
        empty = _empty_database()
        write_all(unfinished, empty)
        # Few statements are remembered, as each of those for many rows takes a megabyte.
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
    """Return the bytes of a database with our tables and no rows; none if this SQLite cannot give them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        if not hasattr(database, "serialize"):
            return b""
        database.executescript(_EMPTY)
        return database.serialize()


def _fill(
    file: sqlite3.Connection, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None
) -> None:
    # Nothing is flushed before ``COMMIT``.
    file.executescript("PRAGMA journal_mode = OFF; BEGIN;")
    sizes: list[tuple[str | bytes, int]] = []
    row = partial(_sized_row, file.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _MARGIN, sizes)
    entries = _insert(file, "entries", map(row, items))
    _insert(file, "about", [(0, (revision, entries))])
    if clock is not None:
        file.execute(TABLES["clock"])
        _insert(file, "clock", [(0, (clock,))])
    if sizes:
        file.execute(TABLES["sizes"])
        _insert(file, "sizes", [(len(row[0]), row) for row in sizes])
    file.execute("COMMIT")


def _insert(file: sqlite3.Connection, table: str, rows: Iterable[tuple[int, Row]]) -> int:
    """Put rows into a table, many at a time, each with the bytes that it takes; return how many."""
    count = 0
    for batch in _batches(rows, file.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)):
        places = f"({', '.join('?' * len(batch[0]))})"
        values = ", ".join([places] * len(batch))
        statement = f"INSERT INTO {table} VALUES {values}"  # noqa: S608 (the name is one of `TABLES`)
        file.execute(statement, list(chain.from_iterable(batch)))
        count += len(batch)
    return count


def _batches(rows: Iterable[tuple[int, Row]], variables: int) -> Iterator[list[Row]]:
    """Put rows together, so many that SQLite takes as many values and few bytes are waiting."""
    batch: list[Row] = []
    left = _BATCH_BYTES
    for size, row in rows:
        batch.append(row)
        left -= size
        if left <= 0 or len(batch) >= _BATCH_ROWS or (len(batch) + 1) * len(row) > variables:
            yield batch
            batch, left = [], _BATCH_BYTES
    if batch:
        yield batch


def _sized_row(limit: int, sizes: list[tuple[str | bytes, int]], item: tuple[str, Entry]) -> tuple[int, Row]:
    """Return the bytes that an entry takes and its row; note what it weighs, if that would be lost."""
    key, entry = item
    content = entry.content
    if type(content) is not bytes:
        content = _saveable(entry)
    # hot path: most entries have no metadata, and most keys are ASCII.
    metadata = encode_metadata(key, entry) if entry else "{}"
    stored, length = (key, len(key)) if key.isascii() else _stored_key(key)
    size = length + len(metadata) + (len(content) if type(content) is bytes else _length_of(content))
    if size > limit:
        raise ValueError(f"key {describe(key)}: {size} bytes cannot be saved, {limit} can be at the most")
    if type(content) is not bytes and entry.size != 1:
        sizes.append((stored, entry.size))
    return size, (stored, content, metadata, entry.created, entry.modified, entry.revision)


def _stored_key(key: str) -> tuple[str | bytes, int]:
    """Return what stands for a key in the file, and how many bytes it takes."""
    name = key.encode("utf-8", "surrogatepass")
    try:
        key.encode()
    except UnicodeEncodeError:
        return name, len(name)
    return key, len(name)


def _saveable(entry: Entry) -> bytes | str | int | float:
    """Return what an entry has, if SQLite brings it back as it is; KeptByReferenceError if not."""
    content = entry.content
    return content if is_saveable(content) else entry.data


def is_saveable(content: object) -> bool:
    """Return whether this is an object that is kept by reference and can be saved. Exact types only."""
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
    """Return how many bytes something takes in the file, at the most."""
    if isinstance(content, str):
        return len(content.encode())
    return len(content) if isinstance(content, bytes) else 8
