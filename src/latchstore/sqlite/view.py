"""`SqliteView`: the state of one commit, as a read transaction that is kept open.

Thread safety: that of `Pinned`: one thread at a time reads, and closing never waits (``connections.py``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from latchstore.contract.errors import SnapshotClosedError
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.interface import View
from latchstore.engine.selection import Overlay, Selected
from latchstore.sqlite import log, queries
from latchstore.sqlite.connections import Connections, Pinned
from latchstore.sqlite.rows import Key, Row, entry_of, name_of, pairs_of, rows_of, stored_key
from latchstore.sqlite.running import failure_of, run
from latchstore.sqlite.statements import COUNT, ENTRY, PAGE, REVISION, REVISIONS

T = TypeVar("T")

#: Number of rows read by one statement.
_ROWS = 1_000


class SqliteView(View):
    """The entries after one commit.

    Parameters
    ----------
    connections : Connections
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._pinned = Pinned(connections)
        self.revision: int = self.read(_begin)

    # -- reading ----------------------------------------------------------------------------------

    def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with the connection, while no other thread uses it."""
        try:
            return self._pinned.run(function)
        except SnapshotClosedError:
            if self._pinned.is_of_parent:
                raise
            raise self.closed_error() from None
        except sqlite3.Error as error:
            raise failure_of(error, self._connections.path, "reading a snapshot") from error

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return the rows of one statement."""
        return self.read(lambda connection: connection.execute(sql, parameters).fetchall())

    def entry(self, key: str) -> Entry | None:
        rows = self._rows(ENTRY, (stored_key(key),))
        return entry_of(key, *rows[0]) if rows else None

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        found = dict(pairs_of(self.read(lambda connection: rows_of(connection, keys))))
        return {key: found.get(key) for key in keys}

    def count(self) -> int:
        ((count,),) = self._rows(COUNT)
        return int(count)

    def items(self) -> Iterator[tuple[str, Entry]]:
        last = -(2**63)
        while True:
            rows = self._rows(PAGE, (last, _ROWS))
            if not rows:
                return
            last = rows[-1][-1]
            yield from pairs_of(rows)

    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        return self.read(lambda connection: queries.candidates(connection, terms))

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        return self.read(lambda connection: queries.select(connection, request, overlay))

    def changed(self) -> dict[str, tuple[Entry | None, Entry | None]]:
        keys, after = run(self._connections, "validating", self._changed_since)
        before = self.entries_of(keys)
        return {key: (old, after.get(key)) for key, old in before.items()}

    def _changed_since(self, now: sqlite3.Connection) -> tuple[list[str], dict[str, Entry]]:
        """Return the keys that were changed after the view, and their present entries."""
        now.execute("BEGIN")
        oldest = log.oldest(now)
        if oldest is not None and oldest <= self.revision + 1:
            keys = log.changed_keys(now, self.revision)
        else:
            keys = self._changed_beyond_the_log(now)
        return keys, dict(pairs_of(rows_of(now, keys)))

    def _changed_beyond_the_log(self, now: sqlite3.Connection) -> list[str]:
        """Compare the revisions of all keys, as the log does not go back far enough."""
        before: dict[Key, int] = dict(self._rows(REVISIONS))  # type: ignore[arg-type]
        after = dict(now.execute(REVISIONS).fetchall())
        return [
            name_of(key)
            for key in {**before, **after}
            if key not in before or key not in after or before[key] != after[key]
        ]

    # -- closing -----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._pinned.is_open

    def close(self) -> None:
        self._pinned.close()


def _begin(connection: sqlite3.Connection) -> int:
    connection.execute("BEGIN")
    ((revision,),) = connection.execute(REVISION)
    return int(revision)
