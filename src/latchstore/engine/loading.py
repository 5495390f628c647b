"""Read files that ``saving.py`` has written, and refuse all that `save` could not have written.

1. A wrong file raises StoreFormatError, a file that cannot be read now raises OSError. A file that another
   program is changing is not damaged, nor is one that has the journal of an interrupted change beside it:
   deleting it as damaged would lose what SQLite can restore.
2. Only the bytes of the file are read. Files that other users of SQLite have left beside it are ignored,
   except the log of a file that has one (a store that processes share). Nothing in the file is executed:
   there is no query, and metadata is JSON.
3. The schema is checked before any row is read; views and triggers are refused.

Thread safety: as ``saving.py``.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from errno import EBUSY
from itertools import chain, islice, repeat
from operator import le
from typing import Any

from latchstore.contract.arguments import describe
from latchstore.contract.encoding import decode_metadata, decode_plain
from latchstore.contract.errors import StoreFormatError
from latchstore.contract.file_locks import is_shared, read_database
from latchstore.contract.files import SIDE_FILES, is_side_file
from latchstore.contract.switching import switching_often
from latchstore.contract.values import Entry, ReferenceEntry
from latchstore.engine.database_file import DamageError, Database, Header, Row
from latchstore.engine.saving import APPLICATION, FORMAT, FORMAT_WITHOUT_TAGS, TABLES, TRIGGERS, is_saveable

#: The rows that are decoded together. While they are, no interrupt is raised.
_BATCH_ROWS = 5_000

#: The bound of revisions: SQLite's integers have 64 bits, and the loaded store must be able to continue.
_BEYOND = 2**62


@switching_often
def read_file(path: str) -> tuple[dict[str, Entry], int, float | None]:
    """Return the entries in a file by key, the revision of the last commit, and the time of the clock.

    Raises
    ------
    StoreFormatError
        If the file is damaged, or was not written by `write_file` of this or an earlier version.
    OSError
        If it does not exist, cannot be read, or is being changed by another program.
    """
    try:
        database = Database(read_database(path, _check_header))
        contents = _contents(database)
    except _ForeignError as error:
        raise StoreFormatError(f"{path!r} {error}") from None
    except (DamageError, TypeError, ValueError, OverflowError) as error:
        for suffix in ("-journal", "-wal"):
            _refuse_unfinished(path, suffix, error)
        raise StoreFormatError(f"{path!r} is damaged: {error}") from error
    if database.header.has_log and is_shared(path):
        # A store has the file open, or its process was killed: the last commits may be in the log only.
        _refuse_unfinished(path, "-wal")
    return contents


def _refuse_unfinished(path: str, suffix: str, error: Exception | None = None) -> None:
    """Raise OSError if the file that SQLite keeps beside a database during a change exists."""
    if is_side_file(path + suffix, SIDE_FILES[suffix]):
        raise OSError(
            EBUSY,
            f"is being changed by another program, or such a change was interrupted: {suffix!r} lies "
            "beside it; open it once with SQLite to finish the change",
            path,
        ) from error


class _ForeignError(Exception):
    """A file that is undamaged but cannot be loaded; the message continues after the file's name."""


def _check_header(first: bytes, size: int) -> None:
    header = Header(first, size)
    if header.application != APPLICATION:
        raise _ForeignError("was not written by a store's save()")
    if header.version not in (FORMAT_WITHOUT_TAGS, FORMAT):
        raise _ForeignError(
            f"has format {header.version}, and this version reads formats up to {FORMAT}: upgrade latchstore"
        )


def _contents(database: Database) -> tuple[dict[str, Entry], int, float | None]:
    roots = _roots(database.schema())
    ((revision, count),) = database.rows(roots["about"], 2)
    if type(revision) is not int or not 0 <= revision < _BEYOND:
        raise ValueError(f"the revision {describe(revision)} is impossible")
    tags = database.header.version != FORMAT_WITHOUT_TAGS
    entries: dict[str, Entry] = {}
    found = 0
    rows = database.rows(roots["entries"], 6)
    while batch := list(islice(rows, _BATCH_ROWS)):
        entries.update(_plain_entries(batch, revision) or [_entry(row, revision, tags) for row in batch])
        found += len(batch)
    if not found == len(entries) == count:
        raise ValueError(f"it has {found} entries instead of {describe(count)}")
    if "sizes" in roots:
        _set_sizes(database.rows(roots["sizes"], 2), entries)
    return entries, revision, _clock(database, roots)


def _roots(schema: list[Row]) -> dict[str, int]:
    """Return the root pages of our tables, after checking that they are the tables that `save` creates."""
    roots: dict[str, int] = {}
    for kind, name, _, root, sql in schema:
        if kind in ("view", "trigger") and name not in TRIGGERS:
            raise _ForeignError(f"has a {kind}, {describe(name)}, which save() does not write")
        if kind == "table" and name in TABLES:
            if type(sql) is not str or _plain(sql) != _plain(TABLES[name]) or type(root) is not int:
                raise _ForeignError(f"has a table {name!r} that save() did not write")
            roots[name] = root
    for name in ("about", "entries"):
        if name not in roots:
            raise ValueError(f"it has no table {name!r}")
    return roots


def _plain(sql: str) -> str:
    """Return SQL without differences in spaces and quotes."""
    return re.sub(r"\s*([(),])\s*", r"\1", " ".join(sql.replace('"', "").split()))


def _clock(database: Database, roots: dict[str, int]) -> float | None:
    """Return the time of a cache's clock at the save; None if there was no cache."""
    if "clock" not in roots:
        return None
    ((reading,),) = database.rows(roots["clock"], 1)
    reading = _real(reading)
    if not _is_finite(reading):
        raise ValueError(f"the clock {describe(reading)} is impossible")
    return float(reading)


def _real(value: Any) -> Any:
    """Return the value of a column of real numbers, which SQLite stores as integers where they are whole."""
    return float(value) if type(value) is int else value


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _set_sizes(rows: Iterator[Row], entries: dict[str, Entry]) -> None:
    """Restore the weights of entries kept by reference."""
    for key, size in rows:
        name = _name_of(key)
        entry = entries.get(name) if type(name) is str else None
        if type(entry) is not ReferenceEntry or type(size) is not int or size < 0:
            raise ValueError(f"the size of key {describe(name)} is impossible")
        entry.size = size


def _name_of(key: Any) -> Any:
    """Return the key of a row: a key with a lone surrogate, and no other, is a blob."""
    if type(key) is not bytes:
        return key
    name = key.decode("utf-8", "surrogatepass")
    try:
        name.encode()
    except UnicodeEncodeError:
        return name
    return None


def _plain_entries(rows: list[Row], last_revision: int) -> Iterable[tuple[str, Entry]] | None:
    """Return what `_entry` returns for each row; None if one of them needs a closer look.

    Every loop is in C: a thread that computes does not take the interpreter between the rows.
    """
    names, contents, metadata, created, modified, revisions = zip(*rows, strict=True)
    if (
        set(map(type, names)) != {str}
        or set(map(type, contents)) != {bytes}
        or not set(map(type, chain(created, modified))) <= {int, float}
        or set(map(type, revisions)) != {int}
        or not 0 < min(revisions) <= max(revisions) <= last_revision
    ):
        return None
    created, modified = tuple(map(float, created)), tuple(map(float, modified))
    if not (all(map(math.isfinite, chain(created, modified))) and all(map(le, created, modified))):
        return None
    entries = decode_plain(metadata)
    if entries is None:
        return None
    _set(entries, contents, created, modified, revisions)
    return zip(names, entries, strict=True)


def _set(entries: list[Entry], *columns: Iterable[object]) -> None:
    """Set content, times and revision of entries."""
    for name, column in zip(("content", "created", "modified", "revision"), columns, strict=True):
        deque(map(setattr, entries, repeat(name), column), maxlen=0)


def _entry(row: Row, last_revision: int, tags: bool) -> tuple[str, Entry]:
    """Return the key and the entry of a row."""
    key, data, metadata, created, modified, revision = row
    name, created, modified = _name_of(key), _real(created), _real(modified)
    right = (
        type(name) is str
        and (type(data) is bytes or is_saveable(data))
        and type(metadata) is str
        and _is_finite(created)
        and _is_finite(modified)
        and created <= modified
        and type(revision) is int
        and 0 < revision <= last_revision
    )
    if not right:
        raise ValueError(f"the entry of key {describe(key)} has impossible values")
    # hot path: most entries have no metadata.
    entry = Entry() if metadata == "{}" else decode_metadata(metadata, name, tags=tags)
    if type(data) is bytes:
        entry.data = data
    else:
        entry = ReferenceEntry(name, data, items=entry)
    entry.created, entry.modified, entry.revision = created, modified, revision
    return name, entry
