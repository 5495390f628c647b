"""Positions in an index outside this process: they are in the order of values, and a term finds its own.

A test module derives from `PositionContract` and gives it an index.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
from abc import ABC, abstractmethod
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from latchstore import Above, Below, Between, Condition, Contains, In, Prefix
from latchstore.contract.condition import equal
from latchstore.contract.ordering import position_of
from tests.metadata_values import hashables, scalars, texts, values

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
#: Values of all kinds, many of them numbers.
some = numbers | values | st.lists(numbers | texts, max_size=3).map(tuple)


class Index(ABC):
    """Values by their numbers, in an index."""

    @abstractmethod
    def fill(self, items: list[Any]) -> None:
        """Put values in the place of those that are there."""

    @abstractmethod
    def in_order(self) -> list[int]:
        """Return the numbers of all, in the order of the index; equal ones by their numbers."""

    @abstractmethod
    def at(self, value: Any) -> list[int]:
        """Return the numbers of those that stand where a value does, in order."""

    @abstractmethod
    def matching(self, term: object) -> set[int] | None:
        """Return the numbers of those in the spans of a term; None if it has no spans."""


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


BERLIN = ZoneInfo("Europe/Berlin")
TWICE = dt.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN)


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


#: Each index runs these tests.
shared = settings(suppress_health_check=[HealthCheck.differing_executors])


class PositionContract:
    """What holds of positions in every index; the class that derives has a fixture `index`."""

    @shared
    @given(st.lists(some, max_size=12))
    @example([*EDGES, *map(float, EDGES), math.inf, -math.inf, 10**400, -(10**400)])
    @example(
        [(number,) for number in EDGES] + [(float(number),) for number in EDGES] + [(math.inf,), (-math.inf,)]
    )
    @example(
        [
            ("a",),
            ("a\0",),
            ("a", None),
            ("a", ""),
            ("a\0", 1),
            (("a",), 1),
            (("a", 1),),
            ((),),
            (),
            (b"\0", b""),
        ]
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
    def test_the_order_is_that_of_values(self, index: Index, items: list[Any]) -> None:
        index.fill(items)
        assert index.in_order() == sorted(
            range(len(items)), key=lambda number: (position_of(items[number]), number)
        )
        # Equal ones are equal in the index as well.
        for number, item in enumerate(items):
            equals = [other for other, each in enumerate(items) if position_of(each) == position_of(item)]
            assert index.at(item) == equals, number

    @shared
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
    def test_a_range_is_one_span(self, index: Index, term: Condition, items: list[Any]) -> None:
        if isinstance(term, Above | Below | Between):
            items = [*items, *(getattr(term, name) for name in ("low", "high") if hasattr(term, name))]
        index.fill(items)
        assert index.matching(term) == {number for number, item in enumerate(items) if term.matches(item)}

    @shared
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
    def test_what_is_equal_is_found(self, index: Index, wanted: Any, items: list[Any]) -> None:
        items = [*items, wanted]
        index.fill(items)
        equals = {number for number, item in enumerate(items) if equal(item, wanted)}
        for term in (wanted, In([wanted]), In([wanted, "x"])):
            found = index.matching(term)
            assert found is not None
            assert equals <= found

    def test_few_others_are_found(self, index: Index) -> None:
        index.fill([1, 2, "1", b"1", ("a", 1), ("a", 2), ("b", 1), None, decimal.Decimal(1), [1]])
        assert index.matching("1") == {2}
        assert index.matching(1) == {0, 8, 9}
        assert index.matching(("a", 1)) == {4}
        assert index.matching(In(["1", b"1"])) == {2, 3}
        assert index.matching(In([])) == set()
        assert index.matching(Contains(1)) == {4, 5, 6, 8, 9}
        assert index.matching(None) == {7}
