"""Bounds: the limits of caches on a table, kept in each commit, and the expiry of entries.

A commit that would exceed a bound evicts in the same commit, where the totals are known: `Table` has each
bound make room before the commit is decided, and then record its changes.

Thread safety:

1. The books (`nodes`, the policy, the heap, the totals) are changed in sections of the table lock's writer,
   and need no lock of their own. Read without the lock are `nodes`, one at a time, and attributes of a node.
2. They are changed before the commit is decided, so that a user's policy that fails makes the commit fail.
   From the first change on they are `stale`, until the commit is finished (`finish`, which may be repeated).
   If an exception interrupts in between they stay stale, and the next thread that needs them rebuilds them
   from the entries, which are always right. So an interruption loses the order of eviction only.
3. A hit changes no book. It increments `hits` of the node; for a policy that receives every hit (`on_hit`) it
   appends the node to `hits`, by one call in C, and the next commit passes it to the policy.
4. The clock of a bound is user code, so caches call it outside the lock: a commit that has a time (`request`)
   evicts the entries that have expired by then.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from latchstore.contract.arguments import describe
from latchstore.contract.errors import EntryTooLargeError
from latchstore.contract.values import Entry
from latchstore.engine.deadlines import Deadlines
from latchstore.engine.edits import Edit, cause_of_edit
from latchstore.engine.entry_facts import OVERHEAD, Facts, facts_in
from latchstore.engine.limits import Limits, Node, Request

#: The most hits that wait for the next commit; the oldest are dropped.
_MANY_HITS = 4_096

#: The most expired entries that a commit of other changes evicts.
_SWEPT_BY_THE_WAY = 16


class Bound:
    """The books of one cache on a table.

    Parameters
    ----------
    limits : Limits

    Attributes
    ----------
    nodes : dict
        Nodes by key. Readers without a lock use it, so the dict is never replaced.
    hits : deque of Node
        Rule 3.
    notes_hits : bool
        Whether readers append nodes to `hits`.
    stale : bool
        Rule 2.
    closed : bool
        Whether the limits are off: the table drops the bound with its next commit.
    request : Request or None
        The request of the `check` of a commit, for that commit only.
    now : float or None
        The time that the check has read; the commit evicts some entries that have expired by then.
    evictions : dict
        The number of evictions by cause.
    retired_hits : int
        The hits of removed nodes.
    """

    __slots__ = (
        "_awaited",
        "_decided",
        "_max_bytes",
        "_max_entries",
        "_now",
        "_policy",
        "_prefix",
        "_request",
        "_weighed",
        "_weight",
        "_written",
        "closed",
        "deadlines",
        "evictions",
        "hits",
        "limits",
        "nodes",
        "notes_hits",
        "now",
        "request",
        "retired_hits",
        "stale",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits: Limits = limits
        self._prefix = limits.prefix
        # hot path: the keys that the witness waits for.
        self._awaited = limits.witness.awaited
        self._max_entries = sys.maxsize if limits.max_entries is None else limits.max_entries
        self._max_bytes: float = math.inf if limits.max_bytes is None else limits.max_bytes
        self.nodes: dict[str, Node] = {}
        self._policy = limits.make_policy()
        self.notes_hits: bool = self._policy.on_hit is not None
        self.hits: deque[Node] = deque(maxlen=_MANY_HITS)
        self._weight = 0
        self.deadlines: Deadlines = Deadlines(self.nodes, limits.idle)
        self.request: Request | None = None
        self.now: float | None = None
        # Those of the commit that is being decided.
        self._request: Request | None = None
        self._now: float | None = None
        self.evictions: dict[str, int] = {"size": 0, "expired": 0, "idle": 0}
        # The value of `evictions` once the commit is finished.
        self._decided = self.evictions
        self._written: list[str] = []
        # The facts of entries that the commit writes, which are used twice.
        self._weighed: dict[str, Facts] = {}
        self.retired_hits: int = 0
        self.stale: bool = True
        self.closed: bool = False

    # -- in a section of the writer, before a commit is decided -----------------------------------

    def begin(self, edits: Collection[tuple[str, Edit]]) -> None:
        """Begin a commit, after its `check`."""
        if self._weighed:
            self._weighed.clear()
        self._request, self.request = self.request, None
        self._now, self.now = self.now, None
        if self._awaited:
            self.limits.witness.note_written([key for key, edit in edits if cause_of_edit(edit) is None])

    def note_one(self, key: str, new: Entry | None) -> Sequence[str] | None:
        """Do the work of `make_room` and `note` for a simple commit of one key.

        Parameters
        ----------
        key : str
        new : Entry or None
            None if the key is deleted.

        Returns
        -------
        evicted : sequence of str, or None
            The keys to evict; None if the commit is not simple, and nothing was done.
        """
        # hot path: most commits are simple.
        now = self._now
        if self.stale or self.closed or self.hits or self._prefix:
            return None
        if now is not None and self.deadlines.first <= now:
            return None
        nodes = self.nodes
        node = nodes[key] if key in nodes else None
        if new is None:
            if node is None:
                return None
            self.stale = True
            self._written = [key]
            self._forget(node)
            return ()
        facts = None
        if new:
            facts = facts_in(key, new.size, new.revision, new, self.limits.idle)
            weight = self._weight + facts.weight
        else:
            weight = self._weight + self.weigh(key, new)
        evicted: Sequence[str] = ()
        if node is not None:
            if weight - node.weight > self._max_bytes:
                return None
            self.stale = True
        else:
            if facts is not None:
                self.weigh(key, new, facts)
            self.stale = True
            if len(nodes) >= self._max_entries or weight > self._max_bytes:
                evicted = self._make_room_for_one(weight)
            node = nodes[key] = Node(key)
            self._policy.add(node)
        self._written = [key]
        self._set(node, new, now, facts)
        return evicted

    def _make_room_for_one(self, weight: int) -> Sequence[str]:
        """Remove the nodes to evict for a new key, from a total of `weight`; return their keys."""
        nodes, choose = self.nodes, self._policy.choose
        evicted: list[str] = []
        while len(nodes) >= self._max_entries or weight > self._max_bytes:
            node = choose()
            if node is None:
                break  # the user's policy does not choose any of the entries
            if type(node) is not Node or node.key not in nodes:
                self._refuse(node)
            evicted.append(node.key)
            weight -= node.weight
            del nodes[node.key]
            self._weight -= node.weight
            self.retired_hits += node.hits
        self._decided = decided = self.evictions.copy()
        decided["size"] += len(evicted)
        return evicted

    def make_room(
        self,
        entries: dict[str, Entry],
        before: dict[str, Entry | None],
        after: dict[str, Entry],
        deleted: dict[str, str | None],
    ) -> None:
        """Add evictions to a commit, so that its result is within the limits.

        Parameters
        ----------
        entries : dict
            The entries of the table.
        before, after, deleted : dict
            The commit: its keys with the old entries, the new entries, and the deleted keys with the cause
            of their eviction.

        Raises
        ------
        EntryTooLargeError
            If one of the new entries alone exceeds the limit.
        """
        if self.stale or self.closed or self.hits:
            self.bring_up_to_date(entries)
        nodes = self.nodes
        count, weight = len(nodes), self._weight
        for key in self._own(before) if self._prefix else before:
            if key in nodes:
                count -= 1
                weight -= nodes[key].weight
            if key in after:
                entry = after[key]
                facts = None
                if entry:
                    facts = self._weighed[key] = self.facts(key, entry)  # reused by `note`
                count += 1
                weight += self.weigh(key, entry, facts)
        if self._now is not None:
            request = self._request or Request(self._now, _SWEPT_BY_THE_WAY, [])
            self.stale = True
            for node, cause in self.deadlines.take_expired(entries, request.now, request.limit, before):
                before[node.key], deleted[node.key] = entries[node.key], cause
                request.found.append(node.key)
                count -= 1
                weight -= node.weight
        if count > self._max_entries or weight > self._max_bytes:
            self._evict(entries, before, after, deleted, count, weight)

    def _evict(
        self,
        entries: dict[str, Entry],
        before: dict[str, Entry | None],
        after: dict[str, Entry],
        deleted: dict[str, str | None],
        count: int,
        weight: int,
    ) -> None:
        """Evict until the result is within the limits: the policy's choice, then keys being written."""
        self.stale = True
        kept = []
        looked_at = 0
        choose, most = self._policy.choose, len(self.nodes)
        while count > self._max_entries or weight > self._max_bytes:
            node = choose()
            if node is None:
                break
            if type(node) is not Node or looked_at >= most:
                self._refuse(node)
            looked_at += 1
            key = node.key
            if key in after:
                kept.append(node)
            elif key not in before:
                before[key], deleted[key] = entries[key], "size"
                count -= 1
                weight -= node.weight
        for each in kept:
            self._policy.add(each)
        if node is None:
            self._evict_written(before, after, deleted, count, weight)

    def _evict_written(
        self,
        before: dict[str, Entry | None],
        after: dict[str, Entry],
        deleted: dict[str, str | None],
        count: int,
        weight: int,
    ) -> None:
        """Evict keys that the commit writes, in order but not the last, if the policy chooses no others."""
        for key in self._own(after)[:-1]:
            if count <= self._max_entries and weight <= self._max_bytes:
                break
            count -= 1
            weight -= self.weigh(key, after.pop(key))
            if before[key] is None:
                del before[key]
            else:
                deleted[key] = "size"

    def _refuse(self, node: Node) -> NoReturn:
        """Raise TypeError or RuntimeError for a wrong choice of a user's policy."""
        if not isinstance(node, Node):
            raise TypeError(f"choose() of the policy must return a node or None, got {describe(node)}")
        raise RuntimeError(
            f"choose() of the policy must remove the node that it returns: it repeats {node.key!r}"
        )

    def note(
        self,
        before: dict[str, Entry | None],
        after: dict[str, Entry],
        deleted: dict[str, str | None],
    ) -> None:
        """Record the changes of a commit that is about to be decided, after `make_room` of every bound."""
        self.stale = True
        nodes = self.nodes
        decided = self.evictions
        self._written = written = []
        weighed = self._weighed
        now = self._now
        for key in self._own(before) if self._prefix else before:
            node = nodes[key] if key in nodes else None
            if key in after:
                written.append(key)
                if node is None:
                    node = nodes[key] = Node(key)
                    self._policy.add(node)
                self._set(node, after[key], now, weighed[key] if key in weighed else None)
            elif node is not None:
                self._forget(node)
                if (cause := deleted[key]) is not None:
                    decided = {**decided, cause: decided.get(cause, 0) + 1}
                else:
                    written.append(key)
        self._decided = decided

    def _forget(self, node: Node) -> None:
        del self.nodes[node.key]
        self._weight -= node.weight
        self.retired_hits += node.hits
        self._policy.remove(node)

    def finish(self) -> None:
        """Record that the commit is made; may be repeated."""
        self.evictions = self._decided
        if self._awaited:
            self.limits.witness.note_written(self._written)
        self.stale = False

    def _own(self, keys: dict[str, Any]) -> list[str]:
        return [key for key in keys if key.startswith(self._prefix)]

    # -- the books --------------------------------------------------------------------------------

    def bring_up_to_date(self, entries: dict[str, Entry]) -> None:
        """Rebuild the books if they are stale, and pass hits to the policy; in a section of the writer."""
        if self.stale or self.closed:
            self._rebuild(entries)
        if self.hits:
            self.stale = True
            on_hit, nodes = self._policy.on_hit, self.nodes
            # Only the hits so far: readers continue to add some, and a user's policy may read.
            for _ in range(len(self.hits)):
                node = self.hits.popleft()
                if on_hit is not None and nodes.get(node.key) is node:
                    on_hit(node)
            self.stale = False

    def _rebuild(self, entries: dict[str, Entry]) -> None:
        """Rebuild the books from the entries: rule 2."""
        known = self.nodes.copy()
        self._policy = policy = self.limits.make_policy()
        self.hits.clear()
        self.deadlines.clear()
        self._weight = 0
        self._decided = self.evictions
        for key in self._own(entries):
            node = known.pop(key, None)
            if node is None:
                node = self.nodes[key] = Node(key)
            used = node.used if node.revision == entries[key].revision else None
            node.older = node.newer = node.queue = node.expected = None
            node.weight = 0
            policy.add(node)
            self._set(node, entries[key], used)
        for key, node in known.items():
            self.nodes.pop(key, None)
            self.retired_hits += node.hits
        self.stale = False

    def _set(self, node: Node, entry: Entry, now: float | None, facts: Facts | None = None) -> None:
        """Record the entry of a node; `now` is None if the time of its write is unknown."""
        if not entry and self.limits.idle is None:
            # hot path: most entries have no metadata.
            weight = OVERHEAD + len(node.key) + entry.size
            node.expected = None
        else:
            facts = facts or self.facts(node.key, entry)
            weight = facts.weight
            node.used = math.inf if now is None else now
            self.deadlines.expect(node, facts)
        self._weight += weight - node.weight
        node.weight = weight
        node.refresh = None
        node.revision = entry.revision

    def facts(self, key: str, entry: Entry) -> Facts:
        """Return the facts in the metadata of an entry."""
        return facts_in(key, entry.size, entry.revision, entry, self.limits.idle)

    def weigh(self, key: str, entry: Entry, facts: Facts | None = None) -> int:
        """Return the weight of an entry in bytes; raise EntryTooLargeError if it exceeds the maximum."""
        weight = (facts or self.facts(key, entry)).weight if entry else OVERHEAD + len(key) + entry.size
        if weight > self._max_bytes:
            raise EntryTooLargeError(
                f"the value of key {key!r} weighs {weight} bytes, more than max_bytes={self._max_bytes}"
            )
        return weight

    def is_exceeded(self, entries: int, weight: int) -> bool:
        """Return whether the bound would be exceeded by so many more entries and bytes."""
        return len(self.nodes) + entries > self._max_entries or self._weight + weight > self._max_bytes

    def victim(self, entries: dict[str, Entry], spared: Callable[[str], object]) -> str | None:
        """Return a key for an open transaction to evict; in a section of the writer.

        The key stays in the books until the transaction commits.
        """
        self.bring_up_to_date(entries)
        self.stale = True
        chosen: list[Node] = []
        found = None
        while found is None and (node := self._policy.choose()) is not None:
            if type(node) is not Node or len(chosen) >= len(self.nodes):
                self._refuse(node)
            chosen.append(node)
            found = None if spared(node.key) else node.key
        for node in chosen:
            self._policy.add(node)
        self.stale = False
        return found

    # -- time -------------------------------------------------------------------------------------

    @property
    def may_expire(self) -> bool:
        """Whether any entry may expire; read without a lock."""
        return len(self.deadlines) > 0

    def is_due(self, now: float) -> bool:
        """Return whether any entry may have expired; called without a lock."""
        return self.deadlines.first <= now

    def keys_expired(self, entries: dict[str, Entry], now: float) -> list[tuple[str, str]]:
        """Return the expired keys, each with the cause; in a section of the writer."""
        self.bring_up_to_date(entries)
        self.stale = True
        found = self.deadlines.take_expired(entries, now)
        self.deadlines.expect_again(entries, [node for node, _ in found])
        self.stale = False
        return [(node.key, cause) for node, cause in found]

    def request_expiry(self, now: float, check: Callable[[], None] | None = None) -> None:
        """Make the commit that is about to be decided evict some expired entries; for its `check`."""
        if check is not None:
            check()
        self.now = now

    def request_sweep(self, request: Request) -> None:
        """Make the commit that is about to be decided evict the expired entries; for its `check`."""
        self.request, self.now = request, request.now

    # -- facts ------------------------------------------------------------------------------------

    def totals(self, entries: dict[str, Entry]) -> tuple[int, int, dict[str, int], int, list[Node]]:
        """Return the entries, bytes, evictions, retired hits and nodes; in a section of the writer."""
        self.bring_up_to_date(entries)
        return len(self.nodes), self._weight, self.evictions, self.retired_hits, list(self.nodes.values())

    def check(self, entries: dict[str, Entry]) -> None:
        """Raise AssertionError if the books do not match the entries; for tests, with no writers."""
        assert not self.stale
        assert set(self.nodes) == set(self._own(entries)), set(self.nodes) ^ set(self._own(entries))
        assert self._weight == sum(node.weight for node in self.nodes.values())
        expected = self.deadlines.expected()
        for key, node in self.nodes.items():
            facts = self.facts(key, entries[key])
            assert (node.key, node.revision, node.weight) == (key, facts.revision, facts.weight), key
            assert (node in expected) == (facts.deadline is not None or facts.idle is not None), key
