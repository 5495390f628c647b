"""The compared policies, each as a function that runs it through a trace.

Policies of latchstore are the classes that a cache uses, without a store: a miss evicts if the cache is full,
and then adds, as in a cache. Those of other libraries run through their public methods.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple

from latchstore.cache.policies import POLICIES, EvictionPolicy, Node
from latchstore.cache_simulation.recording import NEVER, Recording

#: Runs a trace with a cache of a size in entries, and yields the number of hits of each block.
Run = Callable[[Recording, int], Iterator[int]]

#: The optimum that no policy can exceed: it uses future requests.
OPTIMUM = "belady"


class Peer(NamedTuple):
    """A cache of another library.

    Attributes
    ----------
    distribution : str
    least : int
        The first major version whose interface is supported.
    run : callable
    """

    distribution: str
    least: int
    run: Run


def run_policy(make_policy: Callable[[], EvictionPolicy], trace: Recording, entries: int) -> Iterator[int]:
    """Run a policy of latchstore through a trace."""
    policy = make_policy()
    on_hit, choose, add = policy.on_hit, policy.choose, policy.add
    nodes: dict[str, Node] = {}
    for keys in trace.blocks():
        hits = 0
        for key in keys:
            node = nodes.get(key)
            if node is not None:
                hits += 1
                node.visited = True
                if on_hit is not None:
                    on_hit(node)
                continue
            if len(nodes) >= entries:
                victim = choose()
                assert victim is not None, "a full cache must have an entry to evict"
                del nodes[victim.key]
            nodes[key] = node = Node(key)
            add(node)
        yield hits


def run_optimum(trace: Recording, entries: int) -> Iterator[int]:
    """Keep the keys that are requested soonest: Belady's optimum, which may also skip new keys.

    An entry of the heap is the negated time of the key's next request, as Python's heaps have the least
    first.
    """
    kept: set[int] = set()
    furthest: list[int] = []  # a heap; times that have passed are at its other end
    time = 0
    for next_times in trace.next_times():
        hits = 0
        for following in next_times:
            if time in kept:
                hits += 1
                kept.discard(time)
            time -= 1
            if following == NEVER:
                continue
            if len(kept) < entries:
                heapq.heappush(furthest, -following)
                kept.add(-following)
            elif (evicted := heapq.heappushpop(furthest, -following)) != -following:
                kept.discard(evicted)
                kept.add(-following)
        if len(furthest) > 2 * entries:
            furthest = list(kept)
            heapq.heapify(furthest)
        yield hits


def _run_mapping(cache: Any, trace: Recording) -> Iterator[int]:
    for keys in trace.blocks():
        hits = 0
        for key in keys:
            if key in cache:
                hits += 1
                cache[key]  # counts as a use
            else:
                cache[key] = None
        yield hits


def _run_cachetools_lru(trace: Recording, entries: int) -> Iterator[int]:
    import cachetools

    return _run_mapping(cachetools.LRUCache(entries), trace)


def _run_cachetools_lfu(trace: Recording, entries: int) -> Iterator[int]:
    import cachetools

    return _run_mapping(cachetools.LFUCache(entries), trace)


def _run_theine(trace: Recording, entries: int) -> Iterator[int]:
    import theine

    cache: Any = theine.Cache(entries)
    try:
        for keys in trace.blocks():
            hits = 0
            for key in keys:
                if cache.get(key)[1]:
                    hits += 1
                else:
                    cache.set(key, None)
            yield hits
    finally:
        cache.close()


PEERS = {
    "cachetools-lru": Peer("cachetools", 5, _run_cachetools_lru),
    "cachetools-lfu": Peer("cachetools", 5, _run_cachetools_lfu),
    "theine": Peer("theine", 2, _run_theine),
}

#: The policies that can be compared, in the order of the output.
NAMES = (*POLICIES, *PEERS, OPTIMUM)


def run_of(name: str) -> Run:
    """Return the function that runs the policy of a name."""
    if name in POLICIES:
        return partial(run_policy, POLICIES[name])
    return run_optimum if name == OPTIMUM else PEERS[name].run


def why_missing(name: str) -> str | None:
    """Return why a policy is not available; None if it is."""
    peer = PEERS.get(name)
    if peer is None:
        return None
    try:
        major = metadata.version(peer.distribution).partition(".")[0]
    except metadata.PackageNotFoundError:
        return f"{peer.distribution} is not installed"
    if int(major) < peer.least:
        return f"{peer.distribution} is older than {peer.least}"
    return None
