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
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from latchstore.cache.ledger import Ledger, Reservation, Room
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
from latchstore.contract.arguments import describe
from latchstore.contract.errors import (
    BackpressureError,
    EntryTooLargeError,
    LockTimeoutError,
    RevisionMismatchError,
    StoreClosedError,
    StoreError,
    TransactionConflictError,
)
from latchstore.contract.events import StoreModificationEvent
from latchstore.contract.store import AbstractStore
from latchstore.contract.values import Value
from latchstore.delivery.waiting import Latch, Waiters

#: How many entries go in one commit when there is no room for one: so many at the most, and of so many that
#: there are one at the most. A transaction takes ten times as long as a set (benchmarks/cache.py).
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

#: Seconds for which a writer waits for those that are writing all that could go.
_WAIT_FOR_ROOM = 30.0


class _NoRoomError(Exception):
    """Ends a transaction of the keeper's own: there is nothing to evict as long as it is open."""


class OpenTransaction(Protocol):
    """What a cache needs of an open transaction."""

    def on_commit(self, function: Callable[[], object]) -> None: ...

    def on_rollback(self, function: Callable[[], object]) -> None: ...


class _Block:
    """What a thread does to the cache in a transaction.

    Nothing but the functions that the transaction is to call at its end, and who is at work, refers to it: if
    it is freed before, an exception has struck them, or there was no end, and the keeper is told.

    Attributes
    ----------
    room : Room
        In the ledger's books until the block is settled.
    transaction : callable
        Returns the innermost transaction that tells of its end, or None.
    doubtful : bool
        Whether the room may differ from what the transaction has.
    settled : bool
        Or left to the next writer.
    """

    __slots__ = ("__weakref__", "_left", "doubtful", "room", "settled", "transaction")

    def __init__(self, left: deque[Room]) -> None:
        self._left = left
        self.settled = False
        self.doubtful = False
        self.transaction: Callable[[], object] = _nothing
        self.room = Room()

    def leave(self) -> None:
        """Have the next writer settle it."""
        if not self.settled:
            self.settled = True
            self._left.append(self.room)

    def __del__(self) -> None:
        # Wherever the collector runs: so it takes no lock. An exception may have struck the first lines.
        if hasattr(self, "room"):
            self.leave()


def _nothing() -> None:
    """Return None, as a weak reference to what was freed."""


class _ThisThread(threading.local):
    """The block of the calling thread."""

    def __init__(self) -> None:
        self.block: Callable[[], _Block | None] = _nothing


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
        self._left: deque[Room] = deque()
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

    def value(self, key: str, likely: bool = False) -> Value | None:
        """Return what the store has, expired or not."""
        try:
            # Asked first, unless it is likely to be there: to find nothing by way of an exception takes 1 us
            # longer.
            return self._store.get(key) if likely or self._store.exists(key) else None
        except KeyError:
            return None  # it has gone meanwhile

    def live_value(self, key: str) -> Value | None:
        """Return what the store has, None if it is missing or expired; that is a use, and the books learn."""
        value = self.value(key)
        facts = facts_of(key, value, self._idle)
        node = self.nodes.get(key)
        if (node.revision if node is not None else 0) != (facts.revision if facts is not None else 0):
            # Others have written it, or this thread has in its open transaction, which is settled at its end.
            if self.current_transaction() is None:
                self._settle(key)
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
        self._write(key, weight, metadata, self._store.set, (data, metadata))

    def _write(
        self,
        key: str,
        weight: int,
        metadata: Mapping[str, Any],
        function: Callable[..., None],
        value: Any,
    ) -> None:
        """Make room, and call a method of the store that writes one key."""
        if self._stale or self._left:
            self._mend_books()
        timed = EXPIRES in metadata or IDLE in metadata or self._idle is not None
        if timed:
            self._times = True
        transaction = self.current_transaction()
        if transaction is not None:
            self._write_in(self._block(transaction), key, weight, timed, function, value)
        elif not self._write_if_there_is_room(Reservation(key, weight), timed, function, value):
            self._write_in_turn(key, weight, timed, function, value)
        self._trim()

    def _write_if_there_is_room(
        self, reservation: Reservation, timed: bool, function: Callable[..., None], value: Any
    ) -> bool:
        """Write one key outside transactions; return whether there was room for it."""
        key = reservation.key
        try:
            if not self._latch.during(self._ledger.reserve, reservation, timed):
                return False
            try:
                function(key, value)
            finally:
                self._settle(key, reservation)
        except BaseException as error:
            self._latch.during(self._ledger.release, reservation)
            self._doubt_books(error)
            raise
        return True

    def _write_in_turn(
        self, key: str, weight: int, timed: bool, function: Callable[..., None], value: Any
    ) -> None:
        """Write one key in a transaction that evicts something for it."""
        ledger = self._ledger
        slack = max(0, min(_EVICTED_TOGETHER, len(self.nodes) // _ONE_OF) - 1)
        deadline = math.inf
        me = object()
        try:
            while True:
                settled = ledger.settled
                try:
                    with self._own_block(self._store.transaction(f"set {key!r}")) as block:
                        patient = time.monotonic() < deadline
                        self._write_in(block, key, weight, timed, function, value, slack, patient)
                    return
                except _NoRoomError:
                    ledger.waiting[me] = None
                deadline = min(deadline, time.monotonic() + _WAIT_FOR_ROOM)
                self._settled.wait(
                    lambda settled=settled: ledger.settled != settled,  # type: ignore[misc]
                    deadline - time.monotonic(),
                    look_again=0.001,
                )
        finally:
            ledger.waiting.pop(me, None)

    def _write_in(
        self,
        block: _Block,
        key: str,
        weight: int,
        timed: bool,
        function: Callable[..., None],
        value: Any,
        slack: int = 0,
        patient: bool = False,
    ) -> None:
        """Write one key in a transaction, and evict what is too much then."""
        seen = None
        try:
            if block.room.optimistic:
                # That it is there counts: if another evicts it meanwhile, that is a conflict.
                there = self.value(key)
                seen = None if there is None else there.revision
            if block.doubtful:
                self._look_again(block)
            if self._make_room(block.room, key, weight, timed, slack, patient, seen):
                function(key, value)
            else:
                with contextlib.suppress(KeyError):
                    self._store.evict(key, "size")
        except BaseException as error:
            block.doubtful = True
            self._doubt_books(error)
            raise

    def _make_room(
        self, room: Room, key: str, weight: int, timed: bool, slack: int, patient: bool, seen: int | None
    ) -> bool:
        """Note what is about to be set, and evict what is too much with it; return whether there is room."""
        ledger = self._ledger
        node = self.nodes.get(key)
        absent = node is not None and node.leaving is not None and not self._store.exists(key)
        node = self._latch.during(ledger.claim, room, key, weight, timed, slack, seen, absent)
        while node is not None or not room.fits:
            if node is not None:
                self._evict(room, node, "size")
            elif not self._give_up_own(room, key):
                break
            node = self._latch.during(ledger.choose, room, key, slack)
        if room.fits:
            return True
        # Rule 5 of ledger.py. If nobody is just writing, the policy keeps back what there is.
        if patient and room.may_fit_soon:
            raise _NoRoomError
        if room.optimistic:
            raise TransactionConflictError(
                f"no room for key {key!r}: all that could go is being written by others", (key,)
            )
        if self._latch.during(ledger.may_exceed, room, key):
            return True
        self._latch.during(ledger.note, room, key, None, "size")
        return False

    def _evict(self, room: Room, node: Node, cause: str) -> None:
        """Evict an entry in a transaction, unless somebody has set it meanwhile."""
        key, revision = node.key, node.revision
        try:
            self._store.evict(key, cause, if_revision=revision or None)
        except (KeyError, RevisionMismatchError):
            # Somebody else was quicker, which the books learn when this is settled.
            weight = self._weight_now(key)
            self._latch.during(self._ledger.note, room, key, weight, None, weight is None)
        else:
            self._latch.during(self._ledger.note_evicted, room, key, revision, cause)

    def _weight_now(self, key: str) -> int | None:
        """Return what an entry weighs in the transaction of this thread; None if it is not there."""
        facts = facts_of(key, self.value(key), self._idle)
        return None if facts is None else facts.weight

    def _give_up_own(self, room: Room, key: str) -> bool:
        """Evict the first that a transaction has itself set; return whether there was something."""
        for other, weight in list(room.now.items()):
            if other != key and weight is not None:
                with contextlib.suppress(KeyError):
                    self._store.evict(other, "size")
                self._latch.during(self._ledger.note, room, other, None, "size")
                return True
        return False

    def _look_again(self, block: _Block) -> None:
        """Note what an open transaction has of all that was changed in it."""
        for key in list(block.room.now):
            weight = self._weight_now(key)
            cause = block.room.causes.get(key) if weight is None else None
            self._latch.during(self._ledger.note, block.room, key, weight, cause)
        block.doubtful = False

    def delete(self, key: str) -> None:
        """Delete a key; KeyError if the store does not have it."""
        if self._stale or self._left:
            self._mend_books()
        transaction = self.current_transaction()
        try:
            if transaction is None:
                try:
                    self._store.delete(key)
                finally:
                    self._settle(key)
            else:
                block = self._block(transaction)
                self._store.delete(key)
                self._latch.during(self._ledger.note, block.room, key, None)
        except BaseException as error:
            self._doubt_books(error)
            raise

    def set_metadata(self, key: str, size: int, metadata: Mapping[str, Any]) -> None:
        """Replace the metadata of a key that has so many bytes of data; otherwise as `put`."""
        weight = metadata.get(WEIGHT)
        if weight is None:
            weight = weight_of_entry(key, size, metadata)
        self._check_weight(key, weight)
        self._write(key, weight, metadata, self._store.set_metadata, metadata)

    def _check_weight(self, key: str, weight: int) -> None:
        if self._max_bytes is not None and weight > self._max_bytes:
            raise EntryTooLargeError(
                f"value of key {key!r} weighs {weight} bytes, more than max_bytes={self._max_bytes}"
            )

    def _doubt_books(self, error: BaseException) -> None:
        """Have the books made anew before the next write, if what was raised may have struck anywhere."""
        if not isinstance(error, (StoreError, KeyError, _NoRoomError)):
            self._stale = True

    def _trim(self) -> None:
        """Evict what there is too much, when something was written past the bound."""
        if self._bounded and self._ledger.is_over and self.current_transaction() is None:
            if self._stale or self._left:
                return  # it may only seem so
            self._evict_excess(self._store.transaction("trim"))

    def _evict_excess(self, transaction: Any) -> None:
        with self._own_block(transaction) as block:
            self._evict_chosen(block.room)

    def _evict_chosen(self, room: Room) -> None:
        while (node := self._latch.during(self._ledger.choose, room, None)) is not None:
            self._evict(room, node, "size")

    # -- the books --------------------------------------------------------------------------------

    def _settle(self, key: str, reservation: Reservation | None = None, room: Room | None = None) -> None:
        """Tell the ledger what the store has of a key; this thread is in no transaction."""
        ledger = self._ledger
        while True:
            stamp = ledger.stamp_of(key)
            facts = facts_of(key, self.value(key, reservation is not None), self._idle)
            now = 0.0 if facts is None or facts.idle is None else self._clock()
            if self._latch.during(ledger.settle, key, facts, stamp, now, reservation, room):
                break
        self._settled.ring_all()
        if ledger.next_due is not None:
            self._times = True
            self._set_timer()

    def _block(self, transaction: OpenTransaction) -> _Block:
        """Return what this thread does in its open transaction, which is settled at its end."""
        block = self._this_thread.block()
        if block is None or block.settled:
            block = _Block(self._left)
            block.room.optimistic = getattr(transaction, "optimistic", False)
            self._this_thread.block = weakref.ref(block)
            self._latch.during(self._ledger.open, block.room)
        if block.transaction() is not transaction:
            # An inner one tells if it is rolled back, else leaves that to the outermost.
            transaction.on_commit(functools.partial(self._end_block, block, True))
            transaction.on_rollback(functools.partial(self._end_block, block, False))
            block.transaction = weakref.ref(transaction)
        return block

    def _end_block(self, block: _Block, committed: bool) -> None:
        try:
            if block.settled:
                return
            transaction = self.current_transaction()
            if transaction is not None:
                # Only what was done in an inner block was rolled back.
                block.doubtful = True
                block.transaction = _nothing
                self._block(transaction)
                self._look_again(block)
                return
            block.room.committed = committed
            changed = bool(block.room.now)
            self._settle_block(block)
            if changed:
                self._trim()
        except BaseException:
            self._stale = True
            block.leave()  # the transaction may keep what was raised, and the block with it
            raise

    def _settle_block(self, block: _Block) -> None:
        if block.room.committed and not block.doubtful:
            self._latch.during(self._ledger.settle_evicted, block.room)
        self._settle_room(block.room)
        block.settled = True

    def _settle_room(self, room: Room) -> None:
        # First what has gone: so that it does not look as if there were too much.
        for key, _ in sorted(room.now.items(), key=lambda item: item[1] is not None):
            self._settle(key, room=room)
        self._latch.during(self._ledger.close, room)

    @contextlib.contextmanager
    def _own_block(self, transaction: Any) -> Iterator[_Block]:
        """Open a transaction for what the keeper does of its own accord."""
        if self.current_transaction is not _no_transaction:
            with transaction:
                innermost = self.current_transaction()
                assert innermost is not None
                yield self._block(innermost)
            return
        block = _Block(self._left)
        try:
            self._latch.during(self._ledger.open, block.room)
            with transaction:
                yield block
            block.room.committed = True
        finally:
            self._settle_block(block)

    def _hear(self, event: Any) -> None:
        """Learn what others have written to the store; who writes by way of the cache settles it."""
        if self._ledger.is_being_written(event.key):
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
        # Two threads may settle the same, but none takes out what it has not settled.
        for room in list(self._left):
            self._settle_room(room)
            with contextlib.suppress(ValueError):
                self._left.remove(room)
        if self._stale:
            self._renew_books()

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
        if self._stale or self._left:
            self._mend_books()
        try:
            with self._store.transaction(notes):
                yield
        except BaseException:
            if self.current_transaction is _no_transaction:
                self._stale = True  # what was noted is taken back
            elif self.current_transaction() is None and (block := self._this_thread.block()) is not None:
                block.leave()
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
                with self._own_block(transaction("sweep")) as block:
                    for node, cause in taken:
                        self._evict(block.room, node, cause)
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
            self._evict_excess(self._brief_transaction("trim"))
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
