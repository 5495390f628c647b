"""Cases that take their stores in turn leave nothing out that a parameter or a store has."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from tests.stores_in_turn import left_out

STORES, CASES, WAYS = ("plain", "indexed", "ordered"), ("a", "b", "c", "d"), ("exclusive", "optimistic")


class Item:
    """What pytest collects, with a store among its parameters."""

    parent = originalname = "test"

    def __init__(self, parametrized: list[str], **parameters: str) -> None:
        self.callspec = SimpleNamespace(params=parameters)
        self._parametrized = parametrized

    def get_closest_marker(self, name: str) -> Any:
        return pytest.mark.in_turn("store", len(STORES)).mark

    def iter_markers(self, name: str) -> list[Any]:
        return [pytest.mark.parametrize(names, []).mark for names in self._parametrized]

    def values(self) -> tuple[str, ...]:
        return tuple(self.callspec.params.values())


def kept(items: list[Item]) -> list[tuple[str, ...]]:
    out = left_out(items)
    return [item.values() for item in items if item not in out]


def test_each_case_has_one_store_and_each_value_several() -> None:
    marks = ["case", "way"]
    left = kept(
        [
            Item(marks, store=store, case=case, way=way)
            for store, case, way in itertools.product(STORES, CASES, WAYS)
        ]
    )
    assert sorted(case for _, *case in left) == [[case, way] for case in CASES for way in WAYS]
    assert {store for store, *_ in left} == set(STORES)
    for place, values in ((1, CASES), (2, WAYS)):
        for value in values:
            assert len({each[0] for each in left if each[place] == value}) >= 2


def test_without_cases_there_are_all_stores() -> None:
    assert kept([Item([], store=store) for store in STORES]) == [(store,) for store in STORES]


def test_values_that_change_together_are_one_case() -> None:
    items = [
        Item(["case, way"], store=store, case=case, way=WAYS[CASES.index(case) // 2])
        for store, case in itertools.product(STORES, CASES)
    ]
    assert [each[:2] for each in kept(items)] == [
        ("plain", "a"),
        ("plain", "d"),
        ("indexed", "b"),
        ("ordered", "c"),
    ]
