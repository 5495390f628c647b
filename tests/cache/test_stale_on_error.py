"""If a load fails, an expired value serves (``stale_on_error=``); nothing else shows it."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager
from latchstore.cache.inspection import check, loads_of
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.loading.loaders import Loader, Loading, Refused, await_waiters


def fail(key: object) -> Any:
    raise Refused(key)


def expired(cache: Cache, clock: Clock) -> None:
    """Have "key" expire, after which it is kept for 60 seconds."""
    assert cache.get_or_load("key", lambda key: "old", ttl=10.0, stale_on_error=60.0, tags=["tag"]) == "old"
    clock.now += 10


class TestServed:
    @pytest.fixture(autouse=True)
    def _expired(self, cache: Cache, clock: Clock) -> None:
        expired(cache, clock)

    def test_in_the_place_of_a_failure(
        self, cache: Cache, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "latchstore"):
            assert cache.get_or_load("key", fail, stale_on_error=60.0) == "old"
        assert "loading key 'key' failed, the expired value is returned" in caplog.text
        assert "Refused" in caplog.text
        stats = cache.stats()
        assert (stats["stale_served"], stats["load_failures"], stats["loads"]) == (1, 1, 1)

    def test_as_long_as_it_was_asked_for(self, cache: Cache, clock: Clock) -> None:
        clock.now += 29
        assert cache.get_or_load("key", fail, stale_on_error=timedelta(seconds=30)) == "old"
        clock.now += 1
        with pytest.raises(Refused):
            cache.get_or_load("key", fail, stale_on_error=30.0)
        assert cache.get_or_load("key", fail, stale_on_error=60.0) == "old"
        clock.now += 30
        with pytest.raises(Refused):
            cache.get_or_load("key", fail, stale_on_error=60.0)

    def test_only_to_those_who_ask_for_it(self, cache: Cache) -> None:
        with pytest.raises(Refused):
            cache.get_or_load("key", fail)

    def test_a_load_that_does_not_fail_replaces_it(self, cache: Cache) -> None:
        assert cache.get_or_load("key", lambda key: "new", stale_on_error=60.0) == cache["key"] == "new"

    def test_in_a_transaction(self, cache: Cache) -> None:
        with cache.store.transaction():
            assert cache.get_or_load("key", fail, stale_on_error=60.0) == "old"
            cache.delete("key")
            with pytest.raises(Refused):
                cache.get_or_load("key", fail, stale_on_error=60.0)

    @pytest.mark.parametrize("error", [MemoryError("struck"), KeyboardInterrupt()])
    def test_what_strikes_the_thread_is_raised(self, cache: Cache, error: BaseException) -> None:
        def struck(key: str) -> Any:
            raise error

        with pytest.raises(type(error)):
            cache.get_or_load("key", struck, stale_on_error=60.0)

    def test_those_who_wait_get_it(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader(Refused("no"))
        futures = [pool.submit(cache.get_or_load, "key", loader, stale_on_error=60.0) for _ in range(8)]
        await_waiters(waits, 7)
        loader.go_on.set()
        assert [future.result(TIMEOUT) for future in futures] == ["old"] * 8
        assert loader.calls == ["key"]

    def test_those_who_wait_for_a_load_that_did_not_ask_for_it(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        with Loading(cache, pool, Loader(Refused("no"))) as loading:
            waiter = pool.submit(cache.get_or_load, "key", fail, stale_on_error=60.0)
            await_waiters(waits, 1)
        assert isinstance(loading.future.exception(TIMEOUT), Refused)
        assert waiter.result(TIMEOUT) == "old"
        assert cache.stats()["stale_served"] == 1

    def test_while_a_failure_is_kept_nothing_is_loaded(self, cache: Cache, clock: Clock) -> None:
        calls: list[str] = []

        def count(key: str) -> Any:
            calls.append(key)
            raise Refused(key)

        for _ in range(3):
            assert cache.get_or_load("key", count, stale_on_error=60.0, negative_ttl=5.0) == "old"
        assert calls == ["key"]
        with pytest.raises(Refused):
            cache.get_or_load("key", count)
        clock.now += 5
        assert cache.get_or_load("key", count, stale_on_error=60.0, negative_ttl=5.0) == "old"
        assert calls == ["key"] * 2

    def test_what_keep_raises_is_a_failure(self, cache: Cache) -> None:
        assert cache.get_or_load("key", lambda key: "new", keep=fail, stale_on_error=60.0) == "old"

    def test_what_cannot_be_decoded_is_not_served(self, clock: Clock) -> None:
        cache = Cache(codec="pickle", clock=clock)
        expired(cache, clock)
        cache.store.set_data("key", b"nonsense")
        with pytest.raises(Refused):
            cache.get_or_load("key", fail, stale_on_error=60.0)

    def test_memoize(self, cache: Cache, clock: Clock) -> None:
        answers: list[Any] = [1, Refused("no")]

        @cache.memoize(ttl=10.0, stale_on_error=60.0)
        def number() -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        assert number() == 1
        clock.now += 10
        assert number() == 1
        assert not answers


class TestShownToNobodyElse:
    def test_by_reading(self, cache: Cache, clock: Clock) -> None:
        expired(cache, clock)
        assert cache.get("key") is None
        assert "key" not in cache
        assert (list(cache), len(cache), cache.get_many(["key"])) == ([], 0, {})
        assert not cache.touch("key")
        assert not cache.delete("key")
        with pytest.raises(KeyError):
            cache.remaining("key")

    def test_by_writing(self, cache: Cache, clock: Clock) -> None:
        expired(cache, clock)
        assert cache.modify("key", lambda value: value + 1, default=1) == 2
        cache.delete("key")
        expired(cache, clock)
        assert cache.add("key", "new")

    def test_it_is_evicted_when_nobody_may_get_it_any_more(self, cache: Cache, clock: Clock) -> None:
        expired(cache, clock)
        clock.now += 59
        assert cache.sweep() == 0
        cache["other"] = 1
        assert "key" in cache.store.query_keys()
        with cache.store.transaction():
            assert cache.sweep() == 0
        check(cache)
        clock.now += 1
        cache["other"] = 2
        assert list(cache.store.query_keys()) == ["other"]
        assert cache.stats()["evictions"]["expired"] == 1

    def test_in_a_transaction(self, cache: Cache, clock: Clock) -> None:
        expired(cache, clock)
        clock.now += 60
        with cache.store.transaction():
            assert cache.sweep() == 1
        assert not list(cache.store.query_keys())

    def test_what_a_transaction_has_put_in_the_place_of_what_is_evicted(
        self, cache: Cache, clock: Clock
    ) -> None:
        cache.set("key", "old", ttl=10.0)
        with cache.store.transaction():
            cache.delete("key")
            cache.get_or_load("key", lambda key: "new", ttl=10.0, stale_on_error=60.0)
            clock.now += 20
            assert cache.sweep() == 0
            assert cache.get_or_load("key", fail, stale_on_error=60.0) == "new"

    def test_what_is_idle(self, cache: Cache, clock: Clock) -> None:
        cache.get_or_load("key", lambda key: "old", idle=10.0, stale_on_error=60.0)
        assert cache["key"] == "old"
        clock.now += 10
        assert "key" not in cache
        assert cache.sweep() == 0
        assert cache.get_or_load("key", fail, stale_on_error=60.0) == "old"
        clock.now += 60
        cache.sweep()
        assert not list(cache.store.query_keys())

    def test_a_touch_keeps_it_as_long_again(self, cache: Cache, clock: Clock) -> None:
        cache.get_or_load("key", lambda key: "old", ttl=10.0, stale_on_error=60.0)
        cache.touch("key", 20.0)
        clock.now += 79
        assert cache.get_or_load("key", fail, stale_on_error=60.0) == "old"

    def test_for_ever(self, clock: Clock, tmp_path: Path) -> None:
        """Infinity is saved and loaded like any number."""
        with DictMemoryStore(EventManager()) as store:
            Cache(store, codec="json", clock=clock).get_or_load(
                "key", lambda key: "old", ttl=10, stale_on_error=math.inf
            )
            store.save(tmp_path / "saved")
        with DictMemoryStore.load(tmp_path / "saved", EventManager()) as loaded:
            cache = Cache(loaded, codec="json", clock=clock)
            clock.now += 1e12
            assert cache.sweep() == 0
            assert "key" not in cache
            assert cache.get_or_load("key", fail, stale_on_error=math.inf) == "old"
            check(cache)


REMOVALS: dict[str, Callable[[Cache], object]] = {
    "delete": lambda cache: cache.delete("key"),
    "invalidate_tag": lambda cache: cache.invalidate_tag("tag"),
    "delete_glob": lambda cache: cache.delete_glob("k*"),
    "clear": lambda cache: cache.clear(),
    "evict": lambda cache: cache.store.evict("key", "size"),
}


@pytest.fixture(params=REMOVALS)
def remove(request: pytest.FixtureRequest) -> Callable[[Cache], object]:
    return REMOVALS[request.param]


class TestGone:
    def test_nothing_deleted_serves(
        self, cache: Cache, clock: Clock, remove: Callable[[Cache], object]
    ) -> None:
        expired(cache, clock)
        remove(cache)
        with pytest.raises(Refused):
            cache.get_or_load("key", fail, stale_on_error=60.0)

    def test_nothing_deleted_during_the_load_serves(
        self, cache: Cache, clock: Clock, pool: ThreadPoolExecutor, remove: Callable[[Cache], object]
    ) -> None:
        expired(cache, clock)
        with Loading(cache, pool, Loader(Refused("no")), stale_on_error=60.0) as loading:
            remove(cache)
        assert isinstance(loading.future.exception(TIMEOUT), Refused)

    def test_a_call_that_begins_after_the_delete_does_not_get_it(
        self,
        cache: Cache,
        clock: Clock,
        pool: ThreadPoolExecutor,
        waits: threading.Semaphore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Also if the load that it waits for has found the old value before the delete."""
        expired(cache, clock)
        finish = loads_of(cache).finish
        found, go_on = threading.Event(), threading.Event()

        def late(*arguments: Any) -> None:
            found.set()
            assert go_on.wait(TIMEOUT)
            finish(*arguments)

        monkeypatch.setattr(loads_of(cache), "finish", late)
        first = pool.submit(cache.get_or_load, "key", fail, stale_on_error=60.0)
        assert found.wait(TIMEOUT)
        cache.delete("key")
        second = pool.submit(cache.get_or_load, "key", fail, stale_on_error=60.0)
        await_waiters(waits, 1)
        go_on.set()
        assert first.result(TIMEOUT) == "old"
        assert isinstance(second.exception(TIMEOUT), Refused)

    def test_what_was_set_meanwhile_serves(
        self, cache: Cache, clock: Clock, pool: ThreadPoolExecutor
    ) -> None:
        expired(cache, clock)
        with Loading(cache, pool, Loader(Refused("no")), stale_on_error=60.0) as loading:
            cache["key"] = "set"
        assert loading.result() == "set"
