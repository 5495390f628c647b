"""The policies that are compared: each held against another way to find the same number of hits."""

from __future__ import annotations

import functools
import heapq
import random
from importlib import metadata

import pytest

from latchstore import Cache
from latchstore.cache.policies import LRU, POLICIES, EvictionPolicy, Node
from latchstore.cache_simulation import recording
from latchstore.cache_simulation.contestants import (
    NAMES,
    OPTIMUM,
    PEERS,
    run_of,
    run_optimum,
    run_policy,
    why_missing,
)
from latchstore.cache_simulation.recording import Recording
from latchstore.cache_simulation.traces import Trace

INSTALLED = [name for name in NAMES if why_missing(name) is None]


def hits_of(name: str, requested: list[str], entries: int) -> int:
    with Recording(requested) as trace:
        return sum(run_of(name)(trace, entries))


def zipfian(alpha: float, keys: int, requests: int, seed: int = 0) -> list[str]:
    return list(Trace(f"zipf:{alpha}", keys, requests, 1.0, seed).read())


def most_hits(requested: list[str], entries: int) -> int:
    """Find the optimum by trying everything, with what was kept as the state."""

    @functools.cache
    def best(time: int, kept: frozenset[str]) -> int:
        if time == len(requested):
            return 0
        key = requested[time]
        possible = kept | {key}
        choices = [possible] if len(possible) <= entries else [possible - {other} for other in possible]
        return (key in kept) + max(best(time + 1, choice) for choice in choices)

    return best(0, frozenset())


class TestOptimum:
    @pytest.mark.parametrize("seed", range(40))
    def test_nothing_is_better(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recording, "BLOCK", 5)
        chance = random.Random(seed)
        requested = [str(chance.randrange(6)) for _ in range(18)]
        for entries in range(1, 7):
            assert hits_of(OPTIMUM, requested, entries) == most_hits(requested, entries)

    @pytest.mark.parametrize("name", [name for name in INSTALLED if name != OPTIMUM])
    @pytest.mark.parametrize("entries", [10, 100])
    def test_no_policy_exceeds_it(self, name: str, entries: int) -> None:
        requested = zipfian(0.9, 1_000, 10_000)
        assert 0 < hits_of(name, requested, entries) <= hits_of(OPTIMUM, requested, entries)

    def test_its_memory_does_not_grow_with_the_hits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recording, "BLOCK", 100)
        pushed: list[int] = []
        push = heapq.heappush

        def pushing(heap: list[int], item: int) -> None:
            push(heap, item)
            pushed.append(len(heap))

        monkeypatch.setattr(heapq, "heappush", pushing)
        with Recording(["a", "b"] * 5_000) as trace:
            assert sum(run_optimum(trace, 2)) == 9_998
        assert max(pushed) < 200


class TestPolicies:
    @pytest.mark.parametrize("entries", [1, 7, 100, 10_000])
    def test_lru_is_that_of_functools(self, entries: int) -> None:
        requested = zipfian(0.9, 1_000, 10_000)

        @functools.lru_cache(entries)
        def load(key: str) -> None:
            return None

        for key in requested:
            load(key)
        assert hits_of("lru", requested, entries) == load.cache_info().hits

    @pytest.mark.skipif("cachetools-lru" not in INSTALLED, reason="cachetools is not installed")
    def test_lru_is_that_of_cachetools(self) -> None:
        requested = zipfian(0.9, 1_000, 10_000)
        assert hits_of("lru", requested, 50) == hits_of("cachetools-lru", requested, 50)

    @pytest.mark.parametrize("name", POLICIES)
    def test_what_fits_is_missed_once(self, name: str) -> None:
        requested = zipfian(0.9, 200, 5_000)
        assert hits_of(name, requested, 200) == 5_000 - len(set(requested))

    @pytest.mark.parametrize("name", POLICIES)
    def test_a_policy_never_has_more_than_there_is_room_for(self, name: str) -> None:
        added: set[str] = set()

        def made() -> EvictionPolicy:
            policy = POLICIES[name]()
            add, choose = policy.add, policy.choose
            monitored = pytest.MonkeyPatch()

            def adding(node: Node) -> None:
                added.add(node.key)
                assert len(added) <= 50
                add(node)

            def choosing() -> Node | None:
                node = choose()
                assert node is not None
                added.discard(node.key)
                return node

            monitored.setattr(policy, "add", adding)
            monitored.setattr(policy, "choose", choosing)
            return policy

        with Recording(zipfian(0.9, 1_000, 5_000)) as trace:
            sum(run_policy(made, trace, 50))
        assert len(added) == 50

    def test_a_loop_that_does_not_fit(self) -> None:
        requested = list(Trace("loop:150", 1, 15_000, 1.0, 0).read())
        assert hits_of("lru", requested, 100) == 0
        # It remembers what has gone from the small queue, and keeps it the next time.
        assert hits_of("s3-fifo", requested, 100) > 5_000
        assert hits_of(OPTIMUM, requested, 100) > 9_000

    @pytest.mark.parametrize("alpha", [0.5, 0.8, 1.0, 1.4])
    def test_sieve_and_s3_fifo_are_not_below_lru_on_zipfian_traces(self, alpha: float) -> None:
        with Recording(zipfian(alpha, 5_000, 25_000, seed=1)) as trace:
            for percent in (0.1, 0.3, 1, 3, 10, 30):
                entries = max(1, round(len(trace.keys) * percent / 100))
                least = sum(run_policy(LRU, trace, entries))
                for name in ("sieve", "s3-fifo"):
                    assert sum(run_of(name)(trace, entries)) >= least, (name, entries)

    @pytest.mark.parametrize("name", POLICIES)
    def test_a_cache_has_the_hits_that_are_foretold(self, name: str) -> None:
        for entries in (1, 10, 100):
            cache = Cache(max_entries=entries, policy=name)
            hits = 0
            for key in zipfian(0.9, 500, 5_000):
                if cache.get(key) is not None:
                    hits += 1
                else:
                    cache[key] = key
            assert len(cache) == entries
            assert hits == hits_of(name, zipfian(0.9, 500, 5_000), entries)


class TestPeers:
    @pytest.mark.parametrize("name", PEERS)
    def test_a_peer_has_hits(self, name: str) -> None:
        if why := why_missing(name):
            pytest.skip(why)
        requested = zipfian(1.0, 1_000, 20_000)
        # 100 of 1,000 keys have 69 % of the requests; none is all that bad, nor better than that.
        assert 0.5 < hits_of(name, requested, 100) / 20_000 < 0.72

    def test_lfu_keeps_what_was_used_often(self) -> None:
        if why := why_missing("cachetools-lfu"):
            pytest.skip(why)
        requested = ["a"] * 5 + ["b", "c"] * 5 + ["a"]
        assert hits_of("cachetools-lfu", requested, 2) == 5

    def test_one_that_is_missing_or_old_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            if name == "theine":
                return "1.9.3"
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "version", version)
        assert why_missing("theine") == "theine is older than 2"
        assert why_missing("cachetools-lfu") == "cachetools is not installed"
        assert [name for name in NAMES if why_missing(name) is None] == [*POLICIES, OPTIMUM]
