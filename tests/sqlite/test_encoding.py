"""Metadata as text: what is written comes back with its types, and nothing else is read."""

from __future__ import annotations

import decimal
import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import StoreFormatError
from latchstore.contract.arguments import describe
from latchstore.contract.encoding import decode_metadata, decode_plain, encode_metadata, encode_plain
from latchstore.contract.storable import DEPTH
from latchstore.contract.values import Entry, NestedEntry
from tests.metadata_values import TOO_DEEP_OR_LONG, UNSTORABLE, names, nested, same, values


@given(st.dictionaries(names, values, max_size=3))
def test_what_is_written_comes_back(items: dict[str, Any]) -> None:
    text = encode_metadata("k", Entry(items))
    text.encode()  # SQLite holds it
    found = decode_metadata(text)
    assert same(dict(found), items)
    assert encode_metadata("k", found) == text


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda some: (
        st.lists(some, max_size=3)
        | st.dictionaries(st.text(max_size=3).filter(lambda name: not name.startswith("$")), some, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=4), plain, max_size=3))
def test_plain_json_stands_as_it_is(items: dict[str, Any]) -> None:
    if list(items) != ["$dict"]:
        assert encode_metadata("k", Entry(items)) == json.dumps(items)


simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(st.lists(st.dictionaries(names, simple, max_size=3) | st.dictionaries(names, values), min_size=1))
def test_many_are_written_and_read_as_each_alone(items: list[dict[str, Any]]) -> None:
    texts = [encode_metadata("k", Entry(each)) for each in items]
    assert encode_plain(list(map(Entry, items))) in (None, texts)
    found = decode_plain(texts)
    if found is not None:
        assert all(map(same, map(dict, found), items))
        assert list(map(type, found)) == list(map(type, map(decode_metadata, texts)))


def test_plain_ones_are_written_and_read_together() -> None:
    items: list[dict[str, Any]] = [
        {"a": 1, "b": "\u00fc{"},
        {},
        {"c": None, "d": 1.5, "$e": True, "": -1},
        {},
    ]
    texts = list(map(json.dumps, items))
    assert encode_plain(list(map(Entry, items))) == texts
    assert decode_plain(texts) == items
    assert encode_plain([Entry(), Entry()]) == ["{}", "{}"]


@pytest.mark.parametrize(
    "value", ["}, {", "\ud83d", math.nan, -math.inf, 10**5_000, (1,), [1], {}, b"", 1j, "$dict"], ids=describe
)
def test_what_needs_a_closer_look_is_not_written_with_others(value: object) -> None:
    entry = Entry({value: 1}) if value == "$dict" else Entry(a=value)
    assert encode_plain([Entry(a=1), entry, Entry()]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        " {}",
        "{} ",
        "[]",
        '[["a", 1]]',
        '{"a": 1, "a": 1}',
        '{"a": "", "a": ""}',
        '{"a": 1, "\\u0061": 1}',
        r'{"a": "x\\", "b": "x\\", "c": 1, "c": 1}',
        r'{"a": "\"", "a": "\""}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": [1]}',
        '{"a": {}}',
        '{"\\u0024dict": []}',
        "[" * 100_000,
        '{"a": 1' + "0" * 5_000 + "}",
    ],
    ids=describe,
)
def test_what_needs_a_closer_look_is_not_read_with_others(text: str) -> None:
    assert decode_plain(['{"a": 1}', text, "{}"]) is None


def test_the_text_is_as_documented() -> None:
    items = {"t": (1, b"hi"), "$t": 1, "d": {"$a": 1}, "s": {2, 1}, "f": math.inf}
    assert encode_metadata("k", Entry(items)) == (
        '{"t": {"$tuple": [1, {"$bytes": "aGk="}]}, "$t": 1, "d": {"$dict": [["$a", 1]]}, '
        '"s": {"$set": [1, 2]}, "f": {"$float": "inf"}}'
    )


def test_entries_that_can_be_changed_in_place_are_copied() -> None:
    assert type(decode_metadata('{"a": {"$tuple": [1]}, "b": "x"}')) is Entry
    assert type(decode_metadata('{"a": [1]}')) is NestedEntry


def test_without_tags_an_object_is_a_dict() -> None:
    assert decode_metadata('{"n": {"$tuple": [1]}}', tags=False) == {"n": {"$tuple": [1]}}
    assert decode_metadata('{"$dict": [["a", 1]]}', tags=False) == {"$dict": [["a", 1]]}


def test_decimals_do_not_depend_on_the_context() -> None:
    value = decimal.Decimal("1E+40")
    with decimal.localcontext() as context:
        context.capitals = 0
        text = encode_metadata("k", Entry(n=value))
    assert decode_metadata(text) == {"n": value}
    with decimal.localcontext() as context:
        context.traps[decimal.InvalidOperation] = False
        with pytest.raises(StoreFormatError):
            decode_metadata('{"n": {"$decimal": "x"}}')


@pytest.mark.parametrize("value", UNSTORABLE, ids=lambda value: type(value).__name__)
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"key 'the key': the metadata item 'the item' .* storable are str"):
        encode_metadata("the key", Entry({"fine": 1, "the item": value}))


@pytest.mark.parametrize("value", TOO_DEEP_OR_LONG.values(), ids=TOO_DEEP_OR_LONG)
def test_what_is_too_deep_or_too_long_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="key 'the key': the metadata item 'the item' cannot be stored"):
        encode_metadata("the key", Entry({"the item": value}))


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_the_deepest_comes_back(kind: type) -> None:
    deepest = nested(DEPTH - 1, kind)
    assert decode_metadata(encode_metadata("k", Entry(n=deepest))) == {"n": deepest}
    assert decode_metadata(encode_metadata("k", Entry({"$dict": deepest}))) == {"$dict": deepest}


HOSTILE = [
    None,
    b"{}",
    7,
    "",
    "[]",
    "null",
    "{",
    "{} {}",
    '{"a": 1, "a": 2}',
    '{"a": {"b": 1, "b": 2}}',
    '{"a": NaN}',
    '{"a": -Infinity}',
    '{"a": 1e999}',
    '{"a": ' + "9" * 5000 + "}",
    '{"a": ' + "[" * 101 + "]" * 101 + "}",
    '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"a": ' + '{"$tuple": [' * 101 + "]}" * 101 + "}",
    '{"a": ' + '{"$tuple": [' * 50_000 + "]}" * 50_000 + "}",
    '{"$dict": 1}',
    '{"$dict": [[1, 1]]}',
    '{"$dict": [["a", 1], ["a", 2]]}',
    '{"$dict": [["a"]]}',
    '{"a": {"$dict": [[[], 1]]}}',
    '{"a": {"$dict": {"x": 1}}}',
    '{"a": {"$call": "os.system"}}',
    '{"a": {"$": 1}}',
    '{"a": {"$tuple": [1], "b": 1}}',
    '{"a": {"$tuple": "xy"}}',
    '{"a": {"$set": [1, 1.0]}}',
    '{"a": {"$set": [[]]}}',
    '{"a": {"$frozenset": {}}}',
    '{"a": {"$bytes": "aGk"}}',
    '{"a": {"$bytes": "aG k="}}',
    '{"a": {"$bytes": "\\u00e4"}}',
    '{"a": {"$bytes": "aGl="}}',
    '{"a": {"$bytes": 5}}',
    '{"a": {"$float": "1"}}',
    '{"a": {"$float": "NaN"}}',
    '{"a": {"$float": 1e999}}',
    '{"a": {"$complex": [1, 2]}}',
    '{"a": {"$complex": [1.0]}}',
    '{"a": {"$str": ["a", "b"]}}',
    '{"a": {"$date": "20200101"}}',
    '{"a": {"$date": "2020-13-01"}}',
    '{"a": {"$datetime": "2020-01-01"}}',
    '{"a": {"$datetime": "2020-01-01T00:00:00Z"}}',
    '{"a": {"$datetime": ["2020-01-01T00:00:00", 0, "../../etc/passwd"]}}',
    '{"a": {"$datetime": ["2020-01-01T00:00:00", 0, "No/Where"]}}',
    '{"a": {"$datetime": ["2020-01-01T00:00:00", 2, null]}}',
    '{"a": {"$datetime": ["2020-01-01T00:00:00", 0, [[9, 0, 0]]]}}',
    '{"a": {"$time": "25:00"}}',
    '{"a": {"$timedelta": [1, 2]}}',
    '{"a": {"$timedelta": [1e999, 0, 0]}}',
    '{"a": {"$timedelta": [99999999999, 0, 0]}}',
    '{"a": {"$timedelta": [0, 86400, 0]}}',
    '{"a": {"$decimal": "1_0"}}',
    '{"a": {"$decimal": "x"}}',
    '{"a": {"$uuid": "x"}}',
    '{"a": {"$uuid": "{12345678123456781234567812345678}"}}',
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_was_not_written_is_refused(text: object) -> None:
    with pytest.raises(StoreFormatError, match="the metadata of key 'the key' is damaged: "):
        decode_metadata(text, "the key")


def test_spaces_of_others_are_read() -> None:
    assert decode_metadata(' {"a":1,\n"b" : {"$tuple":[ 2 ]}} ') == {"a": 1, "b": (2,)}


def test_uuid_and_decimal_come_back() -> None:
    items = {"u": uuid.UUID(int=5), "d": decimal.Decimal("-0.10"), "n": decimal.Decimal("sNaN")}
    found = decode_metadata(encode_metadata("k", Entry(items)))
    assert same(dict(found), items)
