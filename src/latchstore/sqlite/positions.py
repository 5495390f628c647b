"""Positions of metadata values in an index of SQLite: two columns, in the order of values.

The order is that of ``contract/ordering.py``: `stored_position` converts `position_of` to a rank, which is an
integer, and a value, which SQLite compares as Python compares values of the same rank:

1. A number is an integer of 64 bits or a real number, which SQLite compares exactly and across both types; a
   number beyond them has a rank of its own below or above, as bytes: the length of the integer, and the
   integer. So equal values (``1``, ``1.0``, ``True``) have equal positions.
2. Text is UTF-8 with surrogates, whose bytes are in the order of code points.
3. Dates, datetimes and timedeltas are counts of days or microseconds.
4. A tuple is its items in bytes, each with its rank before it, and ends with a byte that is below all ranks.

The ranks leave gaps, so that there are positions before and after all values of a type.

Thread safety: functions of their arguments. No code of the user runs.
"""

from __future__ import annotations

import struct
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

#: A rank and a value: an int, a float or bytes.
Stored = tuple[int, Any]

#: Distance between ranks.
_STEP = 10

#: Added to the rank of numbers below or above those that SQLite supports.
_LOW, _HIGH = -2, 2

_MICROSECOND = timedelta(microseconds=1)

#: Added to make a duration positive, in microseconds; and its length in bytes.
_LONGEST = -(timedelta.min // _MICROSECOND)
_DURATION_BYTES = 10

#: End markers in a tuple of values without a length: of text and bytes, whose own zeros are followed by a
#: byte greater than any rank, and of the tuple.
_END = b"\0"
_ZERO = b"\0\xff"


def stored_position(value: Any) -> Stored:
    """Return the position of a value, as SQLite compares it."""
    # hot path: the most frequent types; `position_of` handles the others.
    kind = type(value)
    if kind is str:
        return TEXT * _STEP, value.encode("utf-8", "surrogatepass")
    if kind is int and -BEYOND <= value < BEYOND:
        return NUMBER * _STEP, value
    return _stored(position_of(value))


def _stored(position: Position) -> Stored:
    rank, value = position
    if rank == NUMBER:
        return _stored_number(value)
    if rank == TEXT:
        value = value.encode("utf-8", "surrogatepass")
    elif rank == TUPLE:
        value = b"".join([_item(_stored(each)) for each in value])
    elif rank == DATE:
        value = date.toordinal(value)
    elif rank == NAIVE:
        value = (value - datetime.min) // _MICROSECOND
    elif rank == AWARE:
        value = value // _MICROSECOND
    elif rank == DURATION:
        value = (value // _MICROSECOND + _LONGEST).to_bytes(_DURATION_BYTES, "big")
    return rank * _STEP, value


def _stored_number(value: int | float) -> Stored:
    if -BEYOND <= value < BEYOND:
        return NUMBER * _STEP, value if type(value) is float else int(value)
    return NUMBER * _STEP + (_HIGH if value > 0 else _LOW), beyond_bytes(value, 8)


def _item(position: Stored) -> bytes:
    """Return an item of a tuple as bytes, in the order of positions; none is a prefix of another."""
    rank, value = position
    if rank == NUMBER * _STEP:
        value = number_bytes(value)
    elif rank in _COUNTS:
        value = struct.pack(">Q", value + _MIDDLE)
    elif rank in _OPEN:
        value = value.replace(b"\0", _ZERO) + _END
    elif rank == TUPLE * _STEP:
        value += _END
    # Other values are bytes that begin with their length, or empty.
    return bytes([rank + _STEP]) + (value or b"")


#: Ranks of integers far below 64 bits, the offset that makes them positive, and ranks of values without
#: length.
_COUNTS = frozenset({DATE * _STEP, NAIVE * _STEP, AWARE * _STEP})
_MIDDLE = 2**62
_OPEN = frozenset({TEXT * _STEP, BYTES * _STEP})


# -- terms of queries ---------------------------------------------------------------------------------


class StoredSpan(NamedTuple):
    """Positions between two others, optionally inclusive.

    Attributes
    ----------
    lower, upper : tuple of int and object
        May be positions that no value has, before or after all values of a type.
    with_lower, with_upper : bool
        Whether the position itself is included.
    """

    lower: Stored
    upper: Stored
    with_lower: bool = True
    with_upper: bool = True

    @property
    def sql(self) -> str:
        """The condition, for a table with the columns ``rank`` and ``value``."""
        if self.lower == self.upper:
            return "(rank = ? AND value = ?)"
        above, below = ">=" if self.with_lower else ">", "<=" if self.with_upper else "<"
        return f"((rank, value) {above} (?, ?) AND (rank, value) {below} (?, ?))"

    @property
    def parameters(self) -> tuple[Any, ...]:
        """The values of the question marks."""
        return self.lower if self.lower == self.upper else (*self.lower, *self.upper)


def stored_spans(term: object) -> list[StoredSpan] | None:
    """Return the spans in which SQLite finds all values that match a term, as `spans_of` does."""
    spans = spans_of(term)
    return None if spans is None else list(map(_stored_span, spans))


def _stored_span(span: Span) -> StoredSpan:
    rank, lower, upper, with_lower, with_upper = span
    return StoredSpan(
        (rank * _STEP - _STEP // 2, 0) if lower is None else _stored(lower),
        (rank * _STEP + _STEP // 2, 0) if upper is None else _stored(upper),
        lower is None or with_lower,
        upper is None or with_upper,
    )
