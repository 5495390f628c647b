"""Files that are no store's, are damaged, or cannot be written any more; and writers that are killed."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

import pytest

from latchstore import DictMemoryStore, EventManager, SqliteStore, StoreFormatError
from tests.sqlite.other_process import OtherProcess


def change(path: Path, *statements: str) -> None:
    """Have another program change a file."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.fixture
def made(path: Path) -> Path:
    """The file of a store that was closed."""
    with SqliteStore(path, EventManager(), durability="off") as store:
        for number in range(500):
            store.set(f"k{number}", (b"x" * 100, {"it": number}))
    return path


class TestOthers:
    def test_what_is_no_database(self, path: Path) -> None:
        path.write_bytes(b"something else" * 1_000)
        with pytest.raises(StoreFormatError, match="is not a SQLite database"):
            SqliteStore(path)
        assert path.read_bytes() == b"something else" * 1_000

    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            ("PRAGMA application_id = 5", "a SQLite database of another program"),
            ("PRAGMA user_version = 99", "has format 99"),
            ("DROP TABLE about", "its table 'about' is missing or different"),
            ("ALTER TABLE log ADD COLUMN more", "its table 'log' is missing or different"),
            ("CREATE VIEW seen AS SELECT 1", "has a view, 'seen'"),
            (
                "CREATE TRIGGER told AFTER INSERT ON entries BEGIN DELETE FROM log; END",
                "has a trigger, 'told'",
            ),
        ],
    )
    def test_what_no_store_has_made(self, made: Path, statement: str, message: str) -> None:
        change(made, statement)
        with pytest.raises(StoreFormatError, match=message):
            SqliteStore(made)

    def test_the_database_of_something_else(self, path: Path) -> None:
        change(path, "CREATE TABLE other (a)")
        before = path.read_bytes()
        with pytest.raises(StoreFormatError, match="a SQLite database of another program"):
            SqliteStore(path)
        assert path.read_bytes() == before

    def test_a_damaged_file(self, made: Path) -> None:
        content = bytearray(made.read_bytes())
        middle = len(content) // 2 // 4096 * 4096
        content[middle : middle + 8_192] = b"\xff" * 8_192
        made.write_bytes(content)
        with pytest.raises(StoreFormatError, match="is damaged"):
            SqliteStore.load(made, EventManager())

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            SqliteStore.load(tmp_path / "missing")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("place", ["missing/store", "."])
    def test_where_no_file_can_be(self, tmp_path: Path, place: str) -> None:
        with pytest.raises(OSError, match=re.escape(str((tmp_path / place).resolve()))):
            SqliteStore(tmp_path / place)


class TestFullDisk:
    def test_a_commit_that_does_not_fit(self, store: SqliteStore, other: OtherProcess, path: Path) -> None:
        store.from_bytes("a", b"1")
        other.limit(200_000)
        for keys, data in ((["b"], [b"x" * 1_000_000]), (["a", "c"], [b"2", b"x" * 1_000_000])):
            with pytest.raises(OSError, match=re.escape(str(path))):
                other.call("multiset_data", keys, data)
            assert list(store.query_keys()) == ["a"]
            assert store.to_bytes("a") == b"1"
            store.from_bytes("a", b"1")
        other.limit(None)
        other.call("from_bytes", "b", b"x" * 1_000_000)
        store.from_bytes("a", b"2")
        assert sorted(store.query_keys()) == ["a", "b"]
        assert store.info()["revision"] == 5

    def test_a_transaction_that_does_not_fit(
        self, store: SqliteStore, other: OtherProcess, path: Path
    ) -> None:
        other.limit(200_000)
        other.begin_block("large")
        other.call("from_bytes", "a", b"x" * 1_000_000)
        with pytest.raises(OSError, match=re.escape(str(path))):
            other.commit()
        other.limit(None)
        store.from_bytes("b", b"1")
        other.call("from_bytes", "c", b"1")
        assert [store.get(key).revision for key in "bc"] == [1, 2]


class TestKilledWriters:
    @pytest.mark.parametrize("durability", ["full", "normal"])
    def test_nothing_that_was_acknowledged_is_lost(self, path: Path, durability: str) -> None:
        """Nor is anything torn, and the history has each commit."""
        acknowledged = 0
        for _ in range(2):
            with OtherProcess() as victim:
                victim.open(path, durability=durability)
                for _ in range(10):
                    acknowledged = victim.count()
                victim.count_on()
                victim.kill()
            with SqliteStore.load(path, EventManager(), durability="off") as store:
                first, second = (int(data.read()) for data in store.multiget_data(["first", "second"]))
                assert first == second
                assert first >= acknowledged
                assert store.info()["revision"] == first
                with store.watch(since=0) as changes:
                    found = [changes.get(0) for _ in range(2 * first)]
                assert [getattr(change, "revision", None) for change in found[::2]] == [
                    number + 1 for number in range(first)
                ]


def test_a_file_that_is_open_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    memory = DictMemoryStore(EventManager())
    memory.set("other", (b"", {}))
    with SqliteStore(path, EventManager()) as store:
        store.set("key", (b"value", {}))
        with pytest.raises(OSError, match="is open as a SqliteStore") as caught:
            memory.save(path)
        assert caught.value.filename == str(path)
        assert store.to_bytes("key") == b"value"
    with SqliteStore(path, EventManager()) as store:
        assert list(store.query_keys()) == ["key"]
    memory.save(path)
    with SqliteStore(path, EventManager()) as store:
        assert list(store.query_keys()) == ["other"]


def test_a_file_that_cannot_be_opened_leaves_nothing_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection has no ``close`` that could fail in the garbage collector."""
    reported: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", reported.append)
    directory = tmp_path.joinpath(*["x" * 200] * 5)  # a path that is too long for SQLite
    directory.mkdir(parents=True)
    with pytest.raises(OSError, match="unable to open"):
        SqliteStore(directory / "store")
    assert not reported
