"""`Cache.namespace`: a part of a cache, whose keys are seen without the prefix that the store has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from latchstore import Cache, CodecError, EntryTooLargeError
from latchstore.cache.inspection import check
from latchstore.engine.entry_facts import OVERHEAD
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.loading.loaders import Loader, Refused, await_waiters
from tests.fork.children import in_child
from tests.schedules import run_threads


@pytest.fixture
def users(cache: Cache) -> Iterator[Cache]:
    users = cache.namespace("users")
    yield users
    check(users)


def load(key: str) -> str:
    return f"of {key}"


class TestKeys:
    def test_they_have_the_name_and_a_colon_in_the_store(self, cache: Cache, users: Cache) -> None:
        users["anna"] = 1
        assert dict(cache) == {"users:anna": 1}
        cache["users:bert"] = 2
        cache["user"] = cache["other:anna"] = cache["usersanna"] = 3
        assert dict(users) == {"anna": 1, "bert": 2}
        assert users.store is cache.store

    def test_all_of_a_mapping(self, cache: Cache, users: Cache) -> None:
        cache["key"] = "outside"
        users.update(a=1, b=2)
        assert (users["a"], users.get("b"), users.get("key"), users.get_many(["a", "c"])) == (
            1,
            2,
            None,
            {"a": 1},
        )
        assert ("a" in users, "users:a" in users, "key" in users) == (True, False, False)
        assert (list(users), len(users), dict(users.items())) == (["a", "b"], 2, {"a": 1, "b": 2})
        assert (users.pop("a"), users.pop("a", "none"), users.setdefault("c", 3), users.setdefault("b")) == (
            1,
            "none",
            3,
            2,
        )
        assert users.popitem()[0] in ("b", "c")
        del users[next(iter(users))]
        assert not list(users)
        assert dict(cache) == {"key": "outside"}

    def test_all_that_writes(self, cache: Cache, users: Cache, clock: Clock) -> None:
        users.set("a", 1, ttl=10.0)
        users.set_many({"b": 2}, tags=["tag"])
        assert users.add("c", 3)
        assert not users.add("c", 4)
        assert users.modify("c", lambda value: value + 1) == 4
        assert users.touch("a", 20.0)
        assert users.remaining("a") == 20.0
        assert users.delete("b")
        assert not users.delete("b")
        assert dict(cache) == {"users:a": 1, "users:c": 4}
        clock.now += 20
        assert dict(users) == {"c": 4}
        assert users.sweep() == 1

    def test_errors_name_the_key_that_was_given(self, users: Cache) -> None:
        calls: list[Callable[[], object]] = [
            lambda: users["a"],
            lambda: users.pop("a"),
            lambda: users.remaining("a"),
            lambda: users.modify("a", str),
            lambda: users.__delitem__("a"),
        ]
        for call in calls:
            with pytest.raises(KeyError) as caught:
                call()
            assert caught.value.args == ("a",)
        wrong: Any = 7
        for call in (
            lambda: users.get(wrong),
            lambda: users.set(wrong, 1),
            lambda: users.delete(wrong),
            lambda: users.get_or_load(wrong, load),
            lambda: users.get_many_or_load([wrong], dict.fromkeys),
        ):
            with pytest.raises(TypeError, match="must be a str, got int 7"):
                call()

    def test_errors_of_the_store_name_its_key(self) -> None:
        with Cache(codec="pickle") as cache:
            users = cache.namespace("users", max_bytes=1_000)
            with pytest.raises(EntryTooLargeError, match="'users:a' weighs"):
                users["a"] = bytes(1_000)
            with pytest.raises(CodecError, match="'users:a'"):
                users["a"] = lambda: None

    def test_namespaces_of_namespaces(self, cache: Cache, users: Cache) -> None:
        admins = users.namespace("admins")
        admins["anna"] = 1
        assert dict(users) == {"admins:anna": 1}
        assert dict(cache) == {"users:admins:anna": 1}
        assert admins.get_or_load("bert", load) == users["admins:bert"] == "of bert"
        assert "Namespace 'users:admins:'" in repr(admins)
        admins.clear()
        assert len(cache) == 0

    def test_in_a_transaction(self, cache: Cache, users: Cache) -> None:
        cache["key"] = 1
        with suppress(Refused), cache.store.transaction():
            users["a"] = 1
            assert (dict(users), users["a"], users.get_or_load("b", load)) == ({"a": 1}, 1, "of b")
            users.clear()
            assert not list(users)
            users["c"] = 1
            raise Refused
        assert dict(cache) == {"key": 1}


class TestInvalidating:
    @pytest.mark.parametrize(
        ("remove", "left"),
        [
            (lambda users: users.clear(), []),
            (lambda users: users.delete_glob("a*"), ["b"]),
            (lambda users: users.delete_glob("*"), []),
            (lambda users: users.invalidate_tag("tag"), ["b"]),
        ],
    )
    def test_its_own_keys_alone(
        self, cache: Cache, users: Cache, remove: Callable[[Cache], object], left: list[str]
    ) -> None:
        for each in (cache, users, cache.namespace("a*")):
            each.set("a1", 1, tags=["tag"])
            each.set("b", 1)
        remove(users)
        assert list(users) == left
        assert sorted(set(cache) - {f"users:{key}" for key in left}) == ["a*:a1", "a*:b", "a1", "b"]

    def test_a_name_may_look_like_a_pattern(self, cache: Cache) -> None:
        stars = cache.namespace("*[a]?")
        stars["key"] = cache["xa?:key"] = 1
        assert stars.delete_glob("*") == 1
        assert list(cache) == ["xa?:key"]

    @pytest.mark.parametrize(
        "remove",
        [
            lambda cache, users: cache.clear(),
            lambda cache, users: cache.delete_glob("users:*"),
            lambda cache, users: cache.invalidate_tag("tag"),
            lambda cache, users: cache.delete("users:key"),
            lambda cache, users: users.clear(),
            lambda cache, users: users.invalidate_tag("tag"),
            lambda cache, users: users.delete("key"),
        ],
    )
    def test_a_load_does_not_outlive_it(
        self, cache: Cache, users: Cache, pool: ThreadPoolExecutor, remove: Callable[[Cache, Cache], object]
    ) -> None:
        """Neither if it is the cache that is cleared, nor if the key was never in the store."""
        loader = Loader("old")
        loading = pool.submit(users.get_or_load, "key", loader, tags=["tag"])
        assert loader.entered.wait(TIMEOUT)
        remove(cache, users)
        loader.go_on.set()
        assert loading.result(TIMEOUT) == "old"
        assert "key" not in users

    def test_other_loads_do(self, cache: Cache, users: Cache, pool: ThreadPoolExecutor) -> None:
        loader = Loader("new")
        loading = pool.submit(cache.get_or_load, "key", loader, tags=["tag"])
        assert loader.entered.wait(TIMEOUT)
        users.clear()
        users.invalidate_tag("tag")
        users.delete_glob("*")
        loader.go_on.set()
        assert loading.result(TIMEOUT) == cache["key"] == "new"

    def test_failures_are_forgotten_by_both(self, cache: Cache, users: Cache) -> None:
        def fail(key: str) -> Any:
            raise Refused(key)

        for forget in (cache.clear, users.clear, lambda: users.delete("key")):
            with pytest.raises(Refused):
                users.get_or_load("key", fail, negative_ttl=60.0)
            with pytest.raises(Refused):
                users.get_or_load("key", load)
            forget()
            assert users.get_or_load("key", load) == "of key"
            users.delete("key")
        with pytest.raises(Refused):
            cache.get_or_load("key", fail, negative_ttl=60.0)
        users.clear()
        with pytest.raises(Refused):
            cache.get_or_load("key", load)


class TestLoading:
    def test_the_loader_gets_the_key_as_it_was_given(self, cache: Cache, users: Cache) -> None:
        assert users.get_or_load("a", load) == cache["users:a"] == "of a"
        assert users.get_many_or_load(["a", "b"], lambda keys: {key: load(key) for key in keys}) == {
            "a": "of a",
            "b": "of b",
        }
        assert cache["users:b"] == "of b"

    def test_one_load_whoever_asks(
        self, cache: Cache, users: Cache, pool: ThreadPoolExecutor, waits: threading.Semaphore
    ) -> None:
        loader = Loader()
        futures = [
            pool.submit(each.get_or_load, key, loader)
            for each, key in ((users, "key"), (cache.namespace("users"), "key"), (cache, "users:key"))
        ]
        await_waiters(waits, 2)
        loader.go_on.set()
        assert [future.result(TIMEOUT) for future in futures] == ["loaded"] * 3
        assert len(loader.calls) == 1

    def test_a_refresh(self, users: Cache, clock: Clock) -> None:
        users.get_or_load("key", lambda key: "old", refresh_after=10.0)
        clock.now += 10
        assert users.get_or_load("key", lambda key: f"new {key}") == users["key"] == "new key"

    def test_an_expired_value_serves(self, users: Cache, clock: Clock) -> None:
        def fail(key: str) -> Any:
            raise Refused(key)

        users.get_or_load("key", lambda key: "old", ttl=10.0, stale_on_error=60.0)
        clock.now += 10
        assert users.get_or_load("key", fail, stale_on_error=60.0) == "old"

    def test_memoize(self, cache: Cache, users: Cache) -> None:
        calls: list[int] = []

        @users.memoize(name="double")
        def double(number: int) -> int:
            calls.append(number)
            return number * 2

        assert (double(1), double(1), calls) == (2, 2, [1])
        assert users[double.cache_key(1)] == cache[f"users:{double.cache_key(1)}"] == 2
        assert double.cache_info()[:] == (1, 1, None, 1)
        assert double.invalidate(1)
        double(1)
        double.cache_clear()
        assert len(cache) == 0


class TestOptions:
    def test_a_name_is_one_namespace(self, cache: Cache, users: Cache) -> None:
        assert cache.namespace("users") is users
        other = cache.namespace("other", ttl=5.0)
        assert cache.namespace("other") is cache.namespace("other", ttl=5.0) is other
        with pytest.raises(ValueError, match=r"'other' exists already, with other options: \{'ttl': 5\.0\}"):
            cache.namespace("other", ttl=6.0)
        made = []
        run_threads([lambda: made.append(cache.namespace("new"))] * 8)
        assert len(set(map(id, made))) == 1

    @pytest.mark.parametrize(("name", "error"), [("", ValueError), ("a:b", ValueError), (7, TypeError)])
    def test_wrong_names(self, cache: Cache, name: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="name must be a"):
            cache.namespace(name)

    @pytest.mark.parametrize("options", [{"ttl": 0}, {"max_entries": 0}, {"policy": "none"}, {"idle": -1}])
    def test_wrong_options(self, cache: Cache, options: Any) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            cache.namespace("users", **options)
        assert cache.namespace("users").max_entries is None

    def test_an_option_that_there_is_not(self, cache: Cache) -> None:
        for _ in range(2):  # before and after there is a namespace of the name
            with pytest.raises(TypeError, match=r"^'tttl' is no option; did you mean 'ttl'\?$"):
                cache.namespace("new", tttl=60)  # type: ignore[call-arg]
            cache.namespace("new")

    def test_the_ttl(self, clock: Clock) -> None:
        cache = Cache(ttl=10.0, clock=clock)
        for name, options, expected in (
            ("own", {"ttl": 5.0}, 5.0),
            ("longer", {"ttl": 20.0}, 20.0),
            ("none", {}, 10.0),
        ):
            namespace = cache.namespace(name, **options)  # type: ignore[arg-type]
            namespace["key"] = 1
            assert namespace.remaining("key") == expected
            assert namespace.get_or_load("other", load) == "of other"
            assert namespace.remaining("other") == expected

    def test_the_idle_time(self, clock: Clock) -> None:
        with Cache(idle=10.0, clock=clock) as cache:
            users, short = cache.namespace("users"), cache.namespace("short", idle=5.0)
            users["key"] = short["key"] = 1
            for _ in range(4):
                clock.now += 4
                assert (users["key"], short["key"]) == (1, 1)
            clock.now += 5
            assert ("key" in short, users["key"]) == (False, 1)
            clock.now += 10
            assert "key" not in cache
            assert ("key" in users, len(users), users.get("key")) == (False, 0, None)
            assert cache.sweep() + users.sweep() + short.sweep() == 2

    def test_the_idle_time_of_the_cache_begins_with_the_set(self, clock: Clock) -> None:
        with Cache(idle=10.0, clock=clock) as cache:
            users = cache.namespace("users")
            users["key"] = 1
            clock.now += 10
            assert "key" not in users
            users["other"] = 2  # which evicts by the way what has expired
            assert list(cache.store.query_keys()) == ["users:other"]

    def test_the_bound(self, clock: Clock) -> None:
        with Cache(max_entries=10, clock=clock) as cache:
            few = cache.namespace("few", max_entries=3)
            light = cache.namespace("light", max_bytes=3 * (OVERHEAD + 10))
            for number in range(6):
                few[str(number)] = light[str(number)] = cache[str(number)] = number
                check(cache)
            assert (len(few), len(light)) == (3, 3)
            assert len(cache) == 10
            assert (few.max_entries, light.max_bytes) == (3, 3 * (OVERHEAD + 10))

    def test_the_bound_of_the_cache_holds_for_all(self, clock: Clock) -> None:
        with Cache(max_entries=4, policy="lru", clock=clock) as cache:
            users = cache.namespace("users")
            users.update(a=1, b=2)
            cache.update(c=3, d=4)
            assert (
                users["a"] == 1
            )  # so "b" is the one that was used least recently: a hit is the cache's as well
            users["e"] = 5
            assert sorted(cache) == ["c", "d", "users:a", "users:e"]
            assert users.stats()["evictions"]["size"] == 1

    def test_statistics(self, cache: Cache, users: Cache) -> None:
        cache["key"] = 1
        users.set("a", "x", weight=7)
        users.get("a"), users.get("b"), cache.get("key")
        users.get_or_load("c", load)
        stats = users.stats()
        assert (stats["hits"], stats["misses"], stats["loads"], stats["entries"]) == (1, 2, 1, 2)
        assert stats["bytes"] == 7 + OVERHEAD + len("users:c") + 1
        assert (cache.stats()["hits"], cache.stats()["loads"], cache.stats()["entries"]) == (1, 0, 3)

    def test_closing_leaves_the_cache_open(self, cache: Cache) -> None:
        with cache.namespace("users", max_entries=1) as users:
            users.update(a=1, b=2)
        cache["users:c"] = cache["users:d"] = 3
        assert len(cache) == 3

    def test_references_and_codecs(self) -> None:
        shared: list[int] = []
        with Cache() as cache, Cache(codec="json") as other:
            users = cache.namespace("users")
            users["a"] = shared
            assert users["a"] is cache["users:a"] is shared
            texts = other.namespace("texts")
            texts["a"] = (1, 2)
            assert texts["a"] == other["texts:a"] == [1, 2]
            assert other.store.to_bytes("texts:a").startswith(b"[")

    def test_in_a_forked_child(self, cache: Cache, users: Cache) -> None:
        users["a"] = 1

        def child() -> None:
            assert users["a"] == 1
            assert users.get_or_load("b", load) == "of b"
            check(users)

        assert in_child(child) == ""
