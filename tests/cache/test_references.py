"""A cache that keeps the objects themselves: shared, carried by events and views, refused where bytes are."""

# The blocks of transactions that are to fail have bodies.
# ruff: noqa: PT012

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    Cache,
    CodecError,
    DictMemoryStore,
    EntryTooLargeError,
    EventManager,
    KeptByReferenceError,
    StoreError,
    StoreModificationEvent,
    StringValue,
    TransactionConflictError,
)
from latchstore.cache.inspection import check
from tests.cache.clocks import TIMEOUT, Clock
from tests.fork.children import in_child
from tests.schedules import in_another_thread


class Hostile:
    """Is equal to nothing, and fails if it is asked, pickled, copied, hashed or shown."""

    def _refuse(self, *arguments: object) -> Any:
        raise AssertionError("asked")

    __eq__ = __ne__ = __hash__ = __repr__ = __reduce_ex__ = __bool__ = __copy__ = __deepcopy__ = _refuse


class Plain:
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Iterator[Cache]:
    with Cache(clock=clock) as cache:
        yield cache
        check(cache)


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


def store_of(cache: Cache) -> Any:
    return cache.store


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
            with pytest.raises(error, match="what sizeof returns must be"):
                cache["key"] = 1
            assert "key" not in cache

    def test_it_is_for_references(self, store: DictMemoryStore) -> None:
        for arguments in ({"codec": "pickle"}, {"store": store}):
            with pytest.raises(TypeError, match="sizeof is for codec='reference'"):
                Cache(sizeof=len, **arguments)
        with pytest.raises(TypeError, match="sizeof must be callable"):
            Cache(sizeof=3)  # type: ignore[arg-type]


class TestCodecs:
    def test_none_is_named_for_a_store_that_is_given(self, store: DictMemoryStore) -> None:
        cache = Cache(store)
        cache["bytes"] = b"bytes"
        assert cache["bytes"] == store.to_bytes("bytes") == b"bytes"
        calls: list[Callable[[], object]] = [
            lambda: cache.set("key", "text"),
            lambda: cache.set_many({"key": 1}),
            lambda: cache.add("key", None),
            lambda: cache.get_or_load("key", lambda key: 1),
        ]
        for call in calls:
            with pytest.raises(CodecError, match=r"key 'key' .* codec='pickle'.*codec='reference'"):
                call()
        assert list(cache) == ["bytes"]

    def test_another_cache_keeps_an_object_there(
        self, store: DictMemoryStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        references = Cache(store, codec="reference")
        references["key"] = Hostile()
        for codec in ("pickle", "raw", None):
            self.refuses(Cache(store, codec=codec), store)
        cache = Cache(store)
        assert cache.get_or_load("key", lambda key: b"loaded") == b"loaded"
        assert cache.stats()["undecodable"] == 1
        assert "key 'key' cannot be decoded and is loaded again: another cache" in caplog.text
        assert references["key"] == b"loaded"

    def refuses(self, cache: Cache, store: DictMemoryStore) -> None:
        calls: list[Callable[[], object]] = [
            lambda: cache["key"],
            lambda: cache.get_many(["key"]),
            lambda: cache.pop("key"),
            lambda: cache.popitem(),
            lambda: cache.modify("key", lambda value: value),
            lambda: cache.setdefault("key", b""),
            lambda: dict(cache.items()),
        ]
        for call in calls:
            with pytest.raises(CodecError, match=r"key 'key' cannot be decoded: .* Hostile .* by reference"):
                call()
        with store.transaction(), pytest.raises(CodecError, match="key 'key'"):
            cache.get("key")
        assert "key" in cache

    def test_a_mapping_refuses_it(self, store: DictMemoryStore) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.mapping("reference"),
            lambda: store.snapshot().mapping("reference"),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"codec 'reference' .* a Cache can"):
                call()


class TestRefusals:
    """There are no bytes of an object."""

    @pytest.fixture(params=["plain", "with metadata"])
    def value(self, cache: Cache, request: pytest.FixtureRequest) -> Any:
        value = Hostile()
        cache.set("key", value, metadata={} if request.param == "plain" else {"kind": ["a"]})
        return value

    def test_wherever_bytes_are_read(self, cache: Cache, value: Any, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        store = store_of(cache)
        self.refuses(store, path)
        with store.snapshot() as snapshot:
            self.refuses(snapshot, path)
        with pytest.raises(KeptByReferenceError, match="key 'key'"):
            store.set("other", store.get("key"))
        with store.transaction(), pytest.raises(KeptByReferenceError, match="key 'key'"):
            store.to_bytes("key")
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]
        assert list(store.query_keys()) == ["key"]

    def refuses(self, view: Any, path: Path) -> None:
        found = view.get("key")
        calls: list[Callable[[], object]] = [
            lambda: view.to_bytes("key"),
            lambda: view.get_data("key"),
            lambda: view.to_file("key", path),
            lambda: list(view.multiget_data(["key"])),
            lambda: view.mapping()["key"],
            lambda: found.data,
            lambda: found.bytes,
            lambda: found.range(0, 1),
            lambda: list(found.iterdata()),
            lambda: tuple(found),
            lambda: found[0],
            lambda: found.__enter__(),
            lambda: next(view.multiget(["key"])).data,
        ]
        for call in calls:
            with pytest.raises(
                KeptByReferenceError, match=r"key 'key' has no bytes: .* Hostile .*codec='pickle'"
            ) as error:
                call()
            assert error.value.key == "key"
            assert isinstance(error.value, (TypeError, StoreError))

    def test_all_else_can_be_read(self, cache: Cache, value: Any, clock: Clock) -> None:
        store = store_of(cache)
        found = store.get("key")
        assert found.content is value
        assert found.size == 1
        assert found.created == found.modified
        assert found.revision == store.info()["revision"]
        assert found.metadata == store.get_metadata("key")
        assert repr(found) == f"<StoredValue Hostile by reference, {len(found.metadata)} metadata items>"
        assert next(store.multiget(["key"])).content is value
        assert store.exists("key")
        assert list(store.query_keys()) == ["key"]

    def test_the_content_of_other_values(self, store: DictMemoryStore) -> None:
        store.set("key", (b"data", {}))
        assert store.get("key").content == StringValue(b"data").content == b"data"

    def test_a_copy_of_the_metadata_is_the_callers_own(self, cache: Cache, value: Any) -> None:
        store_of(cache).set_metadata("key", {"list": [1]})
        store_of(cache).get_metadata("key")["list"].append(2)
        assert store_of(cache).get("key").metadata == {"list": [1]}


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


class TestCarried:
    def test_by_events(self, cache: Cache) -> None:
        seen: list[Any] = []
        manager = store_of(cache).event_manager
        manager.connect(StoreModificationEvent, seen.append)
        first, second = Hostile(), Hostile()
        cache["key"] = first
        cache["key"] = second
        del cache["key"]
        store_of(cache).flush(TIMEOUT)
        assert [event.action for event in seen] == ["set", "update", "delete"]
        assert seen[0].value.content is seen[1].previous.content is first
        assert seen[1].value.content is seen[2].previous.content is second
        with pytest.raises(KeptByReferenceError, match="key 'key'"):
            _ = seen[0].value.data

    def test_by_evictions(self, clock: Clock) -> None:
        with Cache(max_entries=1, clock=clock) as cache:
            with store_of(cache).watch() as changes:
                first = cache["a"] = Hostile()
                cache["b"] = 1
                evicted = [
                    event for event in (changes.get(0), changes.get(0), changes.get(0)) if event.key == "a"
                ]
            assert [event.action for event in evicted] == ["set", "evict"]
            assert evicted[0].value.content is evicted[1].previous.content is first
            check(cache)

    def test_by_watches(self, cache: Cache) -> None:
        first, second = Hostile(), Hostile()
        with store_of(cache).watch() as changes:
            cache["key"] = first
            cache["key"] = second
            assert changes.get(0).value.content is first
            change = changes.get(0)
            assert change.previous.content is first
            assert change.value.content is second

    def test_by_snapshots(self, cache: Cache) -> None:
        first, second = Hostile(), Hostile()
        cache["key"] = first
        with store_of(cache).snapshot() as snapshot:
            cache["key"] = second
            assert snapshot.get("key").content is first
            assert store_of(cache).info()["pinned_bytes"] == 1
        assert store_of(cache).get("key").content is second

    @pytest.mark.parametrize("optimistic", [False, True])
    def test_by_transactions(self, cache: Cache, optimistic: bool) -> None:
        first, second, third = Hostile(), Hostile(), Hostile()
        store = store_of(cache)
        cache["key"] = first
        with store.transaction(optimistic=optimistic) as transaction:
            cache["key"] = second
            assert cache["key"] is transaction.get("key").content is second
            assert in_another_thread(lambda: cache["key"]) is first
            with pytest.raises(ZeroDivisionError), store.transaction():
                cache["key"] = third
                assert cache["key"] is third
                raise ZeroDivisionError
            assert cache["key"] is second
            with store.transaction():
                cache["other"] = third
        assert cache["key"] is second
        assert cache["other"] is third
        with pytest.raises(ZeroDivisionError), store.transaction(optimistic=optimistic):
            cache["key"] = third
            del cache["other"]
            raise ZeroDivisionError
        assert cache["key"] is second
        assert cache["other"] is third

    def test_an_optimistic_transaction_may_be_in_conflict(self, cache: Cache) -> None:
        cache["key"] = Hostile()
        theirs = Hostile()
        with pytest.raises(TransactionConflictError), store_of(cache).transaction(optimistic=True):
            assert cache.get("key") is not theirs
            in_another_thread(lambda: cache.set("key", theirs))
            cache["key"] = Hostile()
        assert cache["key"] is theirs

    def test_by_a_rollback_that_brings_an_eviction_back(self, clock: Clock) -> None:
        with Cache(max_entries=2, clock=clock) as cache:
            values = [Hostile(), Hostile(), Hostile()]
            cache["a"], cache["b"] = values[:2]
            with pytest.raises(ZeroDivisionError), store_of(cache).transaction():
                cache["c"] = values[2]
                assert len(cache) == 2
                raise ZeroDivisionError
            assert cache["a"] is values[0]
            assert cache["b"] is values[1]
            check(cache)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_by_forks(self, cache: Cache) -> None:
        value = cache["key"] = Plain()

        def run() -> None:
            assert cache["key"] is value
            cache["key"] = other = Plain()
            assert cache["key"] is other
            check(cache)

        assert in_child(run) == ""
        assert cache["key"] is value


class TestSaving:
    KEPT = ("", "text\0 \u20ac \U0001f40d", 0, -1, 2**63 - 1, -(2**63), 0.0, -0.0, 1.5, 1e300, b"", b"bytes")

    def test_what_sqlite_holds_comes_back(self, cache: Cache, tmp_path: Path) -> None:
        path = tmp_path / "saved"
        cache.set_many({f"key{number}": value for number, value in enumerate(self.KEPT)}, metadata={"a": [1]})
        cache["\udc80"] = "a key with a lone surrogate"
        store_of(cache).save(path)
        loaded = DictMemoryStore.load(path, EventManager())
        again = Cache(loaded, codec="reference")
        assert again["\udc80"] == "a key with a lone surrogate"
        for number, value in enumerate(self.KEPT):
            found = again[f"key{number}"]
            assert (type(found), repr(found)) == (type(value), repr(value))
        assert loaded.get_metadata("key0") == {"a": [1]}
        with pytest.raises(KeptByReferenceError, match=r"key 'key0' .* str"):
            loaded.to_bytes("key0")
        check(again)

    def test_what_it_weighs_comes_back(self, tmp_path: Path) -> None:
        path = tmp_path / "saved"
        with Cache(sizeof=len) as cache:
            cache.update({"a": "x" * 100, "\udc80": "x" * 1_000, "one": "x", "bytes": b"x" * 10})
            store_of(cache).save(path)
            weight = cache.stats()["bytes"]
        loaded = DictMemoryStore.load(path, EventManager())
        assert [loaded.get(key).size for key in ("a", "\udc80", "one", "bytes")] == [100, 1_000, 1, 10]
        assert Cache(loaded, codec="reference").stats()["bytes"] == weight

    @pytest.mark.parametrize(
        "value",
        [
            None, True, "\udc80", 2**63, -(2**63) - 1, math.nan, math.inf, -math.inf,
            [], (), {}, bytearray(), 1j, Hostile(), Plain(),
            type("Text", (str,), {})("text"), type("Number", (int,), {})(1),
        ],
        ids=lambda value: type(value).__name__,
    )  # fmt: skip
    def test_all_else_is_refused(self, cache: Cache, tmp_path: Path, value: Any) -> None:
        path = tmp_path / "saved"
        path.write_bytes(b"old")
        cache["fine"] = 1
        cache["not/fine"] = value
        with pytest.raises(KeptByReferenceError, match="key 'not/fine'"):
            store_of(cache).save(path)
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["saved"]

    def test_a_file_of_before(self, tmp_path: Path) -> None:
        path = tmp_path / "saved"
        with sqlite3.connect(path) as file:
            file.executescript(
                """
                PRAGMA application_id = 1819566952;
                PRAGMA user_version = 1;
                CREATE TABLE about (revision INTEGER NOT NULL, entries INTEGER NOT NULL);
                CREATE TABLE entries (
                    key PRIMARY KEY NOT NULL, data BLOB NOT NULL, metadata TEXT NOT NULL,
                    created REAL NOT NULL, modified REAL NOT NULL, revision INTEGER NOT NULL
                );
                INSERT INTO entries VALUES ('key', x'64617461', '{"a": 1}', 1.0, 2.0, 3);
                INSERT INTO about VALUES (3, 1);
                """
            )
        file.close()
        with DictMemoryStore.load(path, EventManager()) as store:
            assert Cache(store)["key"] == b"data"
