"""The log: the changes of each commit, written to the same file by the same commit.

A change is a row: the key; its new values, NULL if it was deleted; its old values, NULL if it did not exist;
the cause of an eviction. The rows of a commit are adjacent: the ``id`` is the commit's revision and, in the
last `_BITS` bits, the number of the change in the commit. ``created`` belongs to the new entry, or to the old
one of a deletion; ``old_created`` is set only if it differs, as when one commit deletes and sets the key.
``old_data`` is NULL if a commit left the data unchanged. The first row of a commit has the ``author``: the
number of the process, or ``[process, number, notes, thread]`` of a transaction, as JSON.

Thread safety: functions of a connection that no other thread uses.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, count, groupby
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple, overload

from latchstore.contract.late_values import LateChange, LateChanges, LateValue, late_of
from latchstore.contract.values import Change, Entry, cause_of, deletion
from latchstore.engine.owner import TransactionInfo
from latchstore.sqlite.rows import NOTHING, Key, Row, bound, entry_of, execute_all, name_of
from latchstore.sqlite.statements import (
    ADD_MANY_TO_LOG,
    ADD_MORE_TO_LOG,
    ADD_TO_LOG,
    CHANGED_KEYS,
    LOGGED,
    OLDEST,
    READ_LOG,
    TRIM_LOG,
)

#: Number of rows read at a time.
_ROWS = 1_000

#: The bits of an ``id`` that number the changes of a commit. 39 bits are left for the revision: 2,000 commits
#: a second for eight years.
_BITS = 24

#: Maximum number of keys that one commit may change.
MOST_CHANGES = 1 << _BITS


class Logged(NamedTuple):
    """A commit in the log.

    Attributes
    ----------
    revision : int
    changes : sequence of Change
    transaction : TransactionInfo or None
    process : int
        Identifier of the process that made it.
    """

    revision: int
    changes: Sequence[Change]
    transaction: TransactionInfo | None
    process: int

    @property
    def info(self) -> TransactionInfo | None:
        """The transaction as events have it: for another process, with the process in the thread's name."""
        info = self.transaction
        if info is None or self.process == os.getpid():
            return info
        return info._replace(thread=f"{info.thread} of process {self.process}")


# -- writing ------------------------------------------------------------------------------------------


def add(
    connection: sqlite3.Connection,
    revision: int,
    changes: Sequence[Change],
    rows: Sequence[tuple[Key, Row, Row]],
    transaction: TransactionInfo | None,
) -> None:
    """Write the changes of a commit.

    Parameters
    ----------
    changes : sequence of Change
        At least one.
    rows : sequence
        For each change the key as it is stored, and rows that begin with `statements.COLUMNS`, before and
        after.
    """
    author: object = os.getpid()
    if transaction is not None:
        number, notes, thread = transaction
        author = f"[{author}, {number}, {quoted(notes)}, {quoted(thread)}]"
    plain: list[Row] = []
    for at, change, (key, old, new) in zip(count(revision << _BITS), late_of(changes), rows, strict=False):
        created, old_data, old_created, cause = new[2], old[0], None, None
        if new is NOTHING:
            created, cause = old[2], cause_of(change)
        elif old is not NOTHING:
            if old[2] != created:
                old_created = old[2]
            if old_data is new[0]:
                old_data = None
        columns = (at, key, new[0], new[1], created, new[3], bound(old_data), old[1], old[3], old[4])
        # hot path: most changes other than the first of a commit need only these columns.
        if author is None and old_created is None and cause is None:
            plain.append(columns)
        else:
            connection.execute(ADD_TO_LOG, (*columns, old_created, cause, author))
            author = None
    if plain:
        execute_all(connection, ADD_MORE_TO_LOG, ADD_MANY_TO_LOG, plain)


def trim(connection: sqlite3.Connection, until: int) -> None:
    """Delete the commits up to a revision."""
    connection.execute(TRIM_LOG, ((until + 1) << _BITS,))


# -- reading ------------------------------------------------------------------------------------------


def oldest(connection: sqlite3.Connection) -> int | None:
    """Return the first revision in the log; None if it is empty."""
    ((first,),) = connection.execute(OLDEST)
    return None if first is None else int(first) >> _BITS


def first_of(connection: sqlite3.Connection, revision: int) -> tuple[Key, float | None, int] | None:
    """Return the key of a commit's first change, its time of modification, and the commit's process.

    None if the log does not have the commit.
    """
    found = connection.execute(LOGGED, (revision << _BITS,)).fetchone()
    return None if found is None else (found[0], found[1], _author_of(found[2])[0])


def rows_between(connection: sqlite3.Connection, after: int, until: int) -> sqlite3.Cursor:
    """Return the rows of commits after a revision, up to another one."""
    return connection.execute(READ_LOG, ((after + 1) << _BITS, (until + 1) << _BITS))


def commits(connection: sqlite3.Connection, after: int, until: int) -> Iterator[Logged]:
    """Yield the commits after a revision, up to another one, reading some at a time."""
    rows = rows_between(connection, after, until)
    return commits_of(chain.from_iterable(iter(partial(rows.fetchmany, _ROWS), [])))


def commits_of(rows: Iterable[Row]) -> Iterator[Logged]:
    """Yield the commits of rows."""
    for revision, found in groupby(rows, _revision_of):
        yield _commit_of(revision, list(found))


def _revision_of(row: Row) -> int:
    revision: int = row[0] >> _BITS
    return revision


def _commit_of(revision: int, rows: list[Row]) -> Logged:
    process, info = _author_of(rows[0][12])
    return Logged(revision, LateChanges(_Changes(rows)), info, process)


class _Changes(Sequence[LateChange]):
    """The changes of rows, which are made one by one: to keep many takes longer than to make them again."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[LateChange]:
        return map(_change_of, self._rows)

    @overload
    def __getitem__(self, position: int) -> LateChange: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[LateChange]: ...
    def __getitem__(self, position: int | slice) -> LateChange | Sequence[LateChange]:
        if isinstance(position, slice):
            return _Changes(self._rows[position])
        return _change_of(self._rows[position])


def _author_of(author: int | str) -> tuple[int, TransactionInfo | None]:
    if isinstance(author, int):
        return author, None
    process, *info = json.loads(author)
    return process, TransactionInfo(*info)


def _change_of(row: Row) -> LateChange:
    stored = row[1]
    key = stored if type(stored) is str else name_of(stored)
    old = None if row[7] is None else LateValue(_old_of, key, row)
    if row[3] is None:
        return deletion(key, old, row[11])
    return key, old, LateValue(_new_of, key, row)


def _new_of(key: str, row: Row) -> Entry:
    data, metadata, created, modified = row[2:6]
    return entry_of(key, data, metadata, created, modified, row[0] >> _BITS)


def _old_of(key: str, row: Row) -> Entry:
    data, _, created = row[2:5]
    old_data, old_metadata, old_modified, old_revision, old_created = row[6:11]
    return entry_of(
        key,
        data if old_data is None else old_data,
        old_metadata,
        created if old_created is None else old_created,
        old_modified,
        old_revision,
    )


def changed_keys(connection: sqlite3.Connection, after: int) -> list[str]:
    """Return the keys that were changed after a revision."""
    rows = connection.execute(CHANGED_KEYS, ((after + 1) << _BITS,)).fetchall()
    return [name_of(key) for (key,) in rows]
