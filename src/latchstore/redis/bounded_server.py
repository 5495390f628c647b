"""A store on a server that enforces the limits of caches: the interface for `Cache`.

Thread safety: that of ``engine/shared_bound.py``; ``bounds.py`` enforces the limits in commits.
"""

from __future__ import annotations

from latchstore.contract.values import Entry
from latchstore.engine.bounded import Check, Edits, Fenced, Leases
from latchstore.engine.limits import Limits
from latchstore.engine.shared_bound import Books, SharedBound
from latchstore.engine.store_access import StoreAccess
from latchstore.redis import books
from latchstore.redis.bounds import Bound, CacheCall, LateError
from latchstore.redis.client import Server
from latchstore.redis.engine import RedisEngine
from latchstore.redis.leases import ServerLeases


class ServerBooks(Books):
    """The books of a bound on a server.

    Parameters
    ----------
    server : Server
    bound : Bound
    has_server_clock : bool
        Whether times of expiry are by the clock of the server.
    """

    def __init__(self, server: Server, bound: Bound, has_server_clock: bool) -> None:
        self._server = server
        self._bound = bound
        self._has_server_clock = has_server_clock

    def totals(self) -> tuple[int, int]:
        return books.totals_of(self._server, self._bound.number)

    def evictions(self) -> dict[str, int]:
        return books.evictions_of(self._server, self._bound.number)

    def may_expire(self) -> bool:
        return books.may_expire(self._server, self._bound.number)

    def last_use(self, key: str, revision: int) -> float | None:
        return books.last_use(self._server, self._bound.number, key, revision)

    def note_hits(self) -> None:
        hits = self._bound.take_hits()
        try:
            books.note_hits(self._server, self._bound.number, hits)
        except BaseException:
            self._bound.put_back(hits)
            raise

    def weight_of(self, key: str, entry: Entry) -> int:
        return books.weight_of(key, entry)

    def expired(self, now: float) -> list[tuple[str, str]]:
        return books.expired(self._server, self._bound.number, None if self._has_server_clock else now)

    def check(self) -> None:
        books.check(self._server, self._bound.number)


class BoundedServer(SharedBound[Bound]):
    """A `RedisStore` with the limits of a cache.

    Parameters
    ----------
    access : StoreAccess
    engine : RedisEngine
    limits : Limits

    Raises
    ------
    ValueError
        If the policy is not SIEVE.
    """

    leases: Leases

    def __init__(self, access: StoreAccess, engine: RedisEngine, limits: Limits) -> None:
        super().__init__(access, engine, limits, engine.caches.bounds, "server")
        self._has_server_clock = limits.clock is engine.server_clock
        self.leases = ServerLeases(engine.server, engine.caches)
        engine.caches.are_there = True
        bound = Bound(limits, engine.server)
        self.begin(bound, ServerBooks(engine.server, bound, self._has_server_clock))

    def trim(self) -> None:
        call = CacheCall({}, most={self.bound.number: {"trim": books.AT_ONCE}})
        self.access.commit((), "trim", call)
        while call.has_more:
            self.access.commit((), "trim", call)

    # -- writing ----------------------------------------------------------------------------------

    def commit(self, edits: Edits, purpose: str, now: float | None, check: Check | None) -> None:
        nows = {each.bound.number: each._reading(now) for each in self.chain()}
        if not isinstance(check, Fenced) or check.fence is None:
            self.access.commit(edits, purpose, CacheCall(nows, check))
            return
        # The script checks the token at the instant of the commit. A commit that sets or deletes the key ends
        # the lease, so with the lease the key is as it was when the load began.
        try:
            self.access.commit(edits, purpose, CacheCall(nows, check.before, check.fence))
        except LateError:
            raise check.error from None

    def _reading(self, now: float | None) -> float | bool:
        """Return the time for the script: true for the server's time."""
        if self._has_server_clock:
            return True
        return self.now() if now is None else now

    def sweep(self) -> int:
        self.open_again()
        if self.current_transaction() is not None:
            with self.access.transaction("sweep"):
                return self.evict_expired(self.now())[1]
        swept = 0
        while True:
            number = self.bound.number
            call = CacheCall({number: self._reading(None)}, most={number: {"sweep": books.AT_ONCE}})
            self.access.commit((), "sweep", call)
            swept += call.expired
            if not call.has_more:
                return swept
