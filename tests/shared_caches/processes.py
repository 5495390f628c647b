"""Caches of several processes on one store: the bound, what has expired, one load of a key, invalidation.

A test module derives from these classes, and has the fixtures `store`, `place`, `processes` and `overdue`,
which has the time of a key's lease be over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Cache, LoadTimeoutError, RecursiveLoadError
from latchstore.cache.inspection import check, check_idle
from tests.cache.clocks import Clock, worst_of
from tests.shared_caches.cache_process import TIMEOUT, CacheProcess, Call, Place

BOUND = 12


class ProcessesContract:
    """What the classes below have in common."""

    @pytest.fixture
    def cache(self, store: Any) -> Iterator[Cache[Any]]:
        with Cache(store, max_entries=BOUND) as cache:
            yield cache
            check_idle(cache)

    @pytest.fixture
    def other(self, place: Place, cache: Cache[Any], processes: list[CacheProcess]) -> Iterator[CacheProcess]:
        """Another process, which has a cache with the same bound."""
        yield processes[0].open(place, max_entries=BOUND)
        processes[0].close()

    @pytest.fixture
    def third(self, place: Place, cache: Cache[Any], processes: list[CacheProcess]) -> Iterator[CacheProcess]:
        """One more process."""
        yield processes[1].open(place, max_entries=BOUND)
        processes[1].close()

    @pytest.fixture
    def unbounded(self, place: Place, store: Any, processes: list[CacheProcess]) -> Iterator[CacheProcess]:
        """Another process, whose cache has no bound."""
        yield processes[0].open(place)
        processes[0].close()


# What the other process does.


def put(call: Call, cache: Cache[Any], start: int, stop: int) -> None:
    for number in range(start, stop):
        if number % 10 == 0:
            cache.set_many({f"{number}-{part}": part for part in range(3)})
        else:
            cache[str(number)] = number


def get(call: Call, cache: Cache[Any], key: str) -> Any:
    return cache.get(key)


def keys(call: Call, cache: Cache[Any]) -> list[str]:
    return list(cache)


def do(call: Call, cache: Cache[Any], method: str, *arguments: Any) -> Any:
    return getattr(cache, method)(*arguments)


def set_with(call: Call, cache: Cache[Any], key: str, value: Any, options: dict[str, Any]) -> None:
    cache.set(key, value, **options)


def load(call: Call, cache: Cache[Any], key: str, value: Any, timeout: float | None = None) -> Any:
    return cache.get_or_load(key, lambda key: value, timeout=timeout), cache.stats()["loads"]


def load_slowly(call: Call, cache: Cache[Any], key: str, value: Any) -> Any:
    def loader(key: str) -> Any:
        call.pause()
        return value

    return cache.get_or_load(key, loader, tags=["tag"])


def fail_slowly(call: Call, cache: Cache[Any], key: str) -> Any:
    def loader(key: str) -> Any:
        call.pause()
        raise ValueError(key)

    return cache.get_or_load(key, loader)


def refresh_slowly(call: Call, cache: Cache[Any], key: str, value: Any) -> Any:
    def loader(key: str) -> Any:
        call.pause()
        return value

    return cache.get_or_load(key, loader)


def load_two(call: Call, cache: Cache[Any], first: str, then: str) -> Any:
    def loader(key: str) -> Any:
        call.pause()
        return cache.get_or_load(then, lambda key: f"{key} of the other")

    return cache.get_or_load(first, loader)


class BoundContract(ProcessesContract):
    def test_it_is_exceeded_by_no_commit_of_any_process(
        self, store: Any, cache: Cache[Any], other: CacheProcess, third: CacheProcess
    ) -> None:
        watch = store.watch(max_buffer=100_000)
        other.begin(put, 1_000, 1_100)
        third.begin(put, 2_000, 2_100)
        for number in range(100):
            cache[str(number)] = number
            if number % 7 == 0:
                cache.pop(str(number - 1), None)
        other.result()
        third.result()
        store.flush()
        most, _ = worst_of(watch)
        assert most == BOUND
        check(cache)

    def test_a_hit_in_one_process_spares_from_eviction_by_another(
        self, cache: Cache[Any], other: CacheProcess
    ) -> None:
        cache.set_many({str(number): number for number in range(BOUND)})
        assert other.run(get, "0") == 0
        other.run(set_with, "more", 1, {})  # which notes the hit, and evicts the oldest that was not hit
        for number in range(3):
            cache[f"new{number}"] = number
        assert "0" in cache
        assert [key for key in map(str, range(BOUND)) if key not in cache] == ["1", "2", "3", "4"]

    def test_what_a_process_without_a_cache_writes_is_evicted_by_the_next_commit(
        self, place: Place, store: Any, cache: Cache[Any]
    ) -> None:
        cache.set_many({str(number): number for number in range(BOUND)})
        with place() as plain:
            for number in range(5):
                plain.from_bytes(f"plain{number}", b"1")
        assert len(store) == BOUND + 5
        cache["new"] = 1
        assert len(store) == BOUND
        assert cache.stats()["evictions"]["size"] == 6
        check(cache)

    def test_evictions_of_all_processes_are_counted(self, cache: Cache[Any], other: CacheProcess) -> None:
        other.run(put, 1, 9)
        cache.set_many({str(number): number for number in range(100, 100 + BOUND)})
        assert cache.stats()["evictions"] == {"size": 8, "expired": 0, "idle": 0}
        assert other.run(do, "stats")["evictions"]["size"] == 8

    def test_a_namespace_of_several_processes(self, cache: Cache[Any], other: CacheProcess) -> None:
        users = cache.namespace("users", max_entries=2)
        users.set_many({"a": 1, "b": 2})
        other.run(in_namespace, "users", "c")
        assert sorted(users) == ["b", "c"]
        assert len(cache) == 2
        check(users)


def in_namespace(call: Call, cache: Cache[Any], name: str, key: str) -> None:
    cache.namespace(name, max_entries=2)[key] = 1


class ExpiryContract(ProcessesContract):
    def test_all_see_what_has_expired(self, store: Any, unbounded: CacheProcess) -> None:
        other = unbounded
        past = Clock(time.time() - 1_000)
        with Cache(store, clock=past) as early:
            early.set("short", 1, ttl=10)
            early.set("long", 1, ttl=5_000)
            assert early["short"] == 1
            assert other.run(get, "short") is None
            assert other.run(get, "long") == 1
            assert other.run(keys) == ["long"]
            other.run(set_with, "more", 1, {})  # which evicts by the way
            assert early.get("short") is None
            assert early.stats()["evictions"]["expired"] == 1

    def test_a_sweep(self, store: Any, unbounded: CacheProcess) -> None:
        with Cache(store, clock=Clock(time.time() - 1_000)) as early:
            early.set_many({str(number): number for number in range(5)}, ttl=10)
            assert unbounded.run(do, "sweep") == 5
            assert len(store) == 0
            check(early)

    def test_a_use_in_another_process_begins_the_idle_time_anew(
        self, store: Any, place: Place, processes: list[CacheProcess]
    ) -> None:
        clock = Clock(time.time() - 90)
        with Cache(store, idle=100, clock=clock) as cache:
            other = processes[0].open(place, idle=100)
            cache["used"] = cache["unused"] = 1
            assert other.run(get, "used") == 1  # 90 seconds later
            clock.now += 101
            assert cache.get("unused") is None
            assert cache.get("used") == 1
            cache["more"] = 1  # evicts by the way what was idle
            assert sorted(store.query_keys()) == ["more", "used"]
            assert cache.stats()["evictions"]["idle"] == 1
        other.close()


class LoadsContract(ProcessesContract):
    def test_one_load_for_all_processes(
        self, cache: Cache[Any], other: CacheProcess, third: CacheProcess
    ) -> None:
        other.begin(load_slowly, "key", "loaded")
        other.await_pause()
        with pytest.raises(LoadTimeoutError, match=f"by process {other.pid}"):
            cache.get_or_load("key", lambda key: "twice", timeout=0.01)
        third.begin(load, "key", "twice")
        other.go_on()
        assert other.result() == "loaded"
        assert third.result() == ("loaded", 0)
        assert cache.get_or_load("key", lambda key: "twice") == "loaded"

    def test_many_keys(self, cache: Cache[Any], other: CacheProcess) -> None:
        other.begin(load_slowly, "b", "of the other")
        other.await_pause()
        asked: list[list[str]] = []

        def loader(keys: list[str]) -> dict[str, str]:
            asked.append(keys)
            other.go_on()
            return dict.fromkeys(keys, "own")

        assert cache.get_many_or_load(["a", "b", "c"], loader) == {
            "a": "own",
            "b": "of the other",
            "c": "own",
        }
        assert other.result() == "of the other"
        assert asked == [["a", "c"]]

    def test_the_load_of_a_process_that_is_killed_is_taken_over(
        self, place: Place, cache: Cache[Any]
    ) -> None:
        with CacheProcess() as killed:
            killed.open(place, max_entries=BOUND).begin(load_slowly, "key", "loaded")
            killed.await_pause()
            killed.kill()
        assert cache.get_or_load("key", lambda key: "here", timeout=20) == "here"
        assert cache["key"] == "here"

    def test_a_load_that_fails_is_tried_by_the_next(self, cache: Cache[Any], other: CacheProcess) -> None:
        other.begin(fail_slowly, "key")
        other.await_pause()
        other.go_on()
        with pytest.raises(ValueError, match="key"):
            other.result()
        assert cache.get_or_load("key", lambda key: "here", timeout=0) == "here"

    def test_what_is_loaded_after_the_lease_has_ended_is_not_stored(
        self, cache: Cache[Any], other: CacheProcess, overdue: Callable[[str], None]
    ) -> None:
        other.begin(load_slowly, "key", "late")
        other.await_pause()
        overdue("key")
        assert cache.get_or_load("key", lambda key: "here", timeout=0) == "here"
        cache.delete("key")
        other.go_on()
        assert other.result() == "late"
        assert "key" not in cache

    @pytest.mark.parametrize(
        "change",
        [
            lambda cache: cache.delete("key"),
            lambda cache: (cache.set("key", "new"), cache.delete("key")),
            lambda cache: cache.clear(),
            lambda cache: cache.invalidate_tag("tag"),
            lambda cache: cache.delete_glob("k*"),
            lambda cache: cache.pop("other"),
        ],
    )
    def test_what_was_deleted_meanwhile_is_not_put_back(
        self, cache: Cache[Any], other: CacheProcess, change: Callable[[Cache[Any]], object]
    ) -> None:
        cache["other"] = 1
        other.begin(load_slowly, "key", "old")
        other.await_pause()
        kept = change(cache) == 1 and "other" not in cache  # another key was deleted
        other.go_on()
        assert other.result() == "old"
        assert ("key" in cache) == kept

    def test_in_a_transaction_it_counts_from_the_commit(
        self, store: Any, cache: Cache[Any], other: CacheProcess
    ) -> None:
        cache.set("tagged", 1, tags=["tag"])
        with store.transaction():
            store.from_bytes("source", b"new")
            cache.invalidate_tag("tag")
            other.begin(load_slowly, "key", "old")  # has begun before the commit
            other.await_pause()
        other.go_on()
        assert other.result() == "old"
        assert "key" not in cache

    @pytest.mark.parametrize(
        ("remove", "optimistic"),
        [
            (lambda cache: cache.delete("key"), False),
            (lambda cache: cache.clear(), True),
            (lambda cache: cache.invalidate_tag("tag"), False),
            (lambda cache: cache.delete_glob("k*"), True),
        ],
        ids=["delete", "clear, optimistic", "tag", "glob, optimistic"],
    )
    def test_a_transaction_that_has_nothing_else_to_change_counts_as_well(
        self,
        store: Any,
        cache: Cache[Any],
        other: CacheProcess,
        remove: Callable[[Cache[Any]], object],
        optimistic: bool,
    ) -> None:
        """What it makes old is not in the store."""
        cache.set("tagged", 1, tags=["tag"])  # there is an index of tags, for which no block is waited for
        del cache["tagged"]
        with store.transaction(optimistic=optimistic):
            remove(cache)
            other.begin(load_slowly, "key", "old")
            other.await_pause()
        other.go_on()
        assert other.result() == "old"
        assert "key" not in cache

    def test_a_removal_outside_of_a_savepoint_counts_if_one_inside_is_taken_back(
        self, store: Any, cache: Cache[Any], other: CacheProcess
    ) -> None:
        cache.set("tagged", 1, tags=["tag"])
        with store.transaction():
            cache.invalidate_tag("tag")
            with store.transaction() as inside:
                cache.delete("another")
                inside.doom()
            other.begin(load_slowly, "key", "old")
            other.await_pause()
        other.go_on()
        assert other.result() == "old"
        assert "key" not in cache

    def test_a_removal_that_is_rolled_back_does_not_count(
        self, store: Any, cache: Cache[Any], other: CacheProcess
    ) -> None:
        cache.set("tagged", 1, tags=["tag"])
        with store.transaction() as block:
            cache.clear()
            other.begin(load_slowly, "key", "loaded")
            other.await_pause()
            block.doom()
        cache["more"] = 1  # a commit of the same thread's
        other.go_on()
        assert other.result() == "loaded"
        assert cache["key"] == "loaded"

    def test_what_was_set_meanwhile_counts_more(self, cache: Cache[Any], other: CacheProcess) -> None:
        other.begin(load_slowly, "key", "old")
        other.await_pause()
        cache["key"] = "new"
        other.go_on()
        assert other.result() == "new"
        assert cache["key"] == "new"

    def test_who_asks_after_a_change_of_another_process_does_not_get_what_began_before(
        self, cache: Cache[Any], other: CacheProcess, waits: threading.Semaphore
    ) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def load_old(key: str) -> str:
            begun.set()
            assert go_on.wait(TIMEOUT)
            return "old"

        with ThreadPoolExecutor() as pool:
            old = pool.submit(cache.get_or_load, "key", load_old)
            assert begun.wait(TIMEOUT)
            other.run(do, "delete", "key")
            new = pool.submit(cache.get_or_load, "key", lambda key: "new")
            assert waits.acquire(timeout=TIMEOUT)  # it has found the other thread's load
            go_on.set()
            assert (old.result(TIMEOUT), new.result(TIMEOUT)) == ("old", "new")
        assert cache["key"] == "new"

    def test_who_waits_for_a_loader_that_waits_for_another_key(
        self, cache: Cache[Any], other: CacheProcess, third: CacheProcess
    ) -> None:
        """A line of those who wait is no circle."""
        other.begin(load_slowly, "z", "last")
        other.await_pause()
        third.begin(load_two, "y", "z")
        third.await_pause()
        third.go_on()

        def loader(key: str) -> Any:
            other.go_on()
            return cache.get_or_load("y", lambda key: "ours")

        assert cache.get_or_load("x", loader) == "last"
        assert (other.result(), third.result()) == ("last", "last")

    def test_one_process_refreshes(self, store: Any, unbounded: CacheProcess) -> None:
        other = unbounded
        with Cache(store, clock=Clock(time.time() - 1_000)) as early:
            early.set("key", "old", refresh_after=10)
        with Cache(store) as cache:
            other.begin(refresh_slowly, "key", "new")
            other.await_pause()
            assert cache.get_or_load("key", lambda key: "twice") == "old"
            other.go_on()
            assert other.result() == "new"
            assert cache["key"] == "new"


class CirclesContract(ProcessesContract):
    def test_loaders_that_wait_for_one_another(self, cache: Cache[Any], other: CacheProcess) -> None:
        """The last to wait gets an error that names both keys, and so the other one goes on."""

        def loader(key: str) -> Any:
            other.begin(load_two, "y", "x")
            other.await_pause()
            other.go_on()
            return cache.get_or_load("y", lambda key: f"{key} of ours")

        found: list[Any] = []
        calls: list[Callable[[], Any]] = [lambda: cache.get_or_load("x", loader), other.result]
        for call in calls:
            try:
                found.append(call())
            except RecursiveLoadError as error:
                found.append(str(error))
        process = "is being loaded by process {}, which waits for what this thread loads: ".format
        assert found in (
            [f"key 'y' {process(other.pid)}'y' -> 'x'", "x of the other"],
            ["y of ours", f"key 'x' {process(os.getpid())}'x' -> 'y'"],
        )
        cache.clear()
        assert cache.get_or_load("y", lambda key: "again") == "again"


class InvalidationContract(ProcessesContract):
    def test_a_tag(self, cache: Cache[Any], other: CacheProcess) -> None:
        cache.set("a", 1, tags=["x", "y"])
        other.run(set_with, "b", 1, {"tags": ["x"]})
        cache.set("c", 1, tags=["y"])
        assert other.run(get, "a") == 1
        assert cache.invalidate_tag("x") == 2
        assert other.run(keys) == ["c"]
        assert other.run(do, "invalidate_tag", "y") == 1
        assert list(cache) == []
        check(cache)
