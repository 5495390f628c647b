"""The reads and writes of a commit, in its transaction of SQLite.

Thread safety: functions of a connection that no other thread uses, while this process has the writer lock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from latchstore.contract.encoding import check_metadata, encode_metadata
from latchstore.contract.late_values import LateChange, LateChanges, LateValue
from latchstore.contract.values import Change, Entry, deletion
from latchstore.engine.edits import Delete, Edit, SetData, cause_of_edit, parts_of
from latchstore.engine.index_list import indexes_of
from latchstore.engine.owner import TransactionInfo
from latchstore.sqlite import items, log
from latchstore.sqlite.rows import NOTHING, Key, Row, bound, entry_of, execute_all, rows_of, stored_key
from latchstore.sqlite.statements import (
    ADVANCE,
    BEFORE,
    BEFORE_MANY,
    DELETE,
    INSERT,
    INSERT_MANY,
    UPDATE,
    UPDATE_MANY,
)

#: Number of commits between two deletions of log rows older than the history.
_STEP = 100


class Work(NamedTuple):
    """The result of a commit's edits.

    Attributes
    ----------
    revision : int
        Revision of the commit.
    changes : sequence of Change
    rows : list
        For each change the key as it is stored, `statements.ROW` before, and `statements.COLUMNS` after with
        the row's identification: the number of its row, or the key of a new one; `NOTHING` if there is no
        entry.
    names : tuple of str
        The indexed metadata items.
    """

    revision: int
    changes: Sequence[Change]
    rows: list[tuple[Key, Row, Row]]
    names: tuple[str, ...]


def check_edit(key: str, edit: Edit) -> None:
    """Raise TypeError or ValueError if an edit's metadata cannot be stored; names key and item."""
    kind = type(edit)
    if kind is Entry or kind is SetData:  # hot path: most edits are one of these
        if kind is Entry and edit:
            check_metadata(key, edit)  # type: ignore[arg-type]
        return
    for part in parts_of(edit):
        metadata = part if isinstance(part, Entry) else getattr(part, "metadata", None)
        if metadata:
            check_metadata(key, metadata)


def decide(connection: sqlite3.Connection, edits: Collection[tuple[str, Edit]]) -> Work:
    """Return the result of edits, or raise the error of one of them."""
    last, indexed, before = _before(connection, edits)
    revision, now = last + 1, time.time()
    changes: list[Change | LateChange] = []
    rows: list[tuple[Key, Row, Row]] = []
    times = Entry()
    for key, edit in edits:
        stored = key if key.isascii() else stored_key(key)
        held = before.get(stored, NOTHING)
        old: Entry | LateValue | None
        if held is NOTHING:
            old = None
            new = edit.revise(key, None, revision, now)
        elif type(edit) is Entry or type(edit) is Delete:
            # hot path: these edits read the times only, so the old entry is made only if a listener reads it.
            old = LateValue(entry_of, key, *held)
            times.created, times.modified = held[2:4]
            new = edit.revise(key, times, revision, now)
        else:
            old = entry_of(key, *held)
            new = edit.revise(key, old, revision, now)
        row = NOTHING
        if new is not None:
            changes.append((key, old, new))
            metadata = encode_metadata(key, new) if new else "{}"
            # `log.add` finds unchanged data by its identity.
            data = new.content if new.content is held[0] else bound(new.content)
            place = stored if held is NOTHING else held[6]
            row = (data, metadata, new.created, new.modified, revision, place)
        elif old is not None:
            changes.append(deletion(key, old, cause_of_edit(edit)))
        else:
            continue
        rows.append((stored, held, row))
    if len(rows) > log.MOST_CHANGES:
        raise ValueError(
            f"a commit may change at most {log.MOST_CHANGES:,} keys, got {len(rows):,}; split the transaction"
        )
    return Work(revision, LateChanges(changes), rows, indexes_of(indexed).names)


def _before(
    connection: sqlite3.Connection, edits: Collection[tuple[str, Edit]]
) -> tuple[int, str, dict[Key, Row]]:
    """Return the revision of the last commit, the indexes, and the rows of the keys that exist."""
    if len(edits) == 1:
        ((key, _),) = edits
        *row, last, indexed = connection.execute(BEFORE, (stored_key(key),)).fetchone()
        return last, indexed, {} if row[5] is None else {row[5]: row}
    ((last, indexed),) = connection.execute(BEFORE_MANY)
    return last, indexed, {row[5]: row for row in rows_of(connection, [key for key, _ in edits])}


def write(
    connection: sqlite3.Connection, work: Work, transaction: TransactionInfo | None, history: int
) -> None:
    """Write entries, items, log and revision.

    Parameters
    ----------
    history : int
        Number of commits that the log keeps.
    """
    revision, changes, rows, names = work
    inserted: list[Row] = []
    updated: list[Row] = []
    deleted: list[Row] = []
    for _, old, new in rows:
        if new is NOTHING:
            deleted.append((old[6],))
        elif old is NOTHING:
            inserted.append(new)
        else:
            updated.append(new)
    if inserted:
        execute_all(connection, INSERT, INSERT_MANY, inserted)
    if updated:
        execute_all(connection, UPDATE, UPDATE_MANY, updated)
    if deleted:
        connection.executemany(DELETE, deleted)
    if names:
        items.update(connection, names, changes)
    log.add(connection, revision, changes, rows, transaction)
    connection.execute(ADVANCE, (revision, len(inserted) - len(deleted)))
    if revision % _STEP == 0:
        log.trim(connection, revision - history)
