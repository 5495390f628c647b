"""Positions in an index of SQLite's: in its order they are as values are in ours; a term finds its own."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import sqlite3
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latchstore import Above, Below, Between, Condition, Contains, In, Prefix
from latchstore.contract.condition import equal
from latchstore.contract.ordering import position_of
from latchstore.sqlite.positions import Stored, spans_of, stored_position
from tests.metadata_values import hashables, scalars, texts, values

TABLE = """
CREATE TABLE items (name NOT NULL, rank INTEGER NOT NULL, value, key NOT NULL,
PRIMARY KEY (name, rank, value, key)) WITHOUT ROWID
"""

#: Numbers at which one way to write them ends and the next begins, and others beside them.
EDGES = [
    sign * (base + step)
    for base in (0, 2**53, 2**62, 2**63, 2**64, 10**30)
    for step in (-2, -1, 0, 1, 2)
    for sign in (1, -1)
]
numbers = st.one_of(
    st.sampled_from(EDGES),
    st.sampled_from(EDGES).map(float),
    st.sampled_from([math.inf, -math.inf, math.nan, -0.0, 10**400, -(10**400), True, 5e-324]),
    st.integers(),
    st.floats(),
)
some = numbers | values | st.lists(numbers | texts, max_size=3).map(tuple)


@pytest.fixture(scope="module")
def table() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(TABLE)
    yield connection
    connection.close()


def fill(table: sqlite3.Connection, positions: list[Stored]) -> None:
    table.execute("DELETE FROM items")
    rows = [(rank, value, number) for number, (rank, value) in enumerate(positions)]
    table.executemany("INSERT INTO items VALUES ('n', ?, ?, ?)", rows)


@given(st.lists(some, max_size=12))
@example([*EDGES, *map(float, EDGES), math.inf, -math.inf, 10**400, -(10**400)])
@example(
    [(number,) for number in EDGES] + [(float(number),) for number in EDGES] + [(math.inf,), (-math.inf,)]
)
@example(
    [("a",), ("a\0",), ("a", None), ("a", ""), ("a\0", 1), (("a",), 1), (("a", 1),), ((),), (), (b"\0", b"")]
)
@example([dt.timedelta.min, dt.timedelta.max, dt.timedelta(0), (dt.timedelta.min,), (dt.timedelta.max,)])
@example(
    [
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=9))),
        dt.datetime.max.replace(tzinfo=dt.UTC),
    ]
)
@example(
    [
        (dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=9))),),
        (dt.datetime.max,),
        (dt.date.min,),
    ]
)
@example([(0.0,), (-0.0,), (0,), -0.0, 0, False])
@example(["\ud7ff", "\ud800", "\udfff", "\ue000", "\U00010000", "", "\0"])
def test_the_order_is_that_of_values(table: sqlite3.Connection, items: list[Any]) -> None:
    fill(table, [stored_position(item) for item in items])
    found = [number for (number,) in table.execute("SELECT key FROM items ORDER BY name, rank, value, key")]
    assert found == sorted(range(len(items)), key=lambda number: (position_of(items[number]), number))
    # Equal ones are equal to SQLite as well.
    for number, item in enumerate(items):
        rows = table.execute(
            "SELECT key FROM items WHERE name = 'n' AND rank = ? AND value = ?", stored_position(item)
        )
        equals = [other for other, each in enumerate(items) if position_of(each) == position_of(item)]
        assert sorted(key for (key,) in rows) == equals, number


def matching(table: sqlite3.Connection, term: object) -> set[int] | None:
    """Return which rows are in the spans of a term."""
    spans = spans_of(term)
    if spans is None:
        return None
    found: set[int] = set()
    for span in spans:
        rows = table.execute(f"SELECT key FROM items WHERE name = 'n' AND {span.sql}", span.parameters)
        found.update(key for (key,) in rows)
    return found


def bounds(term: type[Condition]) -> st.SearchStrategy[Any]:
    return st.builds(term, orderables, inclusive=st.booleans())


orderables = (numbers | scalars | st.lists(numbers | texts, max_size=3).map(tuple)).filter(
    lambda value: 2 <= position_of(value)[0] < 10
)


@st.composite
def betweens(draw: st.DrawFn) -> Between:
    low = draw(orderables)
    high = draw(orderables.filter(lambda value: position_of(value)[0] == position_of(low)[0]))
    return Between(low, high, inclusive=draw(st.booleans()))


@given(
    bounds(Above) | bounds(Below) | betweens() | st.builds(Prefix, texts | st.binary(max_size=2)),
    st.lists(some, max_size=12),
)
@example(Between(1, 1), [1, 1.0])
@example(Between(2, 1), [1, 2])
@example(Between(1, 1, inclusive=True), [1, 1.0, decimal.Decimal(1)])
@example(Above(-math.inf), [-math.inf, -(10**400), 0])
@example(Prefix(b"\xff"), [b"\xff", b"\xff\xff", "x"])
@example(Prefix(""), ["", "x", b"", ()])
def test_a_range_is_one_span(table: sqlite3.Connection, term: Condition, items: list[Any]) -> None:
    if isinstance(term, Above | Below | Between):
        items = [*items, *(getattr(term, name) for name in ("low", "high") if hasattr(term, name))]
    fill(table, [stored_position(item) for item in items])
    assert matching(table, term) == {number for number, item in enumerate(items) if term.matches(item)}


BERLIN = ZoneInfo("Europe/Berlin")
TWICE = dt.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN)


@given(some | hashables, st.lists(some, max_size=8))
@example(1, [1.0, True, decimal.Decimal(1), 1 + 0j, "1"])
@example(decimal.Decimal(1), [1, 1.0, True, 1 + 0j])
@example(1 + 0j, [1, decimal.Decimal(1)])
@example(decimal.Decimal("sNaN"), [1])
@example(decimal.Decimal("1e300"), [10**300, 1e300])
@example(decimal.Decimal("1e999999"), [1])
@example(decimal.Decimal("inf"), [math.inf])
@example((1, "a", 2), [(decimal.Decimal(1), "a", 2 + 0j), (1.0, "a", True)])
@example((1, 2, 3, 4, 5), [(1, 2, 3, 4, decimal.Decimal(5))])
@example(((1,), 2), [((decimal.Decimal(1),), 2.0)])
@example(([1], 2), [([True], 2.0)])
@example(((((((((((1,),),),),),),),),),), [((((((((((True,),),),),),),),),),)])
@example(frozenset([1]), [{1}, frozenset([1.0])])
@example(TWICE, [TWICE.replace(fold=1)])
@example((TWICE,), [(TWICE.replace(fold=1),)])
def test_what_is_equal_is_found(table: sqlite3.Connection, wanted: Any, items: list[Any]) -> None:
    items = [*items, wanted]
    fill(table, [stored_position(item) for item in items])
    equals = {number for number, item in enumerate(items) if equal(item, wanted)}
    for term in (wanted, In([wanted]), In([wanted, "x"])):
        found = matching(table, term)
        assert found is not None
        assert equals <= found


def test_few_others_are_found(table: sqlite3.Connection) -> None:
    items = [1, 2, "1", b"1", ("a", 1), ("a", 2), ("b", 1), None, decimal.Decimal(1), [1]]
    fill(table, [stored_position(item) for item in items])
    assert matching(table, "1") == {2}
    assert matching(table, 1) == {0, 8, 9}
    assert matching(table, ("a", 1)) == {4}
    assert matching(table, In(["1", b"1"])) == {2, 3}
    assert matching(table, In([])) == set()
    assert matching(table, Contains(1)) == {4, 5, 6, 8, 9}
    assert matching(table, None) == {7}


class Own(str):
    __slots__ = ()


class Even(Above):
    """A range that matches something else."""

    __slots__ = ()

    def matches(self, value: Any) -> bool:
        return value in (-2, 0, 2)


class Zone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)

    def tzname(self, moment: dt.datetime | None) -> str:
        return "own"

    def dst(self, moment: dt.datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    "term",
    [Own("x"), object(), Even(1), dt.datetime(2020, 1, 1, tzinfo=Zone()), In([1, Own("x")])],
    ids=["subclass", "object", "range", "zone", "among others"],
)
def test_what_may_be_equal_to_anything_has_no_spans(term: object) -> None:
    assert spans_of(term) is None


@pytest.mark.parametrize("term", [Above(1), Between("a", "b"), "x", Prefix("x")], ids=repr)
def test_sqlite_uses_the_index_for_both_ends(table: sqlite3.Connection, term: object) -> None:
    spans = spans_of(term)
    assert spans is not None
    (span,) = spans
    sql = (
        f"EXPLAIN QUERY PLAN SELECT key FROM items WHERE name = 'n' AND {span.sql} ORDER BY rank, value, key"
    )
    plan = [row[-1] for row in table.execute(sql, span.parameters)]
    assert len(plan) == 1  # no sorting
    assert "PRIMARY KEY (name=? AND " in plan[0]
    if span.lower != span.upper:
        assert "(rank,value)>(?,?) AND (rank,value)<(?,?)" in plan[0]
