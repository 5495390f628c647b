"""When the entries of a bound may have expired, and which have.

A node stands in a heap with the time of the next look at its entry, `Node.expected`. If the entry expires
later than that by then, since it was used or written again, the node is put in once more. So what moves a
deadline on (a set, a touch, a hit) changes nothing here, and pays for one look that finds nothing.

Thread safety: that of the books of a bound, which these are a part of (``bounds.py``).
"""

from __future__ import annotations

import heapq
import itertools
import math
import sys
from collections.abc import Container, Iterable, Mapping

from latchstore.contract.values import Entry
from latchstore.engine.entry_facts import Facts, facts_in
from latchstore.engine.limits import Node


class Deadlines:
    """A heap of nodes, the earliest first.

    Parameters
    ----------
    nodes : mapping of str to Node
        Those that there are; others are passed over.
    idle : float or None
        Seconds without a use after which an entry expires that has no such time of its own.

    Attributes
    ----------
    first : float
        The time of the next look; infinity if there is none. A hint if it is read without a lock.
    """

    __slots__ = ("_heap", "_idle", "_nodes", "_numbers", "first")

    def __init__(self, nodes: Mapping[str, Node], idle: float | None) -> None:
        self._nodes = nodes
        self._idle = idle
        # (when, a number of its own, node). A node that is not `expected` then is passed over.
        self._heap: list[tuple[float, int, Node]] = []
        self._numbers = itertools.count()
        self.first: float = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def expected(self) -> set[Node]:
        """Return the nodes that are looked at some time."""
        return {node for time, _, node in self._heap if self._is_meant(node, time)}

    def clear(self) -> None:
        """Forget all; the caller takes `expected` back."""
        self._heap = []
        self.first = math.inf

    def expect(self, node: Node, facts: Facts) -> None:
        """Have a node looked at when its entry may have expired, if it ever does."""
        time, idle = facts.deadline, facts.idle
        if idle is not None:
            # If it is not known when it was written, at the first look.
            idle = node.used + idle if node.used != math.inf else -math.inf
            time = idle if time is None else min(time, idle)
        if time is None:
            node.expected = None
        elif node.expected is None or node.expected > time:
            self._push(node, time)

    def _push(self, node: Node, time: float) -> None:
        if len(self._heap) > 64 + 2 * len(self._nodes):
            # Most are of what has gone.
            self._heap = [item for item in self._heap if self._is_meant(item[2], item[0])]
            heapq.heapify(self._heap)
        node.expected = time
        heapq.heappush(self._heap, (time, next(self._numbers), node))
        self.first = self._heap[0][0]

    def expect_again(self, entries: Mapping[str, Entry], nodes: Iterable[Node]) -> None:
        """Have nodes looked at again that stay."""
        for node in nodes:
            self.expect(node, self._facts(node, entries))

    def _facts(self, node: Node, entries: Mapping[str, Entry]) -> Facts:
        entry = entries[node.key]
        return facts_in(node.key, 0, entry.revision, entry, self._idle)

    def take_expired(
        self, entries: Mapping[str, Entry], now: float, limit: int = sys.maxsize, spared: Container[str] = ()
    ) -> list[tuple[Node, str]]:
        """Look at nodes; take out and return those whose entries have expired, each with the cause.

        Parameters
        ----------
        entries : mapping
        now : float
        limit : int
            How many to look at, at the most.
        spared : container of str
            Keys that stay.
        """
        heap = self._heap
        found: list[tuple[Node, str]] = []
        again: list[Node] = []
        while heap and heap[0][0] <= now and limit > 0:
            limit -= 1
            time, _, node = heapq.heappop(heap)
            if not self._is_meant(node, time):
                continue
            node.expected = None
            cause = self._cause(node, entries, now)
            if cause is None or node.key in spared:
                again.append(node)
            else:
                found.append((node, cause))
        self.first = heap[0][0] if heap else math.inf
        self.expect_again(entries, again)
        return found

    def _cause(self, node: Node, entries: Mapping[str, Entry], now: float) -> str | None:
        """Return why an entry has expired; None if it has not."""
        facts = self._facts(node, entries)
        if facts.deadline is not None and facts.deadline <= now:
            return "expired"
        if facts.idle is not None:
            if node.used == math.inf:
                node.used = now
            if node.used + facts.idle <= now:
                return "idle"
        return None

    def _is_meant(self, node: Node, time: float) -> bool:
        return node.expected == time and self._nodes.get(node.key) is node
