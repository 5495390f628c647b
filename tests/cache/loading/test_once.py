"""A key is loaded by one thread at a time; the others wait for it, and have its error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Cache, LoadTimeoutError, RecursiveLoadError
from latchstore.cache.inspection import failures_of, loads_of, register_of
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.loading.loaders import Loader, Loading, Refused, await_waiters
from tests.fork.children import in_child
from tests.schedules import in_another_thread, run_threads


class TestOnce:
    def test_64_threads_ask_for_one_cold_key(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader()
        futures = [pool.submit(cache.get_or_load, "key", loader) for _ in range(64)]
        await_waiters(waits, 63)
        loader.go_on.set()
        assert [future.result(TIMEOUT) for future in futures] == ["loaded"] * 64
        assert loader.calls == ["key"]
        assert cache.stats()["loads"] == 1

    def test_its_exception_reaches_all_and_is_not_kept(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader(Refused("no"))
        futures = [pool.submit(cache.get_or_load, "key", loader) for _ in range(64)]
        await_waiters(waits, 63)
        loader.go_on.set()
        assert all(type(future.exception(TIMEOUT)) is Refused for future in futures)
        assert loader.calls == ["key"]
        assert cache.get_or_load("key", lambda key: "better") == "better"

    def test_1000_keys_that_expire_together_are_loaded_once_each(self, cache: Cache, clock: Clock) -> None:
        keys = [f"key{number}" for number in range(1_000)]
        cache.set_many(dict.fromkeys(keys, "old"), ttl=10.0)
        clock.now += 10
        calls: list[str] = []

        def load(key: str) -> str:
            calls.append(key)
            return "new"

        def body(first: int) -> None:
            for key in keys[first:] + keys[:first]:
                assert cache.get_or_load(key, load, ttl=10.0) == "new"

        run_threads(lambda first=first: body(first) for first in [0, 0, 0, 0, *range(12)])  # type: ignore[misc]
        assert sorted(calls) == sorted(keys)

    def test_who_asks_after_a_load_has_ended_looks_again_before_it_loads(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between its miss and its claim another may have loaded the key."""
        claim = loads_of(cache).claim

        def late(load: Any) -> Any:
            monkeypatch.undo()
            in_another_thread(lambda: cache.get_or_load("key", lambda key: "first"))
            return claim(load)

        monkeypatch.setattr(loads_of(cache), "claim", late)
        assert cache.get_or_load("key", lambda key: pytest.fail("was loaded twice")) == "first"

    def test_an_old_load_that_is_joined_after_a_delete_is_not_believed(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        with Loading(cache, pool, Loader("old")) as old:
            cache.delete("key")
            asked = pool.submit(cache.get_or_load, "key", lambda key: "new")
            await_waiters(waits, 1)
        assert (old.result(), asked.result(TIMEOUT), cache["key"]) == ("old", "new", "new")


class TestFailures:
    def fail(self, key: str) -> None:
        raise Refused(key)

    def test_negative_ttl(self, cache: Cache, clock: Clock) -> None:
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0)
        clock.now += 4.9
        with pytest.raises(Refused):
            cache.get_or_load("key", lambda key: "loaded")
        clock.now += 0.1
        assert cache.get_or_load("key", lambda key: "loaded") == "loaded"

    @pytest.mark.parametrize(
        "forget",
        [
            lambda cache: cache.delete("key"),
            lambda cache: cache.clear(),
            lambda cache: cache.invalidate_tag("tag"),
            lambda cache: (cache.set("key", 1), cache.store.evict("key", "size")),
        ],
    )
    def test_a_failure_is_forgotten(self, cache: Cache, forget: Callable[[Cache], object]) -> None:
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0, tags=["tag"])
        forget(cache)
        assert cache.get_or_load("key", lambda key: "loaded") == "loaded"

    def test_other_tags_forget_nothing(self, cache: Cache) -> None:
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0, tags=["tag"])
        cache.invalidate_tag("another")
        with pytest.raises(Refused):
            cache.get_or_load("key", lambda key: "loaded")

    @pytest.mark.parametrize("forget", [lambda c: c.delete("key"), lambda c: c.clear()])
    def test_a_delete_during_the_load_counts_more_than_its_failure(
        self, cache: Cache, pool: ThreadPoolExecutor, forget: Callable[[Cache], object]
    ) -> None:
        with Loading(cache, pool, Loader(Refused("no")), negative_ttl=5.0) as loading:
            forget(cache)
        with pytest.raises(Refused):
            loading.result()
        assert cache.get_or_load("key", lambda key: "loaded") == "loaded"

    def test_only_so_many_are_remembered(self, cache: Cache, clock: Clock) -> None:
        for number in range(1_100):
            with pytest.raises(Refused):
                cache.get_or_load(f"key{number}", self.fail, negative_ttl=5.0)
        assert len(failures_of(cache)) <= 1_000
        clock.now += 5
        with pytest.raises(Refused):
            cache.get_or_load("key", self.fail, negative_ttl=5.0)
        assert list(failures_of(cache)) == ["key"]


class TestRecursion:
    def test_the_same_thread(self, cache: Cache) -> None:
        with pytest.raises(RecursiveLoadError, match="'key'"):
            cache.get_or_load("key", lambda key: cache.get_or_load(key, lambda key: 1))
        with pytest.raises(RecursiveLoadError, match="'key'"):
            cache.get_many_or_load(["key"], lambda keys: cache.get_many_or_load(keys, lambda keys: {}))
        assert cache.get_or_load("key", lambda key: 1) == 1

    def test_a_circle_of_two_threads(self, cache: Cache) -> None:
        both = threading.Barrier(2)
        found: dict[str, Any] = {}

        def load(key: str) -> str:
            both.wait(TIMEOUT)
            other = {"a": "b", "b": "a"}[key]
            return "of " + str(cache.get_or_load(other, lambda key: "alone"))

        def body(key: str) -> None:
            try:
                found[key] = cache.get_or_load(key, load)
            except RecursiveLoadError as error:
                found[key] = error

        run_threads([lambda: body("a"), lambda: body("b")])
        # The error of one reaches the other, who waits for it; or that loads by itself.
        errors = [value for value in found.values() if isinstance(value, RecursiveLoadError)]
        assert errors
        assert len(found) == 2

    def test_a_circle_of_one_key_and_of_many(self, cache: Cache) -> None:
        both = threading.Barrier(2)

        def load_many(keys: list[str]) -> dict[str, Any]:
            both.wait(TIMEOUT)
            return {key: cache.get_or_load("c", lambda key: "alone") for key in keys}

        def load_one(key: str) -> Any:
            both.wait(TIMEOUT)
            return cache.get_or_load("b", lambda key: "alone")

        errors: list[BaseException] = []

        def body(step: Callable[[], object]) -> None:
            try:
                step()
            except RecursiveLoadError as error:
                errors.append(error)

        run_threads(
            [
                lambda: body(lambda: cache.get_many_or_load(["a", "b"], load_many)),
                lambda: body(lambda: cache.get_or_load("c", load_one)),
            ]
        )
        assert errors


class TestWaiting:
    def test_a_timeout_leaves_the_load_running(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader()) as loading:
            with pytest.raises(LoadTimeoutError, match="'key' is still being loaded after 0 s: by thread"):
                cache.get_or_load("key", lambda key: "another", timeout=0)
            with pytest.raises(LoadTimeoutError):
                cache.get_many_or_load(["key", "b"], lambda keys: dict.fromkeys(keys, 1), timeout=0)
            assert cache["b"] == 1
        assert loading.result() == cache["key"] == "loaded"

    def test_another_takes_over_from_a_loader_that_was_struck(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        with Loading(cache, pool, Loader(KeyboardInterrupt())) as loading:
            others = [pool.submit(cache.get_or_load, "key", lambda key: "of another") for _ in range(3)]
            await_waiters(waits, 3)
        with pytest.raises(KeyboardInterrupt):
            loading.result()
        assert [other.result(TIMEOUT) for other in others] == ["of another"] * 3
        assert (cache.stats()["loads"], cache.stats()["load_failures"]) == (1, 1)

    def test_and_from_one_of_many_keys(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader: Any = Loader(KeyboardInterrupt())
        struck = pool.submit(cache.get_many_or_load, ["a", "b"], loader)
        assert loader.entered.wait(TIMEOUT)
        other = pool.submit(cache.get_many_or_load, ["b", "c"], lambda keys: dict.fromkeys(keys, "other"))
        await_waiters(waits, 1)
        loader.go_on.set()
        with pytest.raises(KeyboardInterrupt):
            struck.result(TIMEOUT)
        assert other.result(TIMEOUT) == {"b": "other", "c": "other"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestForks:
    def test_a_child_has_no_loads_of_other_threads(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader()) as loading:

            def child() -> None:
                assert cache.get_or_load("key", lambda key: "of the child", timeout=0) == "of the child"

            assert in_child(child) == ""
        assert loading.result() == cache["key"] == "loaded"

    def test_a_loader_that_forks(self, cache: Cache) -> None:
        """In the child the same load goes on, and is still one."""

        def child() -> None:
            with pytest.raises(RecursiveLoadError):
                cache.get_or_load("key", lambda key: "again")
            assert in_another_thread(lambda: cache.delete("key")) is False
            assert loads_of(cache).running("key").overtaken  # type: ignore[union-attr]

        def load(key: str) -> str:
            assert in_child(child) == ""
            return "loaded"

        assert cache.get_or_load("key", load) == cache["key"] == "loaded"

    def test_the_child_of_a_loader_stores_what_it_loads(self, cache: Cache) -> None:
        read, write = os.pipe()

        def load(key: str) -> str:
            return "in the parent" if (child := os.fork()) else f"in the child {child}"

        parent = os.getpid()
        value = cache.get_or_load("key", load)
        if os.getpid() != parent:
            whole = value == cache.get("key") == "in the child 0" and loads_of(cache).running("key") is None
            os.write(write, b"whole" if whole else b"broken")
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read() == b"whole"
        os.wait()
        assert value == cache["key"] == "in the parent"

    def test_counters_are_its_own(self, cache: Cache) -> None:
        cache["key"] = 1

        def child() -> None:
            before = cache.stats()["hits"]
            cache["key"]
            in_another_thread(lambda: cache["key"])
            assert cache.stats()["hits"] == before + 2

        # As another thread may have it when the fork comes.
        register_of(cache).latch.during(lambda: in_child_is_well(child))
        assert cache.stats()["hits"] == 0


def in_child_is_well(child: Callable[[], object]) -> None:
    assert in_child(child) == ""
