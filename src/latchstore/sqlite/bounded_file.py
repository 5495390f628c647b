"""A store in a file that enforces the limits of caches: the interface for `Cache`.

Thread safety: that of ``engine/shared_bound.py``; ``bounds.py`` enforces the limits in commits.
"""

from __future__ import annotations

import functools
import sqlite3

from latchstore.contract.encoding import encode_metadata
from latchstore.contract.values import Entry
from latchstore.engine.bounded import Check, Edits, Leases
from latchstore.engine.entry_facts import WEIGHT
from latchstore.engine.limits import Limits
from latchstore.engine.shared_bound import Books, SharedBound
from latchstore.engine.store_access import StoreAccess
from latchstore.sqlite import books
from latchstore.sqlite.bounds import Bound
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.engine import SqliteEngine
from latchstore.sqlite.rows import Key, name_of, stored_key
from latchstore.sqlite.running import note, run

#: Maximum entries that one commit of a sweep evicts, so that other writers get their turn.
SWEPT_AT_ONCE = 1_000


class FileBooks(Books):
    """The books of a bound in a file.

    Parameters
    ----------
    connections : Connections
    bound : Bound
    """

    def __init__(self, connections: Connections, bound: Bound) -> None:
        self._connections = connections
        self._bound = bound

    def totals(self) -> tuple[int, int]:
        state = run(self._connections, "reading", lambda each: books.state_of(each, self._bound.number))
        return state.entries, state.weight

    def evictions(self) -> dict[str, int]:
        return run(self._connections, "reading", lambda each: books.evictions_of(each, self._bound.number))

    def may_expire(self) -> bool:
        return run(self._connections, "reading", lambda each: books.may_expire(each, self._bound.number))

    def last_use(self, key: str, revision: int) -> float | None:
        number, stored = self._bound.number, stored_key(key)
        return run(self._connections, "reading", lambda each: books.last_use(each, number, stored, revision))

    def note_hits(self) -> None:
        note(self._connections, "noting hits", self._bound.note_hits, wait=False)

    def weight_of(self, key: str, entry: Entry) -> int:
        return books.weight_of(stored_key(key), entry.size, encode_metadata(key, entry), entry.get(WEIGHT))

    def expired(self, now: float) -> list[tuple[str, str]]:
        return note(self._connections, "sweep", functools.partial(self._look_for_expired, now=now))

    def _look_for_expired(self, connection: sqlite3.Connection, now: float) -> list[tuple[str, str]]:
        self._bound.note_hits(connection)
        loading = books.loading(connection)
        limit = SWEPT_AT_ONCE + len(loading)
        rows = books.expired(connection, self._bound.number, now, limit, thorough=True)
        return [(name_of(stored), cause) for stored, _, cause in rows if stored not in loading]

    def check(self) -> None:
        def look(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN")
            books.check(connection, self._bound.number)

        run(self._connections, "checking", look)


class BoundedFile(SharedBound[Bound]):
    """A `SqliteStore` with the limits of a cache.

    Parameters
    ----------
    access : StoreAccess
    engine : SqliteEngine
    limits : Limits

    Raises
    ------
    ValueError
        If the policy is not SIEVE.
    """

    def __init__(self, access: StoreAccess, engine: SqliteEngine, limits: Limits) -> None:
        super().__init__(access, engine, limits, engine.bounds, "file")
        self._connections = engine.connections
        self.leases: Leases = engine.leases
        self._file_leases = engine.leases
        prefix = limits.prefix.encode("utf-8", "surrogatepass")
        number = note(
            engine.connections, "opening a cache", lambda each: books.open_bound(each, prefix, limits.idle)
        )
        bound = Bound(limits, number)
        self.begin(bound, FileBooks(engine.connections, bound))

    def trim(self) -> None:
        with self.access.transaction("trim"):
            # One entry: the commit picks the others that it must evict.
            first = note(self._connections, "trim", self._choose)
            if first is not None:
                self.access.evict(name_of(first[0]), "size")

    def _choose(self, connection: sqlite3.Connection) -> tuple[Key, int] | None:
        return books.Sieve(connection, self.bound.number, 0, set()).choose()

    # -- writing ----------------------------------------------------------------------------------

    def commit(self, edits: Edits, purpose: str, now: float | None, check: Check | None) -> None:
        if now is None:
            now = self.now()
        for each in self.chain():
            check = functools.partial(each._ask, now, check)
        try:
            self.access.commit(edits, purpose, check)
            return
        except KeyError:
            # A missing key may be in a load that began before this write.
            keys = [key for key, _ in edits]
            self.bound.note_written(keys)
            self._file_leases.overtake(keys)
            if all(self.entry(key) is None for key in keys):
                raise
        # A load may have stored its result in between; not from here on, as its lease has ended.
        self.access.commit(edits, purpose, check)

    def _ask(self, now: float, check: Check | None) -> None:
        """Make the next commit evict some expired entries; used as its `check`."""
        if check is not None:
            check()
        self.bound.now = now

    def sweep(self) -> int:
        self.open_again()
        now, swept = self.now(), 0
        while True:
            with self.access.transaction("sweep"):
                found, evicted = self.evict_expired(now)
            swept += evicted
            if found < SWEPT_AT_ONCE or self.current_transaction() is not None:
                return swept
