"""Loads of many keys at once, and of values that are refreshed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Cache
from latchstore.cache.inspection import check, loads_of
from latchstore.engine.transaction import Transaction
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.loading.loaders import Loader, Loading, Refused, await_waiters
from tests.schedules import in_another_thread, run_threads


class TestRefreshing:
    @pytest.fixture(autouse=True)
    def old(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", "old", refresh_after=10.0)
        assert cache.get_or_load("key", lambda key: pytest.fail("is not due")) == "old"
        clock.now += 10

    def test_the_old_value_serves_while_one_thread_loads(
        self, cache: Cache, pool: ThreadPoolExecutor
    ) -> None:
        with Loading(cache, pool, Loader("new"), refresh_after=10.0) as loading:
            for _ in range(3):
                assert cache.get_or_load("key", lambda key: pytest.fail("is loaded twice")) == "old"
            assert cache["key"] == "old"
        assert loading.result() == cache["key"] == "new"
        assert cache.get_or_load("key", lambda key: pytest.fail("is not due")) == "new"

    def test_one_who_was_late_does_not_load_again(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claim = loads_of(cache).claim

        def late(load: Any) -> Any:
            monkeypatch.undo()
            in_another_thread(lambda: cache.get_or_load("key", lambda key: "new", refresh_after=10.0))
            return claim(load)

        monkeypatch.setattr(loads_of(cache), "claim", late)
        assert cache.get_or_load("key", lambda key: pytest.fail("is loaded twice")) == "new"

    @pytest.mark.parametrize(("options", "seconds"), [({"refresh_after": 10.0}, 10), ({}, 1)])
    def test_a_failure_keeps_the_old_value(
        self,
        cache: Cache,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
        options: dict[str, float],
        seconds: int,
    ) -> None:
        calls: list[str] = []

        def fail(key: str) -> None:
            calls.append(key)
            raise Refused(key)

        for _ in range(3):
            assert cache.get_or_load("key", fail, **options) == "old"  # type: ignore[arg-type]
        assert len(calls) == 1  # not at each hit
        assert "refreshing key 'key' failed" in caplog.text
        clock.now += seconds
        assert cache.get_or_load("key", lambda key: "new") == "new"

    def test_a_log_that_keeps_the_failure_keeps_no_transaction_open(
        self, cache: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A strike before the first bytecode of ``__exit__`` leaves the end to whoever frees the block."""

        def struck(*arguments: object) -> None:
            raise MemoryError("struck")

        def load(key: str) -> str:
            with cache.store.transaction():
                return "new"

        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "__exit__", struck)
            assert cache.get_or_load("key", load) == "old"
        assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [MemoryError]
        assert in_another_thread(lambda: cache.set("key", "set")) is None
        check(cache)

    @pytest.mark.parametrize("remove", [lambda c: c.delete("key"), lambda c: c.clear()])
    def test_a_delete_counts_more(
        self, cache: Cache, pool: ThreadPoolExecutor, remove: Callable[[Cache], object]
    ) -> None:
        with Loading(cache, pool, Loader("new")) as loading:
            remove(cache)
        assert loading.result() == "new"
        assert "key" not in cache

    def test_a_set_counts_more(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader("new")) as loading:
            cache["key"] = "set"
        assert loading.result() == cache["key"] == "set"

    def test_inside_a_transaction_the_old_value_serves(self, cache: Cache) -> None:
        with cache.store.transaction():
            assert cache.get_or_load("key", lambda key: pytest.fail("is loaded")) == "old"

    def test_the_loader_gets_the_old_value_if_it_asks(self, cache: Cache) -> None:
        assert cache.get_or_load("key", lambda key: cache.get_or_load(key, str.upper) + "er") == "older"


class TestMany:
    def test_one_call_for_what_is_missing(self, cache: Cache) -> None:
        cache["b"] = "there"
        calls: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, str]:
            calls.append(keys)
            return {key: "loaded" for key in keys if key != "d"} | {"e": "not asked for"}

        found = cache.get_many_or_load(["a", "b", "c", "d", "a"], load, ttl=10.0)
        assert found == {"a": "loaded", "b": "there", "c": "loaded"}
        assert list(found) == ["a", "b", "c"]
        assert calls == [["a", "c", "d"]]
        assert sorted(cache) == ["a", "b", "c"]
        assert cache.remaining("a") == 10.0
        assert cache.get_many_or_load([], load) == {}
        assert len(calls) == 1

    def test_loads_that_run_are_waited_for_and_not_repeated(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        calls: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, str]:
            calls.append(keys)
            return dict.fromkeys(keys, "many")

        with Loading(cache, pool, Loader("one")):
            asked = pool.submit(cache.get_many_or_load, ["key", "other"], load)
            await_waiters(waits, 1)
        assert asked.result(TIMEOUT) == {"key": "one", "other": "many"}
        assert calls == [["other"]]

    def test_a_key_that_others_did_not_find_is_not_asked_for_again(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader: Any = Loader({})
        first = pool.submit(cache.get_many_or_load, ["a"], loader)
        assert loader.entered.wait(TIMEOUT)
        second = pool.submit(cache.get_many_or_load, ["a"], lambda keys: pytest.fail("asked twice"))
        one = pool.submit(cache.get_or_load, "a", lambda key: "found by this one")
        await_waiters(waits, 2)
        loader.go_on.set()
        assert first.result(TIMEOUT) == second.result(TIMEOUT) == {}
        assert one.result(TIMEOUT) == "found by this one"

    def test_a_failure_reaches_those_who_wait_for_any_of_them(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader: Any = Loader(Refused("no"))
        first = pool.submit(cache.get_many_or_load, ["key", "b"], loader)
        assert loader.entered.wait(TIMEOUT)
        others: list[Future[Any]] = [
            pool.submit(cache.get_or_load, "key", lambda key: 1),
            pool.submit(cache.get_many_or_load, ["b"], lambda keys: {}),
        ]
        await_waiters(waits, 2)
        loader.go_on.set()
        assert all(type(future.exception(TIMEOUT)) is Refused for future in (first, *others))

    def test_a_delete_during_the_load_counts_more(self, cache: Cache) -> None:
        def load(keys: list[str]) -> dict[str, str]:
            in_another_thread(lambda: cache.delete("a"))
            in_another_thread(lambda: cache.set("b", "set"))
            return dict.fromkeys(keys, "loaded")

        assert cache.get_many_or_load(["a", "b", "c"], load) == {"a": "loaded", "b": "set", "c": "loaded"}
        assert dict(cache) == {"b": "set", "c": "loaded"}

    def test_all_are_stored_in_one_commit(self, cache: Cache) -> None:
        store: Any = cache.store
        watch = store.watch()
        cache.get_many_or_load(["a", "b"], lambda keys: dict.fromkeys(keys, 1))
        assert watch.get(0).revision == watch.get(0).revision

    def test_what_is_no_mapping_is_refused(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match="loader must return a mapping"):
            cache.get_many_or_load(["a"], lambda keys: keys)  # type: ignore[arg-type, return-value]

    def test_16_threads_with_keys_in_common_load_each_once(self, cache: Cache) -> None:
        keys = [f"key{number}" for number in range(200)]
        calls: list[str] = []

        def load(missing: list[str]) -> dict[str, str]:
            calls.extend(missing)
            return {key: key.upper() for key in missing}

        def body(first: int) -> None:
            for start in range(first % 7, 200, 5):
                wanted = keys[start : start + 10]
                assert cache.get_many_or_load(wanted, load) == {key: key.upper() for key in wanted}

        run_threads(lambda first=first: body(first) for first in range(16))  # type: ignore[misc]
        assert len(calls) == len(set(calls))


class TestTooHeavy:
    def test_what_is_too_heavy_is_returned_and_not_kept(self) -> None:
        with Cache(max_bytes=500, codec="raw") as cache:
            assert cache.get_or_load("key", lambda key: bytes(1_000)) == bytes(1_000)
            many = cache.get_many_or_load(["a", "b"], lambda keys: {"a": bytes(1_000), "b": b"1"})
            assert many == {"a": bytes(1_000), "b": b"1"}
            with cache.store.transaction():
                assert cache.get_or_load("key", lambda key: bytes(1_000)) == bytes(1_000)
            assert list(cache) == ["b"]
