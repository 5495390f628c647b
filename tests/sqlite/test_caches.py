"""A cache on a store in a file: what is a matter of the file. The rest is in tests/shared_caches."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, SqliteStore, StoreFormatError
from latchstore.cache.inspection import check
from tests.shared_caches.loads_inside import LoadsInsideContract
from tests.shared_caches.one_process import (
    BoundContract,
    CacheContract,
    CodecsContract,
    ExpiryContract,
    OpenedAgainContract,
)


class TestBound(BoundContract):
    def test_many_hits_while_another_program_writes(self, path: Path, store: SqliteStore) -> None:
        size = 3_000
        with Cache(store, max_entries=size) as cache:
            cache.set_many({str(number): number for number in range(size)})
            with closing(sqlite3.connect(path, isolation_level=None)) as writer:
                writer.execute("BEGIN IMMEDIATE")
                for number in range(1, size):
                    assert cache[str(number)] == number
                writer.execute("ROLLBACK")
            cache["new"] = 1
            assert "0" not in cache  # the one that was not hit
            check(cache)

    def test_many_entries_replaced_by_one_commit(self, store: SqliteStore) -> None:
        with Cache(store, max_entries=1_000, max_bytes=1_000_000) as cache:
            for weight in (1, 3, 2):
                cache.set_many({str(number): "x" * number * weight for number in range(70)})
                check(cache)
                assert [len(cache[str(number)]) for number in range(70)] == [
                    number * weight for number in range(70)
                ]


class TestExpiry(ExpiryContract):
    def test_without_a_clock_deadlines_are_in_wall_clock_time(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Cache(store) as cache:
            monkeypatch.setattr("time.time", lambda: 1_000.0)
            cache.set("key", 1, ttl=10)
            assert store.get_metadata("key") == {"cache_expires": 1_010.0}


class TestCodecs(CodecsContract):
    access = "write the file"


class TestOpenedAgain(OpenedAgainContract): ...


class TestLoadsInside(CacheContract, LoadsInsideContract): ...


class TestFiles:
    def test_it_can_be_loaded_into_memory(self, path: Path) -> None:
        with SqliteStore(path, EventManager()) as store, Cache(store, max_entries=3) as cache:
            cache.update(a=1, b=2)
        with DictMemoryStore.load(path, EventManager()) as memory:
            assert dict(memory.mapping(codec="json")) == {"a": 1, "b": 2}

    def test_triggers_of_others_are_refused(self, path: Path) -> None:
        with SqliteStore(path, EventManager()) as store, Cache(store) as cache:
            cache["a"] = 1
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TRIGGER cache_deleted")
            connection.execute("CREATE TRIGGER cache_deleted AFTER DELETE ON entries BEGIN SELECT 1; END")
        with pytest.raises(StoreFormatError, match="trigger"):
            SqliteStore(path, EventManager())

    def test_a_saved_copy_has_no_books(self, path: Path, tmp_path: Path, store: SqliteStore) -> None:
        with Cache(store, max_entries=3) as cache:
            cache["a"] = 1
            store.save(tmp_path / "saved")
        with closing(sqlite3.connect(tmp_path / "saved")) as connection:
            names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        assert names == []
