"""Values of all types that metadata outside this process may have, and values that it may not."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import zoneinfo
from typing import Any

from hypothesis import strategies as st

from latchstore.contract.storable import DEPTH

texts = st.text(st.characters(exclude_categories=()), max_size=5)
names = texts | st.sampled_from(["$dict", "$tuple", "$", "a", "\ud800\udc00"])
zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(
        dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)), st.text(max_size=3)
    ),
    st.sampled_from([zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("UTC")]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    texts,
    st.binary(max_size=5),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.builds(dt.datetime.replace, st.datetimes(), fold=st.sampled_from([0, 1])),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals().filter(lambda value: not value.is_snan()),  # it has no hash
    st.uuids(),
)
hashables = st.recursive(
    scalars,
    lambda some: st.lists(some, max_size=3).map(tuple) | st.frozensets(some, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashables | st.sets(hashables, max_size=3),
    lambda some: st.one_of(
        st.lists(some, max_size=3),
        st.lists(some, max_size=3).map(tuple),
        st.dictionaries(names | hashables, some, max_size=3),
    ),
    max_leaves=6,
)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal and of the same types, nan equal to nan and -0.0 not to 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same([*one.items()], [*other.items()])
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        left = list(other)
        for each in one:
            found = next((place for place, held in enumerate(left) if same(each, held)), None)
            if found is None:
                return False
            del left[found]
        return not left
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one, math.copysign(1, one)) == (
            other,
            math.copysign(1, other),
        )
    if isinstance(one, complex):
        return same((one.real, one.imag), (other.real, other.imag))
    if isinstance(one, decimal.Decimal):
        return str(one) == str(other)
    if isinstance(one, (dt.datetime, dt.time)):
        return (
            one.replace(tzinfo=None) == other.replace(tzinfo=None)
            and one.fold == other.fold
            and same_zone(one.tzinfo, other.tzinfo)
        )
    return bool(one == other)


def same_zone(one: dt.tzinfo | None, other: dt.tzinfo | None) -> bool:
    return type(one) is type(other) and one == other and str(one) == str(other)


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Zone(zoneinfo.ZoneInfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise AssertionError("a zone of the user's own was asked")


#: What no encoding takes.
UNSTORABLE = [
    Colour.RED,
    Text("x"),
    bytearray(b"x"),
    memoryview(b"x"),
    object(),
    len,
    [{"a": (Text("x"),)}],
    {Text("x"): 1},
    dt.datetime(2020, 1, 1, tzinfo=Zone("UTC")),
    dt.time(1, tzinfo=Zone("UTC")),
]


def nested(depth: int, kind: type = list) -> Any:
    return kind([nested(depth - 1, kind)]) if depth else kind()


CIRCLE: list[Any] = []
CIRCLE.extend([CIRCLE, CIRCLE])

TOO_DEEP_OR_LONG = {
    "circle": CIRCLE,
    "lists": nested(DEPTH),
    "tuples": nested(DEPTH, tuple),
    "a dict of lists": {"a": nested(DEPTH - 1)},
    "digits": 10**5000,
    "digits in a list": [10**5000],
}
