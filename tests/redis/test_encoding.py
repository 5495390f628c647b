"""Metadata items as bytes: what is written comes back with its types, and nothing else is read."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from typing import Any

import pytest
from hypothesis import example, given

from latchstore import StoreFormatError
from latchstore.contract.storable import DEPTH
from tests.metadata_values import TOO_DEEP_OR_LONG, UNSTORABLE, nested, same, values

msgpack = pytest.importorskip("msgpack", reason="latchstore[redis] is not installed")

from latchstore.redis.encoding import decode_item, encode_item  # noqa: E402 (what it imports may be missing)


@given(values)
@example(2**64)
@example(2**64 - 1)
@example(-(2**63))
@example(-(2**63) - 1)
@example({(math.nan,): 1, (float("nan"),): 2})
def test_what_is_written_comes_back(value: Any) -> None:
    data = encode_item("k", "n", value)
    found = decode_item(data)
    assert same(found, value)
    assert encode_item("k", "n", found) == data


@given(values)
def test_others_read_it_as_message_pack(value: Any) -> None:
    msgpack.unpackb(encode_item("k", "n", value), strict_map_key=False, unicode_errors="surrogatepass")


def test_the_bytes_are_as_documented() -> None:
    assert encode_item("k", "n", {"a": [1, None, "x", b"x", 0.5]}) == msgpack.packb(
        {"a": [1, None, "x", b"x", 0.5]}
    )
    assert encode_item("k", "n", (1, b"hi")) == msgpack.packb(msgpack.ExtType(1, msgpack.packb([1, b"hi"])))
    assert encode_item("k", "n", {2, 1}) == msgpack.packb(msgpack.ExtType(2, msgpack.packb([1, 2])))
    assert encode_item("k", "n", 2**64) == msgpack.packb(msgpack.ExtType(4, b"\1" + bytes(8)))
    day = dt.date(2020, 2, 29)
    assert encode_item("k", "n", day) == msgpack.packb(msgpack.ExtType(6, msgpack.packb("2020-02-29")))


def test_decimals_do_not_depend_on_the_context() -> None:
    value = decimal.Decimal("1E+40")
    with decimal.localcontext() as context:
        context.capitals = 0
        data = encode_item("k", "n", value)
    assert str(decode_item(data)) == "1E+40"


def test_uuid_and_decimal_come_back() -> None:
    for value in (uuid.UUID(int=5), decimal.Decimal("-0.10"), decimal.Decimal("sNaN")):
        assert same(decode_item(encode_item("k", "n", value)), value)


@pytest.mark.parametrize("value", UNSTORABLE, ids=lambda value: type(value).__name__)
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"key 'the key': the metadata item 'the item' .* storable are str"):
        encode_item("the key", "the item", value)


@pytest.mark.parametrize("value", TOO_DEEP_OR_LONG.values(), ids=TOO_DEEP_OR_LONG)
def test_what_is_too_deep_or_too_long_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="key 'the key': the metadata item 'the item' cannot be stored"):
        encode_item("the key", "the item", value)


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_the_deepest_comes_back(kind: type) -> None:
    deepest = nested(DEPTH - 1, kind)
    assert decode_item(encode_item("k", "n", deepest)) == deepest


def extended(code: int, *body: Any) -> bytes:
    """Return an extension type with a value of MessagePack's in it."""
    packed: bytes = msgpack.packb(msgpack.ExtType(code, b"".join(map(msgpack.packb, body))))
    return packed


def deep_in(code: int, depth: int) -> bytes:
    data: bytes = msgpack.packb(1)
    for _ in range(depth):
        data = msgpack.packb(msgpack.ExtType(code, b"\x91" + data))
    return data


HOSTILE = [
    None,
    "text",
    b"",
    b"\xc1",
    b"\x01\x01",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xa1\xff",
    b"\x91" * 101 + b"\x01",
    b"\x91" * 100_000 + b"\x01",
    b"\x81\x01" * 101 + b"\x01",
    deep_in(1, 101),
    deep_in(1, 5_000),
    b"\x82\x01\x01\x01\x01",
    b"\x81\x90\x01",
    msgpack.packb(msgpack.Timestamp(5)),
    msgpack.packb([msgpack.Timestamp(5)]),
    extended(0, 1),
    extended(12, "x"),
    extended(127, "os.system"),
    extended(1),
    extended(1, "xy"),
    extended(1, {}),
    extended(1, [], 1),
    extended(2, [1, 1.0]),
    extended(2, [[]]),
    extended(3, {}),
    msgpack.packb(msgpack.ExtType(4, b"")),
    msgpack.packb(msgpack.ExtType(4, b"\1")),
    msgpack.packb(msgpack.ExtType(4, bytes(9) + b"\1" + bytes(8))),
    extended(5, [1, 2]),
    extended(5, [1.0]),
    extended(6, "20200101"),
    extended(6, "2020-13-01"),
    extended(6, b"2020-01-01"),
    extended(7, "2020-01-01"),
    extended(7, "2020-01-01T00:00:00Z"),
    extended(7, ["2020-01-01T00:00:00", 0, "../../etc/passwd"]),
    extended(7, ["2020-01-01T00:00:00", 0, "No/Where"]),
    extended(7, ["2020-01-01T00:00:00", 2, None]),
    extended(7, ["2020-01-01T00:00:00", 0, [[9, 0, 0]]]),
    extended(8, "25:00"),
    extended(9, [1, 2]),
    extended(9, [99999999999, 0, 0]),
    extended(9, [0, 86400, 0]),
    extended(10, "1_0"),
    extended(10, "x"),
    extended(10, 5),
    extended(11, "x"),
    extended(11, "{12345678123456781234567812345678}"),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_what_was_not_written_is_refused(data: Any) -> None:
    with pytest.raises(StoreFormatError, match="the metadata item 'the item' of key 'the key' is damaged: "):
        decode_item(data, "the key", "the item")
