"""No commit leaves more than the bound, whoever makes it: looked up in a watch, commit by commit."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, StoreDeleteEvent, TransactionConflictError, Watch
from latchstore.cache.inspection import check
from tests.builds import fork_beside_busy_threads
from tests.cache.clocks import TIMEOUT
from tests.fork.children import in_child

ENTRIES, BYTES = 8, 10_000
#: Of which three are too heavy together, and eight light ones are not.
WEIGHTS = (500, 1_200, 3_500)
KEYS = [f"key{number}" for number in range(24)]

#: More changes than there are: the watch loses none.
ENDLESS = 10**9

Work = Callable[[Cache, random.Random], object]


def set_one(cache: Cache, chance: random.Random) -> None:
    weight = chance.choice(WEIGHTS)
    cache.set(chance.choice(KEYS), weight, weight=weight)


def set_several(cache: Cache, chance: random.Random) -> None:
    weight = chance.choice(WEIGHTS)
    cache.set_many(dict.fromkeys(chance.sample(KEYS, 4), weight), weight=weight)


def delete_some(cache: Cache, chance: random.Random) -> None:
    """Make room, so that transactions begin while there is some."""
    for key in chance.sample(KEYS, 12):
        cache.delete(key)


def load(cache: Cache, chance: random.Random) -> None:
    weight = chance.choice(WEIGHTS)
    cache.get_or_load(chance.choice(KEYS), lambda key: weight, weight=weight)


def write_in_a_transaction(cache: Cache, chance: random.Random, optimistic: bool = False) -> None:
    with cache.store.transaction(optimistic=optimistic):  # type: ignore[call-arg]
        for _ in range(3):
            chance.choice((set_one, load))(cache, chance)
        assert len(cache) <= ENTRIES or optimistic  # which does not see what others commit


def write_optimistically(cache: Cache, chance: random.Random) -> None:
    try:
        write_in_a_transaction(cache, chance, optimistic=True)
    except TransactionConflictError:
        return


#: What each of 16 threads does.
WORK: list[Work] = [
    *[set_one] * 3,
    *[set_several] * 2,
    *[delete_some] * 2,
    *[load] * 3,
    *[write_in_a_transaction] * 2,
    *[write_optimistically] * 4,
]


def commits_of(watch: Watch) -> Iterator[tuple[int, dict[str, int]]]:
    """Return what there was after each commit: its revision, and the weight of each key."""
    held: dict[str, int] = {}
    event: Any = None
    while len(watch):
        following: Any = watch.get(0)
        if event is not None and following.revision != event.revision:
            yield event.revision, held
        event = following
        if isinstance(event, StoreDeleteEvent):
            del held[event.key]
        else:
            held[event.key] = event.value.metadata["cache_weight"]
    if event is not None:
        yield event.revision, held


def check_commits(cache: Cache, watch: Watch) -> int:
    """Raise AssertionError if a commit has left too much; return how many there were."""
    commits = 0
    for revision, held in commits_of(watch):
        commits += 1
        assert len(held) <= ENTRIES, (revision, held)
        assert sum(held.values()) <= BYTES, (revision, held)
    assert held.keys() == set(cache.store.query_keys())
    check(cache)
    return commits


def work(cache: Cache, number: int, rounds: Iterator[int]) -> None:
    chance = random.Random(number)
    for _ in rounds:
        WORK[number](cache, chance)


def new_cache(policy: str, codec: str) -> Cache:
    store = DictMemoryStore(EventManager())
    return Cache(store, max_entries=ENTRIES, max_bytes=BYTES, policy=policy, codec=codec)


@pytest.mark.parametrize(
    ("policy", "codec"), [("sieve", "pickle"), ("s3-fifo", "reference"), ("lru", "pickle")]
)
def test_no_commit_of_16_threads_exceeds_the_bound(policy: str, codec: str) -> None:
    cache = new_cache(policy, codec)
    barrier = threading.Barrier(len(WORK))

    def run(number: int) -> None:
        barrier.wait(TIMEOUT)
        work(cache, number, iter(range(120)))

    with cache.store.watch(max_buffer=ENDLESS) as watch:  # type: ignore[attr-defined]
        with ThreadPoolExecutor(len(WORK)) as pool:
            for future in [pool.submit(run, number) for number in range(len(WORK))]:
                future.result(TIMEOUT)
        assert check_commits(cache, watch) > 500
    cache.store.close(TIMEOUT)


@fork_beside_busy_threads
def test_no_commit_exceeds_the_bound_before_and_after_a_fork() -> None:
    """A child goes on with the cache that it has, and the parent with its own."""
    cache = new_cache("sieve", "pickle")
    children = 5
    over = threading.Event()
    busy = threading.Barrier(len(WORK) + 1)

    def run(number: int) -> None:
        busy.wait(TIMEOUT)
        work(cache, number, iter(over.is_set, True))

    def be_a_child() -> None:
        """Go on with what there is, of which a new watch shows the changes."""
        held = {key: cache.store.get_metadata(key)["cache_weight"] for key in cache.store.query_keys()}
        assert len(held) <= ENTRIES
        assert sum(held.values()) <= BYTES
        cache.clear()
        with cache.store.watch(max_buffer=ENDLESS) as watch:  # type: ignore[attr-defined]
            with ThreadPoolExecutor(4) as pool:
                for future in [pool.submit(work, cache, each, iter(range(20))) for each in (0, 3, 7, 12)]:
                    future.result(TIMEOUT)
            assert check_commits(cache, watch) > 50

    with cache.store.watch(max_buffer=ENDLESS) as watch:  # type: ignore[attr-defined]
        with ThreadPoolExecutor(len(WORK)) as pool:
            futures = [pool.submit(run, number) for number in range(len(WORK))]
            try:
                busy.wait(TIMEOUT)
                told = [told for told in (in_child(be_a_child) for _ in range(children)) if told]
            finally:
                over.set()
            for future in futures:
                future.result(TIMEOUT)
        assert told == []
        assert check_commits(cache, watch) > 100
    cache.store.close(TIMEOUT)
