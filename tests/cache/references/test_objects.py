"""A cache that keeps the objects themselves: shared, never copied, weighed and changed."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EntryTooLargeError, KeptByReferenceError
from latchstore.cache.inspection import check
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.references.objects import Hostile, Plain, store_of
from tests.schedules import in_another_thread


class TestIdentity:
    @pytest.mark.parametrize(
        "make",
        [
            threading.Lock,
            lambda: open(os.devnull),  # noqa: SIM115
            lambda: (number for number in [1]),
            lambda: lambda: None,
            Hostile,
            Plain,
            list,
            lambda: None,
            lambda: b"bytes",
            lambda: bytearray(b"bytes"),
            lambda: 10**30,
            lambda: math.nan,
        ],
    )
    def test_what_is_set_is_what_comes_out(self, cache: Cache, make: Callable[[], Any]) -> None:
        value = make()
        cache["key"] = value
        cache.set_many({"many": value}, ttl=5.0)
        assert cache.add("added", value)
        assert cache["key"] is cache.get("key") is cache.get("many", 1) is cache["added"] is value
        assert list(cache.get_many(["key", "many"]).values())[1] is value
        assert next(iter(cache.values())) is value
        assert all(item is value for _, item in cache.items())
        assert cache.setdefault("key", 1) is value
        assert cache.setdefault("default", value) is value
        assert cache["default"] is value
        assert cache.get_or_load("key", lambda key: 1) is value
        assert cache.get_or_load("loaded", lambda key: value) is value
        assert cache["loaded"] is value
        assert cache.get_many_or_load(["key", "more"], lambda keys: {"more": value})["more"] is value
        assert cache["more"] is value
        assert cache.pop("key") is value
        assert cache.popitem()[1] is value
        assert cache.modify("more", lambda found: [found])[0] is value
        assert cache["more"][0] is value
        if hasattr(value, "close"):
            value.close()

    def test_a_mutation_is_seen_by_all(self, cache: Cache) -> None:
        cache["list"] = [1]
        cache["list"].append(2)
        assert in_another_thread(lambda: cache["list"]) == [1, 2]

    def test_it_is_the_default_on_a_store_of_its_own(self, store: DictMemoryStore) -> None:
        value = Plain()
        with Cache(codec="pickle") as copies:
            copies["key"] = [value]
            assert copies["key"] is not copies["key"]
        Cache(store, codec="reference")["key"] = value
        assert Cache(store, codec="reference")["key"] is value

    def test_those_who_wait_for_a_load_get_the_same_object(
        self, cache: Cache, waits: threading.Semaphore
    ) -> None:
        def load(key: str) -> Any:
            for _ in range(3):
                assert waits.acquire(timeout=TIMEOUT)
            return made[key]

        made: dict[str, Any] = {"object": Hostile(), "none": None}
        with ThreadPoolExecutor(4) as pool:
            for key, value in made.items():
                asked = [pool.submit(cache.get_or_load, key, load) for _ in range(4)]
                assert all(future.result(TIMEOUT) is value for future in asked)
        assert cache.stats()["loads"] == 2

    def test_a_memoized_function(self, cache: Cache) -> None:
        calls: list[int] = []

        @cache.memoize
        def lock(number: int) -> Any:
            calls.append(number)
            return threading.Lock() if number else None

        assert lock(1) is lock(1)
        assert lock(0) is lock(0) is None
        assert calls == [1, 0]

    def test_a_refresh(self, cache: Cache, clock: Clock) -> None:
        values = [Plain(), None]
        assert cache.get_or_load("key", lambda key: values[0], refresh_after=1.0) is values[0]
        clock.now += 2.0
        assert cache.get_or_load("key", lambda key: values[1], refresh_after=1.0) is None
        assert cache.get("key", 1) is None

    def test_what_is_set_while_it_is_loaded(self, cache: Cache) -> None:
        value = Hostile()

        def load(key: str) -> int:
            cache[key] = value
            return 1

        assert cache.get_or_load("key", load) is value
        with store_of(cache).transaction():
            cache.delete("key")
            assert cache.get_or_load("key", load) is value
        assert cache.get_many_or_load(["other"], lambda keys: {"other": load("other")})["other"] is value


class TestNone:
    def test_what_another_has_loaded_before_the_claim(self) -> None:
        """A thread that has missed finds what was loaded since, once it has claimed the load."""

        class Late(Cache):
            def get(self, key: str, default: Any = None) -> Any:
                return default  # it was asked for too early

        with Late() as cache:
            cache["key"] = None
            assert cache.get_or_load("key", lambda key: 1) is None
            assert cache.get_many_or_load(["key"], lambda keys: dict.fromkeys(keys, 1)) == {"key": None}
            assert cache.stats()["loads"] == 0

    def test_it_is_a_value(self, cache: Cache) -> None:
        cache["key"] = None
        assert cache.get("key", 1) is None
        assert cache["key"] is None
        assert "key" in cache
        assert cache.get_many(["key"]) == {"key": None}
        assert cache.get_or_load("key", lambda key: 1) is None
        assert cache.get_many_or_load(["key"], lambda keys: dict.fromkeys(keys, 1)) == {"key": None}
        assert not cache.add("key", 1)
        assert cache.modify("key", lambda value: value) is None
        assert cache.setdefault("key", 1) is None
        with store_of(cache).transaction():
            assert cache.get("key", 1) is None
            assert cache.get_or_load("key", lambda key: 1) is None
            assert cache.get_or_load("inside", lambda key: None) is None
            assert cache.get("inside", 1) is None
        assert cache.pop("key", 1) is None
        assert "key" not in cache
        assert cache.stats()["loads"] == 1


class TestBytes:
    def test_they_are_data(self, cache: Cache) -> None:
        value = b"some bytes"
        cache["key"] = value
        assert cache["key"] is value
        assert cache.store.to_bytes("key") == value
        assert cache.stats()["bytes"] >= len(value)

    def test_those_that_others_write(self, cache: Cache) -> None:
        cache.store.from_bytes("key", b"theirs")
        assert cache["key"] == b"theirs"
        cache["key"] = 1
        cache.store.from_bytes("key", b"theirs again")
        assert cache["key"] == b"theirs again"

    def test_with_a_size_of_their_own(self) -> None:
        with Cache(sizeof=lambda value: 500) as cache:
            value = b"some bytes"
            cache["key"] = value
            assert cache["key"] is value
            assert cache.store.to_bytes("key") is value
            assert 500 <= cache.stats()["bytes"] < 2_000
            check(cache)


class TestWeight:
    def weight(self, cache: Cache, value: Any, **options: Any) -> int:
        cache.clear()
        cache.set("key", value, **options)
        check(cache)
        weight: int = cache.stats()["bytes"]
        return weight

    def test_of_a_reference(self, cache: Cache) -> None:
        assert self.weight(cache, "x" * 10_000) == self.weight(cache, 1) < 2_000

    def test_sizeof(self) -> None:
        with Cache(sizeof=len, max_bytes=100_000) as cache:
            base = self.weight(cache, "")
            assert self.weight(cache, "x" * 50_000) == base + 50_000
            assert cache.store.get("key").size == 50_000
            cache.modify("key", lambda value: value[:3])
            assert cache.stats()["bytes"] == base + 3
            cache.store.update_metadata("key", {"kind": "text"})
            check(cache)
            assert cache.store.get("key").size == 3
            with pytest.raises(EntryTooLargeError):
                cache["heavy"] = "x" * 200_000
            assert self.weight(cache, "x" * 50_000, weight=7) == 7
            assert cache.get_or_load("large", lambda key: "x" * 200_000) == "x" * 200_000
            assert "large" not in cache

    def test_a_weight_that_is_given_wins(self) -> None:
        def fail(value: Any) -> int:
            raise AssertionError("asked")

        with Cache(sizeof=fail) as cache:
            assert self.weight(cache, 1, weight=7) == 7
            with pytest.raises(AssertionError, match="asked"):
                cache["key"] = 1

    def test_it_is_called_with_no_lock_held(self) -> None:
        def write(value: Any) -> int:
            in_another_thread(lambda: made.store.from_bytes("other", b""))
            return 1

        with Cache(sizeof=write) as made:
            made["key"] = 1
            made.set("key", 1, ttl=5.0)
            made.set_many({"a": 1, "b": 2})
            made.add("c", 1)
            made.modify("a", lambda value: 2)
            made.get_or_load("d", lambda key: 1)
            assert len(made) == 6

    @pytest.mark.parametrize(
        ("size", "error"), [(-1, ValueError), (1.5, TypeError), (None, TypeError), (True, TypeError)]
    )
    def test_what_is_no_size(self, size: Any, error: type[Exception]) -> None:
        with Cache(sizeof=lambda value: size) as cache:
            with pytest.raises(error, match="the result of sizeof must be"):
                cache["key"] = 1
            assert "key" not in cache

    def test_it_is_for_references(self, store: DictMemoryStore) -> None:
        for arguments in ({"codec": "pickle"}, {"store": store}):
            with pytest.raises(TypeError, match="sizeof is for codec='reference'"):
                Cache(sizeof=len, **arguments)
        with pytest.raises(TypeError, match="sizeof must be callable"):
            Cache(sizeof=3)  # type: ignore[arg-type]


class TestEdits:
    """What is done to the entry of an object, by the store and by transactions."""

    @pytest.fixture(params=["alone", "in a transaction", "in an optimistic one", "after it was read"])
    def block(self, cache: Cache, request: pytest.FixtureRequest) -> Iterator[Any]:
        self.value = cache["key"] = Hostile()
        store = store_of(cache)
        if request.param == "alone":
            yield store
        else:
            with store.transaction(optimistic=request.param == "in an optimistic one"):
                if request.param == "after it was read":
                    assert cache["key"] is self.value
                yield store

    def test_metadata_leaves_the_object(self, cache: Cache, block: Any) -> None:
        for change in (
            lambda: block.set_metadata("key", {"a": 1}),
            lambda: block.set_metadata("key", {"a": [1]}),
            lambda: block.update_metadata("key", {"b": 1}),
            lambda: block.update_metadata("key", {"b": {"c": 2}}),
            lambda: block.multiupdate_metadata(["key"], [{"d": 1}]),
            lambda: cache.touch("key", 5.0),
            lambda: cache.touch("key"),
        ):
            change()
            assert cache["key"] is self.value
            with pytest.raises(KeptByReferenceError, match="key 'key'"):
                block.to_bytes("key")
        assert block.get_metadata("key") == {"a": [1], "b": {"c": 2}, "d": 1}

    def test_data_takes_its_place(self, cache: Cache, block: Any) -> None:
        block.set_metadata("key", {"a": [1]})
        block.set_data("key", b"data")
        assert block.to_bytes("key") == cache["key"] == b"data"
        assert block.get_metadata("key") == {"a": [1]}
        cache["key"] = self.value
        block.set("key", (b"all", {}))
        assert block.to_bytes("key") == b"all"


class TestModify:
    def test_no_object_is_compared(self, cache: Cache, clock: Clock) -> None:
        cache.set("key", Hostile(), ttl=5.0, tags=["tag"])
        value = Hostile()

        def change(found: Any) -> Any:
            if not tries:
                tries.append(1)
                cache["key"] = Hostile()
            return value

        tries: list[int] = []
        assert cache.modify("key", change) is value
        assert cache["key"] is value
        with store_of(cache).transaction():
            tries.clear()
            assert cache.modify("key", change) is value
        assert cache["key"] is value

    def test_it_keeps_tags_and_time(self, cache: Cache) -> None:
        cache.set("key", [1], ttl=5.0, tags=["tag"])
        cache.modify("key", lambda value: [*value, 2])
        assert cache["key"] == [1, 2]
        assert cache.remaining("key") == 5.0
        assert cache.invalidate_tag("tag") == 1

    @pytest.mark.parametrize("optimistic", [False, True])
    def test_pop_takes_what_it_has_found(self, cache: Cache, optimistic: bool) -> None:
        first, second = Hostile(), Hostile()
        cache["key"] = first
        with store_of(cache).transaction(optimistic=optimistic):
            assert cache.pop("key") is first
            cache["key"] = second
            assert cache.popitem()[1] is second
            assert "key" not in cache
        assert "key" not in cache

    def test_what_expires_while_it_is_popped_is_not_taken(
        self, cache: Cache, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.set("key", 1, ttl=5.0)

        def wait() -> None:
            clock.now += 5.0

        before_the_next_transaction(monkeypatch, wait)
        assert cache.pop("key", "none") == "none"

    def test_what_comes_in_between_is_popped(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = Hostile(), Hostile()
        cache["key"] = first
        before_the_next_transaction(monkeypatch, lambda: cache.set("key", second))
        assert cache.pop("key") is second


def before_the_next_transaction(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Have something happen when a value has been found, and the block that is to take it has not begun."""
    transaction = DictMemoryStore.transaction

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(DictMemoryStore, "transaction", transaction)
        action()
        return transaction(*arguments, **options)

    monkeypatch.setattr(DictMemoryStore, "transaction", late)
