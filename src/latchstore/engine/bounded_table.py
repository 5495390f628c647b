"""A `Table` that keeps itself within the limits of a cache.

Thread safety: that of ``table.py`` and ``bounds.py``. The attributes of a node that are read without a lock
are hints, except its time of use, which counts only if the node has the revision of the entry.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Container, Sequence
from math import inf

from latchstore.contract.values import Entry
from latchstore.engine.batch import WriteBatch
from latchstore.engine.bounded import BoundedStore, Check, Detour, Edits, OpenTransaction, Totals
from latchstore.engine.bounds import Bound
from latchstore.engine.edits import Delete
from latchstore.engine.entry_facts import EXPIRES, IDLE, NUMBERS, REFRESH, number, stale_of
from latchstore.engine.limits import Limits, Node, Request
from latchstore.engine.table import Table
from latchstore.engine.transactional_store import TransactionalStore

#: The entries that one commit of a sweep checks, so that other writers get their turn.
_SWEPT_AT_ONCE = 1_000


class BoundedTable(BoundedStore):
    """The `BoundedStore` of a store over a `Table`.

    Parameters
    ----------
    store : TransactionalStore
    table : Table
        Its engine.
    limits : Limits
    """

    keeps_references = True
    outer: BoundedTable | None = None

    def __init__(self, store: TransactionalStore, table: Table, limits: Limits) -> None:
        self._store = store
        self.idle: float | None = limits.idle
        self.clock: Callable[[], float] = limits.clock
        self._table = table
        self.detours: Detour = table
        self._bound = bound = Bound(limits)
        self.entries: dict[str, Entry] = table.entries
        self.nodes: dict[str, Node] = bound.nodes
        self.hits: deque[Node] | None = bound.hits if bound.notes_hits else None
        self.current_transaction: Callable[[], OpenTransaction | None] = store.current_transaction
        self._open()

    def _open(self) -> None:
        """Add the bound to the table, and evict what exceeds it already."""
        table, bound = self._table, self._bound
        table.add_bound(bound)
        foreign = table.loaded_at is not None and self.now() < table.loaded_at
        if foreign and self.current_transaction() is None:
            # The clock was set back, as after a reboot: its old readings are meaningless.
            self._drop_timed()
        table.exclusively("a bound", bound.bring_up_to_date, table.entries)
        if bound.is_exceeded(0, 0) and self.current_transaction() is None:
            self._commit((), "trim", None)

    def _drop_timed(self) -> None:
        with self._store.transaction("drop what was saved by another clock"):
            self._evict_timed()
        self._table.loaded_at = None

    def _evict_timed(self) -> None:
        for key, entry in self.items():
            if EXPIRES in entry or REFRESH in entry:
                self._store.evict(key, "expired")

    def __del__(self) -> None:
        # It may run wherever the collector runs, so it acquires no lock. `__init__` may have been
        # interrupted.
        if hasattr(self, "_bound"):
            self.close()

    # -- reading ----------------------------------------------------------------------------------

    def entry(self, key: str) -> Entry | None:
        routes = self._table.routes
        transaction = routes.current() if routes else None
        if transaction is None:
            return self._table.entry(key)
        entry: Entry | None = transaction._open_batch().current(key)
        return entry

    def items(self) -> Sequence[tuple[str, Entry]]:
        return list(self._store._items())

    def last_use(self, key: str, entry: Entry) -> float:
        node = self.nodes.get(key)
        return node.used if node is not None and node.revision == entry.revision else inf

    def begin_use(self, entry: Entry, node: Node | None) -> bool:
        # hot path: `is_expired`, inlined.
        deadline, idle = entry.get(EXPIRES), entry.get(IDLE, self.idle)
        if deadline is None and idle is None:
            return True
        now = self.clock()
        if deadline is not None and type(deadline) in NUMBERS and deadline <= now:
            return False
        if idle and node is not None and type(idle) in NUMBERS and node.revision == entry.revision:
            if node.used + idle <= now:
                return False
            node.used = now
        return True

    @property
    def may_expire(self) -> bool:
        own = self._bound.may_expire or self._bound.stale
        return own or (self.outer is not None and self.outer.may_expire)

    def refresh_at(self, key: str, entry: Entry) -> float | None:
        time = number(entry.get(REFRESH))
        if time is not None:
            node = self.nodes.get(key)
            if node is not None and node.revision == entry.revision and node.refresh is not None:
                return max(time, node.refresh)
        return time

    def put_off_refresh(self, key: str, entry: Entry, time: float) -> None:
        node = self.nodes.get(key)
        if node is not None and node.revision == entry.revision:
            node.refresh = time

    # -- writing ----------------------------------------------------------------------------------

    def write(
        self, edits: Edits, purpose: str, *, now: float | None = None, check: Check | None = None
    ) -> None:
        bound = self._bound
        routes = self._table.routes
        transaction = routes.current() if routes else None
        if transaction is not None:
            self._write_in(transaction._open_batch(), edits, transaction.optimistic)
            return
        if bound.closed:
            self._open()
        if now is None and self._needs_time():
            now = self.now()
        if now is not None:
            check = functools.partial(bound.request_expiry, now, check)
            outer = self.outer
            while outer is not None:
                check = functools.partial(outer._bound.request_expiry, now, check)
                outer = outer.outer
        self._commit(edits, purpose, check)

    def _commit(self, edits: Edits, purpose: str, check: Check | None) -> None:
        store = self._store
        if store._closed or store._dispatcher.throttled:  # hot path: as in `TransactionalStore._write_one`
            store._admit_writer(purpose)
        if self._table.commit(edits, purpose, check):
            store._deliver()

    def _needs_time(self) -> bool:
        """Return whether a commit needs the time of the clock."""
        own = self.idle is not None or self._bound.may_expire
        return own or (self.outer is not None and self.outer._needs_time())

    def _write_in(self, batch: WriteBatch, edits: Edits, optimistic: bool) -> None:
        """Add edits to the batch of a transaction, with the evictions they cause."""
        savepoint = batch.savepoint()
        try:
            for key, edit in edits:
                if optimistic:
                    # A read of the entry: if another commit evicts it meanwhile, that is a conflict.
                    batch.current(key)
                batch.put(key, edit)
                self._make_room_in(batch, key)
        except BaseException:
            batch.rollback_to(savepoint)
            raise

    def _make_room_in(self, batch: WriteBatch, key: str) -> None:
        """Evict, in a transaction, the entries that its writes push out of the bound."""
        bound = self._bound
        written = batch.seen(key)
        if written is not None:
            bound.weigh(key, written)
        room = self._room(batch)
        room.update(batch)
        tried: set[str] = set()
        while bound.is_exceeded(room.entries, room.weight):
            victim = self._table.exclusively(
                "making room",
                bound.victim,
                self._table.entries,
                lambda each: each in tried or batch.has_edit(each),
            )
            if victim is None:
                victim = room.first_but(key, tried)
            if victim is None:
                return  # the user's policy does not choose any of the entries
            tried.add(victim)
            try:
                batch.put(victim, _EVICT)
            except KeyError:
                continue  # an optimistic transaction does not see it
            room.update(batch)

    def _room(self, batch: WriteBatch) -> _Room:
        if batch.rooms is None:
            batch.rooms = {}
        room: _Room | None = batch.rooms.get(self._bound)
        if room is None:
            room = batch.rooms[self._bound] = _Room(self._bound)
        return room

    def sweep(self) -> int:
        bound, now = self._bound, self.now()
        if bound.closed:
            self._open()
        transaction = self._store.current_transaction()
        if transaction is not None:
            return self._sweep_in(transaction._open_batch(), now)
        swept = 0
        while not bound.closed and (bound.stale or bound.is_due(now)):
            request = Request(now, _SWEPT_AT_ONCE, [])
            self._commit((), "sweep", functools.partial(bound.request_sweep, request))
            swept += len(request.found)
        return swept

    def _sweep_in(self, batch: WriteBatch, now: float) -> int:
        found = self._table.exclusively("sweep", self._bound.keys_expired, self._table.entries, now)
        swept = 0
        for key, cause in found:
            entry = batch.current(key)
            if entry is not None and self.is_expired(key, entry, now - stale_of(entry)):
                batch.put(key, Delete(cause))
                swept += 1
        return swept

    # -- facts ------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        entries, weight, evictions, hits, nodes = self._table.exclusively(
            "stats", self._bound.totals, self._table.entries
        )
        return Totals(entries, weight, dict(evictions), hits + sum(node.hits for node in nodes))

    def close(self) -> None:
        self._bound.closed = True

    def check(self) -> None:
        self.totals()
        self._bound.check(self._table.entries)
        assert self._bound.closed or not self._bound.is_exceeded(0, 0)


_EVICT = Delete("size")


class _Room:
    """The entries and bytes that the batch of a transaction adds to a bound.

    An optimistic transaction does not see entries that others commit meanwhile; its commit evicts what
    exceeds the bound then.

    Attributes
    ----------
    entries, weight : int
        What the commit will add to the bound.
    """

    __slots__ = ("_added", "_bound", "_mark", "entries", "weight")

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._mark: tuple[int, int] | None = None
        # The addition of each key, in the order in which the keys were written.
        self._added: dict[str, tuple[int, int]] = {}
        self.entries = self.weight = 0

    def update(self, batch: WriteBatch) -> None:
        """Add what was written since the last update."""
        bound = self._bound
        keys, mark = batch.written_since(self._mark)
        if mark is None:
            self._added.clear()
            self.entries = self.weight = 0
        for key in keys:
            if not key.startswith(bound.limits.prefix):
                continue
            entries = weight = 0
            if (node := bound.nodes.get(key)) is not None:
                entries, weight = -1, -node.weight
            if (entry := batch.seen(key)) is not None:
                entries += 1
                weight += bound.facts(key, entry).weight
            before = self._added.pop(key, (0, 0))
            self._added[key] = entries, weight
            self.entries += entries - before[0]
            self.weight += weight - before[1]
        self._mark = batch.mark()

    def first_but(self, key: str, tried: Container[str]) -> str | None:
        """Return the key that was written first and exists, except some; None if there is none.

        If other threads have set a key that the transaction has deleted, the key may not exist for it.
        """
        nodes = self._bound.nodes
        for other, (entries, _) in self._added.items():
            if other == key or other in tried:
                continue
            if entries == 1 or (entries == 0 and other in nodes):
                return other
        return None
