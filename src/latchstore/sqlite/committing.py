"""What a commit reads and writes, in the transaction of SQLite's that makes it.

Thread safety: functions of a connection that nobody else uses, while this process has the writer lock.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from latchstore.contract.encoding import encode_metadata
from latchstore.contract.values import Change, cause_of, deletion
from latchstore.engine.edits import Edit, cause_of_edit
from latchstore.engine.index_list import indexes_of
from latchstore.engine.owner import TransactionInfo
from latchstore.sqlite import items
from latchstore.sqlite.rows import Key, Row, entry_of, name_of, rows_of, stored_key
from latchstore.sqlite.statements import (
    ADD_MORE_TO_LOG,
    ADD_TO_LOG,
    ADVANCE,
    BEFORE,
    BEFORE_MANY,
    DELETE,
    INSERT,
    TRIM_LOG,
    UPDATE,
)

#: Every so many commits what is older than the history is deleted.
_STEP = 100

#: The columns of an entry that is not there: this object itself.
NOTHING: Row = (None, None, None, None, None)


class Work(NamedTuple):
    """What edits come to.

    Attributes
    ----------
    revision : int
        Of the commit.
    changes : list of Change
    rows : list
        For each change the key as it is stored, and the columns before and after: `statements.COLUMNS`.
    names : tuple of str
        The metadata items that have an index.
    """

    revision: int
    changes: list[Change]
    rows: list[tuple[Key, Row, Row]]
    names: tuple[str, ...]


def decide(connection: sqlite3.Connection, edits: Collection[tuple[str, Edit]]) -> Work:
    """Return what edits come to, or raise what one of them does."""
    last, indexed, before = _before(connection, edits)
    revision, now = last + 1, time.time()
    changes: list[Change] = []
    rows: list[tuple[Key, Row, Row]] = []
    for key, edit in edits:
        # hot path: an entry is made of the row for the edits that read it, and for the change.
        held = before.get(key, NOTHING)
        old = None if held is NOTHING else entry_of(key, held)
        new = edit.revise(key, old, revision, now)
        row = NOTHING
        if new is not None:
            changes.append((key, old, new))
            metadata = encode_metadata(key, new) if new else "{}"
            row = (new.content, metadata, new.created, new.modified, revision)
        elif old is not None:
            changes.append(deletion(key, old, cause_of_edit(edit)))
        else:
            continue
        rows.append((key if key.isascii() else stored_key(key), held, row))
    return Work(revision, changes, rows, indexes_of(indexed).names)


def _before(
    connection: sqlite3.Connection, edits: Collection[tuple[str, Edit]]
) -> tuple[int, str, dict[str, Row]]:
    """Return the revision of the last commit, the indexes, and the columns of the keys that are there."""
    if len(edits) == 1:
        ((key, _),) = edits
        last, indexed, rowid, *row = connection.execute(BEFORE, (stored_key(key),)).fetchone()
        return last, indexed, {} if rowid is None else {key: row}
    ((last, indexed),) = connection.execute(BEFORE_MANY)
    found = rows_of(connection, [key for key, _ in edits])
    return last, indexed, {key if type(key) is str else name_of(key): row for key, *row in found}


def write(
    connection: sqlite3.Connection, work: Work, transaction: TransactionInfo | None, history: int
) -> None:
    """Write entries, items, log and revision.

    Parameters
    ----------
    history : int
        How many of the last commits the log keeps.
    """
    revision, changes, rows, names = work
    inserted: list[Row] = []
    updated: list[Row] = []
    deleted: list[Row] = []
    for key, old, new in rows:
        if new is NOTHING:
            deleted.append((key,))
        elif old is NOTHING:
            inserted.append((key, *new))
        else:
            updated.append((*new, key))
    for sql, each in ((INSERT, inserted), (UPDATE, updated), (DELETE, deleted)):
        if each:
            _execute(connection, sql, each)
    if names:
        items.update(connection, names, changes)
    logged = [
        (revision, number, key, *new[:4], *old, cause_of(change))
        for number, (change, (key, old, new)) in enumerate(zip(changes, rows, strict=True))
    ]
    author = (None, None, None) if transaction is None else transaction
    connection.execute(ADD_TO_LOG, (*logged[0], *author, os.getpid()))
    if len(logged) > 1:
        del logged[0]
        connection.executemany(ADD_MORE_TO_LOG, logged)
    connection.execute(ADVANCE, (revision, len(inserted) - len(deleted)))
    if revision % _STEP == 0:
        connection.execute(TRIM_LOG, (revision - history,))


def _execute(connection: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    # hot path: most commits are of one key.
    if len(rows) == 1:
        connection.execute(sql, rows[0])
    else:
        connection.executemany(sql, rows)
