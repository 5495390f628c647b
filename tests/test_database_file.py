"""The reader of SQLite's files against SQLite."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreFormatError
from latchstore.engine.database_file import DamageError, Database

INTEGERS = [0, 1, -1, 127, -128, 128, 2**15, -(2**15), 2**23, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63)]


def value(chance: random.Random, page_size: int) -> Any:
    around = page_size - 35 + chance.randint(-2, 2)
    return chance.choice(
        [
            None,
            chance.choice(INTEGERS),
            chance.random() * 10 ** chance.randint(-300, 300),
            "\u00fc\0" * chance.randint(0, 2_000),
            chance.randbytes(chance.choice([0, 10, 60, 300, around, 3 * page_size])),
        ]
    )


@pytest.mark.parametrize("auto_vacuum", ["NONE", "FULL", "INCREMENTAL"])
@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_it_reads_what_sqlite_reads(tmp_path: Path, page_size: int, auto_vacuum: str) -> None:
    chance = random.Random(page_size)
    path = tmp_path / "file"
    file = sqlite3.connect(path, isolation_level=None)
    file.executescript(
        f"PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}; "
        "PRAGMA synchronous = OFF; CREATE TABLE filler (a); CREATE TABLE t (a, b, c)"
    )
    file.execute("BEGIN")
    rowids = [*sorted(chance.sample(range(-10_000, 10_000), 800)), 2**40, 2**63 - 1]
    file.executemany(
        "INSERT INTO t (rowid, a, b, c) VALUES (?, ?, ?, ?)",
        [(rowid, *(value(chance, page_size) for _ in range(3))) for rowid in rowids],
    )
    file.execute("DELETE FROM t WHERE rowid % 3 = 0")
    file.execute("COMMIT")
    expected = file.execute("SELECT a, b, c FROM t ORDER BY rowid").fetchall()
    file.close()
    database = Database(path.read_bytes())
    (root,) = [root for _, name, _, root, _ in database.schema() if name == "t"]
    assert list(database.rows(root, 3)) == expected
    with pytest.raises(DamageError, match="used twice"):
        next(database.rows(root, 3))


@pytest.mark.parametrize("rows", [1, 30, 12_000])
@pytest.mark.parametrize("kind", ["alike", "of all kinds"])
def test_small_rows_on_many_pages(tmp_path: Path, rows: int, kind: str) -> None:
    """They are read together, unless one of them continues on another page."""
    chance = random.Random(rows)
    path = tmp_path / "file"
    file = sqlite3.connect(path, isolation_level=None)
    file.executescript("PRAGMA synchronous = OFF; CREATE TABLE t (a, b, c, d)")
    small = [None, *INTEGERS, 0.5, "", "\u00fc", "x" * 60, b"", b"y" * 60]
    values = [
        ("key", b"data", 1.5, number) if kind == "alike" else tuple(chance.choices(small, k=4))
        for number in range(rows)
    ]
    if rows > 10_000:
        values[11_000] = ("long", b"z" * 9_000, None, 0)
    file.execute("BEGIN")
    file.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", values)
    file.execute("COMMIT")
    file.close()
    found = list(Database(path.read_bytes()).rows(2, 4))
    assert list(map(repr, found)) == list(map(repr, values))  # 1 is not 1.0


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    content = bytes_of_table(tmp_path, 512, "(x'0000'), (x'0000'), (x'0000')")
    assert [*Database(bytes(content)).rows(2, 1)] == [(b"\0\0",)] * 3
    offsets = content[512 + 8 : 512 + 14]
    for order in (offsets[2:4] + offsets[:2] + offsets[4:], offsets[:2] + offsets[:2] + offsets[4:]):
        content[512 + 8 : 512 + 14] = order
        with pytest.raises(DamageError, match="out of order"):
            list(Database(bytes(content)).rows(2, 1))


def varint(value: int) -> list[int]:
    return [0x80 | value >> 14, 0x80 | value >> 7 & 0x7F, value & 0x7F]


def bytes_of_table(tmp_path: Path, page_size: int, rows: str) -> bytearray:
    """Return the bytes of a database with a table of one column, to be damaged."""
    path = tmp_path / "file"
    file = sqlite3.connect(path, isolation_level=None)
    file.executescript(f"PRAGMA page_size = {page_size}; CREATE TABLE t (a); INSERT INTO t VALUES {rows}")
    file.close()
    return bytearray(path.read_bytes())


def test_rows_that_lie_over_each_other_are_not_more_than_there_is(tmp_path: Path) -> None:
    """A page of 64 KB would come to a gigabyte."""
    page = 65536
    content = bytes_of_table(tmp_path, page, "(zeroblob(60000))")
    first = int.from_bytes(content[page + 8 : page + 10], "big")
    # The rows begin where the data of the row before has zeros, at which each has its own head.
    places = []
    for number in range(100):
        at = page + first + 20 + number * 20
        content[at : at + 4] = bytes([*varint(50_000), number + 1])
        content[at + 4 : at + 8] = bytes([4, *varint(2 * 49_996 + 12)])
        places.append((at - page).to_bytes(2, "big"))
    content[page + 3 : page + 5] = len(places).to_bytes(2, "big")
    content[page + 8 : page + 8 + 2 * len(places)] = b"".join(places)
    rows = Database(bytes(content)).rows(2, 1)
    assert len(next(rows)[0]) == 49_996
    with pytest.raises(DamageError, match="longer than their page"):
        next(rows)


def test_short_rows_that_lie_over_each_other_or_over_the_next_page(tmp_path: Path) -> None:
    content = bytes_of_table(tmp_path, 4096, "(zeroblob(3900))")
    content += bytes(4096)
    content[28:32] = (3).to_bytes(4, "big")
    table = 4096

    def with_rows(*places: int) -> Database:
        """Have rows of 97 bytes, each with the size of its record, its number and its header."""
        for number, at in enumerate(places):
            content[table + at : table + at + 6] = bytes([99, number + 1, 3, 0x81, 0x4C, 0])
        content[table + 3 : table + 5] = len(places).to_bytes(2, "big")
        content[table + 8 : table + 8 + 2 * len(places)] = b"".join(at.to_bytes(2, "big") for at in places)
        return Database(bytes(content))

    assert len(list(with_rows(*range(300, 300 + 41 * 10, 10)).rows(2, 1))) == 41
    with pytest.raises(DamageError, match="longer than their page"):
        list(with_rows(*range(300, 300 + 42 * 10, 10)).rows(2, 1))
    assert len(list(with_rows(4096 - 101).rows(2, 1))) == 1
    with pytest.raises(DamageError, match="longer than their page"):
        list(with_rows(4096 - 100).rows(2, 1))


def test_rows_out_of_order_far_from_each_other_are_refused(tmp_path: Path) -> None:
    """As well where not all rows are read together."""
    path = tmp_path / "file"
    file = sqlite3.connect(path, isolation_level=None)
    file.executescript("PRAGMA page_size = 4096; CREATE TABLE t (a); BEGIN")
    file.executemany("INSERT INTO t VALUES (?)", [(b"",)] * 16_000)
    file.execute("COMMIT")
    file.close()
    content = bytearray(path.read_bytes())
    refused = 0
    for page in range(8192, len(content), 4096):
        row = page + int.from_bytes(content[page + 8 : page + 10], "big")
        number = content[row + 1]  # its first seven bits
        if content[page] == 0x0D and number > 0x81:
            content[row + 1] = 0x81
            with pytest.raises(DamageError, match="out of order"):
                list(Database(bytes(content)).rows(2, 1))
            content[row + 1] = number
            refused += 1
    assert refused > 10
    assert len(list(Database(bytes(content)).rows(2, 1))) == 16_000


def test_a_row_that_is_longer_than_its_values_is_refused(tmp_path: Path) -> None:
    """Also if one with the same header was read before."""
    content = bytes_of_table(tmp_path, 512, "(x'0000'), (x'0000')")
    at = 512 + int.from_bytes(content[522:524], "big")
    assert content[at : at + 6] == b"\x04\x02\x02\x10\0\0"
    content[at] += 1
    rows = Database(bytes(content)).rows(2, 1)
    assert next(rows) == (b"\0\0",)
    with pytest.raises(DamageError, match="not as long as its values"):
        next(rows)


def test_whatever_is_changed_in_a_file_it_is_refused_or_read(tmp_path: Path) -> None:
    """There is no other error, and no end that does not come."""
    path = tmp_path / "file"
    store = DictMemoryStore(EventManager())
    for number in range(200):
        store.set(f"k{number}", (b"x" * (number * 50), {"n": number, "list": [1.5, None]}))
    store.save(path)
    whole = path.read_bytes()
    chance = random.Random(5)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            # Every other one in what is the header of a page.
            at = chance.randrange(len(content))
            content[at - at % 4096 + at % 40 if chance.random() < 0.5 else at] = chance.randrange(256)
        path.write_bytes(content)
        try:
            DictMemoryStore.load(path, EventManager())
        except StoreFormatError:
            refused += 1
    assert 20 < refused < 200
