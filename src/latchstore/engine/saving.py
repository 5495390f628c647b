"""What a store holds, as a SQLite file that anyone can open.

Two tables: ``entries`` has a row for each key (``key``, ``data``, ``metadata`` as JSON, ``created`` and
``modified`` in seconds since the epoch, ``revision``), ``about`` has one row: the ``revision`` of the last
commit, and how many ``entries`` there are. If a cache was on the store, ``clock`` has the reading of its
clock. What a cache keeps by reference is text, an integer or a real number in place of data, if it is one
that SQLite holds as it is, and nothing else; ``sizes`` has what such objects weigh that do not weigh 1. A
key that is no valid Unicode (a lone surrogate) is a blob, UTF-8 with the surrogate in it.
``application_id`` marks the file as ours, ``user_version`` is that of the format.

Thread safety: a file is written under a name of its own and renamed when it is whole and on the disk, so any
number of threads and processes may save and load at the same time; the last to finish wins. Whoever writes
holds the unfinished file locked (``flock``), which ends with the process however that ends. So a save may
remove what it finds beside its file and nobody holds: it was left by one that was killed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from latchstore.contract.arguments import describe
from latchstore.contract.errors import StoreFormatError
from latchstore.contract.values import Entry, ReferenceEntry, entry_from_metadata

try:
    import fcntl
except ImportError:  # Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]

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

#: How deep lists and dicts in metadata may be nested: few enough for json on any stack.
_DEPTH = 100

#: The integers of SQLite have 64 bits: they are below this, and not below its negative.
_BEYOND = 2**63

#: Bytes that an entry may take in the file beside its data and metadata.
_MARGIN = 1_000


def write_file(
    path: str, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None = None
) -> None:
    """Put entries into a file, which is replaced at one instant, or stays as it is.

    Of a link, what it leads to is replaced; a file that was there before leaves its permissions.

    Raises
    ------
    TypeError
        If metadata has a value that JSON does not bring back as it is; names key and item.
    KeptByReferenceError
        If an object that is kept by reference is none that SQLite brings back as it is; names the key.
    ValueError
        If an entry is too large, or its metadata too deep; names the key.
    OSError
        If the system does not let the file be written.
    """
    target = os.path.realpath(path)
    _remove_leftovers(target)
    with _begin(target) as unfinished:
        name = os.fsdecode(unfinished.name)
        try:
            _take_permissions(target, name)
            with closing(sqlite3.connect(name, isolation_level=None)) as file:
                _fill(file, items, revision, clock)
            os.fsync(unfinished.fileno())
            if fcntl is None:
                unfinished.close()  # Windows does not rename a file that is open
            os.replace(name, target)
        except BaseException as error:
            with suppress(FileNotFoundError):
                os.unlink(name)
            if isinstance(error, sqlite3.OperationalError):
                full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
                raise OSError(errno.ENOSPC if full else errno.EIO, str(error), path) from error
            raise
    _flush_directory(os.path.dirname(target))


def _begin(target: str) -> FileIO:
    """Make an empty file beside the target, since it could not be renamed from elsewhere, and lock it."""
    while True:
        file = FileIO(f"{target}.{secrets.token_hex(8)}.unfinished", "xb")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()  # who removes leftovers was quicker, and removes this one
            continue
        except OSError:
            return file  # no locks on this file system, where nobody removes anything
        if os.path.exists(file.name):
            return file
        file.close()  # it has been removed before it was locked


def _remove_leftovers(target: str) -> None:
    """Remove the unfinished files of saves to the target that were killed."""
    if fcntl is None:
        return
    directory, name = os.path.split(target)
    leftover = re.compile(re.escape(name) + r"\.[0-9a-f]{16}\.unfinished")
    try:
        names = os.listdir(directory)
    except OSError:
        return  # it cannot be listed; whether it can be written to will be seen
    for path in (os.path.join(directory, each) for each in names if leftover.fullmatch(each)):
        try:
            with FileIO(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
        except OSError:
            continue  # being written, another user's, or just finished


def _take_permissions(target: str, unfinished: str) -> None:
    """Give the new file, which is still empty, the permissions of the old one; refuse what is no file."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "cannot be replaced, as it is no regular file", target)
    os.chmod(unfinished, stat.S_IMODE(mode))


def _fill(
    file: sqlite3.Connection, items: Iterable[tuple[str, Entry]], revision: int, clock: float | None
) -> None:
    # Nobody else sees the file, and what is broken off is thrown away: it needs no journal.
    file.execute("PRAGMA journal_mode = OFF")
    file.execute("PRAGMA synchronous = OFF")
    file.execute(f"PRAGMA application_id = {_APPLICATION}")
    file.execute(f"PRAGMA user_version = {_FORMAT}")
    file.executescript(_SCHEMA)
    file.execute("BEGIN")
    sizes: list[tuple[str | bytes, int]] = []
    row = partial(_row, file.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _MARGIN, sizes)
    file.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", map(row, items))
    file.execute("INSERT INTO about SELECT ?, count(*) FROM entries", (revision,))
    if clock is not None:
        file.execute("CREATE TABLE clock (reading REAL NOT NULL)")
        file.execute("INSERT INTO clock VALUES (?)", (clock,))
    if sizes:
        file.execute("CREATE TABLE sizes (key PRIMARY KEY NOT NULL, size INTEGER NOT NULL)")
        file.executemany("INSERT INTO sizes VALUES (?, ?)", sizes)
    file.execute("COMMIT")


def _flush_directory(path: str) -> None:
    """Have the new name on the disk as well."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows does not let a directory be opened
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _row(limit: int, sizes: list[tuple[str | bytes, int]], item: tuple[str, Entry]) -> tuple[Any, ...]:
    """Return the row of an entry; note what it weighs, if that would be lost."""
    key, entry = item
    content = _saveable(entry)
    members = ", ".join([_member(key, name, value) for name, value in entry.items()])
    metadata = f"{{{members}}}"
    name = key.encode("utf-8", "surrogatepass")
    size = len(name) + _length_of(content) + len(metadata)
    if size > limit:
        raise ValueError(f"key {describe(key)}: {size} bytes cannot be saved, {limit} can be at the most")
    try:
        key.encode()
        stored: str | bytes = key
    except UnicodeEncodeError:
        stored = name
    if type(content) is not bytes and entry.size != 1:
        sizes.append((stored, entry.size))
    return stored, content, metadata, entry.created, entry.modified, entry.revision


def _saveable(entry: Entry) -> bytes | str | int | float:
    """Return what an entry has, if SQLite brings it back as it is; KeptByReferenceError if not."""
    content = entry.content
    return content if _is_saveable(content) else entry.data


def _is_saveable(content: object) -> bool:
    """Tell whether this is an object that is kept by reference and can be saved. Exact types only."""
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


def _member(key: str, name: str, value: object) -> str:
    """Return a metadata item as it stands in a JSON object."""
    _check_saveable(key, name, value, _DEPTH)
    try:
        return f"{json.dumps(name)}: {json.dumps(value)}"
    except ValueError as error:  # an int with thousands of digits
        raise ValueError(f"key {key!r}: the metadata item {name!r} cannot be saved: {error}") from error


def _check_saveable(key: str, name: str, value: object, depth: int) -> None:
    """Refuse what JSON would not bring back with its type."""
    kind = type(value)
    if kind is list or kind is dict:
        if not depth:
            raise ValueError(
                f"key {key!r}: the metadata item {name!r} cannot be saved, "
                f"as it is nested more than {_DEPTH} deep"
            )
        for each in value:  # type: ignore[attr-defined]
            if kind is list:
                _check_saveable(key, name, each, depth - 1)
            elif type(each) is not str:
                raise _unsaveable(key, name, each, "a dict with the key ")
            else:
                _check_saveable(key, name, value[each], depth - 1)  # type: ignore[index]
    elif kind not in (str, int, bool, type(None)) and not (kind is float and math.isfinite(value)):  # type: ignore[arg-type]
        raise _unsaveable(key, name, value)


def _unsaveable(key: str, name: str, value: object, what: str = "") -> TypeError:
    return TypeError(
        f"key {key!r}: the metadata item {name!r} cannot be saved, as it has {what}{describe(value)}; "
        "what can be are str, int, float (no nan or inf), bool, None, lists, and dicts with str keys"
    )


def read_file(path: str) -> tuple[dict[str, Entry], int, float | None]:
    """Return the entries in a file, by key, the revision of the last commit, and the reading of the clock.

    Raises
    ------
    StoreFormatError
        If the file is damaged, was not written by `write_file`, or by a later version of it.
    OSError
        If it is not there or cannot be read.
    """
    with open(path, "rb"):
        pass  # the error of sqlite has no reason in it
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as file:
            _check_format(file, path)
            ((revision, count),) = file.execute("SELECT revision, entries FROM about").fetchall()
            if type(revision) is not int or revision < 0:
                raise StoreFormatError(f"{path!r} is damaged: the revision {revision!r} cannot be")
            entries = dict(_entries(file, path, revision))
            _set_sizes(file, path, entries)
            clock = _clock(file)
    except StoreFormatError:
        raise
    except (sqlite3.Error, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreFormatError(f"{path!r} is damaged: {error}") from error
    if len(entries) != count:
        raise StoreFormatError(f"{path!r} is damaged: it has {len(entries)} entries of {count}")
    return entries, revision, clock


def _clock(file: sqlite3.Connection) -> float | None:
    """Return the reading of a cache's clock at the time of the save; None if there was no cache."""
    if not _has_table(file, "clock"):
        return None
    ((reading,),) = file.execute("SELECT reading FROM clock").fetchall()
    return float(reading)


def _has_table(file: sqlite3.Connection, name: str) -> bool:
    return bool(file.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchall())


def _set_sizes(file: sqlite3.Connection, path: str, entries: dict[str, Entry]) -> None:
    """Have references weigh what they did."""
    for key, size in file.execute("SELECT key, size FROM sizes") if _has_table(file, "sizes") else ():
        name = _name_of(key)
        entry = entries.get(name)
        if type(entry) is not ReferenceEntry or type(size) is not int or size < 0:
            raise StoreFormatError(f"{path!r} is damaged: the size of {describe(name)} cannot be")
        entry.size = size


def _name_of(key: Any) -> Any:
    """Return the key of a row: one with a lone surrogate is a blob."""
    return key.decode("utf-8", "surrogatepass") if type(key) is bytes else key


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
    rows = file.execute("SELECT key, data, metadata, created, modified, revision FROM entries ORDER BY rowid")
    for key, data, metadata, created, modified, revision in rows:
        name = _name_of(key)
        right = (
            type(name) is str
            and (type(data) is bytes or _is_saveable(data))
            and type(metadata) is str
            and type(created) is float
            and type(modified) is float
            and created <= modified < math.inf
            and type(revision) is int
            and 0 < revision <= last_revision
        )
        if not right:
            raise StoreFormatError(f"{path!r} is damaged: the entry of {describe(name)} cannot be")
        items = json.loads(metadata, parse_constant=_refuse_constant)
        entry = entry_from_metadata(items, f"the metadata of {name!r}")
        if type(data) is bytes:
            entry.data = data
        else:
            entry = ReferenceEntry(name, data, items=entry)
        entry.created, entry.modified, entry.revision = created, modified, revision
        yield name, entry


def _refuse_constant(name: str) -> None:
    """Refuse nan and inf, which JSON does not have."""
    raise ValueError(f"{name} in metadata")
