"""A store on a server that keeps itself within the limits of caches: what a `Cache` uses of it.

Thread safety: that of ``engine/shared_bound.py``; the commits keep to the limits by ``bounds.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from latchstore.contract.values import Entry
from latchstore.engine.bounded import Fenced, Leases
from latchstore.engine.edits import Edit
from latchstore.engine.limits import Limits
from latchstore.engine.shared_bound import SharedBound
from latchstore.engine.store_access import StoreAccess
from latchstore.redis import books
from latchstore.redis.bounds import Bound, CacheCall, LateError
from latchstore.redis.engine import RedisEngine
from latchstore.redis.leases import ServerLeases


class BoundedServer(SharedBound[Bound]):
    """A `RedisStore` that is kept within limits.

    Parameters
    ----------
    access : StoreAccess
    engine : RedisEngine
    limits : Limits

    Raises
    ------
    ValueError
        If the policy is another one than SIEVE.
    """

    leases: Leases

    def __init__(self, access: StoreAccess, engine: RedisEngine, limits: Limits) -> None:
        super().__init__(access, engine, limits, engine.caches.bounds, "server")
        self._server = engine.server
        self._has_server_clock = limits.clock is engine.server_clock
        self.leases = ServerLeases(engine.server, engine.caches)
        engine.caches.are_there = True
        self._begin(Bound(limits, engine.server))

    # -- what the books have ----------------------------------------------------------------------

    def _totals(self) -> tuple[int, int]:
        return books.totals_of(self._server, self._bound.number)

    def _read_evictions(self) -> dict[str, int]:
        return books.evictions_of(self._server, self._bound.number)

    def _has_deadlines(self) -> bool:
        return books.may_expire(self._server, self._bound.number)

    def _noted_use(self, key: str, revision: int) -> float | None:
        return books.last_use(self._server, self._bound.number, key, revision)

    def _write_hits(self) -> None:
        hits = self._bound.take_hits()
        try:
            books.note_hits(self._server, self._bound.number, hits)
        except BaseException:
            self._bound.put_back(hits)
            raise

    def _weights(self, key: str, entry: Entry) -> int:
        return books.weight_of(key, entry)

    def _trim(self) -> None:
        call = CacheCall({}, most={self._bound.number: {"trim": books.AT_ONCE}})
        self._access.commit((), "trim", call)
        while call.has_more:
            self._access.commit((), "trim", call)

    # -- writing ----------------------------------------------------------------------------------

    def write(
        self,
        edits: Sequence[tuple[str, Edit]],
        purpose: str,
        *,
        now: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._open_again()
        if self.current_transaction() is not None:
            self._write_inside(edits, purpose)
            return
        nows = {each._bound.number: each._reading(now) for each in self._chain()}
        if not isinstance(check, Fenced) or check.fence is None:
            self._access.commit(edits, purpose, CacheCall(nows, check))
            return
        # The script looks for the token at the instant of the commit. Who sets or deletes the key ends the
        # lease, so with it the key is as it was when the load began.
        try:
            self._access.commit(edits, purpose, CacheCall(nows, check.before, check.fence))
        except LateError:
            raise check.error from None

    def _reading(self, now: float | None) -> float | bool:
        """Return the time for the script: true if it is the server's."""
        if self._has_server_clock:
            return True
        return self.now() if now is None else now

    def sweep(self) -> int:
        self._open_again()
        if self.current_transaction() is not None:
            with self._access.transaction("sweep"):
                return self._evict_expired(self.now())[1]
        swept = 0
        while True:
            number = self._bound.number
            call = CacheCall({number: self._reading(None)}, most={number: {"sweep": books.AT_ONCE}})
            self._access.commit((), "sweep", call)
            swept += call.expired
            if not call.has_more:
                return swept

    def _expired_now(self, now: float) -> list[tuple[str, str]]:
        return books.expired(self._server, self._bound.number, None if self._has_server_clock else now)

    # -- tests ------------------------------------------------------------------------------------

    def _check_books(self) -> None:
        books.check(self._server, self._bound.number)
