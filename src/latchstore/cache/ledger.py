"""The books of a cache: what is in the store, what is about to be put there, and when what has to go.

Thread safety:

1. Everything here is called under one latch (`Latch.during`), which no user code, no store and no other lock
   is used under. Two things are read without it: `nodes`, one at a time, and the attributes of a node.
2. `settle` is what makes the books true: whoever has written a key reads what the store has of it then, and
   notes that. Of two writers of a key the one that reads last notes last: what was read before
   another one's noting is refused (`stamp`), and read again. An eviction that names the revision is noted as
   it is.
3. The bound holds at each commit because room is made before a write: a `Reservation` counts as if it were in
   the store already, and what it owes is evicted before the write. Let T be the weight of all nodes and
   reservations, D what is owed, of each reservation no more than it reserves. `reserve` keeps T - D within
   the bound, each eviction takes as much from T as from D (more from T, if the entry is heavier than what is
   owed), and a write turns a reservation that owes nothing into a node. What is in the store is at most T
   less the reservations that are not written, and those that owe something are not: it is within the bound.
4. Whether a reservation is paid for is settled under the latch (`writing`); it is given no debts after that.
   What somebody is about to overwrite can be evicted all the same as long as that one waits itself: it owes
   for the new room from then on. And who finds nothing to evict takes the room of others who wait. So of
   those who wait for room one can always go on.
5. A transaction makes its evictions when it is committed, all at once, so till then they are promised only.
   One that holds no mutex must not hold up others: they may evict what it has written or is going to evict,
   which is a conflict when it is committed.
6. What others put into the store past the cache, and what an exclusive transaction has to write when all that
   could go is being written by those who wait for it, is evicted after it: one entry at the most.
   There is one such transaction at a time, and the next evicts what is too much of the one before, or if it
   cannot, keeps nothing itself. An optimistic one conflicts instead.
   In caches of fewer entries than there are threads that write in transactions it has been two, seldom.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from latchstore.arguments import describe
from latchstore.cache.policies import EvictionPolicy, Node


class Facts(NamedTuple):
    """What the store has of one key, as far as a cache wants to know.

    Attributes
    ----------
    revision : int
    weight : int
        In bytes.
    deadline, refresh : float or None
        In seconds of the cache's clock.
    idle : float or None
        In seconds.
    """

    revision: int
    weight: int
    deadline: float | None
    idle: float | None
    refresh: float | None


class Reservation:
    """Room for one entry that is about to be written.

    Attributes
    ----------
    key : str or None
        None for room that is to be made for nothing.
    entries, weight : int
        What it adds to what there is: no entry, if it replaces one.
    full_weight : int
        What the entry will weigh.
    owed_entries, owed_weight : int
        What is to be evicted before it is written.
    promised_entries, promised_weight : int
        What is going to be, when the transaction that it is in is committed.
    successor : Reservation or None
        Which has taken it over, with what it owes.
    chosen : sequence of Node
        What was to be evicted for it.
    owner : object or None
        What those of one transaction have in common; None outside.
    writing : bool
        Whether all is paid, so that it is written as soon as possible; in a transaction, when that ends.
    doubted : Node or None
        Of which readers do not believe that it lasts, until the write has been settled.
    """

    # What most are to their end; so that making one takes half as long (0.3 us).
    entries = weight = 0  # until it is noted
    owed_entries = owed_weight = 0
    promised_entries = promised_weight = 0
    successor: Reservation | None = None
    chosen: Sequence[Node] = ()
    owner: object | None = None
    writing = False
    doubted: Node | None = None

    def __init__(self, key: str | None, weight: int) -> None:
        self.key = key
        self.full_weight = weight

    @property
    def owes(self) -> bool:
        """Whether something is yet to be evicted."""
        return self.owed_entries > self.promised_entries or self.owed_weight > self.promised_weight


class Ledger:
    """What a cache knows of its store.

    Parameters
    ----------
    nodes : dict
        Where the nodes are to be, by key; empty.
    policy : EvictionPolicy
    max_entries, max_bytes : int or None
        The bound.

    Attributes
    ----------
    nodes : dict
    policy : EvictionPolicy
    stamp : int
        How often something was settled.
    evictions : dict
        How many keys were evicted, by cause.
    """

    def __init__(
        self,
        nodes: dict[str, Node],
        policy: EvictionPolicy,
        max_entries: int | None,
        max_bytes: int | None,
    ) -> None:
        self._max_entries = sys.maxsize if max_entries is None else max_entries
        self._max_bytes = sys.maxsize if max_bytes is None else max_bytes
        self.nodes = nodes
        self.stamp = 0
        self.evictions = {"size": 0, "expired": 0, "idle": 0}
        self.renew(policy)

    def renew(self, policy: EvictionPolicy) -> None:
        """Begin with nothing, and a policy that knows of nothing."""
        self.policy = policy
        self.nodes.clear()
        self._node_weight = 0
        self._reserved: dict[str | None, list[Reservation]] = {}
        self._reserved_entries = self._reserved_weight = 0
        self._owed_entries = self._owed_weight = 0
        # What open transactions are going to evict, and for which reservation.
        self._promised: dict[Node, Reservation] = {}
        # When which key is to be looked at, the earliest first; those that were set again are passed over.
        self._due: list[tuple[float, int, Node]] = []
        self._numbers = itertools.count()

    def is_reserved(self, key: str) -> bool:
        """Tell whether somebody is writing a key, who will settle it; asked without the latch, too."""
        return key in self._reserved

    def is_alone(self, reservation: Reservation) -> bool:
        """Tell whether nobody else is writing, or about to."""
        return all(other is reservation for several in self._reserved.values() for other in several)

    @property
    def weight(self) -> int:
        """What all entries weigh, in bytes."""
        return self._node_weight

    # -- room -------------------------------------------------------------------------------------

    def reserve(self, reservation: Reservation) -> Node | None:
        """Note a reservation and what it owes; return the first node to be evicted for it, or None."""
        self._enter(reservation)
        return self.choose(reservation)

    def _enter(self, reservation: Reservation) -> None:
        others = self._reserved.get(reservation.key)
        if others is None:
            self._reserved[reservation.key] = [reservation]
        else:
            others.append(reservation)
        self._claim_room(reservation)

    def _change(
        self, reservation: Reservation, entries: int, weight: int, owed_entries: int, owed_weight: int
    ) -> None:
        """Change what a reservation reserves and owes, and the sums with it."""
        old = reservation
        self._reserved_entries += entries - old.entries
        self._reserved_weight += weight - old.weight
        if owed_entries or owed_weight or old.owed_entries or old.owed_weight:
            self._owed_entries += min(entries, owed_entries) - min(old.entries, old.owed_entries)
            self._owed_weight += min(weight, owed_weight) - min(old.weight, old.owed_weight)
            reservation.owed_entries, reservation.owed_weight = owed_entries, owed_weight
        reservation.entries, reservation.weight = entries, weight

    def _claim_room(self, reservation: Reservation) -> None:
        """Note what a reservation reserves and owes."""
        key = reservation.key
        if key is None:
            self._claim_excess(reservation)
            return
        node = self.nodes.get(key)
        entries, weight = 1, reservation.full_weight
        if node is not None and node.leaving is None:
            entries, weight = 0, max(0, weight - node.weight)
        others, weight_of_others = self._taken_by_others(reservation)
        more, heavier = others + entries - self._max_entries, weight_of_others + weight - self._max_bytes
        self._change(reservation, entries, weight, max(0, more), max(0, heavier))

    def _taken_by_others(self, reservation: Reservation) -> tuple[int, int]:
        """Return T - D (rule 3) without a reservation: entries, and their weight."""
        entries = len(self.nodes) + self._reserved_entries - self._owed_entries - reservation.entries
        weight = self._node_weight + self._reserved_weight - self._owed_weight - reservation.weight
        if reservation.owed_entries or reservation.owed_weight:
            entries += min(reservation.entries, reservation.owed_entries)
            weight += min(reservation.weight, reservation.owed_weight)
        return entries, weight

    def _claim_excess(self, reservation: Reservation) -> None:
        """Have a reservation owe what is there too much, and nobody is about to evict."""
        self._change(reservation, 0, 0, 0, 0)
        trimming = self._reserved[None]
        entries = len(self.nodes) - self._max_entries - sum(other.owed_entries for other in trimming)
        weight = self._node_weight - self._max_bytes - sum(other.owed_weight for other in trimming)
        self._change(reservation, 0, 0, max(0, entries), max(0, weight))

    def _claim_again(self, reservation: Reservation) -> None:
        """Have one that waits owe what it has to now."""
        self._claim_room(reservation)
        self._note_paid(reservation)

    def _note_paid(self, reservation: Reservation) -> None:
        if not reservation.owes:
            reservation.writing = True

    @property
    def is_over(self) -> bool:
        """Whether more is there than there may be."""
        return len(self.nodes) > self._max_entries or self._node_weight > self._max_bytes

    def _owe(self, reservation: Reservation, entries: int, weight: int) -> None:
        """Have a reservation owe more, or less."""
        self._change(
            reservation,
            reservation.entries,
            reservation.weight,
            reservation.owed_entries + entries,
            reservation.owed_weight + weight,
        )

    def choose(self, reservation: Reservation) -> Node | None:
        """Return the node to be evicted next for a reservation; None if all is paid, or all are in use."""
        if reservation.writing or not reservation.owes:
            reservation.writing = True
            return None
        in_use: list[Node] = []
        looked_at = 0
        try:
            while (node := self.policy.choose()) is not None:
                looked_at += 1
                self._check_choice(node, looked_at)
                if self.nodes.get(node.key) is not node:
                    continue  # it has gone
                if self._may_go(node, reservation):
                    self._take(node, reservation)
                    return node
                in_use.append(node)
        finally:
            for other in in_use:
                self.policy.add(other)
        # What others are about to evict: in a transaction that may end much later, or after this one.
        leaving = self._promised if reservation.owner is None else self.nodes.values()
        for other in leaving:
            by = other.leaving
            if by is not None and by.owner is not reservation.owner and self._may_go(other, reservation):
                self._promised.pop(other, None)
                self._take(other, reservation)
                return other
        if reservation.owner is None:
            self._claim_again(reservation)  # others may have left room since
            if not reservation.writing:
                self._take_room_of_waiting(reservation)
        return None

    def _check_choice(self, node: object, looked_at: int) -> None:
        """Raise TypeError or RuntimeError if a policy of the user's own chooses what it cannot."""
        if not isinstance(node, Node):
            raise TypeError(f"choose() of the policy must return a node or None, got {describe(node)}")
        if looked_at > 100 + 2 * len(self.nodes):
            raise RuntimeError(
                f"choose() of the policy must take nodes out: {node.key!r} comes again and again"
            )

    def _take_room_of_waiting(self, reservation: Reservation) -> None:
        """Take room that others have who wait for more: each might have a part, and wait for the others'."""
        waiting = [other for several in self._reserved.values() for other in several if not other.writing]
        for other in waiting:
            if other is not reservation and other.owner is None:
                entries = min(reservation.owed_entries, max(0, other.entries - other.owed_entries))
                weight = min(reservation.owed_weight, max(0, other.weight - other.owed_weight))
                self._owe(other, entries, weight)
                self._owe(reservation, -entries, -weight)
        self._note_paid(reservation)

    def _may_go(self, node: Node, reservation: Reservation) -> bool:
        """Tell whether nobody is just writing the key, unless in a transaction of somebody else's."""
        writing = self._reserved.get(node.key)
        if not writing:
            return True
        owner = reservation.owner
        return node.key != reservation.key and not any(
            (other.writing and other.owner is None) or (owner is not None and other.owner is owner)
            for other in writing
        )

    def _take(self, node: Node, reservation: Reservation) -> None:
        node.leaving = reservation
        reservation.chosen = [*reservation.chosen, node]
        writing = self._reserved.get(node.key)
        if writing:
            # One who waits to replace it will need room of its own, and owes for that.
            first = self._reserve_for_one(writing)
            if first is not None:
                self._owe(first, 1, node.weight)

    def choose_more(self, reservation: Reservation, count: int) -> list[Node]:
        """Return up to `count` nodes that may go as well."""
        chosen = (self.choose(reservation) for _ in range(count))
        return [node for node in chosen if node is not None]

    def replace(self, reservation: Reservation, other: Reservation) -> None:
        """Have a reservation take over the room of another one, whose entry is given up, and what it owes."""
        entries, weight = other.entries, other.weight
        owed_entries, owed_weight = other.owed_entries, other.owed_weight
        other.successor = reservation
        self.release(other)
        reservation.promised_entries += other.promised_entries
        reservation.promised_weight += other.promised_weight
        self._owe(
            reservation,
            owed_entries - min(entries, reservation.owed_entries),
            owed_weight - min(weight, reservation.owed_weight),
        )
        self._note_paid(reservation)

    def unsettled_of_others(self, reservation: Reservation) -> list[Reservation]:
        """Return what other transactions have written, or are going to, of which there is no node yet."""
        return [
            other
            for key, several in self._reserved.items()
            if key not in self.nodes
            for other in several
            if other.owner not in (None, reservation.owner)
        ]

    def forgive_one(self, reservation: Reservation) -> bool:
        """Forgive a reservation what it owes, which is evicted after it; unless there is too much already."""
        entries, weight = self._taken_by_others(reservation)
        if entries > self._max_entries or weight > self._max_bytes:
            return False
        self.forgive(reservation)
        return True

    def forgive(self, reservation: Reservation) -> None:
        """Note that what is owed yet will not be paid before the write."""
        reservation.writing = True
        self._owe(
            reservation,
            min(0, reservation.promised_entries - reservation.owed_entries),
            min(0, reservation.promised_weight - reservation.owed_weight),
        )

    def reserve_again(self, reservation: Reservation, taker: Reservation) -> None:
        """Note a reservation for what a savepoint has brought back; it has its room back from the taker."""
        self._enter(reservation)
        self.replace(reservation, self._last(taker))
        self.forgive(reservation)

    def succeed(self, reservation: Reservation, earlier: Reservation) -> None:
        """Have a new reservation take the place of an earlier one of the same key and transaction."""
        reservation.full_weight = max(reservation.full_weight, earlier.full_weight)
        if earlier.successor is not None:
            return  # what it had was given back with a savepoint
        earlier.successor = reservation
        self.release(earlier)
        reservation.promised_entries += earlier.promised_entries
        reservation.promised_weight += earlier.promised_weight

    def break_promise(self, reservation: Reservation, node: Node) -> None:
        """Note that an eviction was taken back with the block that it was made in."""
        self._withdraw(reservation, node)
        self.not_evicted(reservation, node)

    def withdraw(self, reservation: Reservation, node: Node) -> None:
        """Note that a promise cannot be kept: the entry is another one by now. Not to be chosen again."""
        self._withdraw(reservation, node)
        reservation.writing = not reservation.owes

    def _withdraw(self, reservation: Reservation, node: Node) -> None:
        if self._promised.get(node) is reservation:
            del self._promised[node]
        if reservation in node.promisers:
            node.promisers = [other for other in node.promisers if other is not reservation]
            self._promise_less(self._last(reservation), node.weight)

    def _promise_less(self, reservation: Reservation, weight: int) -> None:
        reservation.promised_entries = max(0, reservation.promised_entries - 1)
        reservation.promised_weight = max(0, reservation.promised_weight - weight)

    def _last(self, reservation: Reservation) -> Reservation:
        """Return what has taken over a reservation, with what it owes; itself, if nothing has."""
        while reservation.successor is not None:
            reservation = reservation.successor
        return reservation

    def promise_unsettled(self, reservation: Reservation, other: Reservation) -> None:
        """As `promise`, for what another transaction has written."""
        self._promise_more(reservation, other.full_weight)

    def _promise_more(self, reservation: Reservation, weight: int) -> None:
        reservation.promised_entries += 1
        reservation.promised_weight += weight
        self._note_paid(reservation)

    def promise(self, reservation: Reservation, node: Node) -> bool:
        """Note that a node goes when the reservation's transaction is committed.

        False if it is not to go for this reservation any more: somebody has settled it, or takes it.
        """
        if node.leaving is not reservation:
            return False
        self._promised[node] = reservation
        node.promisers = [*node.promisers, reservation]
        self._promise_more(reservation, node.weight)
        return True

    def doubt(self, reservation: Reservation) -> None:
        """Have readers ask the store: what is about to be written may expire before it is noted."""
        node = self.nodes.get(reservation.key or "")
        if node is not None and reservation.doubted is None:
            reservation.doubted = node
            node.doubts += 1
            node.note_timed()

    def release(self, reservation: Reservation) -> None:
        """Forget a reservation; may be done twice."""
        node = reservation.doubted
        if node is not None:
            reservation.doubted = None
            node.doubts -= 1
            node.note_timed()
        others = self._reserved.get(reservation.key)
        if others is None or reservation not in others:
            return
        others.remove(reservation)
        self._change(reservation, 0, 0, 0, 0)
        if not others:
            del self._reserved[reservation.key]
        elif reservation.key is not None and reservation.key not in self.nodes:
            self._reserve_for_one(others)
        if reservation.successor is None:
            for node in reservation.chosen:
                self.not_evicted(reservation, node)

    def not_evicted(self, reservation: Reservation, node: Node) -> None:
        """Note that a node was not evicted for a reservation that it was chosen for."""
        if node.leaving is reservation:
            self._stay(node)

    def stay_all(self, nodes: Iterable[Node]) -> None:
        """Note that nodes were not evicted that may have been chosen to be."""
        for node in nodes:
            if node.leaving is not None:
                self._stay(node)

    def _stay(self, node: Node) -> None:
        node.leaving = None
        self._promised.pop(node, None)
        if self.nodes.get(node.key) is node:
            self.policy.add(node)

    # -- what is there ----------------------------------------------------------------------------

    def settle(
        self,
        key: str,
        facts: Facts | None,
        stamp: int,
        now: float,
        reservation: Reservation | None = None,
        cause: str | None = None,
        block: object | None = None,
    ) -> bool:
        """Note what the store has of a key; False if something was settled since `stamp`: read it again.

        Parameters
        ----------
        key : str
        facts : Facts or None
            None if the store does not have it.
        stamp : int
            The ledger's, from before the store was asked.
        now : float
            In seconds of the cache's clock, if the entry goes when it is idle.
        reservation : Reservation, optional
            Is released: what it was for is written, or will not be.
        cause : str, optional
            Why the key was evicted, if it was.
        block : object, optional
            The owner of the reservation for which it was, if a transaction has evicted it.
        """
        if stamp != self.stamp:
            return False
        self.stamp += 1
        if cause is not None:
            self._count(cause)
        node = self.nodes.get(key)
        if facts is None:
            if node is not None:
                self._remove(node)
        elif node is None:
            self._add(Node(key), facts, now)
        else:
            if node.revision != facts.revision or not facts.revision:
                self._keep_promises(node)
                self._node_weight += facts.weight - node.weight
                self._note(node, facts, now)
            promised = self._promised.get(node)
            if node.leaving is not None and (promised is None or promised.owner is block):
                self._stay(node)
            if node.timed and node.expected is None:
                self._expect_again(node)  # it was swept in a transaction that was rolled back
        if reservation is not None:
            self.release(reservation)
        if key in self._reserved:
            for waiting in self._reserved[key]:
                if not waiting.writing:
                    self._claim_again(waiting)
        return True

    def note_eviction(self, node: Node, revision: int, cause: str, reservation: Reservation) -> Node | None:
        """As `note_evictions`, of one that was evicted for a reservation; return which is to go next."""
        self.stamp += 1
        self._note_gone(node, revision, cause, reservation)
        return self.choose(reservation)

    def note_evictions(self, evicted: list[tuple[Node, int, str]]) -> None:
        """Note that entries were evicted that had these revisions: there is no need to ask the store.

        What was set since, whoever did that settles. Who has read it before that must read it again.

        Parameters
        ----------
        evicted : list of Node, int and str
            Each with its revision and the cause.
        """
        self.stamp += 1
        for node, revision, cause in evicted:
            self._note_gone(node, revision, cause, node.leaving)

    def _note_gone(self, node: Node, revision: int, cause: str, evicted_for: Reservation | None) -> None:
        self._count(cause)
        if self.nodes.get(node.key) is node:
            if node.revision == revision:
                self._remove(node, evicted_for)
            elif node.leaving is not None:
                self._stay(node)  # it was set again since

    def _count(self, cause: str) -> None:
        self.evictions[cause] = self.evictions.get(cause, 0) + 1

    def _add(self, node: Node, facts: Facts, now: float) -> None:
        self._note(node, facts, now)
        self._node_weight += node.weight
        self.nodes[node.key] = node
        self.policy.add(node)

    def _note(self, node: Node, facts: Facts, now: float) -> None:
        revision, node.weight, node.deadline, node.idle, node.refresh = facts
        node.note_timed()
        if node.timed:
            node.used = now
            self._expect_again(node)
        node.revision = revision  # the last: if it is here, all that it says is

    def _remove(self, node: Node, evicted_for: Reservation | None = None) -> None:
        """Note that a node has gone, and whose debt that pays.

        If it had been promised, that of the transactions which did so: one of them is committed, or they will
        conflict. Who was just about to evict it finds nothing, and still owes.
        """
        del self.nodes[node.key]
        self._node_weight -= node.weight
        self.policy.remove(node)
        if evicted_for is None and not node.promisers:
            evicted_for = node.leaving
        node.leaving = None
        self._keep_promises(node)
        if evicted_for is not None:
            self._pay(self._last(evicted_for), node.weight)
        if self._promised:
            self._promised.pop(node, None)
        writing = self._reserved.get(node.key)
        if writing:
            self._reserve_for_one(writing)

    def _keep_promises(self, node: Node) -> None:
        """Note that what was promised has come true, or cannot any more."""
        if node.promisers:
            promisers, node.promisers = node.promisers, ()
            for promiser in promisers:
                last = self._last(promiser)
                self._promise_less(last, node.weight)
                self._pay(last, node.weight)

    def _pay(self, reservation: Reservation, weight: int) -> None:
        self._owe(reservation, -min(1, reservation.owed_entries), -min(weight, reservation.owed_weight))
        self._note_paid(reservation)

    def _reserve_for_one(self, writing: list[Reservation]) -> Reservation | None:
        """Have one of those who were about to replace an entry have room for it; return it, if none had.

        The room of a transaction does not count for those who are in none: it may end much later.
        """
        writing = [reservation for reservation in writing if reservation.owner is None] or writing
        if any(reservation.entries for reservation in writing):
            return None
        first = writing[0]
        self._change(first, 1, first.full_weight, first.owed_entries, first.owed_weight)
        return first

    # -- time -------------------------------------------------------------------------------------

    def _expect(self, node: Node, time: float) -> None:
        """Have a node looked at, at that time at the latest."""
        if node.expected is not None and node.expected <= time:
            return  # it is looked at before, and then again
        node.expected = time
        if len(self._due) > 64 + 2 * len(self.nodes):
            # Most are of what has gone: keep those that are still meant.
            self._due = [item for item in self._due if self._is_meant(item[2], item[0])]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (time, next(self._numbers), node))

    def _expect_again(self, node: Node) -> None:
        """Have a node looked at when its time may be over."""
        if node.deadline is not None:
            self._expect(node, node.deadline)
        if node.idle is not None:
            self._expect(node, node.used + node.idle)

    def _is_meant(self, node: Node, time: float) -> bool:
        return node.expected == time and self.nodes.get(node.key) is node

    @property
    def next_due(self) -> float | None:
        """When something has to be looked at next, in seconds of the cache's clock."""
        due = self._due
        try:
            return due[0][0] if due else None
        except IndexError:
            return None  # asked for without the latch

    def take_due(self, now: float, limit: int, taken: list[tuple[Node, str]]) -> None:
        """Add nodes to `taken` whose time is over, each with the cause; `put_back` must follow if they stay.

        They are noted before they are taken from the heap, so that none is lost if that is broken off.
        """
        while self._due and self._due[0][0] <= now and len(taken) < limit:
            time, _, node = self._due[0]
            if not self._is_meant(node, time):
                heapq.heappop(self._due)
                continue
            if node.deadline is not None and node.deadline <= now:
                taken.append((node, "expired"))
            elif node.idle is not None and node.used + node.idle <= now:
                taken.append((node, "idle"))
            heapq.heappop(self._due)
            node.expected = None
            if not taken or taken[-1][0] is not node:
                self._expect_again(node)  # it was set again, or used, since

    def put_back(self, taken: list[tuple[Node, str]], time: float) -> None:
        """Have nodes that could not be evicted looked at again."""
        for node, _ in taken:
            if self.nodes.get(node.key) is node:
                node.expected = None
                self._expect(node, time)

    def mend(self, policy: EvictionPolicy) -> None:
        """Make the sums, the policy and the times anew: something has struck in the middle of a change.

        Reservations stand, as those that they are of are at work. What the store has is to be asked after it.
        """
        reserved = [reservation for several in self._reserved.values() for reservation in several]
        self._reserved = {}
        for reservation in reserved:
            self._reserved.setdefault(reservation.key, []).append(reservation)
        self._reserved_entries = sum(reservation.entries for reservation in reserved)
        self._reserved_weight = sum(reservation.weight for reservation in reserved)
        self._owed_entries = sum(min(each.entries, each.owed_entries) for each in reserved)
        self._owed_weight = sum(min(each.weight, each.owed_weight) for each in reserved)
        self._node_weight = sum(node.weight for node in self.nodes.values())
        self.policy = policy
        self._promised = {}
        self._due = []
        for node in self.nodes.values():
            node.forget_places()
            node.promisers = ()
            node.doubts = sum(reservation.doubted is node for reservation in reserved)
            node.note_timed()
            if node.leaving not in reserved:
                node.leaving = None
                policy.add(node)
            self._expect_again(node)

    # -- checks -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; for tests, while nobody writes."""
        assert self._node_weight == sum(node.weight for node in self.nodes.values())
        assert not self._reserved, self._reserved
        assert (self._reserved_entries, self._reserved_weight) == (0, 0)
        assert (self._owed_entries, self._owed_weight) == (0, 0)
        assert all(node.leaving is None for node in self.nodes.values())
        assert not self.is_over
