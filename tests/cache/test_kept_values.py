"""What was loaded says whether it is kept (``keep=``), and for how long (``ttl=`` that is called)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from latchstore import Cache, CodecError
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.loading.loaders import Loader, Loading, Refused, await_waiters
from tests.schedules import in_another_thread


def load(key: str) -> str:
    return f"of {key}"


#: Loads "key" by each of the ways, with options.
WAYS: dict[str, Callable[..., Any]] = {
    "get_or_load": lambda cache, load, **options: cache.get_or_load("key", load, **options),
    "get_many_or_load": lambda cache, load, **options: cache.get_many_or_load(
        ["key"], lambda keys: {key: load(key) for key in keys}, **options
    )["key"],
    "in a transaction": lambda cache, load, **options: inside(cache, load, **options),
    "many, in a transaction": lambda cache, load, **options: inside_many(cache, load, **options),
}


def inside(cache: Cache, load: Callable[[str], Any], **options: Any) -> Any:
    with cache.store.transaction():
        return cache.get_or_load("key", load, **options)


def inside_many(cache: Cache, load: Callable[[str], Any], **options: Any) -> Any:
    with cache.store.transaction():
        return WAYS["get_many_or_load"](cache, load, **options)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return WAYS[request.param]


class TestKeep:
    @pytest.mark.parametrize("answer", [True, 1, "yes"])
    def test_what_is_to_be_kept_is_kept(self, cache: Cache, way: Callable[..., Any], answer: object) -> None:
        assert way(cache, load, keep=lambda value: answer) == "of key"
        assert cache["key"] == "of key"

    @pytest.mark.parametrize("answer", [False, 0, None])
    def test_what_is_not_is_returned(self, cache: Cache, way: Callable[..., Any], answer: object) -> None:
        seen: list[str] = []

        def keep(value: str) -> object:
            seen.append(value)
            return answer

        assert way(cache, load, keep=keep) == "of key"
        assert seen == ["of key"]
        assert "key" not in cache
        assert cache.stats()["loads"] == 1

    def test_of_many_some_are_kept(self, cache: Cache) -> None:
        found = cache.get_many_or_load(
            ["a", "b", "c"],
            lambda keys: {key: key * 2 for key in keys if key != "c"},
            keep=lambda value: value != "aa",
        )
        assert found == {"a": "aa", "b": "bb"}
        assert dict(cache) == {"b": "bb"}

    def test_those_who_wait_get_it(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader(["list"])
        futures = [pool.submit(cache.get_or_load, "key", loader, keep=lambda value: False) for _ in range(8)]
        await_waiters(waits, 7)
        loader.go_on.set()
        assert [future.result(TIMEOUT) for future in futures] == [["list"]] * 8
        assert loader.calls == ["key"]
        assert len(cache) == 0

    def test_it_is_called_with_no_lock_held(self, cache: Cache) -> None:
        def keep(value: str) -> bool:
            in_another_thread(lambda: cache.set("other", value))
            return True

        assert cache.get_or_load("key", load, keep=keep) == cache["other"] == "of key"
        assert WAYS["get_many_or_load"](cache, load, keep=keep) == "of key"

    def test_what_it_raises_is_the_failure_of_the_load(
        self, cache: Cache, way: Callable[..., Any], clock: Clock
    ) -> None:
        def keep(value: str) -> bool:
            raise Refused(value)

        with pytest.raises(Refused, match="of key"):
            way(cache, load, keep=keep)
        stats = cache.stats()
        assert (stats["loads"], stats["load_failures"]) == (0, 1)
        assert "key" not in cache
        assert way(cache, load) == "of key"

    def test_those_who_wait_get_what_it_raises(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        def keep(value: str) -> bool:
            raise Refused(value)

        loader = Loader()
        futures = [
            pool.submit(cache.get_or_load, "key", loader, keep=keep, negative_ttl=5.0) for _ in range(4)
        ]
        await_waiters(waits, 3)
        loader.go_on.set()
        assert [type(future.exception(TIMEOUT)) for future in futures] == [Refused] * 4
        with pytest.raises(Refused):
            cache.get_or_load("key", load)

    def test_a_refresh_that_is_not_kept_leaves_the_old_value(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", "old", refresh_after=10.0)
        clock.now += 10
        assert cache.get_or_load("key", load, keep=lambda value: False, refresh_after=10.0) == "of key"
        assert cache["key"] == "old"
        # It is not tried again at each hit.
        assert cache.get_or_load("key", lambda key: pytest.fail("loaded")) == "old"
        clock.now += 10
        assert cache.get_or_load("key", load) == "of key"

    def test_a_set_during_the_load_stays(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        with Loading(cache, pool, Loader(), keep=lambda value: False) as loading:
            cache["key"] = "set"
        assert loading.result() == "loaded"
        assert cache["key"] == "set"

    def test_what_cannot_be_encoded_cannot_be_handed_to_those_who_wait(self) -> None:
        cache = Cache(codec="pickle")
        with pytest.raises(CodecError):
            cache.get_or_load("key", lambda key: threading.Lock(), keep=lambda value: False)

    def test_memoize(self, cache: Cache) -> None:
        calls: list[int] = []

        @cache.memoize(keep=lambda value: value > 0)
        def number(value: int) -> int:
            calls.append(value)
            return value

        assert [number(each) for each in (1, 1, 0, 0)] == [1, 1, 0, 0]
        assert calls == [1, 0, 0]


class TestTtlOfTheValue:
    @pytest.mark.parametrize("seconds", [5, 5.0, timedelta(seconds=5)])
    def test_it_is_called_with_the_value(
        self, cache: Cache, clock: Clock, way: Callable[..., Any], seconds: Any
    ) -> None:
        seen: list[str] = []

        def ttl(value: str) -> Any:
            seen.append(value)
            return seconds

        assert way(cache, load, ttl=ttl) == "of key"
        assert seen == ["of key"]
        assert cache.remaining("key") == 5.0
        clock.now += 5
        assert "key" not in cache

    @pytest.mark.parametrize(("seconds", "remaining"), [(None, 7.0), (math.inf, None)])
    def test_none_is_the_caches_own_and_infinity_never(
        self, clock: Clock, way: Callable[..., Any], seconds: float | None, remaining: float | None
    ) -> None:
        cache = Cache(ttl=7.0, clock=clock)
        assert way(cache, load, ttl=lambda value: seconds) == "of key"
        assert cache.remaining("key") == remaining

    @pytest.mark.parametrize("seconds", [0, -1, timedelta(seconds=-1), -math.inf])
    def test_what_has_expired_already_is_not_kept(
        self, cache: Cache, way: Callable[..., Any], seconds: Any
    ) -> None:
        assert way(cache, load, ttl=lambda value: seconds) == "of key"
        assert "key" not in cache

    @pytest.mark.parametrize(
        ("seconds", "error"), [("5", TypeError), (True, TypeError), (math.nan, ValueError)]
    )
    def test_what_is_no_time_is_a_failure(
        self, cache: Cache, way: Callable[..., Any], seconds: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error, match="the result of ttl must be"):
            way(cache, load, ttl=lambda value: seconds)
        assert cache.stats()["load_failures"] == 1
        assert "key" not in cache

    def test_of_each_of_many(self, cache: Cache) -> None:
        cache.get_many_or_load(["a", "bb"], lambda keys: {key: key for key in keys}, ttl=len)
        assert (cache.remaining("a"), cache.remaining("bb")) == (1.0, 2.0)

    def test_of_what_is_set(self, cache: Cache) -> None:
        cache.set("a", "1", ttl=len)
        cache.set_many({"b": "12", "c": "123"}, ttl=len)
        assert cache.add("d", "1234", ttl=len)
        cache.modify("e", lambda value: value + "5", default="1234", ttl=len)
        assert [cache.remaining(key) for key in "abcde"] == [1.0, 2.0, 3.0, 4.0, 5.0]
        for put in (
            lambda: cache.set("f", "", ttl=len),
            lambda: cache.set_many({"g": "1", "h": ""}, ttl=len),
            lambda: cache.add("i", "", ttl=len),
        ):
            with pytest.raises(ValueError, match="the result of ttl must be positive"):
                put()
        assert sorted(cache) == list("abcde")

    def test_memoize(self, cache: Cache, clock: Clock) -> None:
        @cache.memoize(ttl=lambda value: timedelta(seconds=value))
        def number(value: int) -> int:
            return value

        number(3)
        assert cache.remaining(number.cache_key(3)) == 3.0
