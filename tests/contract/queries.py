"""Queries: conditions, order and limit."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from latchstore import (
    Above,
    AbstractStore,
    Below,
    Between,
    Condition,
    Contains,
    In,
    Item,
    Ordered,
    Prefix,
)
from tests.contract.stores import StoreContract

UTC = datetime.UTC
DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12)


class Level(IntEnum):
    LOW = 1
    HIGH = 3


class State(StrEnum):
    NEW = "new"


class Truthless:
    """Compared with anything it gives what is no truth value."""

    def __eq__(self, other: object) -> Any:
        return [True]

    __hash__ = None  # type: ignore[assignment]


class Raising:
    """It cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    def __lt__(self, other: object) -> bool:
        raise ValueError("not to be ordered")

    __hash__ = None  # type: ignore[assignment]


class Even(Condition):
    """A condition that the store does not have."""

    def matches(self, value: Any) -> bool:
        return bool(value % 2 == 0)


#: Values of all types, in the order of the contract; those of one list are equal in it.
IN_ORDER: list[list[Any]] = [
    [None],
    [math.nan],
    [-math.inf],
    [-5],
    [False, 0, -0.0],
    [0.5],
    [1, True, 1.0, Level.LOW],
    [2**53],
    [2**53 + 1],
    [10**400],
    [math.inf],
    [""],
    ["Z"],
    ["a"],
    ["ab"],
    ["new", State.NEW],
    ["ä"],
    ["\ud800"],
    ["𝄞"],
    [b""],
    [b"a"],
    [DAY],
    [DAY.replace(year=2028)],
    [NOON],
    [NOON.replace(hour=13)],
    [NOON.replace(tzinfo=UTC, hour=10), NOON.replace(tzinfo=ZoneInfo("Europe/Berlin"), hour=11)],
    [NOON.replace(tzinfo=UTC)],
    [datetime.timedelta(-1)],
    [datetime.timedelta(seconds=5)],
    [()],
    [(None, 5)],
    [(1,)],
    [(1, "a")],
    [(1, "b"), (1.0, "b")],
    [(2, None)],
    [("a",)],
    [[5], {"a": 1}, {5}, frozenset({1}), 1j, Decimal(1)],
]


def fill(store: AbstractStore, values: list[Any]) -> None:
    """Give a key to each value, in an order that is no order."""
    for number, value in enumerate(values):
        if number % 2:
            store.set(f"k{number:03}", (b"", {"it": value}))
    for number, value in enumerate(values):
        if not number % 2:
            store.set(f"k{number:03}", (b"", {"it": value}))


def numbered(store: AbstractStore) -> None:
    """Fill a store with numbers, other types among them, and keys that have none."""
    items: dict[str, Any] = {"d": 1, "b": 2, "a": 3, "c": 2.0, "text": "2", "none": None, "list": [2]}
    for key, value in items.items():
        store.set(key, (b"", {"number": value, "kind": "x" if key in "abc" else "y"}))
    store.set("z", (b"", {"kind": "x"}))
    store.set("y", (b"", {}))


class QueryContract(StoreContract):
    """Conditions, order and limit."""

    # -- conditions -------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("term", "expected"),
        [
            (Between(1, 3), "bcd"),
            (Between(1, 3, inclusive=True), "abcd"),
            (Between(1.5, math.inf), "abc"),
            (Between(3, 1), ""),
            (Above(2), "a"),
            (Above(2, inclusive=True), "abc"),
            (Below(2), "d"),
            (Below(2, inclusive=True), "bcd"),
            (Below(-math.inf), ""),
            (In([3, 1.0, "no"]), "ad"),
            (In([]), ""),
            (Prefix(b"2"), ""),
            (Contains(2), ["list"]),
            (In([[2], None]), ["list", "none"]),
            (In([Above(2), Prefix("2"), Contains(2)]), ["a", "list", "text"]),
            (Prefix("2"), ["text"]),
            (Prefix(""), ["text"]),
            (Between("1", "3"), ["text"]),
            (Below(("a",)), ""),
        ],
        ids=repr,
    )
    def test_conditions(self, store: AbstractStore, term: Any, expected: Any) -> None:
        numbered(store)
        assert sorted(store.query_keys(number=term)) == list(expected)
        assert sorted(key for key, _ in store.query(where={"number": term})) == list(expected)
        assert list(store.query_keys(number=term, order_by="key")) == list(expected)
        assert list(store.query_keys(number=term, order_by="key", limit=1)) == list(expected)[:1]
        by_number = list(store.query_keys(number=term, order_by="number"))
        assert sorted(by_number) == list(expected)
        for limit in range(len(expected) + 2):
            assert list(store.query_keys(number=term, order_by="number", limit=limit)) == by_number[:limit]

    def test_a_condition_of_ones_own(self, store: AbstractStore) -> None:
        numbered(store)
        assert sorted(store.query_keys(number=Even())) == ["b", "c"]
        assert list(store.query_keys(number=Even(), order_by="number", limit=1)) == ["b"]

    def test_a_prefix_of_the_last_characters(self, store: AbstractStore) -> None:
        texts: list[Any] = [
            "",
            "\U0010ffff",
            "\U0010ffff\U0010ffff",
            "a\U0010ffff",
            "a\U0010ffffb",
            "b",
            "\ud7ff",
        ]
        fill(store, texts)
        raw: list[Any] = [b"", b"\xff", b"\xffa", b"a\xff", b"a\xffb", b"b"]
        fill(store, [*texts, *raw])
        for prefix in (*texts, *raw):
            found = [value for value in (*texts, *raw) if type(value) is type(prefix)]
            expected = sorted(value for value in found if value.startswith(prefix))
            keys = list(store.query_keys(it=Prefix(prefix), order_by="it"))
            assert [store.get_metadata(key)["it"] for key in keys] == expected

    def test_what_cannot_be_compared_does_not_match(self, store: AbstractStore) -> None:
        if not self.any_metadata:
            pytest.skip("such values cannot be stored")
        numbered(store)
        store.set("odd", (b"", {"number": Raising()}))
        store.set("odder", (b"", {"number": Truthless()}))
        for term in (2, Between(1, 3), Above(1), Below(9), In([2]), Prefix("2"), Contains(2), Even()):
            found = list(store.query_keys(number=term))
            assert not {"odd", "odder"} & set(found)
            assert list(store.query_keys(number=term, order_by="number", limit=100)) == sorted(
                found, key=lambda key: (str(store.get_metadata(key)["number"]), key)
            )
        ordered = list(store.query_keys(order_by="number"))
        assert ordered == ["none", "d", "b", "c", "a", "text", "list", "odd", "odder", "y", "z"]

    @pytest.mark.parametrize(
        "term",
        [lambda value: True, len, int, Contains, Raising, Item("number"), Ordered("number"), iter([1, 2])],
        ids=lambda term: getattr(term, "__name__", type(term).__name__),
    )
    def test_a_term_that_is_no_value(self, store: AbstractStore, term: Any) -> None:
        for call in (
            lambda: store.query(number=term),
            lambda: store.query_keys(number=term),
            lambda: store.query(where={"number": term}),
            lambda: store.query_keys(where={"number": term}, limit=1),
        ):
            with pytest.raises(TypeError, match=r"'number' must be a value or a condition, .*Between"):
                call()

    # -- arguments --------------------------------------------------------------------------------

    def test_items_with_the_names_of_parameters(self, store: AbstractStore) -> None:
        names = ("select", "where", "order_by", "descending", "limit", "key", "a name")
        for name in names:
            store.set(name, (b"", {name: 1, "kind": "x"}))
        for name in names:
            assert list(store.query_keys(where={name: 1})) == [name]
            assert list(store.query_keys(where={name: 1}, kind="x")) == [name]
            assert list(store.query([name], where={name: 1}, kind="x")) == [(name, {name: 1})]
            assert next(store.query_keys(order_by=Item(name))) == name

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"limit": -1}, ValueError, "limit must be at least 0, got -1"),
            ({"limit": True}, TypeError, "limit must be an int, got bool True"),
            ({"limit": 1.0}, TypeError, "limit must be an int, got float"),
            ({"limit": "1"}, TypeError, "limit must be an int, got str"),
            ({"order_by": 5}, TypeError, "order_by must be 'key', .*, got int 5"),
            ({"order_by": ["a"]}, TypeError, "order_by must be 'key', .*, got list"),
            ({"order_by": "a", "descending": 1}, TypeError, "descending must be a bool, got int 1"),
            ({"descending": True}, ValueError, "descending=True needs order_by"),
        ],
    )
    def test_bad_arguments(
        self, store: AbstractStore, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        calls: list[Callable[..., object]] = [
            store.query,
            store.query_keys,
            lambda **options: store.glob("*", **options),
        ]
        for call in calls:
            with pytest.raises(error, match=message):
                call(**options)

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            (5, "where must be a mapping of item names to terms, got int 5"),
            ([("a", 1)], "where must be a mapping"),
            ({5: 1}, "where must have str keys, got the key int 5"),
            ({"a": 2}, "'a' must be named once"),
        ],
    )
    def test_bad_terms(self, store: AbstractStore, where: Any, message: str) -> None:
        for call in (store.query, store.query_keys):
            with pytest.raises(TypeError, match=message):
                call(where=where, a=1)

    # -- order ------------------------------------------------------------------------------------

    def test_the_order_of_all_values(self, store: AbstractStore) -> None:
        values = [value for equal in IN_ORDER for value in equal]
        if not self.any_metadata:
            values = [value for value in values if not isinstance(value, Enum)]
        fill(store, values)
        store.set("k", (b"", {}))
        store.set("l", (b"", {"other": 1}))
        keys = [f"k{number:03}" for number in range(len(values))]
        absent = ["k", "l"]
        for limit in (None, 1, 7, len(keys), len(keys) + 1, 1_000):
            found = list(store.query_keys(order_by="it", limit=limit))
            assert found == [*keys, *absent][:limit]
            turned = list(store.query_keys(order_by="it", limit=limit, descending=True))
            assert turned == [*reversed(keys), *absent][:limit]
            assert list(store.glob("*", order_by="it", limit=limit)) == found
        # By their texts: nan is equal to itself only as the same object.
        assert [str(value) for _, value in store.query(["it"], order_by="it", limit=2)] == [
            "{'it': None}",
            "{'it': nan}",
        ]

    def test_ties_are_in_the_order_of_keys(self, store: AbstractStore) -> None:
        for key in "bca":
            store.set(key, (b"", {"it": 1}))
        assert list(store.query_keys(order_by="it")) == ["a", "b", "c"]
        assert list(store.query_keys(order_by="it", descending=True)) == ["c", "b", "a"]
        assert list(store.query_keys(order_by="it", descending=True, limit=2)) == ["c", "b"]

    def test_order_by_facts(self, store: AbstractStore) -> None:
        for key in "bca":
            store.set(key, (b"", {"key": key, "created": "x"}))
        store.set_data("c", b"again")
        for name in ("created", "modified", "revision"):
            facts = {key: (getattr(store.get(key), name), key) for key in "abc"}
            expected = sorted(facts, key=facts.__getitem__)
            assert list(store.query_keys(order_by=name)) == expected
            assert list(store.query_keys(order_by=name, limit=2)) == expected[:2]
            assert list(store.query_keys(order_by=name, limit=2, descending=True)) == expected[:0:-1]
        assert list(store.query_keys(order_by="revision")) == ["b", "a", "c"]
        assert list(store.query_keys(order_by="key", descending=True)) == ["c", "b", "a"]
        assert list(store.query_keys(order_by=Item("key"), limit=1)) == ["a"]
        assert list(store.query_keys(order_by=Item("created"))) == ["a", "b", "c"]

    def test_changes_are_in_order(self, store: AbstractStore) -> None:
        for number, key in enumerate("abcdef"):
            store.set(key, (b"", {"it": number}))
        assert list(store.query_keys(order_by="it", limit=2)) == ["a", "b"]
        store.update_metadata("f", {"it": -1})
        store.delete("a")
        store.set("g", (b"", {"it": 1}))
        store.set_metadata("c", {})
        store.update_metadata("e", {"it": "text"})
        assert list(store.query_keys(order_by="it", limit=100)) == ["f", "b", "g", "d", "e", "c"]
        assert list(store.query_keys(order_by="it", limit=3)) == ["f", "b", "g"]
        assert list(store.query_keys(it=Above(0), order_by="it", descending=True)) == ["d", "g", "b"]
        store.set("a", (b"", {"it": 1}))
        store.delete("a")
        assert list(store.query_keys(it=Above(0), order_by="it")) == ["b", "g", "d"]

    # -- limit ------------------------------------------------------------------------------------

    def test_limit_without_order(self, store: AbstractStore) -> None:
        numbered(store)
        for terms in ({}, {"kind": "x"}, {"kind": In(["x"])}, {"number": Above(0)}, {"number": Even()}):
            all_keys = set(store.query_keys(where=terms))
            for limit in range(len(all_keys) + 2):
                found = list(store.query_keys(where=terms, limit=limit))
                assert len(found) == len(set(found)) == min(limit, len(all_keys))
                assert set(found) <= all_keys
                assert len(dict(store.query(where=terms, limit=limit))) == len(found)

    def test_glob_with_order_and_limit(self, store: AbstractStore) -> None:
        for number, key in enumerate(["job:2", "job:10", "job:1", "jobs", "job", "other", "job:[1]"]):
            store.set(key, (b"", {"it": -number}))
        keys = sorted(store.query_keys())
        for pattern in ("job:*", "job:1*", "*", "job", "job:?", "*1*", "nothing*", "job:[[]*"):
            expected = [key for key in keys if key in set(store.glob(pattern))]
            for limit in (None, 0, 1, 2, 10):
                assert list(store.glob(pattern, order_by="key", limit=limit)) == expected[:limit]
                turned = list(store.glob(pattern, order_by="key", descending=True, limit=limit))
                assert turned == expected[::-1][:limit]
                some = list(store.glob(pattern, limit=limit))
                assert len(some) == len(expected[:limit])
                assert set(some) <= set(expected)
                by_item = list(store.glob(pattern, order_by="it", limit=limit))
                assert by_item == sorted(expected, key=lambda key: store.get_metadata(key)["it"])[:limit]

    @pytest.mark.parametrize("options", [{"limit": 2}, {"order_by": "it"}, {"order_by": "it", "limit": 2}])
    def test_an_answer_is_that_of_the_call(self, store: AbstractStore, options: dict[str, Any]) -> None:
        for number, key in enumerate("abc"):
            store.set(key, (b"", {"it": number}))
        query, keys = store.query(**options), store.query_keys(**options)
        globbed = store.glob("*", **options)
        expected = list(store.query(**options))
        for key in "abc":
            store.delete(key)
        store.set("new", (b"", {"it": -1}))
        assert list(query) == expected
        assert list(keys) == list(globbed) == [key for key, _ in expected]

    # -- transactions -----------------------------------------------------------------------------

    def test_a_transaction_finds_its_own_changes(self, store: AbstractStore) -> None:
        for number, key in enumerate("abcdef"):
            store.set(key, (b"", {"it": number}))
        with store.transaction("t"):
            store.delete("a")
            store.set("new", (b"", {"it": 1.5}))
            store.update_metadata("b", {"it": 9})
            store.set_metadata("c", {})
            for _ in range(2):
                assert list(store.query_keys(order_by="it", limit=3)) == ["new", "d", "e"]
                assert list(store.query_keys(order_by="it", descending=True, limit=2)) == ["b", "f"]
                assert list(store.query_keys(order_by="it", limit=100)) == ["new", "d", "e", "f", "b", "c"]
                assert list(store.query_keys(it=Between(1, 4), order_by="it")) == ["new", "d"]
                assert list(store.glob("*", order_by="key", limit=2)) == ["b", "c"]
                assert sorted(store.glob("n*")) == ["new"]
                assert len(list(store.query_keys(limit=100))) == 6
        assert list(store.query_keys(order_by="it", limit=3)) == ["new", "d", "e"]
