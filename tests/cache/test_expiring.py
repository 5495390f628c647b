"""What has expired is never returned, and is evicted by later commits and by sweeps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, StoreEvictEvent
from latchstore.cache.inspection import check
from latchstore.engine.inspection import dispatcher_of, table_of
from tests.cache.clocks import Clock


class Asked(DictMemoryStore):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(EventManager())
        self.asked: list[str] = []

    def get(self, key: str) -> Any:
        self.asked.append(key)
        return super().get(key)

    def exists(self, key: str) -> bool:
        self.asked.append(key)
        return super().exists(key)

    def query_keys(self, **kwargs: Any) -> Any:
        self.asked.append("all")
        return super().query_keys(**kwargs)


@pytest.fixture
def store() -> Iterator[Asked]:
    with Asked() as store:
        yield store


@pytest.fixture
def timed(store: Asked, clock: Clock) -> Cache:
    return Cache(store, codec="pickle", clock=clock)


class TestTtl:
    def test_nothing_expired_is_returned(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", 1, ttl=10.0)
        cache.set("other", 2)
        clock.now += 9.999
        assert (cache["key"], "key" in cache, len(cache)) == (1, True, 2)
        assert cache.remaining("key") == pytest.approx(0.001)
        clock.now += 0.001
        assert (cache.get("key"), "key" in cache, list(cache), len(cache)) == (None, False, ["other"], 1)
        assert (list(cache.items()), cache.get_many(["key"])) == ([("other", 2)], {})
        with pytest.raises(KeyError):
            cache["key"]
        with pytest.raises(KeyError):
            cache.remaining("key")
        with pytest.raises(KeyError):
            del cache["key"]
        assert not cache.touch("key", 10.0)
        assert cache.pop("key", "gone") == "gone"

    def test_adding_what_has_expired(self, cache: Cache, clock: Clock) -> None:
        assert cache.add("key", 1, ttl=1.0)
        assert not cache.add("key", 2)
        clock.now += 1
        assert cache.add("key", 3)
        assert cache.setdefault("key", 4) == 3
        assert cache.remaining("key") is None

    def test_of_the_cache_and_of_an_entry(self, clock: Clock) -> None:
        with Cache(ttl=10.0, clock=clock) as cache:
            cache["key"] = 1
            cache.set("short", 1, ttl=1.0)
            assert (cache.remaining("key"), cache.remaining("short")) == (10.0, 1.0)
            cache.touch("short")
            assert cache.remaining("short") == 10.0
            clock.now += 5
            cache["key"] = 2  # which begins anew
            assert cache.remaining("key") == 10.0

    def test_inside_a_transaction(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", 1, ttl=10.0)
        with cache.store.transaction():
            cache.set("inside", 1, ttl=5.0)
            clock.now += 5
            assert (cache.get("inside"), list(cache)) == (None, ["key"])
            clock.now += 5
            assert (cache.get("key"), len(cache)) == (None, 0)

    def test_what_others_write_expires(self, timed: Cache, store: Asked, clock: Clock) -> None:
        store.set("key", (timed.codec.encode(1), {"cache_expires": clock.now + 1}))
        assert timed["key"] == 1
        clock.now += 1
        assert timed.get("key") is None

    def test_a_saved_store(self, clock: Clock, tmp_path: Any) -> None:
        with Cache(clock=clock) as cache:
            cache.set("key", 1, ttl=10.0)
            cache.set("short", 1, ttl=1.0)
            cache.store.save(tmp_path / "saved")  # type: ignore[attr-defined]
        clock.now += 1
        with DictMemoryStore.load(tmp_path / "saved") as store:
            again = Cache(store, codec="reference", clock=clock)
            assert dict(again) == {"key": 1}
            assert again.sweep() == 1


class TestIdle:
    def test_each_use_begins_anew(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", 1, idle=10.0)
        for use in (lambda: cache["key"], lambda: "key" in cache, lambda: cache.touch("key")):
            clock.now += 9
            assert use()
        clock.now += 10
        assert (cache.get("key"), "key" in cache, list(cache), len(cache)) == (None, False, [], 0)

    def test_looking_at_all_is_no_use(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", 1, idle=10.0)
        clock.now += 9
        assert (list(cache), len(cache), cache.remaining("key")) == (["key"], 1, None)
        clock.now += 1
        assert cache.get("key") is None

    def test_a_ttl_counts_in_spite_of_uses(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", 1, ttl=15.0, idle=10.0)
        clock.now += 9
        assert cache["key"] == 1
        clock.now += 6
        assert cache.get("key") is None
        cache.sweep()
        assert cache.stats()["evictions"] == {"size": 0, "expired": 1, "idle": 0}

    def test_of_the_cache(self, clock: Clock) -> None:
        with Cache(idle=10.0, clock=clock) as cache:
            cache["key"] = 1
            cache.set("long", 1, idle=20.0)
            clock.now += 10
            assert list(cache) == ["long"]
            assert cache.sweep() == 1
            assert cache.stats()["evictions"] == {"size": 0, "expired": 0, "idle": 1}

    def test_what_was_used_is_not_swept(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", 1, idle=10.0)
        clock.now += 9
        cache["key"]
        clock.now += 1
        assert cache.sweep() == 0
        clock.now += 9
        assert cache.sweep() == 1


class TestRefreshing:
    def test_an_entry_that_expires_while_it_is_refreshed(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", "old", ttl=10.0, refresh_after=5.0)
        clock.now += 5

        def load(key: str) -> str:
            clock.now += 5
            assert cache.get(key) is None
            return "new"

        assert cache.get_or_load("key", load, ttl=10.0, refresh_after=5.0) == "new"
        assert (cache.get("key"), cache.remaining("key")) == ("new", 10.0)

    def test_a_refreshed_entry_begins_anew(self, cache: Cache, clock: Clock) -> None:
        loaded: list[float] = []

        def load(key: str) -> float:
            loaded.append(clock.now)
            return clock.now

        for _ in range(12):
            cache.get_or_load("key", load, ttl=10.0, refresh_after=4.0)
            clock.now += 1
        assert loaded == [1000.0, 1004.0, 1008.0]

    def test_a_plain_get_refreshes_nothing(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", 1, refresh_after=1.0)
        clock.now += 100
        assert cache["key"] == 1
        assert cache.remaining("key") is None


class TestSweeping:
    def test_in_one_commit_at_a_cost_of_what_goes(self, timed: Cache, store: Asked, clock: Clock) -> None:
        timed.set_many({f"long{number}": 1 for number in range(3_000)}, ttl=1000.0)
        timed.set_many({f"k{number}": 1 for number in range(10)}, ttl=1.0)
        store.flush()
        clock.now += 1
        watch = store.watch()
        store.asked.clear()
        assert timed.sweep() == 10
        assert "all" not in store.asked
        assert {key for key in store.asked if not key.startswith("k")} == set()
        assert len(store.asked) <= 4 * 10
        assert len({watch.get(0).revision for _ in range(10)}) == 1
        assert len(watch) == 0
        assert timed.sweep() == 0
        check(timed)

    def test_what_is_set_again_stays(self, timed: Cache, store: Asked, clock: Clock) -> None:
        timed.set("key", 1, ttl=1.0)
        timed.set("key", 2, ttl=10.0)
        timed.set("forever", 1, ttl=1.0)
        timed["forever"] = 2
        timed.set("touched", 1, ttl=1.0)
        timed.touch("touched", 5.0)
        clock.now += 1
        assert timed.sweep() == 0
        assert dict(timed) == {"key": 2, "forever": 2, "touched": 1}

    def test_what_is_set_again_often_fills_no_memory(self, timed: Cache, store: Asked, clock: Clock) -> None:
        for _ in range(1_000):
            clock.now += 1
            timed.set("key", 1, ttl=10.0)
            timed.delete("key")
        (bound,) = table_of(store).bounds
        assert len(bound.deadlines) < 100

    def test_what_is_touched_again_and_again_changes_no_books(
        self, timed: Cache, store: Asked, clock: Clock
    ) -> None:
        timed.set("key", 1, ttl=10.0)
        (bound,) = table_of(store).bounds
        for _ in range(100):
            clock.now += 1
            timed.set("key", 1, ttl=10.0)
            timed.touch("key", 10.0)
        assert len(bound.deadlines) == 1
        clock.now += 9.9
        assert timed.sweep() == 0
        timed.set("key", 1, ttl=0.05)  # a deadline that comes before the one that was expected
        clock.now += 0.05
        assert timed.sweep() == 1
        check(timed)

    def test_a_commit_looks_at_a_few(self, timed: Cache, store: Asked, clock: Clock) -> None:
        """Also where many entries would have expired had they not been touched."""
        timed.set_many({f"k{number}": 1 for number in range(100)}, ttl=1.0)
        for number in range(100):
            timed.touch(f"k{number}", 10.0)
        clock.now += 1
        (bound,) = table_of(store).bounds
        nodes = list(bound.nodes.values())
        timed["other"] = 1
        assert 0 < sum((node.expected or 0.0) > clock.now for node in nodes) <= 16
        assert timed.sweep() == 0
        assert {node.expected for node in nodes} == {clock.now + 9}
        check(timed)

    def test_more_than_go_at_once(self, timed: Cache, store: Asked, clock: Clock) -> None:
        """Other writers get their turn in between."""
        timed.set_many({f"k{number}": 1 for number in range(2_500)}, ttl=1.0)
        clock.now += 1
        watch = store.watch()
        assert timed.sweep() == 2_500
        revisions = Counter(watch.get(0).revision for _ in range(2_500))
        assert sorted(revisions.values()) == [500, 1_000, 1_000]

    def test_later_commits_evict_what_has_expired(self, timed: Cache, store: Asked, clock: Clock) -> None:
        """Nobody calls sweep, and no thread does it."""
        timed.set_many({f"k{number}": 1 for number in range(40)}, ttl=1.0)
        timed.set("later", 1, ttl=100.0)
        clock.now += 1
        watch = store.watch()
        for number in range(4):
            timed[f"new{number}"] = 1
        assert sorted(store.query_keys()) == ["later", "new0", "new1", "new2", "new3"]
        events: list[Any] = [watch.get(0) for _ in range(len(watch))]
        causes = Counter(event.cause for event in events if isinstance(event, StoreEvictEvent))
        assert causes == {"expired": 40}
        assert len({event.revision for event in events}) == 4
        assert timed.stats()["evictions"]["expired"] == 40
        assert dispatcher_of(store).thread is None

    def test_what_has_expired_is_evicted_before_what_has_not(self, store: Asked, clock: Clock) -> None:
        cache = Cache(store, codec="pickle", max_entries=3, clock=clock)
        cache["oldest"] = 1
        cache.set("short", 1, ttl=1.0)
        cache["new"] = 1
        clock.now += 1
        cache["newer"] = 1
        assert sorted(store.query_keys()) == ["new", "newer", "oldest"]
        assert cache.stats()["evictions"] == {"size": 0, "expired": 1, "idle": 0}

    def test_the_store_shows_what_the_cache_does_not(self, timed: Cache, store: Asked, clock: Clock) -> None:
        """Until it is evicted."""
        timed.set("key", 1, ttl=1.0)
        clock.now += 1
        with store.snapshot() as view:
            assert "key" not in timed
            assert store.exists("key")
            assert list(store.query_keys()) == ["key"]
            assert timed.sweep() == 1
            assert not store.exists("key")
            assert view.exists("key")

    def test_a_cache_that_is_closed_or_gone_sweeps_nothing(self, store: Asked, clock: Clock) -> None:
        cache = Cache(store, codec="pickle", clock=clock)
        cache.set("key", 1, ttl=1.0)
        cache.close()
        other = Cache(store, codec="pickle", clock=clock)
        other.set("other", 1, ttl=1.0)
        del other
        clock.now += 1
        store.from_bytes("new", b"")
        assert len(store) == 3
        assert cache.sweep() == 2  # a closed one that is used follows the store again


class TestIdleOfWhatOthersWrite:
    def test_it_counts_from_the_first_look(self, store: Asked, clock: Clock) -> None:
        """The clock of the cache is not asked when others write."""
        cache = Cache(store, clock=clock, idle=10.0, codec="raw")
        store.from_bytes("key", b"")
        clock.now += 100
        assert cache.sweep() == 0
        clock.now += 9
        assert list(cache) == ["key"]
        clock.now += 1
        assert "key" not in cache
        assert cache.sweep() == 1

    def test_and_so_it_does_in_a_transaction(self, store: Asked, clock: Clock) -> None:
        cache = Cache(store, codec="pickle", clock=clock, idle=10.0)
        cache["before"] = 1
        clock.now += 9
        with store.transaction():
            cache["before"] = 2
            cache["inside"] = 1
            clock.now += 9
            assert (cache["before"], cache["inside"]) == (2, 1)
        clock.now += 1
        assert (cache["before"], cache["inside"]) == (2, 1)
        clock.now += 10
        assert (cache.get("before"), cache.get("inside")) == (None, None)


def test_the_clock_that_others_have_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As freezegun and time-machine do, after this package was imported."""
    now = time.monotonic()
    cache = Cache(ttl=10.0)
    cache["key"] = 1
    monkeypatch.setattr(time, "monotonic", lambda: now + 1_000.0)
    assert "key" not in cache
