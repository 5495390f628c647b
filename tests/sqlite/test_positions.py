"""Positions in an index of SQLite's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from latchstore import Above, Between, Prefix
from latchstore.sqlite.positions import stored_position, stored_spans
from tests.position_contract import Index, PositionContract

TABLE = """
CREATE TABLE items (name NOT NULL, rank INTEGER NOT NULL, value, key NOT NULL,
PRIMARY KEY (name, rank, value, key)) WITHOUT ROWID
"""


class Table(Index):
    """A table with the columns of the index of a file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        connection.execute(TABLE)

    def fill(self, items: list[Any]) -> None:
        self.connection.execute("DELETE FROM items")
        rows = [(*stored_position(item), number) for number, item in enumerate(items)]
        self.connection.executemany("INSERT INTO items VALUES ('n', ?, ?, ?)", rows)

    def _numbers(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[int]:
        return [number for (number,) in self.connection.execute(f"SELECT key FROM items {sql}", parameters)]

    def in_order(self) -> list[int]:
        return self._numbers("ORDER BY name, rank, value, key")

    def at(self, value: Any) -> list[int]:
        return sorted(self._numbers("WHERE name = 'n' AND rank = ? AND value = ?", stored_position(value)))

    def matching(self, term: object) -> set[int] | None:
        spans = stored_spans(term)
        if spans is None:
            return None
        found = [self._numbers(f"WHERE name = 'n' AND {span.sql}", span.parameters) for span in spans]
        return set().union(*found)


@pytest.fixture(scope="module")
def index() -> Iterator[Table]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield Table(connection)
    connection.close()


class TestPositions(PositionContract): ...


@pytest.mark.parametrize("term", [Above(1), Between("a", "b"), "x", Prefix("x")], ids=repr)
def test_sqlite_uses_the_index_for_both_ends(index: Table, term: object) -> None:
    spans = stored_spans(term)
    assert spans is not None
    (span,) = spans
    sql = (
        f"EXPLAIN QUERY PLAN SELECT key FROM items WHERE name = 'n' AND {span.sql} ORDER BY rank, value, key"
    )
    plan = [row[-1] for row in index.connection.execute(sql, span.parameters)]
    assert len(plan) == 1  # no sorting
    assert "PRIMARY KEY (name=? AND " in plan[0]
    if span.lower != span.upper:
        assert "(rank,value)>(?,?) AND (rank,value)<(?,?)" in plan[0]
