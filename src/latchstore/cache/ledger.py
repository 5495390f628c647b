"""The books of a cache: what is in the store, what is about to be put there, and when what has to go.

Thread safety:

1. Everything here is called under one latch (`Latch.during`), which no user code, no store and no other lock
   is used under, a policy of the user's own apart. Without it are read: `nodes`, one at a time, the
   attributes of a node, how often something was settled, and whether somebody is writing a key. Who waits
   says so in `waiting` without it, by one operation of a dict.
2. `settle` is what makes the books true: whoever has written a key reads what the store has of it then, and
   notes that. Of two writers of a key the one that reads last notes last: what was read before
   another one's noting is refused (`stamp_of`), and read again.
3. The bound holds at each commit because room is claimed before a write. Let T be the weight of all nodes
   and of all claims. What the store has is at most T, as a claim stands until its write has been settled; and
   a claim is only made if T stays within the bound with it. There are two kinds:

   a. `Reservation`: of a thread that writes one key outside transactions. It evicts nothing: if there is no
      room for it, the key is written in a transaction.
   b. `Room`: of an open transaction; what it adds to the nodes, less what it takes away, when it is
      committed. That may be nothing, so it can be made however full the store is. Others have to reckon with
      its not being committed, and with the most that it was after any of its operations, as a savepoint may
      bring back what was deleted.

4. Of exclusive transactions there is one at a time, and nobody else commits meanwhile: so who evicts in one
   need not reckon with others who evict. An optimistic one conflicts if what it evicts has gone by then. What
   one finds gone that another has evicted is not taken away twice.
5. What somebody else is about to overwrite is no use: evicted, it would be put there again. So it can happen
   that there is nothing to evict. Who is in no transaction waits until they have written; an optimistic
   one conflicts; an exclusive one writes, and what is too much is evicted after it: one entry at the most, of
   all of them together. If there is too much already, it keeps nothing.
6. What others put into the store past the cache is evicted after it, too.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from typing import NamedTuple

from latchstore.cache.policies import EvictionPolicy, Node
from latchstore.contract.arguments import describe

#: Of how many groups of keys it is known when one of them was settled last.
_STAMPS = 256


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
    """A claim to room for one entry that is about to be written, outside transactions.

    Attributes
    ----------
    key : str
    weight : int
        What the entry will weigh, in bytes.
    doubted : Node or None
        Of which readers do not believe that it lasts, until the write has been settled.
    """

    __slots__ = ("doubted", "key", "weight")

    def __init__(self, key: str, weight: int) -> None:
        self.key = key
        self.weight = weight
        self.doubted: Node | None = None


class Room:
    """What an open transaction changes, as far as room goes.

    Attributes
    ----------
    now : dict
        Key to what its entry weighs in the transaction, or None, of those that it has written or evicted.
    entries, weight : int
        What is more than in the nodes when it is committed.
    most_entries, most_weight : int
        The most that this was after any operation, or 0.
    optimistic : bool
        Whether it may be open for long while others commit.
    base : dict
        What of each key is in the nodes, or None.
    causes : dict
        Why keys were evicted in it that were there before.
    committed : bool
        Whether it has ended, and so.
    gone : dict
        The revisions of those that were evicted in it.
    taken : list of Node
        Those that were chosen to be.
    doubted : dict
        Nodes by key, as in `Reservation`.
    seen : dict
        The revisions of those entries of `now` of which it is known, for optimistic ones.
    conflicts : bool
        Whether it will not be committed, as another transaction has evicted one of these.
    fits : bool
        Whether the bound held when it was last asked for what is to be evicted.
    may_fit_soon : bool
        Whether it did not while others were writing, or had not settled what they have written.
    """

    __slots__ = (
        "base",
        "causes",
        "committed",
        "conflicts",
        "doubted",
        "entries",
        "fits",
        "gone",
        "may_fit_soon",
        "most_entries",
        "most_weight",
        "now",
        "optimistic",
        "seen",
        "taken",
        "weight",
    )

    def __init__(self) -> None:
        self.now: dict[str, int | None] = {}
        self.base: dict[str, int | None] = {}
        self.entries = self.weight = self.most_entries = self.most_weight = 0
        self.causes: dict[str, str] = {}
        self.gone: dict[str, int] = {}
        self.taken: list[Node] = []
        self.doubted: dict[str, Node] = {}
        self.fits = True
        self.may_fit_soon = False
        self.optimistic = False
        self.committed = False
        self.seen: dict[str, int] = {}
        self.conflicts = False

    def add(self, entries: int, weight: int) -> None:
        """Change what is more than in the nodes."""
        self.entries += entries
        self.weight += weight

    def note_most(self) -> None:
        """Note that an operation is about to be done for which there is room."""
        self.most_entries = max(self.most_entries, self.entries)
        self.most_weight = max(self.most_weight, self.weight)


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
    settled : int
        How often something was settled.
    evictions : dict
        How many keys were evicted, by cause.
    waiting : dict
        Those who wait for room; meanwhile there are no reservations, as who has one could always be quicker.
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
        self.settled = 0
        self._stamps = [0] * _STAMPS
        self.evictions = {"size": 0, "expired": 0, "idle": 0}
        self.renew(policy)

    def renew(self, policy: EvictionPolicy) -> None:
        """Begin with nothing, and a policy that knows of nothing."""
        self.policy = policy
        self.nodes.clear()
        self._node_weight = 0
        self.waiting: dict[object, None] = {}
        # Who writes a key, and what is claimed for it: entries and their weight.
        self._writers: dict[str, list[Reservation]] = {}
        self._claims: dict[str, tuple[int, int]] = {}
        self._claimed_entries = self._claimed_weight = 0
        self._rooms: dict[Room, None] = {}
        # When which key is to be looked at, the earliest first; those that were set again are passed over.
        self._due: list[tuple[float, int, Node]] = []
        self._numbers = itertools.count()

    def is_being_written(self, key: str) -> bool:
        """Tell whether somebody is writing a key, who will settle it; asked without the latch, too."""
        return key in self._writers or any(key in room.now for room in list(self._rooms))

    @property
    def weight(self) -> int:
        """What all entries weigh, in bytes."""
        return self._node_weight

    @property
    def is_over(self) -> bool:
        """Whether more is there than there may be."""
        return len(self.nodes) > self._max_entries or self._node_weight > self._max_bytes

    # -- room outside transactions ----------------------------------------------------------------

    def reserve(self, reservation: Reservation, doubt: bool) -> bool:
        """Claim room for a reservation, if there is any; return whether there is.

        Parameters
        ----------
        reservation : Reservation
        doubt : bool
            Whether readers have to ask the store until it is settled: what is about to be written may expire
            before it is noted.
        """
        key = reservation.key
        if self.waiting:
            return False
        writers = self._writers.get(key)
        if writers is None:
            self._writers[key] = [reservation]
        else:
            writers.append(reservation)
        more, heavier = self._claim(key)
        if (more > 0 or heavier > 0) and not self._holds(0, 0):
            self.release(reservation)
            return False
        node = self.nodes.get(key)
        if doubt and node is not None:
            reservation.doubted = node
            self._doubt(node, 1)
        return True

    def _claim(self, key: str) -> tuple[int, int]:
        """Claim what is needed by those who write a key; return by how much that is more than before.

        However many they are, there will be one entry at a time, of which the heaviest counts. One that is
        going to be evicted is there till then, and not after it.
        """
        old_entries, old_weight = self._claims.get(key, (0, 0))
        entries = weight = 0
        writers = self._writers.get(key)
        if writers:
            node = self.nodes.get(key)
            entries, weight = 1, writers[0].weight
            if len(writers) > 1:
                weight = max(reservation.weight for reservation in writers)
            if node is not None and node.leaving is None:
                entries, weight = 0, max(0, weight - node.weight)
            self._claims[key] = entries, weight
        else:
            self._claims.pop(key, None)
        more, heavier = entries - old_entries, weight - old_weight
        self._claimed_entries += more
        self._claimed_weight += heavier
        return more, heavier

    def release(self, reservation: Reservation) -> None:
        """Forget a reservation; may be done twice."""
        node = reservation.doubted
        if node is not None:
            reservation.doubted = None
            self._doubt(node, -1)
        key = reservation.key
        writers = self._writers.get(key)
        if writers is None or reservation not in writers:
            return
        if len(writers) == 1:
            del self._writers[key]
        else:
            writers.remove(reservation)
        self._claim(key)

    def _doubt(self, node: Node, more: int) -> None:
        node.doubts += more
        node.note_timed()

    def _holds(self, entries: int, weight: int, apart: Room | None = None) -> bool:
        """Tell whether T (rule 3) and so much more are within the bound; one room counts as it is now."""
        entries += len(self.nodes) + self._claimed_entries
        weight += self._node_weight + self._claimed_weight
        for room in self._rooms:
            if room is apart:
                entries += room.entries
                weight += room.weight
            elif not room.conflicts:
                entries += room.most_entries
                weight += room.most_weight
        return entries <= self._max_entries and weight <= self._max_bytes

    # -- room of transactions ---------------------------------------------------------------------

    def open(self, room: Room) -> None:
        """Reckon with what a transaction changes, until `close`."""
        self._rooms[room] = None

    def close(self, room: Room) -> None:
        """Forget a transaction of which all has been settled; may be done twice."""
        self._rooms.pop(room, None)
        for node in room.taken:
            if node.leaving is room:
                self._stay(node)
        for node in room.doubted.values():
            self._doubt(node, -1)
        room.doubted = {}

    def claim(
        self, room: Room, key: str, weight: int, doubt: bool, slack: int, seen: int | None, absent: bool
    ) -> Node | None:
        """Note that a transaction is about to set a key; return as `choose`.

        Parameters
        ----------
        room : Room
        key : str
        weight : int
        doubt : bool
            As of `reserve`.
        slack : int
            As of `choose`.
        seen : int or None
            The revision that an optimistic one has seen, if any.
        absent : bool
            As of `note`.
        """
        if seen:
            room.seen.setdefault(key, seen)
        self.note(room, key, weight, None, absent)
        node = self.nodes.get(key)
        if doubt and node is not None and key not in room.doubted:
            room.doubted[key] = node
            self._doubt(node, 1)
        return self.choose(room, key, slack)

    def note(
        self, room: Room, key: str, weight: int | None, cause: str | None = None, absent: bool = False
    ) -> None:
        """Note what an entry weighs in a transaction.

        Parameters
        ----------
        room : Room
        key : str
        weight : int or None
            None if it is deleted there, or evicted.
        cause : str, optional
            Why it is evicted.
        absent : bool
            Whether the transaction has found that it is not there, though it may be in the nodes: somebody
            has removed it who takes it away there.
        """
        node = self.nodes.get(key)
        if key in room.now:
            before = room.now.pop(key)
        else:
            before = room.base[key] = None if node is None or absent else node.weight
        room.now[key] = weight  # the last: what was set first goes first
        room.add((weight is not None) - (before is not None), (weight or 0) - (before or 0))
        room.causes.pop(key, None)
        if node is None:
            return
        if cause is not None:
            room.causes[key] = cause
        if weight is None:
            if node.leaving is None:
                self.policy.remove(node)
            self._leave(node, room)
        elif node.leaving is room:
            self._stay(node)

    def _leave(self, node: Node, room: Room) -> None:
        node.leaving = room
        room.taken.append(node)
        if node.key in self._writers:
            self._claim(node.key)  # they put it there again

    def note_evicted(self, room: Room, key: str, revision: int, cause: str) -> None:
        """Note that a transaction has evicted an entry of some revision."""
        self.note(room, key, None, cause)
        room.gone[key] = revision

    def choose(self, room: Room, key: str | None, slack: int = 0) -> Node | None:
        """Return what is to be evicted next in a transaction; None if there is nothing, or it need not be.

        Parameters
        ----------
        room : Room
            Its `fits` says which.
        key : str or None
            What it is for, and so does not go.
        slack : int
            How many entries more there is to be room for, if that can be.
        """
        room.fits = self._holds(0, 0, room)
        if room.fits:
            room.note_most()
            if slack == 0 or self._holds(slack, slack * (room.now.get(key or "") or 0), room):
                return None
        in_use: list[Node] = []
        try:
            node = self._choose_unused(room, key, in_use)
        finally:
            for other in in_use:
                self.policy.add(other)
        if node is not None or room.fits:
            return node
        room.may_fit_soon = bool(self._writers) or any(
            other is not room and not other.optimistic for other in self._rooms
        )
        return self._of_others(room, key)

    def _choose_unused(self, room: Room, key: str | None, in_use: list[Node]) -> Node | None:
        """Have an entry leave that nobody writes; those that somebody does are added to a list."""
        looked_at = 0
        while (node := self.policy.choose()) is not None:
            looked_at += 1
            self._check_choice(node, looked_at)
            if self.nodes.get(node.key) is not node:
                continue  # it has gone
            if node.key == key or node.key in room.now or node.key in self._writers:
                in_use.append(node)
                continue
            self._leave(node, room)
            return node
        return None

    def _of_others(self, room: Room, key: str | None) -> Node | None:
        """Return what an optimistic transaction is going to evict, which may end much later, or conflict."""
        for node in self.nodes.values():
            if (
                node.leaving not in (None, room)
                and node.leaving.optimistic
                and node.key != key
                and node.key not in room.now
                and node.key not in self._writers
            ):
                self._leave(node, room)
                return node
        return None

    def _check_choice(self, node: object, looked_at: int) -> None:
        """Raise TypeError or RuntimeError if a policy of the user's own chooses what it cannot."""
        if not isinstance(node, Node):
            raise TypeError(f"choose() of the policy must return a node or None, got {describe(node)}")
        if looked_at > 100 + 2 * len(self.nodes):
            raise RuntimeError(
                f"choose() of the policy must take nodes out: {node.key!r} comes again and again"
            )

    def may_exceed(self, room: Room, key: str) -> bool:
        """Tell whether what a transaction has set is all that is too much: rule 5."""
        weight = room.now.get(key)
        if weight is not None and not self._holds(-1, -weight, room):
            return False
        room.note_most()
        return True

    def _stay(self, node: Node) -> None:
        """Note that a node that was chosen to go does not, unless another transaction has evicted it."""
        key = node.key
        node.leaving = next((room for room in self._rooms if room.now.get(key, 0) is None), None)
        if node.leaving is None and self.nodes.get(key) is node:
            self.policy.add(node)
            self._claim(key)

    # -- what is there ----------------------------------------------------------------------------

    def stamp_of(self, key: str) -> int:
        """Return what `settle` is to be given, from before the store is asked; asked without the latch."""
        return self._stamps[hash(key) % _STAMPS]

    def settle(
        self,
        key: str,
        facts: Facts | None,
        stamp: int,
        now: float,
        reservation: Reservation | None = None,
        room: Room | None = None,
    ) -> bool:
        """Note what the store has of a key; False if it was settled since `stamp`: read it again.

        Parameters
        ----------
        key : str
        facts : Facts or None
            None if the store does not have it.
        stamp : int
            Of `stamp_of`.
        now : float
            In seconds of the cache's clock, if the entry goes when it is idle.
        reservation : Reservation, optional
            Is released: what it was for is written, or will not be.
        room : Room, optional
            Of a transaction that has ended; it has nothing to do with the key any more.
        """
        if stamp != self.stamp_of(key):
            return False
        self._note_settled(key)
        node = self.nodes.get(key)
        if room is not None:
            self._settle_in(room, key)
        if facts is None:
            if node is not None:
                self._remove(node)
        elif node is None:
            self._add(Node(key), facts, now)
        else:
            if node.revision != facts.revision or not facts.revision:
                self._change(key, 0, facts.weight - node.weight)
                self._note(node, facts, now)
            if room is not None and node.leaving is room:
                self._stay(node)
            if node.timed and node.expected is None:
                self._expect_again(node)  # it was swept in a transaction that was rolled back
        if reservation is not None:
            self.release(reservation)
        elif key in self._writers:
            self._claim(key)
        return True

    def _note_settled(self, key: str) -> None:
        self._stamps[hash(key) % _STAMPS] += 1
        self.settled += 1

    def settle_evicted(self, room: Room) -> None:
        """Settle what a transaction that is committed has evicted: there is no need to ask the store.

        What was set since, whoever did that settles. Who has read it before that must read it again.
        """
        for key, revision in room.gone.items():
            node = self.nodes.get(key)
            if node is not None and node.revision == revision > 0 and room.now.get(key, 0) is None:
                self._note_settled(key)
                self._settle_in(room, key)
                self._refuse_who_has_seen(key, revision)
                self._remove(node)
                if key in self._writers:
                    self._claim(key)

    def _settle_in(self, room: Room, key: str) -> None:
        """Have a transaction have nothing to do with a key any more."""
        if key in room.now:
            weight, base = room.now.pop(key), room.base.pop(key, None)
            room.add((base is not None) - (weight is not None), (base or 0) - (weight or 0))
            # What is left of it is certain by now.
            room.most_entries, room.most_weight = max(0, room.entries), max(0, room.weight)
        cause = room.causes.pop(key, None)
        if cause is not None and room.committed:
            self.evictions[cause] = self.evictions.get(cause, 0) + 1
        doubted = room.doubted.pop(key, None)
        if doubted is not None:
            self._doubt(doubted, -1)

    def _refuse_who_has_seen(self, key: str, revision: int) -> None:
        """Note that transactions will conflict that have seen what was evicted, and no other one since."""
        for room in self._rooms:
            if room.seen.get(key) == revision:
                room.conflicts = True

    def _change(self, key: str, entries: int, weight: int) -> None:
        """Note that the nodes are so many more; what open transactions change is so much less."""
        self._node_weight += weight
        for room in self._rooms:
            if key in room.now:
                self._change_in(room, key, entries, weight)
                room.note_most()

    def _change_in(self, room: Room, key: str, entries: int, weight: int) -> None:
        base = room.base.get(key)
        if room.now[key] is None:
            # It takes away no more what has gone, or what was set after it was evicted.
            if base is not None:
                room.base[key] = None
                room.add(1, base)
        elif base is not None:
            room.base[key] = base + weight if entries == 0 else None
            room.add(-entries, -weight)
        elif entries > 0:
            room.base[key] = weight
            room.add(-1, -weight)

    def _add(self, node: Node, facts: Facts, now: float) -> None:
        self._note(node, facts, now)
        self._change(node.key, 1, node.weight)
        self.nodes[node.key] = node
        self.policy.add(node)

    def _note(self, node: Node, facts: Facts, now: float) -> None:
        revision, node.weight, node.deadline, node.idle, node.refresh = facts
        node.note_timed()
        if node.timed:
            node.used = now
            self._expect_again(node)
        node.revision = revision  # the last: if it is here, all that it says is

    def _remove(self, node: Node) -> None:
        del self.nodes[node.key]
        self._change(node.key, -1, -node.weight)
        self.policy.remove(node)
        node.leaving = None

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

        Claims stand, as those that they are of are at work. What the store has is to be asked after it.
        """
        self.policy = policy
        self.waiting.clear()
        self._due = []
        self._node_weight = sum(node.weight for node in self.nodes.values())
        doubted = [reservation.doubted for writers in self._writers.values() for reservation in writers]
        for room in self._rooms:
            doubted += room.doubted.values()
            room.entries = room.weight = 0
            for key, weight in room.now.items():
                node = self.nodes.get(key)
                base = room.base[key] = None if node is None else node.weight
                room.add((weight is not None) - (base is not None), (weight or 0) - (base or 0))
            room.note_most()
        for node in self.nodes.values():
            node.forget_places()
            node.doubts = sum(other is node for other in doubted)
            node.note_timed()
            if node.leaving not in self._rooms:
                node.leaving = None
                policy.add(node)
            self._expect_again(node)
        self._writers = {key: writers for key, writers in self._writers.items() if writers}
        self._claims = {}
        self._claimed_entries = self._claimed_weight = 0
        for key in self._writers:
            self._claim(key)

    # -- checks -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; for tests, while nobody writes."""
        assert self._node_weight == sum(node.weight for node in self.nodes.values())
        assert not self._writers, self._writers
        assert not self._claims, self._claims
        assert not self._rooms, self._rooms
        assert not self.waiting
        assert (self._claimed_entries, self._claimed_weight) == (0, 0)
        assert all(node.leaving is None and not node.doubts for node in self.nodes.values())
        assert not self.is_over
