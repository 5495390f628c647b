"""A file that is damaged, cut short or of another kind is refused."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from latchstore import DictMemoryStore, StoreFormatError
from tests.saving.stores import saved

fcntl = pytest.importorskip("fcntl")


def damaged(change: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = sqlite3.connect(path, isolation_level=None)
        file.executescript(change)
        file.close()

    return damage


SIZES = "CREATE TABLE sizes (key PRIMARY KEY NOT NULL, size INTEGER NOT NULL)"

DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello " * 1000),
    "a random half": lambda path: path.write_bytes(
        path.read_bytes()[:20_000] + random.Random(1).randbytes(20_000)
    ),
    "another SQLite file": damaged("PRAGMA application_id = 7"),
    "a later format": damaged("PRAGMA user_version = 3"),
    "an entry is missing": damaged("DELETE FROM entries WHERE key = 'k7'"),
    "no table": damaged("DROP TABLE entries"),
    "nothing about it": damaged("DELETE FROM about"),
    "data is infinite": damaged("UPDATE entries SET data = 9e999 WHERE key = 'k7'"),
    "data is no Unicode": damaged("UPDATE entries SET data = CAST(x'FF' AS TEXT) WHERE key = 'k7'"),
    "sizes of what is data": damaged(
        f"{SIZES}; INSERT INTO sizes VALUES ('k7', 2)",
    ),
    "a size below zero": damaged(
        f"UPDATE entries SET data = 'text' WHERE key = 'k7'; {SIZES};INSERT INTO sizes VALUES ('k7', -2)"
    ),
    "metadata is no JSON": damaged("UPDATE entries SET metadata = '{' WHERE key = 'k7'"),
    "metadata is a list": damaged("UPDATE entries SET metadata = '[]' WHERE key = 'k7'"),
    "a key is a number": damaged("UPDATE entries SET key = 7 WHERE key = 'k7'"),
    "a revision to come": damaged("UPDATE entries SET revision = 1000 WHERE key = 'k7'"),
    "a revision is text": damaged("UPDATE entries SET revision = 'x' WHERE key = 'k7'"),
    "times are text": damaged("UPDATE entries SET created = 'x', modified = 'y' WHERE key = 'k7'"),
    "a time without end": damaged("UPDATE entries SET modified = 9e999 WHERE key = 'k7'"),
    "half a revision": damaged("UPDATE entries SET revision = 1.5 WHERE key = 'k7'"),
    "the last revision is text": damaged("DELETE FROM entries; UPDATE about SET revision = 'x', entries = 0"),
    "two rows about it": damaged("INSERT INTO about SELECT * FROM about"),
    "metadata is a blob": damaged("UPDATE entries SET metadata = CAST('{}' AS BLOB) WHERE key = 'k7'"),
    "metadata has nan": damaged("UPDATE entries SET metadata = '{\"n\": NaN}' WHERE key = 'k7'"),
    "metadata is too deep": damaged(
        f"UPDATE entries SET metadata = '{{\"n\": {'[' * 100_000}{']' * 100_000}}}' WHERE key = 'k7'"
    ),
    "another table of entries": damaged(
        "DROP TABLE entries; CREATE TABLE entries (key, data); INSERT INTO entries VALUES ('k', 'x')"
    ),
    "made before time": damaged("UPDATE entries SET created = -9e999 WHERE key = 'k7'"),
    "a revision that none can follow": damaged("UPDATE about SET revision = 9223372036854775807"),
    "a clock without end": damaged(
        "CREATE TABLE clock (reading REAL NOT NULL); INSERT INTO clock VALUES (9e999)"
    ),
    "another table of the clock": damaged("CREATE TABLE clock (reading); INSERT INTO clock VALUES (1.0)"),
    "metadata has a number without end": damaged(
        "UPDATE entries SET metadata = '{\"n\": 1e999}' WHERE key = 'k7'"
    ),
    "metadata has a name twice": damaged(
        "UPDATE entries SET metadata = '{\"n\": 1, \"n\": 2}' WHERE key = 'k7'"
    ),
    "metadata is deeper than what is saved": damaged(
        f"UPDATE entries SET metadata = '{{\"n\": {'[' * 101}{']' * 101}}}' WHERE key = 'k7'"
    ),
    "metadata has a tag that is unknown": damaged(
        'UPDATE entries SET metadata = \'{"n": {"$call": "exit"}}\' WHERE key = \'k7\''
    ),
    "a key is a blob without need": damaged("UPDATE entries SET key = CAST('k7' AS BLOB) WHERE key = 'k7'"),
    "text in UTF-16": lambda path: path.write_bytes(
        path.read_bytes()[:56] + b"\0\0\0\2" + path.read_bytes()[60:]
    ),
    "another page size": lambda path: path.write_bytes(
        path.read_bytes()[:16] + b"\x03\0" + path.read_bytes()[18:]
    ),
    "made after it was changed": damaged("UPDATE entries SET created = modified + 1 WHERE key = 'k7'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_that_is_not_right_is_refused(path: Path, name: str) -> None:
    saved(path)
    DAMAGE[name](path)
    with pytest.raises(StoreFormatError, match=r"saved\.sqlite"):
        DictMemoryStore.load(path)


def test_a_later_format_is_said_to_be_one(path: Path) -> None:
    saved(path)
    DAMAGE["a later format"](path)
    with pytest.raises(StoreFormatError, match="has format 3, and this version reads formats up to 2"):
        DictMemoryStore.load(path)


def test_a_truncated_file_is_refused(path: Path) -> None:
    whole = saved(path)
    for size in range(0, len(whole), 509):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreFormatError):
            DictMemoryStore.load(path)
