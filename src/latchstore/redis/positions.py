"""Positions of values in an index on the server: bytes, in the order of values.

An index is a sorted set whose members all have the score 0, so that they are ordered by their bytes. A member
is the position of the value followed by the key of the entry. The order is that of ``contract/ordering.py``;
entries of equal values are ordered by key:

1. A position is a byte for the rank, the value, and a zero as its end. A zero in the value is followed by
   ``0xFF``, with which neither a key nor an item of a tuple begins. So a position differs from a longer
   one that begins with it in the byte after it, and a prefix of a value sorts first.
2. A number is the greatest float that is not above it, and the rest: ten bytes, without trailing zeros. Equal
   numbers (``1``, ``1.0``, ``True``) have equal positions. Integers of more than 64 bits have ranks of their
   own below and above all others, and consist of their length and their bytes.
3. Text is UTF-8 with surrogates, whose bytes are in the order of code points.
4. Dates, datetimes and durations are numbers: of days or microseconds.
5. A tuple is the positions of its items.

The ranks leave gaps, so that there are bytes before and after all values of a type.

Thread safety: functions of their arguments. No code of the user runs.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from latchstore.contract.ordered_bytes import BEYOND, beyond_bytes, number_bytes
from latchstore.contract.ordering import (
    AWARE,
    BYTES,
    DATE,
    DURATION,
    NAIVE,
    NUMBER,
    TEXT,
    TUPLE,
    Position,
    position_of,
)
from latchstore.contract.spans import Span, spans_of

#: Distance between ranks, and of the first rank from zero.
_STEP = 8

#: Added to the rank of numbers below or above those of 64 bits.
_LOW, _HIGH = -1, 1

_MICROSECOND = timedelta(microseconds=1)

#: The end of a value, and the replacement of a zero in it.
_END = b"\0"
_ZERO = b"\0\xff"

#: No key contains this byte, so after a position it follows all keys.
_AFTER = b"\xff"


def _ranked(rank: int, value: bytes) -> bytes:
    return bytes((rank,)) + value.replace(_END, _ZERO) + _END


def stored_position(value: Any) -> bytes:
    """Return the position of a value, in the order of bytes."""
    if type(value) is str:  # hot path: most items are texts
        return _ranked((TEXT + 1) * _STEP, value.encode("utf-8", "surrogatepass"))
    return _stored(position_of(value))


def text_and_key(member: bytes) -> tuple[str, bytes]:
    """Return the value and the key of an index member whose value is a str."""
    ends = member.index(_END)
    while member[ends : ends + 2] == _ZERO:
        ends = member.index(_END, ends + 2)
    return member[1:ends].replace(_ZERO, _END).decode("utf-8", "surrogatepass"), member[ends + 1 :]


def _stored(position: Position) -> bytes:
    rank, value = position
    byte = (rank + 1) * _STEP
    if rank == NUMBER:
        return _stored_number(byte, value)
    if rank == TEXT:
        return _ranked(byte, value.encode("utf-8", "surrogatepass"))
    if rank == TUPLE:
        return _ranked(byte, b"".join(map(_stored, value)))
    if rank == DATE:
        return _ranked(byte, _number(date.toordinal(value)))
    if rank == NAIVE:
        return _ranked(byte, _number((value - datetime.min) // _MICROSECOND))
    if rank in (AWARE, DURATION):
        return _ranked(byte, _number(value // _MICROSECOND))
    return _ranked(byte, value if rank == BYTES else b"")


def _stored_number(byte: int, value: int | float) -> bytes:
    if -BEYOND <= value < BEYOND:
        return _ranked(byte, _number(value))
    return _ranked(byte + (_HIGH if value > 0 else _LOW), beyond_bytes(value, 4))


def _number(value: int | float) -> bytes:
    return number_bytes(value).rstrip(_END)


# -- terms of queries ---------------------------------------------------------------------------------


class MemberSpan(NamedTuple):
    """Members of an index from one (inclusive) to another one (exclusive).

    Attributes
    ----------
    low, high : bytes
        They need not exist.
    """

    low: bytes
    high: bytes


def member_spans(term: object) -> list[MemberSpan] | None:
    """Return the spans of all members whose values match a term, in order and disjoint.

    Returns
    -------
    spans : list of MemberSpan or None
        As of `spans_of`: None if the members may be anywhere.
    """
    spans = spans_of(term)
    if spans is None:
        return None
    apart: list[MemberSpan] = []
    for span in sorted(map(_member_span, spans)):
        if apart and span.low <= apart[-1].high:
            low, high = apart.pop()
            apart.append(MemberSpan(low, max(high, span.high)))
        elif span.low < span.high:
            apart.append(span)
    return apart


def _member_span(span: Span) -> MemberSpan:
    rank, lower, upper, with_lower, with_upper = span
    byte = (rank + 1) * _STEP
    first, after = bytes((byte - _STEP // 2,)), bytes((byte + _STEP // 2,))
    low = first if lower is None else _stored(lower) + (b"" if with_lower else _AFTER)
    high = after if upper is None else _stored(upper) + (_AFTER if with_upper else b"")
    return MemberSpan(low, high)
