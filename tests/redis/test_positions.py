"""Positions in an index on the server: a sorted set of score 0, which Redis orders by bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore.redis.positions import MemberSpan, member_spans, stored_position
from tests.metadata_values import texts
from tests.position_contract import Index, PositionContract, some


class Members(Index):
    """What a sorted set on the server has, by the bytes that Redis compares."""

    def __init__(self) -> None:
        self.items: list[bytes] = []

    def fill(self, items: list[Any]) -> None:
        self.items = [stored_position(item) + b"%08d" % number for number, item in enumerate(items)]

    def in_order(self) -> list[int]:
        return [int(each[-8:]) for each in sorted(self.items)]

    def within(self, span: MemberSpan) -> list[int]:
        return [int(each[-8:]) for each in sorted(self.items) if span.low <= each < span.high]

    def at(self, value: Any) -> list[int]:
        position = stored_position(value)
        return [number for number, each in enumerate(self.items) if each[:-8] == position]

    def matching(self, term: object) -> set[int] | None:
        spans = member_spans(term)
        if spans is None:
            return None
        found = [number for span in spans for number in self.within(span)]
        assert len(found) == len(set(found))  # they are apart
        return set(found)


@pytest.fixture(scope="module")
def index() -> Members:
    return Members()


class TestPositions(PositionContract): ...


@given(st.lists(st.tuples(some, texts), max_size=8))
def test_equal_ones_are_in_the_order_of_keys(pairs: list[tuple[Any, str]]) -> None:
    members = [stored_position(value) + key.encode("utf-8", "surrogatepass") for value, key in pairs]
    by_member = sorted(range(len(pairs)), key=members.__getitem__)
    places = [(stored_position(value), key) for value, key in pairs]
    assert by_member == sorted(range(len(pairs)), key=places.__getitem__)


@given(some, some)
def test_no_position_followed_by_a_key_begins_with_another_one(one: Any, other: Any) -> None:
    first, second = stored_position(one), stored_position(other)
    # No key and no item of a tuple begins with 0xFF.
    assert first == second or not second.startswith(first) or second[len(first)] == 0xFF


def test_a_position_is_short() -> None:
    assert stored_position("new") == b"\x20new\0"
    assert len(stored_position(1)) == 4
    assert len(stored_position(10**15)) <= 10
