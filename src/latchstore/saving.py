"""What a store holds, as a SQLite file that anyone can open.

Two tables: ``entries`` has a row for each key (``key``, ``data``, ``metadata`` as JSON, ``created`` and
``modified`` in seconds since the epoch, ``revision``), ``about`` has one row: the ``revision`` of the last
commit, and how many ``entries`` there are. A key that is no valid Unicode (a lone surrogate) is a blob, UTF-8
with the surrogate in it. ``application_id`` says that the file is ours, ``user_version`` is the format's.

Thread safety: a file is written under a name of its own and renamed when it is whole and on the disk, so any
number of threads and processes may save and load at the same time; the last to finish wins.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from latchstore.arguments import describe
from latchstore.errors import StoreFormatError
from latchstore.values import Entry, entry_from_metadata

#: "ltch", in the header of every file; and the version of what stands in it.
_APPLICATION = 0x6C746368
_FORMAT = 1

_SCHEMA = """
    CREATE TABLE about (revision INTEGER NOT NULL, entries INTEGER NOT NULL);
    CREATE TABLE entries (
        key PRIMARY KEY NOT NULL, data BLOB NOT NULL, metadata TEXT NOT NULL,
        created REAL NOT NULL, modified REAL NOT NULL, revision INTEGER NOT NULL
    );
"""


def write_file(path: str, items: Iterable[tuple[str, Entry]], revision: int) -> None:
    """Put entries into a file, which is replaced at one instant, or stays as it is.

    Raises
    ------
    TypeError
        If metadata has a value that JSON does not bring back as it is; names key and item.
    OSError
        If the system does not let the file be written.
    """
    # In the same directory, or it could not be renamed.
    unfinished = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.unfinished"
    # Made here and not by sqlite, which would not say why it cannot.
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as file:
            _fill(file, items, revision)
        _flush_to_disk(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
    _flush_to_disk(os.path.dirname(os.path.abspath(path)))


def _fill(file: sqlite3.Connection, items: Iterable[tuple[str, Entry]], revision: int) -> None:
    # Nobody else sees the file, and what is broken off is thrown away: it needs no journal.
    file.execute("PRAGMA journal_mode = OFF")
    file.execute("PRAGMA synchronous = OFF")
    file.execute(f"PRAGMA application_id = {_APPLICATION}")
    file.execute(f"PRAGMA user_version = {_FORMAT}")
    file.executescript(_SCHEMA)
    file.execute("BEGIN")
    file.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", map(_row, items))
    file.execute("INSERT INTO about SELECT ?, count(*) FROM entries", (revision,))
    file.execute("COMMIT")


def _flush_to_disk(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # a directory, on systems that do not let one be opened
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _row(item: tuple[str, Entry]) -> tuple[Any, ...]:
    key, entry = item
    for name, value in entry.items():
        try:
            _check_saveable(key, name, value)
        except RecursionError:
            raise _unsaveable(key, name, value, "(in itself, or nested too deeply) ") from None
    try:
        key.encode()
        name_of_key: str | bytes = key
    except UnicodeEncodeError:
        name_of_key = key.encode("utf-8", "surrogatepass")
    metadata = json.dumps(dict(entry))
    return name_of_key, entry.data, metadata, entry.created, entry.modified, entry.revision


def _check_saveable(key: str, name: str, value: object) -> None:
    """Refuse what JSON would not bring back with its type."""
    kind = type(value)
    if kind is list:
        for each in value:  # type: ignore[attr-defined]
            _check_saveable(key, name, each)
    elif kind is dict:
        for inner, each in value.items():  # type: ignore[attr-defined]
            if type(inner) is not str:
                raise _unsaveable(key, name, inner, "a dict with the key ")
            _check_saveable(key, name, each)
    elif kind not in (str, int, bool, type(None)) and not (kind is float and math.isfinite(value)):  # type: ignore[arg-type]
        raise _unsaveable(key, name, value)


def _unsaveable(key: str, name: str, value: object, what: str = "") -> TypeError:
    return TypeError(
        f"key {key!r}: the metadata item {name!r} cannot be saved, as it has {what}{describe(value)}; "
        "what can be are str, int, float (no nan or inf), bool, None, lists, and dicts with str keys"
    )


def read_file(path: str) -> tuple[dict[str, Entry], int]:
    """Return the entries that are in a file, by key, and the revision of the last commit.

    Raises
    ------
    StoreFormatError
        If the file is damaged, was not written by `write_file`, or by a later version of it.
    OSError
        If it is not there or cannot be read.
    """
    with open(path, "rb"):
        pass  # sqlite would not say why it cannot
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as file:
            _check_format(file, path)
            revision, count = file.execute("SELECT revision, entries FROM about").fetchone()
            entries = dict(_entries(file, path, revision))
    except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
        raise StoreFormatError(f"{path!r} is damaged: {error}") from error
    if len(entries) != count:
        raise StoreFormatError(f"{path!r} is damaged: it has {len(entries)} entries of {count}")
    return entries, revision


def _check_format(file: sqlite3.Connection, path: str) -> None:
    (application,) = file.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION:
        raise StoreFormatError(f"{path!r} was not written by a store's save()")
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version != _FORMAT:
        raise StoreFormatError(
            f"{path!r} has format {version}, and this version of latchstore reads format {_FORMAT} only"
        )
    (damage,) = file.execute("PRAGMA integrity_check(1)").fetchone()
    if damage != "ok":
        raise StoreFormatError(f"{path!r} is damaged: {damage}")


def _entries(file: sqlite3.Connection, path: str, last_revision: int) -> Iterator[tuple[str, Entry]]:
    for key, data, metadata, created, modified, revision in file.execute(
        "SELECT * FROM entries ORDER BY rowid"
    ):
        name = key.decode("utf-8", "surrogatepass") if isinstance(key, bytes) else key
        entry = entry_from_metadata(json.loads(metadata), f"the metadata of {name!r}")
        entry.data = data
        entry.created, entry.modified, entry.revision = created, modified, revision
        if (
            type(name) is not str
            or type(data) is not bytes
            or not created <= modified
            or not 0 < revision <= last_revision
        ):
            raise StoreFormatError(f"{path!r} is damaged: the entry of {name!r} cannot be")
        yield name, entry
