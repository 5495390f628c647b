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
   reservations, D what is owed. `reserve` keeps T - D within the bound, each eviction takes as much from T as
   from D (more from T, if the entry is heavier than what is owed), and a write turns a reservation that owes
   nothing into a node. What is in the store is at most T less the reservations that are not written, and
   those that owe something are not: so it is within the bound. What others put into the store past the cache,
   and what has to be written when all that could go is being written itself, is evicted after it.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from typing import NamedTuple

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
    """

    __slots__ = (
        "entries",
        "full_weight",
        "key",
        "owed_entries",
        "owed_weight",
        "promised_entries",
        "promised_weight",
        "successor",
        "weight",
    )

    def __init__(self, key: str | None, weight: int) -> None:
        self.key = key
        self.entries = 0 if key is None else 1
        self.weight = self.full_weight = weight
        self.owed_entries = self.owed_weight = 0
        self.promised_entries = self.promised_weight = 0
        self.successor: Reservation | None = None

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
        # When which key is to be looked at, the earliest first; those that were set again are passed over.
        self._due: list[tuple[float, int, Node]] = []
        self._numbers = itertools.count()

    @property
    def weight(self) -> int:
        """What all entries weigh, in bytes."""
        return self._node_weight

    # -- room -------------------------------------------------------------------------------------

    def reserve(self, reservation: Reservation) -> Node | None:
        """Note a reservation and what it owes; return the first node to be evicted for it, or None."""
        key = reservation.key
        node = None if key is None else self.nodes.get(key)
        if node is not None and node.leaving is None:
            reservation.entries = 0
            reservation.weight = max(0, reservation.weight - node.weight)
        self._reserved.setdefault(key, []).append(reservation)
        self._reserved_entries += reservation.entries
        self._reserved_weight += reservation.weight
        self._owe(reservation, self._entries_over(), self._weight_over())
        return self.choose(reservation) if reservation.owes else None

    def _entries_over(self) -> int:
        over = len(self.nodes) + self._reserved_entries - self._owed_entries - self._max_entries
        return over if over > 0 else 0

    def _weight_over(self) -> int:
        over = self._node_weight + self._reserved_weight - self._owed_weight - self._max_bytes
        return over if over > 0 else 0

    @property
    def is_over(self) -> bool:
        """Whether more is in the store than there may be, and nobody is about to evict it."""
        return bool(self._entries_over() or self._weight_over())

    def _owe(self, reservation: Reservation, entries: int, weight: int) -> None:
        reservation.owed_entries += entries
        reservation.owed_weight += weight
        self._owed_entries += entries
        self._owed_weight += weight

    def choose(self, reservation: Reservation) -> Node | None:
        """Return the node that is to be evicted next for a reservation; None if all are in use."""
        in_use = []
        try:
            while (node := self.policy.choose()) is not None:
                if node.key not in self._reserved:
                    node.leaving = reservation
                    return node
                in_use.append(node)  # somebody is just writing it
            return None
        finally:
            for other in in_use:
                self.policy.add(other)

    def choose_more(self, reservation: Reservation, count: int) -> list[Node]:
        """Return up to `count` nodes that may go as well."""
        chosen = (self.choose(reservation) for _ in range(count))
        return [node for node in chosen if node is not None]

    def replace(self, reservation: Reservation, other: Reservation) -> None:
        """Have a reservation take over the room of another one, whose entry is given up, and what it owes."""
        entries, weight = other.entries, other.weight
        owed_entries, owed_weight = other.owed_entries, other.owed_weight
        self.release(other)
        other.successor = reservation
        reservation.promised_entries += other.promised_entries
        reservation.promised_weight += other.promised_weight
        self._owe(
            reservation,
            owed_entries - min(entries, reservation.owed_entries),
            owed_weight - min(weight, reservation.owed_weight),
        )

    def promise(self, reservation: Reservation, node: Node) -> None:
        """Note that a node will have gone when the reservation's transaction is committed."""
        reservation.promised_entries += 1
        reservation.promised_weight += node.weight

    def release(self, reservation: Reservation) -> None:
        """Forget a reservation; may be done twice."""
        others = self._reserved.get(reservation.key)
        if others is None or reservation not in others:
            return
        others.remove(reservation)
        if not others:
            del self._reserved[reservation.key]
        self._reserved_entries -= reservation.entries
        self._reserved_weight -= reservation.weight
        self._owe(reservation, -reservation.owed_entries, -reservation.owed_weight)

    # -- what is there ----------------------------------------------------------------------------

    def settle(
        self,
        key: str,
        facts: Facts | None,
        stamp: int,
        now: float,
        reservation: Reservation | None = None,
        cause: str | None = None,
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
        """
        if stamp != self.stamp:
            return False
        self.stamp += 1
        if reservation is not None:
            self.release(reservation)
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
                self._node_weight += facts.weight - node.weight
                self._note(node, facts, now)
            if node.leaving is not None:
                node.leaving = None
                self.policy.add(node)
        return True

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
            self._count(cause)
            if node.revision == revision and self.nodes.get(node.key) is node:
                self._remove(node)

    def _count(self, cause: str) -> None:
        self.evictions[cause] = self.evictions.get(cause, 0) + 1

    def _add(self, node: Node, facts: Facts, now: float) -> None:
        self._note(node, facts, now)
        self._node_weight += node.weight
        self.nodes[node.key] = node
        self.policy.add(node)

    def _note(self, node: Node, facts: Facts, now: float) -> None:
        node.revision, node.weight, node.deadline, node.idle, node.refresh = facts
        node.timed = node.deadline is not None or node.idle is not None
        if node.deadline is not None:
            self._expect(node, node.deadline)
        if node.idle is not None:
            node.used = now
            self._expect(node, now + node.idle)

    def _remove(self, node: Node) -> None:
        del self.nodes[node.key]
        self._node_weight -= node.weight
        self.policy.remove(node)
        paid = node.leaving
        node.leaving = None
        while paid is not None and paid.successor is not None:
            paid = paid.successor
        if paid is not None:
            self._owe(paid, -min(1, paid.owed_entries), -min(node.weight, paid.owed_weight))
        overwriting = self._reserved.get(node.key)
        if overwriting and not overwriting[0].entries and overwriting[0].full_weight:
            # Somebody was about to replace it, and needs room of its own now.
            first = overwriting[0]
            self._reserved_entries += 1
            self._reserved_weight += first.full_weight - first.weight
            first.entries, first.weight = 1, first.full_weight

    # -- time -------------------------------------------------------------------------------------

    def _expect(self, node: Node, time: float) -> None:
        if len(self._due) > 64 + 2 * len(self.nodes):
            # Most are of what was set again: keep those that are still meant.
            self._due = [item for item in self._due if self._is_meant(item[2], item[0])]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (time, next(self._numbers), node))

    def _is_meant(self, node: Node, time: float) -> bool:
        return self.nodes.get(node.key) is node and (
            node.idle is not None or (node.deadline is not None and node.deadline <= time)
        )

    @property
    def next_due(self) -> float | None:
        """When something has to be looked at next, in seconds of the cache's clock."""
        return self._due[0][0] if self._due else None

    def take_due(self, now: float, limit: int) -> list[tuple[Node, str]]:
        """Return nodes whose time is over, each with the cause; `put_back` must follow if they stay."""
        taken: list[tuple[Node, str]] = []
        while self._due and self._due[0][0] <= now and len(taken) < limit:
            time, _, node = heapq.heappop(self._due)
            if self.nodes.get(node.key) is not node:
                continue
            if node.deadline is not None and node.deadline <= now:
                taken.append((node, "expired"))
            elif node.idle is not None:
                if node.used + node.idle <= now:
                    taken.append((node, "idle"))
                elif time < node.used + node.idle:
                    self._expect(node, node.used + node.idle)  # it was used since
        return taken

    def put_back(self, taken: list[tuple[Node, str]], time: float) -> None:
        """Have nodes that could not be evicted looked at again."""
        for node, _ in taken:
            if self.nodes.get(node.key) is node:
                self._expect(node, time)

    # -- checks -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; for tests, while nobody writes."""
        assert self._node_weight == sum(node.weight for node in self.nodes.values())
        assert not self._reserved, self._reserved
        assert (self._reserved_entries, self._reserved_weight) == (0, 0)
        assert (self._owed_entries, self._owed_weight) == (0, 0)
        assert all(node.leaving is None for node in self.nodes.values())
        assert not self.is_over
