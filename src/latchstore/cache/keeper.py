"""What keeps a store within its bound, and rid of what has expired; a `Cache` has one.

Thread safety:

1. What is in a cache is what is in its store. When an entry expires stands in its metadata, so it is read and
   written in one instant with the data; a node is a copy of that, for quick answers.
2. A node is noted after its entry can be seen. Who looks at the node first, then at the clock, then at the
   store, gets nothing that is older than the node; where there is no node, or its time is over, the metadata
   tells.
3. The ledger is guarded by one latch, held for microseconds; no store, no other lock and no user code is used
   under it, but for a policy of the user's own. It may be taken while the writer mutex is held, by a
   transaction that the cache is used in.
4. Every write is followed by `settle`, which tells the ledger what the store has then; inside a transaction
   that happens when it has ended.
5. A forked child makes new books when it first writes: other threads of the parent may have been anywhere in
   the old ones.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from latchstore.arguments import describe
from latchstore.cache.ledger import Ledger, Reservation
from latchstore.cache.options import (
    DEFAULT_OPTIONS,
    EXPIRES,
    IDLE,
    WEIGHT,
    Options,
    facts_of,
    weight_of_entry,
)
from latchstore.cache.policies import POLICIES, EvictionPolicy, Node
from latchstore.errors import (
    BackpressureError,
    EntryTooLargeError,
    LockTimeoutError,
    RevisionMismatchError,
    StoreClosedError,
    StoreError,
    TransactionConflictError,
)
from latchstore.events import StoreModificationEvent
from latchstore.locking import Latch, Waiters
from latchstore.store import AbstractStore
from latchstore.values import Value

#: How many entries go in one commit when there is no room for one: so many at the most, and of so many that
#: there are one at the most. Of 16 that go together each takes half as long (benchmarks/cache.py).
_EVICTED_TOGETHER = 16
_ONE_OF = 100

#: How many expired entries go in one commit, so that other writers get their turn.
_SWEPT_AT_ONCE = 1_000

#: Seconds between two sweeps at the least: what expires in between goes in one commit.
_SWEEP_INTERVAL = 0.01

#: Seconds for which the store's thread waits for a writer, and after which it tries again.
_BRIEF = 0.05

#: The longest time for which a timer is set, in seconds.
_DAY = 86_400.0

#: Seconds for which a writer waits until one of those that are writing all that could go is done.
_WAIT_FOR_ROOM = 30.0


class OpenTransaction(Protocol):
    """What a cache needs of an open transaction."""

    def on_commit(self, function: Callable[[], object]) -> None: ...

    def on_rollback(self, function: Callable[[], object]) -> None: ...


class _Block:
    """What a thread has done to the cache in a transaction; its reservations have the same owner.

    Nothing but the functions that the transaction is to call at its end, and who is at work, refers to it: if
    it is freed with something left, an exception has struck before them, and the keeper is told.

    Attributes
    ----------
    owner : object
    unsettled : dict
        Keys that are to be settled when the transaction has ended, with the reservations for those that were
        set, or None.
    """

    __slots__ = ("__weakref__", "_left", "owner", "unsettled")

    def __init__(self, left: deque[dict[str, Reservation | None]]) -> None:
        self._left = left
        self.owner = object()
        self.unsettled: dict[str, Reservation | None] = {}

    def __del__(self) -> None:
        # Wherever the collector runs: so it takes no lock. An exception may have struck the first lines.
        if getattr(self, "unsettled", None):
            self._left.append(self.unsettled)


def _no_block() -> None:
    """Return None, as a weak reference to what was freed."""


class _ThisThread(threading.local):
    """The block of the calling thread."""

    def __init__(self) -> None:
        self.block: Callable[[], _Block | None] = _no_block


class Keeper:
    """Writes entries to a store, and evicts what there is no room or no time for.

    Parameters
    ----------
    store : AbstractStore
    shared : bool
        Whether others write to it, too, of whom the keeper has to hear.
    max_entries, max_bytes : int or None
    idle : float or None
        Seconds without a hit after which an entry goes that says nothing else.
    policy : str or callable
    clock : callable

    Attributes
    ----------
    nodes : dict
        The ledger's: key to node. Always the same object.
    on_hit : callable or None
        The policy's.
    current_transaction : callable
        Returns the open transaction of this thread, or None.
    """

    def __init__(
        self,
        store: AbstractStore,
        shared: bool,
        max_entries: int | None,
        max_bytes: int | None,
        idle: float | None,
        policy: str | Callable[[], EvictionPolicy],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._bounded = max_entries is not None or max_bytes is not None
        self._idle = idle
        self._clock = clock
        # What only some stores have.
        self.current_transaction: Callable[[], OpenTransaction | None] = getattr(
            store, "current_transaction", _no_transaction
        )
        self._call_later: Callable[..., Any] | None = getattr(store, "call_later", None)
        self._make_policy = _checked_policy(policy)
        self.nodes: dict[str, Node] = {}
        self._ledger = Ledger(self.nodes, self._make_policy(), max_entries, max_bytes)
        # Guards the ledger: rule 3.
        self._latch = Latch()
        # Writers that wait until something can be evicted.
        self._settled = Waiters()
        self._this_thread = _ThisThread()
        # Whether an exception has struck where the books were being written.
        self._stale = False
        # What blocks have left unsettled, as an exception has struck at their ends.
        self._left: deque[dict[str, Reservation | None]] = deque()
        # Whether there was ever an entry that may expire.
        self._times = idle is not None
        self._timer: Any = None
        self._timer_due = math.inf
        self._shared = shared
        if shared:
            store.event_manager.connect(StoreModificationEvent, self._hear, {"source": store})
            self._make_books()
        _keepers.add(self)

    @property
    def on_hit(self) -> Callable[[Node], None] | None:
        """What the policy wants to be told of a hit; None if the node's flag is enough."""
        return self._ledger.policy.on_hit

    @property
    def ledger(self) -> Ledger:
        """The books, for those who ask how much there is."""
        return self._ledger

    # -- reading ----------------------------------------------------------------------------------

    def value(self, key: str) -> Value | None:
        """Return what the store has, expired or not."""
        try:
            # Asked first: to find nothing by way of an exception takes 1 us longer.
            return self._store.get(key) if self._store.exists(key) else None
        except KeyError:
            return None  # it has gone meanwhile

    def live_value(self, key: str) -> Value | None:
        """Return what the store has, None if it is missing or expired; that is a use, and the books learn."""
        value = self.value(key)
        facts = facts_of(key, value, self._idle)
        node = self.nodes.get(key)
        if (node.revision if node is not None else 0) != (facts.revision if facts is not None else 0):
            # Others have written it, or this thread has in its open transaction.
            self.settle_when_committed(key)
            node = self.nodes.get(key)
        if facts is None or (facts.deadline is not None and facts.deadline <= self._clock()):
            return None
        if node is not None:
            if node.idle is not None and node.revision == facts.revision:
                now = self._clock()
                if node.used + node.idle <= now:
                    return None
                node.used = now
            node.visited = True
        return value

    def remaining(self, key: str) -> float | None:
        """Return for how many seconds a key will be kept yet; None: for ever. KeyError if it is not there."""
        value = self.value(key)
        facts = facts_of(key, value, self._idle)
        now = self._clock()
        if facts is None or self._is_past(key, self.nodes.get(key), now, True):
            raise KeyError(key)
        return None if facts.deadline is None else facts.deadline - now

    def known_bytes(self, key: str) -> bytes:
        """Return the data of a key; KeyError if others have written it since its node was noted."""
        value = self._store.get(key)
        revision = value.revision
        if not revision or revision != self.nodes[key].revision:
            raise KeyError(key)
        return value.range().read()

    def is_over(self, node: Node) -> bool:
        """Tell whether the time of a node is over, or only the store knows; if not, it has been used now."""
        if node.doubts:
            return True
        now = self._clock()
        if node.deadline is not None and node.deadline <= now:
            return True
        if node.idle is not None:
            if node.used + node.idle <= now:
                return True
            node.used = now
        return False

    def live_keys(self) -> list[str]:
        """Return the keys of one instant, without those that have expired."""
        if self._knows_all():
            return list(self._store.query_keys())
        asks = self._shared or self.current_transaction() is not None
        keys = list(self._store.query_keys())
        now = self._clock()
        return [key for key in keys if not self._is_past(key, self.nodes.get(key), now, asks)]

    def _is_past(self, key: str, node: Node | None, now: float, asks: bool) -> bool:
        """Tell whether a key has expired; by what the store has, if the node may be of another entry."""
        if node is not None and node.idle is not None and node.used + node.idle <= now:
            return True
        if not asks and node is not None and not node.doubts:
            return node.deadline is not None and node.deadline <= now
        facts = facts_of(key, self.value(key), None)
        return facts is not None and facts.deadline is not None and facts.deadline <= now

    def count(self) -> int:
        """Return how many keys there are that have not expired."""
        return len(self._store) if self._knows_all() else len(self.live_keys())

    def _knows_all(self) -> bool:
        """Tell whether nothing can expire."""
        return not (self._times or self._shared)

    # -- writing ----------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, options: Options) -> None:
        """Make room, and write; whatever happens, the books say what is there then.

        Raises
        ------
        EntryTooLargeError
            If the entry weighs more than all may.
        """
        metadata = options.items(self._clock()) if options is not DEFAULT_OPTIONS else {}
        weight = weight_of_entry(key, len(data), metadata) if options.weight is None else options.weight
        self._check_weight(key, weight)
        self._write(Reservation(key, weight), metadata, self._store.set, key, (data, metadata))

    def _write(
        self,
        reservation: Reservation,
        metadata: Mapping[str, Any],
        function: Callable[..., None],
        key: str,
        value: Any,
    ) -> None:
        """Make room, and call a method of the store that writes one key."""
        if self._stale or self._left:
            self._mend_books()
        if EXPIRES in metadata or IDLE in metadata or self._idle is not None:
            self._times = True
            if key in self.nodes:
                self._latch.during(self._ledger.doubt, reservation)
        transaction = self.current_transaction()
        # Referred to here until the transaction does so: nothing else keeps it.
        block = None if transaction is None else self._block()
        try:
            try:
                if not self._bounded or self._make_room(reservation, transaction, block):
                    function(key, value)
                else:
                    with contextlib.suppress(KeyError):
                        self._store.evict(key, "size")
            finally:
                self.settle_when_committed(key, reservation)
        except BaseException as error:
            self._latch.during(self._ledger.release, reservation)
            self._doubt_books(error)
            raise
        self._trim()

    def delete(self, key: str) -> None:
        """Delete a key; KeyError if the store does not have it."""
        if self._stale or self._left:
            self._mend_books()
        try:
            try:
                self._store.delete(key)
            finally:
                self.settle_when_committed(key)
        except BaseException as error:
            self._doubt_books(error)
            raise

    def set_metadata(self, key: str, size: int, metadata: Mapping[str, Any]) -> None:
        """Replace the metadata of a key that has so many bytes of data; otherwise as `put`."""
        weight = metadata.get(WEIGHT)
        if weight is None:
            weight = weight_of_entry(key, size, metadata)
        self._check_weight(key, weight)
        self._write(Reservation(key, weight), metadata, self._store.set_metadata, key, metadata)

    def _check_weight(self, key: str, weight: int) -> None:
        if self._max_bytes is not None and weight > self._max_bytes:
            raise EntryTooLargeError(
                f"value of key {key!r} weighs {weight} bytes, more than max_bytes={self._max_bytes}"
            )

    def _doubt_books(self, error: BaseException) -> None:
        """Have the books made anew before the next write, if what was raised may have struck anywhere."""
        if not isinstance(error, (StoreError, KeyError)):
            self._stale = True

    def _make_room(
        self, reservation: Reservation, transaction: OpenTransaction | None, block: _Block | None
    ) -> bool:
        """Reserve room, and evict what there is too much; return whether there is room.

        That there is none happens to a transaction in a cache of which others are writing every entry.
        """
        ledger = self._ledger
        if block is not None:
            reservation.owner = block.owner
            earlier = block.unsettled.get(reservation.key or "")
            if earlier is not None:
                self._latch.during(ledger.succeed, reservation, earlier)
            if getattr(transaction, "optimistic", False):
                # That it is there counts: if another evicts it meanwhile, that is a conflict.
                self._store.exists(reservation.key or "")
        asked = ledger.stamp
        node = self._latch.during(ledger.reserve, reservation)
        while not reservation.writing:
            if node is not None:
                asked = ledger.stamp
                node = self._evict_for(reservation, node)
                continue
            if not (
                self._give_up_own(reservation)
                or self._evict_unsettled(reservation)
                or self._wait_for_room(reservation, asked)
            ):
                if getattr(transaction, "optimistic", False):
                    # Rule 6 of ledger.py: of those that write past the bound there is one at a time.
                    raise TransactionConflictError(
                        f"no room for key {reservation.key!r}: all that could go is being written by others",
                        (reservation.key or "",),
                    )
                return self._latch.during(ledger.forgive_one, reservation)
            asked = ledger.stamp
            if not reservation.writing:
                node = self._latch.during(ledger.choose, reservation)
        return True

    def _evict_for(self, reservation: Reservation, node: Node) -> Node | None:
        """Evict an entry for a reservation, and if there are many, a few more with it; return the next."""
        more = min(_EVICTED_TOGETHER, len(self.nodes) // _ONE_OF)
        if more < 2 or self.current_transaction() is not None:
            return self._evict(node, "size", reservation)
        chosen = [node, *self._latch.during(self._ledger.choose_more, reservation, more - 1)]
        self._evict_together([(each, "size") for each in chosen], self._store.transaction("evict"))
        return None if reservation.writing else self._latch.during(self._ledger.choose, reservation)

    def _evict_together(self, chosen: list[tuple[Node, str]], transaction: Any) -> None:
        """Evict entries in one commit, each unless somebody has set it since it was chosen."""
        evicted: list[tuple[Node, int, str]] = []
        gone: dict[Node, str] = {}
        try:
            with transaction:
                for node, cause in chosen:
                    revision = node.revision
                    with contextlib.suppress(KeyError, RevisionMismatchError):
                        self._store.evict(node.key, cause, if_revision=revision or None)
                        gone[node] = cause
                        if revision:
                            evicted.append((node, revision, cause))
            if self.current_transaction() is None:
                self._latch.during(self._ledger.note_evictions, evicted)
                done = {node for node, _, _ in evicted}
                chosen = [(node, cause) for node, cause in chosen if node not in done]
        except BaseException:
            gone.clear()  # they are there again
            raise
        finally:
            if self.current_transaction() is None:
                self._latch.during(self._ledger.stay_all, [node for node, _ in chosen])
            for node, _ in chosen:
                self.settle_when_committed(node.key, cause=gone.get(node))

    def _give_up_own(self, reservation: Reservation) -> bool:
        """Evict what this transaction has itself put into the cache; return whether there was something."""
        if reservation.owner is None:
            return False
        unsettled = self._block().unsettled
        for key, other in list(unsettled.items()):
            if key != reservation.key and other is not None:
                unsettled[key] = None
                with contextlib.suppress(KeyError):
                    self._store.evict(key, "size")
                self._latch.during(self._ledger.replace, reservation, other)
                transaction = self.current_transaction()
                if transaction is not None:
                    transaction.on_rollback(
                        functools.partial(self._have_again, key, other.full_weight, reservation)
                    )
                return True
        return False

    def _have_again(self, key: str, weight: int, taker: Reservation) -> None:
        """Note that a savepoint has brought back what was given up after it, for a taker that it undoes."""
        if self.current_transaction() is not None:
            reservation = Reservation(key, weight)
            reservation.owner = self._block().owner
            self._latch.during(self._ledger.reserve_again, reservation, taker)
            self.settle_when_committed(key, reservation)

    def _evict_unsettled(self, reservation: Reservation) -> bool:
        """Evict what a transaction before this one has written, and the books do not know yet."""
        transaction = self.current_transaction()
        if transaction is None or getattr(transaction, "optimistic", False):
            return False
        for other in self._latch.during(self._ledger.unsettled_of_others, reservation):
            key = other.key or ""
            if self._store.exists(key):
                self._store.evict(key, "size")
                self._latch.during(self._ledger.promise_unsettled, reservation, other)
                self.settle_when_committed(key, cause="size")
                return True
        return False

    def _wait_for_room(self, reservation: Reservation, stamp: int) -> bool:
        """Wait until one of those that are writing what could go is done; return whether one was.

        Not inside a transaction: the others may be waiting for that.

        Parameters
        ----------
        reservation : Reservation
        stamp : int
            The ledger's, from before it was asked what can go.
        """
        if reservation.owner is not None or self._latch.during(self._ledger.is_alone, reservation):
            return False  # of a policy that keeps back what it has nothing is to be had
        return self._settled.wait(
            lambda: reservation.writing or self._ledger.stamp != stamp, _WAIT_FOR_ROOM, look_again=0.001
        )

    def _evict(self, node: Node, cause: str, reservation: Reservation) -> Node | None:
        """Evict an entry, unless somebody has set it since it was chosen; return which is to go next."""
        transaction = self.current_transaction()
        if transaction is not None:
            return self._evict_in(transaction, node, cause, reservation)
        key, revision = node.key, node.revision
        done: str | None = None
        try:
            self._store.evict(key, cause, if_revision=revision or None)
            done = cause
            if revision:
                return self._latch.during(self._ledger.note_eviction, node, revision, cause, reservation)
        except (KeyError, RevisionMismatchError):
            # Somebody else was quicker, which the books learn now.
            self._latch.during(self._ledger.not_evicted, reservation, node)
        self.settle_when_committed(key, cause=done)
        return self._latch.during(self._ledger.choose, reservation)

    def _evict_in(
        self, transaction: OpenTransaction, node: Node, cause: str, reservation: Reservation
    ) -> Node | None:
        """Evict an entry in a transaction: as `_evict`, but that it only goes when that is committed."""
        key, revision = node.key, node.revision
        if self._latch.during(self._ledger.promise, reservation, node):
            undo = functools.partial(self._latch.during, self._ledger.break_promise, reservation, node)
            try:
                self._store.evict(key, cause, if_revision=revision or None)
            except (KeyError, RevisionMismatchError):
                self._latch.during(self._ledger.withdraw, reservation, node)
                self.settle_when_committed(key)
            else:
                transaction.on_rollback(undo)
                self.settle_when_committed(key, cause=cause)
        return self._latch.during(self._ledger.choose, reservation)

    def _trim(self) -> None:
        """Evict what there is too much, when something was written past the bound."""
        if self._bounded and self._ledger.is_over and self.current_transaction() is None:
            if self._stale or self._left:
                return  # it may only seem so
            self._evict_excess()

    def _evict_excess(self) -> None:
        reservation = Reservation(None, 0)
        try:
            node = self._latch.during(self._ledger.reserve, reservation)
            while node is not None:
                node = self._evict(node, "size", reservation)
        finally:
            self._latch.during(self._ledger.release, reservation)

    # -- the books --------------------------------------------------------------------------------

    def settle_when_committed(
        self, key: str, reservation: Reservation | None = None, cause: str | None = None
    ) -> None:
        """Tell the ledger what the store has: now, or when the transaction of this thread has ended."""
        transaction = self.current_transaction()
        if transaction is None:
            self._settle(key, reservation, cause)
            return
        block = self._block()
        if reservation is not None:
            block.unsettled[key] = reservation
        else:
            block.unsettled.setdefault(key, None)
        transaction.on_commit(functools.partial(self._settle_after_block, block, key, reservation, cause))
        # What was evicted is there again; inside an outer block it may yet be changed.
        transaction.on_rollback(functools.partial(self._settle_after_block, block, key, reservation, None))

    def _block(self) -> _Block:
        """Return what this thread has done in its open transaction."""
        block = self._this_thread.block()
        if block is None:
            block = _Block(self._left)
            self._this_thread.block = weakref.ref(block)
        return block

    def _settle_after_block(
        self, block: _Block, key: str, reservation: Reservation | None, cause: str | None
    ) -> None:
        try:
            if self.current_transaction() is not None:
                self.settle_when_committed(key, reservation, cause)
                return
            owner = None if cause is None else block.owner
            if reservation is None and block.unsettled.get(key) is not None:
                cause = None  # it was set again after it was evicted, and no event tells of that
            self._settle(key, reservation, cause, owner)
            if block.unsettled.get(key) is reservation:
                block.unsettled.pop(key, None)
            if not block.unsettled:
                self._trim()
        except BaseException:
            self._stale = True
            # The transaction may keep what was raised, and the block with it.
            self._leave(block)
            raise

    def _leave(self, block: _Block | None) -> None:
        """Have the next writer settle what the end of a block has not."""
        if block is not None and block.unsettled:
            left, block.unsettled = block.unsettled, {}
            self._left.append(left)

    def _settle(
        self,
        key: str,
        reservation: Reservation | None = None,
        cause: str | None = None,
        block: object | None = None,
    ) -> None:
        ledger = self._ledger
        while True:
            stamp = ledger.stamp
            facts = facts_of(key, self.value(key), self._idle)
            now = 0.0 if facts is None or facts.idle is None else self._clock()
            if self._latch.during(ledger.settle, key, facts, stamp, now, reservation, cause, block):
                break
        self._settled.ring_all()
        if ledger.next_due is not None:
            self._times = True
            self._set_timer()

    def _hear(self, event: Any) -> None:
        """Learn what others have written to the store; who writes by way of the cache settles it."""
        if self._ledger.is_reserved(event.key):
            return
        node = self.nodes.get(event.key)
        revision = getattr(event, "revision", None)
        if revision is None or node is None or node.revision < revision:
            self._settle(event.key)
        # Also if the books have it from a reader, who evicts nothing.
        if self._bounded and self._ledger.is_over and not (self._stale or self._left):
            self._trim_in_time()

    def _make_books(self) -> None:
        for key in {*self.nodes, *self._store.query_keys()}:
            self._settle(key)
        self._trim()

    def _mend_books(self) -> None:
        """Put right what exceptions have left; not in a transaction, which sees what may be taken back."""
        if self.current_transaction() is not None:
            return
        with contextlib.suppress(IndexError):
            while True:
                self._settle_left(self._left.popleft())
        if self._stale:
            self._renew_books()

    def _settle_left(self, left: dict[str, Reservation | None]) -> None:
        try:
            for key, reservation in left.items():
                self._settle(key, reservation)
        except BaseException:
            self._left.append(left)
            raise

    def _renew_books(self) -> None:
        """Make the books anew from what the store has; those who are writing keep their reservations."""
        self._stale = False
        try:
            self._latch.during(self._ledger.mend, self._make_policy())
            self._make_books()
        except BaseException:
            self._stale = True
            raise

    @contextlib.contextmanager
    def transaction(self, notes: str) -> Iterator[None]:
        """Open a transaction of the cache's own; the books see its end even if the store cannot tell."""
        try:
            with self._store.transaction(notes):
                yield
        except BaseException:
            if self.current_transaction is _no_transaction:
                self._stale = True  # what was noted is taken back
            elif self.current_transaction() is None:
                self._leave(self._this_thread.block())
            raise

    def renew_in_child(self) -> None:
        """Begin anew in a forked child: rule 5."""
        self._latch = Latch()
        self._settled = Waiters()
        self._this_thread = _ThisThread()
        self._left.clear()
        self._timer, self._timer_due = None, math.inf
        self._ledger.renew(self._make_policy())
        self._stale = True

    # -- time -------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Evict all whose time is over; return how many that were."""
        if self._stale or self._left:
            self._mend_books()
        swept = 0
        while taken := self._sweep(self._store.transaction):
            swept += taken
        return swept

    def _sweep(self, transaction: Callable[[str], Any]) -> int:
        """Evict some whose time is over, in one transaction; return how many."""
        taken: list[tuple[Node, str]] = []
        try:
            self._latch.during(self._ledger.take_due, self._clock(), _SWEPT_AT_ONCE, taken)
            if taken:
                self._evict_together(taken, transaction("sweep"))
        except BaseException as error:
            self._latch.during(self._ledger.put_back, taken, self._clock() + _BRIEF)
            self._doubt_books(error)
            raise
        return len(taken)

    def _set_timer(self) -> None:
        """Have the store's thread sweep when something is due; a store without one is swept by writers."""
        due = self._ledger.next_due
        if due is None:
            return
        if self._call_later is None:
            if due <= self._clock() and self.current_transaction() is None:
                self.sweep()
            return
        timer = self._timer
        if timer is not None:
            if timer.active and self._timer_due <= due:
                return
            timer.cancel()
        self._timer_due = due
        seconds = min(max(due - self._clock(), _SWEEP_INTERVAL), _DAY)
        self._timer = self._call_later(seconds, _weakly(self, Keeper._sweep_in_time))

    def _sweep_in_time(self) -> None:
        """Sweep on the store's thread."""
        self._timer, self._timer_due = None, math.inf
        # A writer that is at work is not waited for long: what could not go was put back.
        with contextlib.suppress(LockTimeoutError, BackpressureError, StoreClosedError):
            self._sweep(self._brief_transaction)
        self._set_timer()

    def _trim_in_time(self) -> None:
        """Evict what there is too much, on the store's thread."""
        try:
            with self._brief_transaction("trim"):
                self._evict_excess()
        except (LockTimeoutError, BackpressureError):
            if self._call_later is not None:
                self._call_later(_BRIEF, _weakly(self, Keeper._trim_in_time))
        except StoreClosedError:
            return  # nothing is written to it any more

    def _brief_transaction(self, notes: str) -> Any:
        """Return a transaction that does not wait long for others, as events would, too."""
        options = {} if self._call_later is None else {"timeout": _BRIEF}
        return self._store.transaction(notes, **options)

    def stop(self) -> None:
        """Write nothing of one's own accord any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._shared:
            self._shared = False
            self._store.event_manager.disconnect(StoreModificationEvent, self._hear)

    def check(self, keys: Iterable[str]) -> None:
        """Raise AssertionError if the books are not right; for tests, while nobody writes."""
        self._ledger.check()
        assert set(self.nodes) == set(keys), set(self.nodes) ^ set(keys)
        for key, node in self.nodes.items():
            facts = facts_of(key, self.value(key), self._idle)
            assert facts is not None
            assert (node.revision, node.weight, node.deadline) == facts[:3], key


def _no_transaction() -> None:
    """Return None: the store cannot tell."""


def _checked_policy(policy: str | Callable[[], EvictionPolicy]) -> Callable[[], EvictionPolicy]:
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(map(repr, POLICIES))}, got {policy!r}")
        return POLICIES[policy]
    if not callable(policy):
        raise TypeError(f"policy must be a name or make an EvictionPolicy, got {describe(policy)}")
    return functools.partial(_made_policy, policy)


def _made_policy(make: Callable[[], EvictionPolicy]) -> EvictionPolicy:
    policy = make()
    if not isinstance(policy, EvictionPolicy):
        raise TypeError(f"policy must make an EvictionPolicy, got {describe(policy)}")
    return policy


def _weakly(keeper: Keeper, method: Callable[[Keeper], object]) -> Callable[[], None]:
    """Return what calls a method of a keeper, unless nobody uses that any more."""
    reference = weakref.ref(keeper)

    def call() -> None:
        alive = reference()
        if alive is not None:
            method(alive)

    return call


# Every keeper alive, for children that this process forks.
_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _renew_keepers_in_child() -> None:
    for keeper in list(_keepers):
        keeper.renew_in_child()


if hasattr(os, "register_at_fork"):
    # After that of memory.py: the store is whole by then.
    os.register_at_fork(after_in_child=_renew_keepers_in_child)
