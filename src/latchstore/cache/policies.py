"""Which entry is evicted when a cache is full: SIEVE, S3-FIFO and LRU.

Thread safety: all methods are called under the table lock, also `on_hit`. A hit takes no lock: it increments
the node's `hits`, and if the policy has `on_hit`, queues the node for the next commit.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable

from latchstore.contract.arguments import describe
from latchstore.engine.limits import Node

__all__ = ["LRU", "POLICIES", "S3FIFO", "EvictionPolicy", "Node", "Sieve", "checked_policy"]


class EvictionPolicy(ABC):
    """An order of eviction; pass a subclass of your own to ``Cache(policy=...)``.

    All methods are called under the table lock, so they must be fast and must not call the store. Each entry
    has one `Node` for as long as it exists.

    Attributes
    ----------
    on_hit : callable or None
        Called by the next commit with the node of each hit, in the order of the hits; of a very large number
        of hits between two commits, only with the last ones. None if ``visited`` is enough for the policy.

    Thread safety
    -------------
    The cache calls every method under the lock of the store's table, one call at a time. A policy must
    not call the store or the cache.
    """

    on_hit: Callable[[Node], None] | None = None

    @abstractmethod
    def add(self, node: Node) -> None:
        """Add a node that is new, or that was chosen but not evicted."""

    @abstractmethod
    def remove(self, node: Node) -> None:
        """Remove a node; does nothing if the policy does not have it."""

    @abstractmethod
    def choose(self) -> Node | None:
        """Remove and return the next node to evict; None if there is none."""


class Sieve(EvictionPolicy):
    """SIEVE: a queue, and a hand that moves from its old end to its new one and evicts unvisited entries.

    Zhang, Yang, Yue, Vigfusson and Rashmi, "SIEVE is Simpler than LRU: an Efficient Turn-Key Eviction
    Algorithm for Web Caches", NSDI 2024, algorithm 1. A hit is counted and moves nothing, so reads need no
    lock.
    """

    #: The name of the policy; stores that persist the order of eviction support this one.
    name = "sieve"

    def __init__(self) -> None:
        self._newest: Node | None = None
        self._oldest: Node | None = None
        # The position of the hand: the next node to look at; None for the oldest.
        self._hand: Node | None = None

    def add(self, node: Node) -> None:
        if node.queue is not None:
            return
        node.queue = self
        node.seen = node.hits
        node.newer, node.older = None, self._newest
        if self._newest is None:
            self._oldest = node
        else:
            self._newest.newer = node
        self._newest = node

    def remove(self, node: Node) -> None:
        if node.queue is None:
            return
        node.queue = None
        if self._hand is node:
            self._hand = node.newer
        if node.older is None:
            self._oldest = node.newer
        else:
            node.older.newer = node.newer
        if node.newer is None:
            self._newest = node.older
        else:
            node.newer.older = node.older
        node.newer = node.older = None

    def choose(self) -> Node | None:
        node = self._hand or self._oldest
        if node is None:
            return None
        while node.hits != node.seen:  # hot path: `visited`, without its calls
            node.seen = node.hits
            node = node.newer or self._oldest
            assert node is not None
        self._hand = node.newer
        self.remove(node)
        return node


class S3FIFO(EvictionPolicy):
    """S3-FIFO: a small queue for new entries, a main queue for reused ones, a ghost queue of evicted keys.

    Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm
    1. The small queue has a tenth of the entries, the main queue the rest. The ghost queue has as many keys
    as the main queue may hold at most, not as it holds now: otherwise a cache that promoted nothing never
    would.
    """

    name = "s3-fifo"

    _SMALL_SHARE = 10
    _MOST_VISITS = 3

    def __init__(self) -> None:
        self._small: OrderedDict[str, Node] = OrderedDict()
        self._main: OrderedDict[str, Node] = OrderedDict()
        # Keys evicted from the small queue, oldest eviction first.
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.on_hit: Callable[[Node], None] | None = self._count_visit

    def _count_visit(self, node: Node) -> None:
        if node.visits < self._MOST_VISITS:
            node.visits += 1

    def add(self, node: Node) -> None:
        if node.queue is not None:
            return
        node.visits = 0
        known = node.key in self._gone
        if known:
            del self._gone[node.key]
        self._append(self._main if known else self._small, node)

    def _append(self, queue: OrderedDict[str, Node], node: Node) -> None:
        queue[node.key] = node
        node.queue = queue

    def remove(self, node: Node) -> None:
        if node.queue is not None:
            del node.queue[node.key]
            node.queue = None

    def choose(self) -> Node | None:
        while self._small or self._main:
            entries = len(self._small) + len(self._main)
            from_small = len(self._small) * self._SMALL_SHARE >= entries or not self._main
            node = self._look_at_small(entries) if from_small else self._look_at_main()
            if node is not None:
                return node
        return None

    def _look_at_small(self, entries: int) -> Node | None:
        _, node = self._small.popitem(last=False)
        node.queue = None
        if node.visits > 1:
            node.visits = 0
            self._append(self._main, node)
            return None
        self._gone[node.key] = None
        while len(self._gone) > max(1, entries - entries // self._SMALL_SHARE):
            self._gone.popitem(last=False)
        return node

    def _look_at_main(self) -> Node | None:
        _, node = self._main.popitem(last=False)
        node.queue = None
        if node.visits > 0:
            node.visits -= 1
            self._append(self._main, node)
            return None
        return node


class LRU(EvictionPolicy):
    """Least recently used: each hit moves the entry to the new end of the queue."""

    name = "lru"

    def __init__(self) -> None:
        self._order: OrderedDict[str, Node] = OrderedDict()
        self.on_hit: Callable[[Node], None] | None = self._move_to_end

    def _move_to_end(self, node: Node) -> None:
        if node.key in self._order:
            self._order.move_to_end(node.key)

    def add(self, node: Node) -> None:
        self._order[node.key] = node

    def remove(self, node: Node) -> None:
        if self._order.get(node.key) is node:
            del self._order[node.key]

    def choose(self) -> Node | None:
        if not self._order:
            return None
        return self._order.popitem(last=False)[1]


#: The policies by name.
POLICIES: dict[str, Callable[[], EvictionPolicy]] = {"sieve": Sieve, "s3-fifo": S3FIFO, "lru": LRU}


def checked_policy(policy: str | Callable[[], EvictionPolicy]) -> Callable[[], EvictionPolicy]:
    """Return the factory of the policy, given by name or itself; ValueError or TypeError if it is invalid."""
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(map(repr, POLICIES))}, got {policy!r}")
        return POLICIES[policy]
    if not callable(policy):
        raise TypeError(f"policy must be a name or a callable for an EvictionPolicy, got {describe(policy)}")
    return functools.partial(_made_policy, policy)


def _made_policy(make: Callable[[], EvictionPolicy]) -> EvictionPolicy:
    policy = make()
    if not isinstance(policy, EvictionPolicy):
        raise TypeError(f"policy must return an EvictionPolicy when called, got {describe(policy)}")
    return policy
