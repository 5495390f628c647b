"""Deadlines: a heap of the times at which entries of a bound may have expired.

A node is in the heap with the time of the next check of its entry, `Node.expected`. If the entry then expires
later, since it was used or written again, the node is added once more. So a set, a touch or a hit, which
postpone a deadline, change nothing here, at the price of one check that finds nothing.

Thread safety: the deadlines are part of the books of a bound (``bounds.py``).
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
        The existing nodes; others in the heap are skipped.
    idle : float or None
        Seconds without a use after which an entry expires, unless the entry has its own.

    Attributes
    ----------
    first : float
        The time of the next check; infinity if there is none. A hint if it is read without a lock.
    """

    __slots__ = ("_heap", "_idle", "_nodes", "_numbers", "first")

    def __init__(self, nodes: Mapping[str, Node], idle: float | None) -> None:
        self._nodes = nodes
        self._idle = idle
        # (time, a unique number, node). A node whose `expected` is another time is skipped.
        self._heap: list[tuple[float, int, Node]] = []
        self._numbers = itertools.count()
        self.first: float = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def expected(self) -> set[Node]:
        """Return the nodes that will be checked."""
        return {node for time, _, node in self._heap if self._is_meant(node, time)}

    def clear(self) -> None:
        """Remove all; the caller resets `expected`."""
        self._heap = []
        self.first = math.inf

    def expect(self, node: Node, facts: Facts) -> None:
        """Schedule the check of a node for when its entry may have expired, if it ever does."""
        time, idle = facts.deadline, facts.idle
        if idle is not None:
            # At the next check, if the time of its write is unknown.
            idle = node.used + idle if node.used != math.inf else -math.inf
            time = idle if time is None else min(time, idle)
        if time is None:
            node.expected = None
        elif node.expected is None or node.expected > time:
            self._push(node, time)

    def _push(self, node: Node, time: float) -> None:
        if len(self._heap) > 64 + 2 * len(self._nodes):
            # Most are of removed nodes.
            self._heap = [item for item in self._heap if self._is_meant(item[2], item[0])]
            heapq.heapify(self._heap)
        node.expected = time
        heapq.heappush(self._heap, (time, next(self._numbers), node))
        self.first = self._heap[0][0]

    def expect_again(self, entries: Mapping[str, Entry], nodes: Iterable[Node]) -> None:
        """Schedule another check of nodes that stay."""
        for node in nodes:
            self.expect(node, self._facts(node, entries))

    def _facts(self, node: Node, entries: Mapping[str, Entry]) -> Facts:
        entry = entries[node.key]
        return facts_in(node.key, 0, entry.revision, entry, self._idle)

    def take_expired(
        self, entries: Mapping[str, Entry], now: float, limit: int = sys.maxsize, spared: Container[str] = ()
    ) -> list[tuple[Node, str]]:
        """Check nodes; remove and return those whose entries have expired, each with the cause.

        Parameters
        ----------
        entries : mapping
        now : float
        limit : int
            The most nodes to check.
        spared : container of str
            Keys that are not removed.
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
        """Return the cause if an entry has expired, else None."""
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
