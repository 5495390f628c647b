"""The limits of this process's caches on a file, enforced by the commits of this process.

The engine calls each `Bound` in the transaction of a commit, to pick the evictions. ``books.py`` has the
books and their rules.

Thread safety: `Bound.hits` is changed by single operations of the dict; everything else of a `Bound` belongs
to the owner (``owner.py``), which is the only thread of this process that commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from latchstore.contract.values import Change, Entry, cause_of, deletion
from latchstore.engine.entry_facts import IDLE, WEIGHT
from latchstore.engine.limits import Limits
from latchstore.engine.shared_bound import ProcessBound
from latchstore.sqlite import books
from latchstore.sqlite.committing import Work
from latchstore.sqlite.rows import NOTHING, Key, Row, name_of, pairs_of, rows_of, stored_key

#: Maximum expired entries that an ordinary commit evicts.
_SWEPT_BY_THE_WAY = 16


class Bound(ProcessBound):
    """The limits of one cache of this process on a file.

    Parameters
    ----------
    limits : Limits
    number : int
        Number of the bound in the file.

    Attributes
    ----------
    now : float or None
        Reading of the clock for the next commit, which evicts a few entries that have expired by then.
    """

    def __init__(self, limits: Limits, number: int) -> None:
        super().__init__(limits, number)
        self.now: float | None = None
        self._prefix = limits.prefix
        self._idle = limits.idle
        self._written_at: float | None = None

    def weigh(self, key: str, entry: Entry, metadata: str) -> int:
        """Return the weight of an entry; EntryTooLargeError if it exceeds the whole bound."""
        weight = books.weight_of(stored_key(key), entry.size, metadata, entry.get(WEIGHT))
        self.refuse_heavy(key, weight)
        return weight

    def note_hits(self, connection: sqlite3.Connection) -> None:
        """Record the uses since the last call."""
        taken = [(stored_key(key), time) for key, time in self.take_hits()]
        if taken:
            books.note_hits(connection, self.number, taken)

    # -- in a commit ------------------------------------------------------------------------------

    def evicted(self, connection: sqlite3.Connection, work: Work) -> dict[str, str]:
        """Return the keys that a commit must evict before it is written, each with the cause.

        Raises
        ------
        EntryTooLargeError
            If a new entry alone exceeds the bound.
        """
        self._written_at, self.now = self.now, None
        self.note_hits(connection)
        if self._written_at is None and not self.is_limited:
            return {}
        entries, weight, hand, may_evict = books.state_of(connection, self.number, self._written_at)
        weighs = self.max_bytes is not None
        written: dict[str, int] = {}
        for (key, old, new), (stored, _, row) in zip(work.changes, work.rows, strict=True):
            if not key.startswith(self._prefix):
                continue
            if old is not None:
                entries -= 1
                weight -= books.weight_in(connection, self.number, stored) if weighs else 0
            if new is not None:
                written[key] = self.weigh(key, new, row[1]) if weighs else 0
                entries += 1
                weight += written[key]
        if not may_evict and not self.is_exceeded(entries, weight):
            return {}  # hot path: most commits evict nothing
        spared, loading = {row[0] for row in work.rows}, books.loading(connection)
        found: dict[str, str] = {}
        if may_evict and self._written_at is not None:
            for stored, less, cause in books.expired(
                connection, self.number, self._written_at, _SWEPT_BY_THE_WAY
            ):
                if stored not in spared and stored not in loading:
                    found[name_of(stored)] = cause
                    spared.add(stored)
                    entries -= 1
                    weight -= less
        for also_spared in (loading, frozenset[Key]()):
            if self.is_exceeded(entries, weight):
                sieve = books.Sieve(connection, self.number, hand, spared | also_spared)
                while self.is_exceeded(entries, weight) and (chosen := sieve.choose()) is not None:
                    stored, less = chosen
                    found[name_of(stored)] = "size"
                    spared.add(stored)
                    entries -= 1
                    weight -= less
                sieve.end()
                hand = sieve.hand
        # Then keys that the commit itself writes, in order.
        for key, less in written.items():
            if self.is_exceeded(entries, weight):
                found[key] = "size"
                entries -= 1
                weight -= less
        return found

    def note_commit(self, connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
        """Record the evictions and writes of a commit, as it is written."""
        causes: dict[str, int] = {}
        written = []
        for change in changes:
            if change[0].startswith(self._prefix):
                if change[2] is not None:
                    if self._idle or IDLE in change[2]:
                        written.append(stored_key(change[0]))
                elif (cause := cause_of(change)) is not None:
                    causes[cause] = causes.get(cause, 0) + 1
        if causes:
            books.note_evictions(connection, self.number, causes)
        if written and self._written_at is not None:
            books.note_written(connection, self.number, written, self._written_at)


def make_room(connection: sqlite3.Connection, bounds: Sequence[Bound], work: Work) -> Work:
    """Add the necessary evictions to a commit before it is written."""
    for bound in bounds:
        bound.note_written([change[0] for change in work.changes if cause_of(change) is None])
        found = bound.evicted(connection, work)
        if found:
            work = _with_evictions(connection, work, found)
    return work


def _with_evictions(connection: sqlite3.Connection, work: Work, found: dict[str, str]) -> Work:
    others = dict(found)
    changes: list[Change] = []
    rows: list[tuple[Key, Row, Row]] = []
    for change, row in zip(work.changes, work.rows, strict=True):
        key, old, _ = change
        cause = others.pop(key, None)
        if cause is None:
            changes.append(change)
            rows.append(row)
        elif old is not None:  # a new entry is simply not written
            changes.append(deletion(key, old, cause))
            rows.append((*row[:2], NOTHING))
    for held in rows_of(connection, list(others)):
        ((key, old),) = pairs_of((held,))
        changes.append(deletion(key, old, others[key]))
        rows.append((held[5], held, NOTHING))
    return work._replace(changes=changes, rows=rows)
