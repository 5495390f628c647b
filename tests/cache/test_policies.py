"""The policies evict what the papers' pseudocode, written out naively here, evicts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import pytest

from latchstore import Cache, EvictionPolicy
from latchstore.cache.inspection import check
from latchstore.cache.policies import LRU, POLICIES, S3FIFO, Node, Sieve


class Naive(Protocol):
    """A cache of so many keys that says what goes."""

    def request(self, key: str) -> list[str]: ...


class NaiveSieve:
    """Algorithm 1 of the paper, over a list: item 0 is the head, the newest one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.queue: list[str] = []
        self.visited: dict[str, bool] = {}
        self.hand: str | None = None

    def request(self, key: str) -> list[str]:
        if key in self.visited:
            self.visited[key] = True
            return []
        gone = [self.evict()] if len(self.queue) == self.size else []
        self.queue.insert(0, key)
        self.visited[key] = False
        return gone

    def evict(self) -> str:
        key = self.queue[-1] if self.hand is None else self.hand
        while self.visited[key]:
            self.visited[key] = False
            place = self.queue.index(key)
            key = self.queue[place - 1] if place else self.queue[-1]
        place = self.queue.index(key)
        self.hand = self.queue[place - 1] if place else None
        self.queue.remove(key)
        del self.visited[key]
        return key


class NaiveS3FIFO:
    """Algorithm 1 of the paper, over lists: item 0 is the head."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.small: list[str] = []
        self.main: list[str] = []
        self.ghost: list[str] = []
        self.visits: dict[str, int] = {}

    def request(self, key: str) -> list[str]:
        if key in self.visits:
            self.visits[key] = min(self.visits[key] + 1, 3)
            return []
        gone = []
        while len(self.visits) >= self.size:
            gone += self.evict()
        if key in self.ghost:
            self.ghost.remove(key)
            self.main.insert(0, key)
        else:
            self.small.insert(0, key)
        self.visits[key] = 0
        return gone

    def evict(self) -> list[str]:
        if len(self.small) * 10 >= self.size or not self.main:
            return self.evict_small()
        return self.evict_main()

    def evict_small(self) -> list[str]:
        key = self.small.pop()
        if self.visits[key] > 1:
            self.visits[key] = 0
            self.main.insert(0, key)
            return []
        self.ghost.insert(0, key)
        # As many as the main queue may have.
        del self.ghost[max(1, self.size - self.size // 10) :]
        del self.visits[key]
        return [key]

    def evict_main(self) -> list[str]:
        key = self.main.pop()
        if self.visits[key]:
            self.visits[key] -= 1
            self.main.insert(0, key)
            return []
        del self.visits[key]
        return [key]


class NaiveLRU:
    def __init__(self, size: int) -> None:
        self.size = size
        self.order: list[str] = []

    def request(self, key: str) -> list[str]:
        hit = key in self.order
        if hit:
            self.order.remove(key)
        gone = [] if hit or len(self.order) < self.size else [self.order.pop(0)]
        self.order.append(key)
        return gone


PAIRS: list[tuple[Callable[[], EvictionPolicy], Callable[[int], Naive]]] = [
    (Sieve, NaiveSieve),
    (S3FIFO, NaiveS3FIFO),
    (LRU, NaiveLRU),
]


class Driven:
    """A cache of keys alone, around a policy."""

    def __init__(self, policy: EvictionPolicy, size: int) -> None:
        self.policy = policy
        self.size = size
        self.nodes: dict[str, Node] = {}

    def request(self, key: str) -> list[str]:
        node = self.nodes.get(key)
        if node is not None:
            node.visited = True
            if self.policy.on_hit is not None:
                self.policy.on_hit(node)
            return []
        gone = []
        if len(self.nodes) == self.size:
            victim = self.policy.choose()
            assert victim is not None
            del self.nodes[victim.key]
            gone = [victim.key]
        self.nodes[key] = Node(key)
        self.policy.add(self.nodes[key])
        return gone

    def delete(self, key: str) -> None:
        self.policy.remove(self.nodes.pop(key))


def trace(seed: int, length: int, keys: int) -> list[str]:
    """Return keys of which a few come often, with a scan now and then."""
    source = random.Random(seed)
    found: list[str] = []
    while len(found) < length:
        if source.random() < 0.02:
            found += [f"scan{seed}-{len(found)}-{number}" for number in range(source.randrange(keys))]
        else:
            found.append(f"k{int(keys * source.random() ** 3)}")
    return found[:length]


@pytest.mark.parametrize(("policy", "naive"), PAIRS)
@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 50])
def test_the_same_goes_as_in_the_paper(
    policy: Callable[[], EvictionPolicy], naive: Callable[[int], Naive], size: int
) -> None:
    for seed in range(5):
        ours, theirs = Driven(policy(), size), naive(size)
        for position, key in enumerate(trace(seed, 1500, 4 * size)):
            assert ours.request(key) == theirs.request(key), (seed, position)


@pytest.mark.parametrize("name", POLICIES)
def test_through_the_cache_the_same_goes(name: str) -> None:
    """By way of the books and the store: get, and set if it was not there."""
    naive = dict(zip(("sieve", "s3-fifo", "lru"), PAIRS, strict=True))[name][1]
    size = 20
    cache, theirs = Cache(max_entries=size, policy=name, codec="raw"), naive(size)
    watch = cache.store.watch(max_buffer=100_000)  # type: ignore[attr-defined]
    gone: list[str] = []
    for key in trace(1, 2000, 80):
        if cache.get(key) is None:
            cache[key] = b""
        gone += theirs.request(key)
    heard = [
        event.key
        for event in iter(lambda: watch.get(0) if len(watch) else None, None)
        if event.action == "evict"
    ]
    assert heard == gone
    check(cache)
    cache.close()


@pytest.mark.parametrize("policy", [Sieve, S3FIFO, LRU])
def test_any_order_of_calls_keeps_what_is_there(policy: Callable[[], EvictionPolicy]) -> None:
    """Adding twice, removing what is not there, choosing and putting back: nothing is lost or told twice."""
    source = random.Random(3)
    for _ in range(30):
        order = policy()
        inside: dict[str, Node] = {}
        outside: list[Node] = [Node(f"k{number}") for number in range(12)]
        for _ in range(300):
            what = source.randrange(5)
            if what == 0 and outside:
                node = outside.pop(source.randrange(len(outside)))
                inside[node.key] = node
                order.add(node)
            elif what == 1 and inside:
                node = inside.pop(source.choice(list(inside)))
                order.remove(node)
                order.remove(node)
                outside.append(node)
            elif what == 2 and inside:
                node = source.choice(list(inside.values()))
                node.visited = True
                if order.on_hit is not None:
                    order.on_hit(node)
            elif what == 3:
                chosen = order.choose()
                assert (chosen is None) == (not inside)
                if chosen is not None:
                    assert inside.pop(chosen.key) is chosen
                    outside.append(chosen)
            elif inside:
                order.add(source.choice(list(inside.values())))  # it is there already
        drained = []
        while (last := order.choose()) is not None:
            drained.append(last.key)
        assert sorted(drained) == sorted(inside)


def test_a_policy_of_ones_own() -> None:
    class Newest(EvictionPolicy):
        def __init__(self) -> None:
            self.stack: list[Node] = []

        def add(self, node: Node) -> None:
            if node not in self.stack:
                self.stack.append(node)

        def remove(self, node: Node) -> None:
            if node in self.stack:
                self.stack.remove(node)

        def choose(self) -> Node | None:
            return self.stack.pop() if self.stack else None

    with Cache(max_entries=2, policy=Newest) as cache:
        for key in "abcd":
            cache[key] = key
        assert sorted(cache) == ["a", "d"]
        check(cache)


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="'sieve', 's3-fifo', 'lru'"):
        Cache(policy="lifo")
    with pytest.raises(TypeError, match="policy must be"):
        Cache(policy=3)  # type: ignore[arg-type]
