"""Where the values are that match a term."""

from __future__ import annotations

import datetime as dt

import pytest

from latchstore import In
from latchstore.contract.spans import spans_of
from tests.position_contract import Even, Own, Zone


@pytest.mark.parametrize(
    "term",
    [Own("x"), object(), Even(1), dt.datetime(2020, 1, 1, tzinfo=Zone()), In([1, Own("x")])],
    ids=["subclass", "object", "range", "zone", "among others"],
)
def test_what_may_be_equal_to_anything_has_no_spans(term: object) -> None:
    assert spans_of(term) is None
