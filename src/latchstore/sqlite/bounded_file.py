"""A store in a file that keeps itself within the limits of caches: what a `Cache` uses of it.

Each process keeps to the limits of its own caches, in all of its commits (``bounds.py``). In a transaction
evictions are not to be seen: its commit makes them.

Thread safety: all methods may be called by any thread.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Sequence
from math import inf

from latchstore.contract.encoding import encode_metadata
from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.values import Entry
from latchstore.engine.bounded import BoundedStore, OpenTransaction, Totals
from latchstore.engine.edits import Edit
from latchstore.engine.entry_facts import EXPIRES, IDLE, REFRESH, number, stale_of
from latchstore.engine.limits import Limits, Node
from latchstore.engine.store_access import StoreAccess
from latchstore.sqlite import books
from latchstore.sqlite.bounds import Bound
from latchstore.sqlite.engine import SqliteEngine
from latchstore.sqlite.leases import Leases
from latchstore.sqlite.rows import Key, name_of, stored_key
from latchstore.sqlite.running import note, run

#: How many hits wait for the next commit; when there are more they are noted by themselves.
_MANY_HITS = 1_024

#: The share of an idle time after which a use is noted by itself.
_SHARE = 0.125

#: How many entries one commit of a sweep evicts, so that other writers get their turn.
_SWEPT_AT_ONCE = 1_000


class BoundedFile(BoundedStore):
    """A `SqliteStore` that is kept within limits.

    Parameters
    ----------
    access : StoreAccess
    engine : SqliteEngine
    limits : Limits

    Raises
    ------
    ValueError
        If the policy is another one than SIEVE.
    """

    outer: BoundedFile | None = None

    def __init__(self, access: StoreAccess, engine: SqliteEngine, limits: Limits) -> None:
        if getattr(limits.make_policy, "name", None) != "sieve":
            raise ValueError(
                "policy must be 'sieve' on a SqliteStore: processes share the order of eviction, "
                f"which the file has; {_name_of(limits.make_policy)} is kept in memory"
            )
        self._access = access
        self._engine = engine
        self._routes = engine.routes
        self.idle: float | None = limits.idle
        self.clock: Callable[[], float] = limits.clock
        self.current_transaction: Callable[[], OpenTransaction | None] = access.current_transaction
        self.leases: Leases = Leases(engine.connections)
        prefix = limits.prefix.encode("utf-8", "surrogatepass")
        bound = note(
            engine.connections, "opening a cache", lambda each: books.open_bound(each, prefix, limits.idle)
        )
        self._bound = Bound(limits, bound, self.leases)
        # Of all processes, before this cache was made.
        self._evictions = run(engine.connections, "reading", self._read_evictions)
        # Until when refreshes that have failed are not tried again, by key and revision.
        self._put_off: dict[tuple[str, int], float] = {}
        # When uses were last noted of which the time matters.
        self._noted_at = -inf
        # When there are more hits they are noted.
        self._most_hits = _MANY_HITS
        self._open()

    def _open(self) -> None:
        """Have this process keep to the bound, and evict what is too much already."""
        bounds = self._engine.bounds
        if self._bound not in bounds:
            bounds.append(self._bound)
        if self.current_transaction() is None and self._bound.is_exceeded(*self._state()[:2]):
            with self._access.transaction("trim"):
                # One: the commit evicts what else there has to be.
                first = note(self._engine.connections, "trim", self._choose)
                if first is not None:
                    self._access.evict(name_of(first[0]), "size")

    def _choose(self, connection: sqlite3.Connection) -> tuple[Key, int] | None:
        return books.Sieve(connection, self._bound.number, 0, set()).choose()

    def _state(self) -> books.State:
        return run(self._engine.connections, "reading", lambda each: books.state_of(each, self._bound.number))

    def _read_evictions(self, connection: sqlite3.Connection) -> dict[str, int]:
        return books.evictions_of(connection, self._bound.number)

    def __del__(self) -> None:
        if hasattr(self, "_bound"):
            self.close()

    # -- reading ----------------------------------------------------------------------------------

    def count(self) -> int:
        return self._state().entries

    def entry(self, key: str) -> Entry | None:
        return self._access.entry(key) if self._routes else self._engine.entry(key)

    def is_same(self, entry: Entry | None, found: Entry) -> bool:
        if entry is None or entry is found:
            return entry is found
        # What a transaction has written has a revision that no commit has yet.
        return entry.revision == found.revision <= self._engine.revision

    def items(self) -> Sequence[tuple[str, Entry]]:
        return self._access.items()

    def last_use(self, key: str, entry: Entry) -> float:
        stored, revision = stored_key(key), entry.revision
        noted = run(
            self._engine.connections,
            "reading",
            lambda each: books.last_use(each, self._bound.number, stored, revision),
        )
        here = self._bound.hits.get(key)
        times = [time for time in (noted, here) if time is not None]
        return max(times) if times else inf

    def begin_use(self, entry: Entry, node: Node | None) -> bool:
        # Of idle times `use` takes care, which has the key.
        deadline = number(entry.get(EXPIRES)) if entry else None
        return deadline is None or deadline > self.now()

    def use(self, key: str, entry: Entry) -> bool:
        idle = number(entry.get(IDLE, self.idle)) if entry else self.idle
        now = None
        if entry or idle:
            now = self.now()
            if self.is_expired(key, entry, now):
                return False
        if self.outer is not None and not self.outer.use(key, entry):
            return False
        bound = self._bound
        if idle:
            bound.hits[key] = now
        elif bound.is_limited:
            bound.hits.setdefault(key, None)
        if len(bound.hits) > self._most_hits or (
            idle and now is not None and now - self._noted_at > idle * _SHARE
        ):
            self._note_hits(now)
        return True

    def _note_hits(self, now: float | None) -> None:
        """Note hits, unless somebody is committing: nobody waits for that."""
        if now is not None:
            self._noted_at = now
        try:
            note(self._engine.connections, "noting hits", self._bound.note_hits, wait=False)
        except (LockTimeoutError, OSError):
            # The next commit notes them, or this, when there are more: not each hit is to try. They tell no
            # more than what is evicted first.
            self._most_hits = 2 * len(self._bound.hits)
            if self._most_hits > 8 * _MANY_HITS:
                self._bound.hits.clear()
                self._most_hits = _MANY_HITS
        else:
            self._most_hits = _MANY_HITS

    @property
    def may_expire(self) -> bool:
        own: bool = run(
            self._engine.connections, "reading", lambda each: books.may_expire(each, self._bound.number)
        )
        return own or (self.outer is not None and self.outer.may_expire)

    def refresh_at(self, key: str, entry: Entry) -> float | None:
        time = number(entry.get(REFRESH)) if entry else None
        if time is not None and self._put_off:
            return max(time, self._put_off.get((key, entry.revision), time))
        return time

    def put_off_refresh(self, key: str, entry: Entry, time: float) -> None:
        put_off = self._put_off
        if len(put_off) >= _MANY_HITS:
            now = self.now()
            for each, until in list(put_off.items()):
                if until <= now:
                    put_off.pop(each, None)
        put_off[key, entry.revision] = time

    # -- writing ----------------------------------------------------------------------------------

    def write(
        self,
        edits: Sequence[tuple[str, Edit]],
        purpose: str,
        *,
        now: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        if self._bound not in self._engine.bounds:
            self._open()
        if self.current_transaction() is not None:
            self._write_inside(edits, purpose)
            return
        if now is None:
            now = self.now()
        each: BoundedFile | None = self
        while each is not None:
            check = functools.partial(each._ask, now, check)
            each = each.outer
        try:
            self._access.commit(edits, purpose, check)
        except KeyError:
            # A key that is missing may be being loaded: from before this.
            keys = [key for key, _ in edits]
            self._bound.note_written(keys)
            self.leases.overtake(keys)
            raise

    def _ask(self, now: float, check: Callable[[], None] | None) -> None:
        """Have the commit that is about to be made evict some of what has expired; for its `check`."""
        if check is not None:
            check()
        self._bound.now = now

    def _write_inside(self, edits: Sequence[tuple[str, Edit]], purpose: str) -> None:
        """Add edits to a transaction; its commit evicts what they need, but what is too heavy is refused."""
        bounds = []
        each: BoundedFile | None = self
        while each is not None:
            if each._bound.max_bytes is not None:
                bounds.append(each._bound)
            each = each.outer
        if not bounds:
            self._access.write(edits, purpose)
            return
        with self._access.transaction(purpose):
            self._access.write(edits, purpose)
            self._weigh(edits, bounds)

    def _weigh(self, edits: Sequence[tuple[str, Edit]], bounds: Sequence[Bound]) -> None:
        """Raise EntryTooLargeError if one of the entries that a transaction has written is too much."""
        for key, _ in edits:
            entry = self._access.entry(key)
            if entry is not None:
                metadata = encode_metadata(key, entry)
                for bound in bounds:
                    bound.weigh(key, entry, metadata)

    def sweep(self) -> int:
        if self._bound not in self._engine.bounds:
            self._open()
        now, swept = self.now(), 0
        while True:
            with self._access.transaction("sweep"):
                found = note(self._engine.connections, "sweep", functools.partial(self._expired_now, now=now))
                swept += self._evict_expired(found, now)
            if len(found) < _SWEPT_AT_ONCE or self.current_transaction() is not None:
                return swept

    def _evict_expired(self, found: Sequence[tuple[str, str]], now: float) -> int:
        """Evict what has expired of what may have, each with the cause; return how many that are."""
        evicted = 0
        for key, cause in found:
            entry = self.entry(key)
            if entry is not None and self.is_expired(key, entry, now - stale_of(entry)):
                self._access.evict(key, cause)
                evicted += 1
        return evicted

    def _expired_now(self, connection: sqlite3.Connection, now: float) -> list[tuple[str, str]]:
        self._bound.note_hits(connection)
        loading = books.loading(connection)
        limit = _SWEPT_AT_ONCE + len(loading)
        rows = books.expired(connection, self._bound.number, now, limit, thorough=True)
        return [(name_of(stored), cause) for stored, _, cause in rows if stored not in loading]

    # -- facts ------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        entries, weight, *_ = self._state()
        evictions = {"size": 0, "expired": 0, "idle": 0}
        for cause, count in run(self._engine.connections, "reading", self._read_evictions).items():
            evictions[cause] = count - self._evictions.get(cause, 0)
        return Totals(entries, weight, evictions, 0)

    def check(self) -> None:
        def look(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN")
            books.check(connection, self._bound.number)

        run(self._engine.connections, "checking", look)
        assert self._bound not in self._engine.bounds or not self._bound.is_exceeded(*self._state()[:2])

    def close(self) -> None:
        try:
            self._engine.bounds.remove(self._bound)
        except ValueError:
            return  # it was closed before


def _name_of(policy: object) -> str:
    """Name a policy, or what makes one."""
    policy = getattr(policy, "args", (policy,))[0]
    return repr(getattr(policy, "name", None) or getattr(policy, "__qualname__", None) or policy)
