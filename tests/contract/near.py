"""Near caches: how old a value may be, and what a thread never sees again.

The thread that looks for commits of others is stopped, so that the log is looked at when a test does.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import pytest

from latchstore import Cache, NearCache, StoreModificationEvent
from latchstore.cache.inspection import bounded_of, check_idle, copies_of
from latchstore.engine.following import FollowingEngine
from latchstore.engine.inspection import engine_of
from latchstore.engine.transactional_store import TransactionalStore
from tests.cache.clocks import Clock
from tests.contract.stores import TIMEOUT, StoreContract
from tests.fork.children import in_child, needs_fork
from tests.schedules import Actor

#: The staleness that is allowed where a test does not wait for its end.
HOUR = 3_600.0


def look(store: TransactionalStore) -> None:
    """Look at the log now, and then no more."""
    engine = engine_of(store)
    assert isinstance(engine, FollowingEngine)
    store.flush(TIMEOUT)
    engine.follower.stop()


def is_followed(store: TransactionalStore) -> bool:
    """Tell whether a thread is to look at the log."""
    engine = engine_of(store)
    assert isinstance(engine, FollowingEngine)
    return engine.publication.is_followed


class Pausing:
    """Calls something when an entry was read of the store, before the cache has it."""

    def __init__(self, cache: Cache[Any]) -> None:
        self._bounded: Any = bounded_of(cache)
        self._read = self._bounded.entry
        vars(self._bounded)["entry"] = self
        self.then: Callable[[], object] = lambda: None

    def __call__(self, key: str) -> Any:
        entry = self._read(key)
        then, self.then = self.then, lambda: None
        then()
        return entry


class NearContract(StoreContract):
    """A near cache on a store that processes share, and another store over the same entries."""

    @pytest.fixture
    def beside(self, store: TransactionalStore) -> Iterator[TransactionalStore]:
        """A second store over what `store` is over. To be overridden."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def cache(self, store: TransactionalStore, clock: Clock) -> Iterator[Cache[Any]]:
        with Cache(store, clock=clock, near=NearCache(staleness=HOUR)) as cache:
            look(store)
            yield cache
            check_idle(cache)

    @pytest.fixture
    def theirs(self, beside: TransactionalStore, clock: Clock) -> Iterator[Cache[Any]]:
        """The cache of another process, as it were."""
        with Cache(beside, clock=clock) as cache:
            yield cache

    # -- how old a value may be -------------------------------------------------------------------

    def test_a_copy_serves_until_the_next_look(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        theirs["k"] = "old"
        assert cache["k"] == "old"
        theirs["k"] = "new"
        assert (cache["k"], cache.get("k"), cache.get_many(["k"])) == ("old", "old", {"k": "old"})
        assert cache.get_or_load("k", str) == "old"
        look(store)
        assert cache["k"] == "new"
        theirs.delete("k")
        assert cache["k"] == "new"
        look(store)
        assert cache.get("k") is None

    def test_no_copy_serves_longer_than_is_allowed(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        theirs["k"] = "old"
        assert cache["k"] == "old"
        theirs["k"] = "new"
        copies_of(cache).tick = lambda: perf_counter() + HOUR - TIMEOUT
        assert cache["k"] == "old"
        copies_of(cache).tick = lambda: perf_counter() + HOUR
        assert cache["k"] == "new"
        theirs["k"] = "newer"
        assert cache["k"] == "newer"
        look(store)
        assert cache["k"] == "newer"
        theirs["k"] = "newest"
        assert (cache["k"], cache["k"]) == ("newer", "newer")

    def test_a_copy_that_was_found_before_a_look(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        """A thread stands still after it has found a copy, which is dropped before it goes on."""
        theirs["k"] = "old"
        assert (cache["k"], cache["k"]) == ("old", "old")
        theirs["k"] = "new"

        def tick() -> float:
            copies_of(cache).tick = perf_counter
            look(store)
            return perf_counter()

        copies_of(cache).tick = tick
        assert cache["k"] == "new"

    def test_commits_that_the_log_has_no_more(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        theirs["k"] = "old"
        assert cache["k"] == "old"
        theirs["k"] = "new"
        engine = engine_of(store)
        assert isinstance(engine, FollowingEngine)
        publication = engine.publication
        publication.during(publication.lose, publication.seen + 1)
        assert cache["k"] == "new"

    def test_whoever_is_told_of_a_change_sees_it(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        theirs["k"] = 1
        assert cache["k"] == 1
        seen: list[Any] = []

        def listener(event: StoreModificationEvent) -> None:
            seen.append(cache.get("k"))

        store.event_manager.connect(StoreModificationEvent, listener)
        assert cache["k"] == 1
        theirs["k"] = 2
        look(store)
        assert seen == [2]

    def test_listeners_are_told_nothing_of_before(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        """Though a near cache reads the log, and has not read so far."""
        told: list[str] = []
        cache["own"] = theirs["theirs"] = 1
        store.event_manager.connect(StoreModificationEvent, lambda event: told.append(event.key))
        with store.watch() as watch:
            cache["own, heard"], theirs["theirs, heard"] = 1, 1
            look(store)
            assert told == ["own, heard", "theirs, heard"]
            seen: list[Any] = [watch.get(0), watch.get(0)]
            assert [event.key for event in seen] == told

    def test_nothing_is_kept_that_was_read_before_a_change(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        theirs["k"] = "old"
        pausing = Pausing(cache)

        def change() -> None:
            theirs["k"] = "new"
            look(store)

        pausing.then = change
        assert cache["k"] == "old"
        assert cache["k"] == "new"

    # -- what a thread has seen -------------------------------------------------------------------

    @pytest.mark.parametrize("by", ["set", "store", "modify", "transaction", "delete", "tag", "clear"])
    def test_own_writes_are_seen(self, store: TransactionalStore, cache: Cache[Any], by: str) -> None:
        cache.set("k", 1, tags=["t"])
        assert (cache["k"], cache["k"]) == (1, 1)
        expected: int | None = 2
        if by == "set":
            cache["k"] = 2
        elif by == "store":
            store.from_bytes("k", b"2")
        elif by == "modify":
            cache.modify("k", lambda value: value + 1)
        elif by == "transaction":
            with store.transaction():
                cache["k"] = 2
        else:
            expected = None
            {
                "delete": lambda: cache.delete("k"),
                "tag": lambda: cache.invalidate_tag("t"),
                "clear": cache.clear,
            }[by]()
        assert cache.get("k") == expected

    def test_a_read_that_began_before_an_own_write(self, cache: Cache[Any], theirs: Cache[Any]) -> None:
        """Nobody has looked at the log: the write itself is what tells."""
        theirs["k"] = "old"
        pausing = Pausing(cache)
        pausing.then = lambda: cache.set("k", "own")
        assert cache["k"] == "old"
        assert cache["k"] == "own"

    @pytest.mark.parametrize("value", ["new", None])
    def test_a_read_that_began_before_another(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any], value: str | None
    ) -> None:
        """A slow reader has an older value than what another thread has read meanwhile."""
        theirs["k"] = "old"
        pausing = Pausing(cache)

        def change_and_read() -> None:
            if value is None:
                theirs.delete("k")
            else:
                theirs["k"] = value
            assert cache.get("k") == value

        with Actor(store) as other:
            pausing.then = lambda: other.do(change_and_read)
            assert cache["k"] == "old"
            assert other.do(lambda: cache.get("k")) == value

    def test_a_transaction_reads_the_store(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        theirs["k"] = "old"
        assert cache["k"] == "old"
        theirs["k"] = "new"
        with store.transaction():
            assert cache["k"] == "new"
            cache["k"] = "own"
            assert (cache["k"], cache.get_or_load("k", str)) == ("own", "own")
            with Actor(store) as other:
                assert other.do(lambda: cache["k"]) == "new"
            store.current_transaction().rollback()  # type: ignore[union-attr]
        assert cache["k"] == "new"

    def test_what_is_not_a_get_reads_the_store(self, cache: Cache[Any], theirs: Cache[Any]) -> None:
        theirs["k"] = "old"
        assert cache["k"] == "old"
        theirs.delete("k")
        assert "k" not in cache
        assert cache.get("k") is None
        assert list(cache) == []

    # -- expiry and use ---------------------------------------------------------------------------

    def test_a_copy_expires_as_its_entry(self, cache: Cache[Any], clock: Clock) -> None:
        cache.set("k", "value", ttl=10)
        assert (cache.get("k"), cache.get("k")) == ("value", "value")
        clock.now += 9.9
        assert cache.get("k") == "value"
        clock.now += 0.1
        assert (cache.get("k"), cache.get("k")) == (None, None)

    def test_hits_of_copies_are_uses(self, store: TransactionalStore, clock: Clock) -> None:
        seconds = [perf_counter()]
        with Cache(store, clock=clock, idle=80, near=NearCache(staleness=HOUR)) as cache:
            look(store)
            copies_of(cache).tick = lambda: seconds[0]
            look(store)
            cache["used"], cache["idle"] = 1, 1
            for key in cache:
                assert (cache.get(key), cache.get(key)) == (1, 1)
            for _ in range(20):
                seconds[0] += 9
                clock.now += 9
                assert cache.get("used") == 1
            assert cache.get("idle") is None
            assert cache.stats()["near_hits"] >= 20
            seconds[0] += 80
            clock.now += 80
            assert cache.get("used") is None

    def test_what_is_hit_is_not_evicted(self, store: TransactionalStore) -> None:
        seconds = [perf_counter()]
        with Cache(store, max_entries=2, near=NearCache(staleness=HOUR)) as cache:
            copies_of(cache).tick = lambda: seconds[0]
            look(store)
            cache["hit"] = 1
            assert cache["hit"] == 1
            cache["second"] = 1
            cache["third"] = 1
            assert sorted(cache) == ["hit", "third"]
            seconds[0] += 1
            assert cache["hit"] == 1
            assert cache.stats()["near_hits"] == 1
            cache["fourth"] = 1
            assert sorted(cache) == ["fourth", "hit"]

    def test_refreshing(self, cache: Cache[Any], clock: Clock) -> None:
        assert cache.get_or_load("k", lambda key: "first", refresh_after=10) == "first"
        for _ in range(3):
            assert cache.get_or_load("k", lambda key: "no load") == "first"
        assert cache.stats()["near_hits"] >= 2
        clock.now += 10
        assert cache.get_or_load("k", lambda key: "second") == "second"
        assert cache["k"] == "second"

    # -- what is kept -----------------------------------------------------------------------------

    def test_the_bound(self, store: TransactionalStore) -> None:
        with Cache(store, near=NearCache(staleness=HOUR, max_entries=3)) as cache:
            look(store)
            cache.set_many({str(number): number for number in range(10)})
            for number in range(10):
                assert (cache[str(number)], cache["0"]) == (number, 0)
                check_idle(cache)
            assert sorted(copies_of(cache).copies) == ["0", "8", "9"]
            for _ in range(20):  # copies that are dropped take no room
                cache["0"] = 0
                assert cache["0"] == 0
            check_idle(cache)

    def test_what_can_be_changed_is_each_callers_own(self, cache: Cache[Any]) -> None:
        cache["list"], cache["text"] = [1], "a text that no literal has: " * 2
        for key, same in (("list", False), ("text", True)):
            cache.get(key)
            first, second = cache.get(key), cache.get(key)
            assert first == second
            assert (first is second) is same

    def test_namespaces_share_the_copies(self, cache: Cache[Any], theirs: Cache[Any]) -> None:
        users = cache.namespace("users", idle=100)
        theirs["users:anna"] = 1
        assert (users["anna"], users["anna"], cache["users:anna"]) == (1, 1, 1)
        theirs["users:anna"] = 2
        assert (users["anna"], users.get_or_load("anna", str)) == (1, 1)
        users["anna"] = 3
        assert (users["anna"], cache["users:anna"]) == (3, 3)
        assert users.stats()["near_hits"] == 3
        assert cache.stats()["near_hits"] == 2

    def test_memoized_results(self, cache: Cache[Any]) -> None:
        calls: list[int] = []

        @cache.memoize
        def double(number: int) -> int:
            calls.append(number)
            return 2 * number

        assert [double(2) for _ in range(4)] == [4] * 4
        assert calls == [2]
        assert cache.stats()["near_hits"] >= 2
        double.invalidate(2)
        assert double(2) == 4
        assert calls == [2, 2]

    def test_what_is_counted(self, cache: Cache[Any]) -> None:
        cache["k"] = 1
        for key in ("k", "k", "k", "missing"):
            cache.get(key)
        stats = cache.stats()
        assert (stats["hits"], stats["near_hits"], stats["misses"]) == (3, 2, 1)

    # -- its beginning and its end ----------------------------------------------------------------

    def test_it_ends_with_the_cache(self, store: TransactionalStore, theirs: Cache[Any]) -> None:
        first, second = (Cache(store, near=NearCache(staleness=HOUR)) for _ in range(2))
        theirs["k"] = "old"
        look(store)
        assert (first["k"], second["k"]) == ("old", "old")
        assert is_followed(store)
        first.close()
        theirs["k"] = "new"
        assert (first["k"], second["k"]) == ("new", "old")
        theirs["k"] = "newer"
        assert first["k"] == "newer"
        del second
        gc.collect()
        assert not is_followed(store)

    def test_the_thread_that_looks_ends(self, store: TransactionalStore) -> None:
        before = set(threading.enumerate())
        with Cache(store, near=NearCache()):
            (thread,) = set(threading.enumerate()) - before
        thread.join(TIMEOUT)
        assert not thread.is_alive()

    def test_a_store_that_was_closed(
        self, store: TransactionalStore, cache: Cache[Any], theirs: Cache[Any]
    ) -> None:
        theirs["k"] = "old"
        assert cache["k"] == "old"
        store.close(TIMEOUT)
        theirs["k"] = "new"
        store.connect()
        look(store)
        assert cache["k"] == "new"

    @needs_fork
    def test_a_child_begins_without_copies(self, cache: Cache[Any], theirs: Cache[Any]) -> None:
        theirs["k"] = "old"
        assert (cache["k"], cache["k"]) == ("old", "old")
        theirs["k"] = "new"

        def be_child() -> None:
            hits = cache.stats()["near_hits"]
            assert cache["k"] == "new"
            cache["k"] = "child's"
            assert cache["k"] == "child's"
            assert cache.stats()["near_hits"] == hits
            look(cache.store)  # type: ignore[arg-type]
            assert (cache["k"], cache["k"]) == ("child's", "child's")
            assert cache.stats()["near_hits"] > hits
            cache.store.close(TIMEOUT)

        assert in_child(be_child) == ""
        assert cache["k"] == "old"
