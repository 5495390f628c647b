"""The log: what each commit has changed, in the same file and by the same commit as the changes.

Thread safety: functions of a connection that nobody else uses.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import NamedTuple

from latchstore.contract.values import Change, deletion
from latchstore.engine.owner import TransactionInfo
from latchstore.sqlite.rows import Row, entry_of, name_of
from latchstore.sqlite.statements import CHANGED_KEYS, OLDEST, READ_LOG

#: How many rows are read at a time.
_ROWS = 1_000


class Logged(NamedTuple):
    """A commit as the log has it.

    Attributes
    ----------
    revision : int
    changes : list of Change
    transaction : TransactionInfo or None
    process : int
        The identifier of the process that has made it.
    """

    revision: int
    changes: list[Change]
    transaction: TransactionInfo | None
    process: int

    @property
    def info(self) -> TransactionInfo | None:
        """What events have of the transaction: of another process with that in the thread's name."""
        info = self.transaction
        if info is None or self.process == os.getpid():
            return info
        return info._replace(thread=f"{info.thread} of process {self.process}")


def oldest(connection: sqlite3.Connection) -> int | None:
    """Return the first revision that the log has; None if it has none."""
    ((revision,),) = connection.execute(OLDEST)
    return None if revision is None else int(revision)


def rows_between(connection: sqlite3.Connection, after: int, until: int) -> sqlite3.Cursor:
    """Return the rows of commits after a revision, up to another one."""
    return connection.execute(READ_LOG, (after, until))


def commits(connection: sqlite3.Connection, after: int, until: int) -> Iterator[Logged]:
    """Go through the commits after a revision, up to another one, reading some at a time."""
    rows = rows_between(connection, after, until)
    return commits_of(chain.from_iterable(iter(partial(rows.fetchmany, _ROWS), [])))


def commits_of(rows: Iterable[Row]) -> Iterator[Logged]:
    """Go through the commits that rows are of."""
    for revision, found in groupby(rows, itemgetter(0)):
        yield _commit_of(revision, list(found))


def _commit_of(revision: int, rows: list[Row]) -> Logged:
    number, notes, thread, process = rows[0][13:]
    info = None if number is None else TransactionInfo(number, notes, thread)
    return Logged(revision, [_change_of(row) for row in rows], info, process)


def _change_of(row: Row) -> Change:
    revision, _, stored, data, metadata, created, modified = row[:7]
    key = name_of(stored)
    old_metadata, cause = row[8], row[12]
    old = None if old_metadata is None else entry_of(key, row[7:12])
    if metadata is None:
        return deletion(key, old, cause)
    return key, old, entry_of(key, (data, metadata, created, modified, revision))


def changed_keys(connection: sqlite3.Connection, after: int) -> list[str]:
    """Return the keys that were changed after a revision."""
    rows = connection.execute(CHANGED_KEYS, (after,)).fetchall()
    return [name_of(key) for (key,) in rows]
