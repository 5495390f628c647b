"""Caches of references and codecs, other stores, transactions, watches and files."""

# The blocks of transactions that are to fail have bodies.
# ruff: noqa: PT012

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    Cache,
    CodecError,
    DictMemoryStore,
    EventManager,
    KeptByReferenceError,
    StoreError,
    StoreModificationEvent,
    StringValue,
    TransactionConflictError,
)
from latchstore.cache.inspection import check
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.references.objects import Hostile, Plain, store_of
from tests.fork.children import in_child
from tests.schedules import in_another_thread


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
            with pytest.raises(ValueError, match=r"codec 'reference' .* a Cache"):
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
