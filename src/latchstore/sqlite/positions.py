"""Where the value of a metadata item stands in an index of SQLite's: two columns, in the order of values.

The order is that of ``contract/ordering.py``: `stored_position` puts `position_of` into a rank, which is an
integer, and a value, which SQLite compares as Python compares what stands at the same rank:

1. A number is an integer of 64 bits or a real number, which SQLite compares exactly and across both types;
   what is beyond them has a rank of its own below or above, as bytes: the length of an integer and the
   integer. So equal values (``1``, ``1.0``, ``True``) have equal positions.
2. Text is UTF-8 with surrogates, whose bytes are in the order of code points.
3. Dates, datetimes and timedeltas are counts of days or microseconds.
4. A tuple is its items in bytes, each with its rank before it, and ends with a byte that is below all ranks.

The ranks leave room between them, so that there are positions before and after all values of a type.

Thread safety: functions of their arguments. No code of the user's own runs.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from itertools import product
from typing import Any, NamedTuple, cast

from latchstore.contract.contains import Contains, In
from latchstore.contract.ordering import (
    AWARE,
    BYTES,
    DATE,
    DURATION,
    NAIVE,
    NUMBER,
    OTHER,
    TEXT,
    TUPLE,
    Position,
    position_of,
)
from latchstore.contract.ranges import Above, Below, Between, Prefix, Range

#: A rank and a value: an int, a float or bytes.
Stored = tuple[int, Any]

#: Ranks are this far apart.
_STEP = 10

#: What is added to the rank of numbers that are below or above those which SQLite has.
_LOW, _HIGH = -2, 2

#: Integers of SQLite's have 64 bits: they are below this, and not below its negative.
_BEYOND = 2**63

#: Infinity; the lengths of integers begin with less.
_INFINITE = b"\xff" * 9

_MICROSECOND = timedelta(microseconds=1)

#: What makes a duration positive, in microseconds; and its bytes.
_LONGEST = -(timedelta.min // _MICROSECOND)
_DURATION_BYTES = 10

#: Ends of what has no length in a tuple: of text and bytes, whose own zeros are followed by something greater
#: than any rank, and of the tuple.
_END = b"\0"
_ZERO = b"\0\xff"

#: How many positions of a tuple are looked for at the most, and how deep it may be for that.
_FEW = 16
_DEEP = 4


def stored_position(value: Any) -> Stored:
    """Return where a value stands, as SQLite compares it."""
    # hot path: what most items are; the rest is for `position_of`.
    kind = type(value)
    if kind is str:
        return TEXT * _STEP, value.encode("utf-8", "surrogatepass")
    if kind is int and -_BEYOND <= value < _BEYOND:
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
    if -_BEYOND <= value < _BEYOND:
        return NUMBER * _STEP, value if type(value) is float else int(value)
    if value > 0:
        return NUMBER * _STEP + _HIGH, _large(value)
    return NUMBER * _STEP + _LOW, bytes([0xFF - byte for byte in _large(-value)])


def _large(value: int | float) -> bytes:
    """Return a number of more than 64 bits, all of which are integers, as bytes in the order of numbers."""
    if type(value) is float and math.isinf(value):
        return _INFINITE
    number = int(value)
    size = (number.bit_length() + 7) // 8
    return struct.pack(">Q", size) + number.to_bytes(size, "big")


def _item(position: Stored) -> bytes:
    """Return an item of a tuple as bytes, in the order of positions and none the beginning of another."""
    rank, value = position
    if rank == NUMBER * _STEP:
        value = _number(value)
    elif rank in _COUNTS:
        value = struct.pack(">Q", value + _MIDDLE)
    elif rank in _OPEN:
        value = value.replace(b"\0", _ZERO) + _END
    elif rank == TUPLE * _STEP:
        value += _END
    # Others are bytes that tell their length, or nothing.
    return bytes([rank + _STEP]) + (value or b"")


#: Ranks of integers that are far from 64 bits, what makes them positive, and ranks of what has no length.
_COUNTS = frozenset({DATE * _STEP, NAIVE * _STEP, AWARE * _STEP})
_MIDDLE = 2**62
_OPEN = frozenset({TEXT * _STEP, BYTES * _STEP})


def _number(value: int | float) -> bytes:
    """Return a number of SQLite's as bytes: the greatest float that is not above it, and the rest."""
    near = float(value)
    if near > value:  # exact between int and float
        near = math.nextafter(near, -math.inf)
    rest = 0 if type(value) is float else value - int(near)
    (bits,) = struct.unpack(">Q", struct.pack(">d", near + 0.0))  # -0.0 is 0.0
    # Floats are in the order of their bits, negative ones in the reverse of it.
    bits = bits ^ 0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else bits | 1 << 63
    return struct.pack(">QH", bits, rest)


# -- what a term of a query looks for -----------------------------------------------------------------


class Span(NamedTuple):
    """Positions between two others, and perhaps these.

    Attributes
    ----------
    lower, upper : tuple of int and object
        They may be positions that nothing has, before or after all values of a type.
    with_lower, with_upper : bool
        Whether the position itself belongs to it.
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
        """What stands for the question marks."""
        return self.lower if self.lower == self.upper else (*self.lower, *self.upper)


def spans_of(term: object) -> list[Span] | None:
    """Return where all values are that match a term of a query; there may be others that do not.

    Parameters
    ----------
    term : object
        A value, a `Range` (`Above`, `Below`, `Between`, `Prefix`), or an `In`.

    Returns
    -------
    spans : list of Span or None
        None if they may be anywhere.
    """
    if type(term) in _RANGES:
        return _spans_of_range(cast(Range, term))
    values = term.values if type(term) is In else (term,)
    found: dict[Span, None] = {}
    for value in values:
        spans = _spans_of_value(value)
        if spans is None:
            return None
        found.update(dict.fromkeys(spans))
    return list(found)


#: Exact types: a subclass may match something else.
_RANGES = frozenset({Above, Below, Between, Prefix})


def _spans_of_range(term: Range) -> list[Span]:
    every = _all_of(term.rank)
    lower = every.lower if term.lower is None else _stored(term.lower)
    upper = every.upper if term.upper is None else _stored(term.upper)
    if isinstance(term, Between) and (term.lower, True) > (term.upper, term.with_upper):
        return []
    return [Span(lower, upper, term.lower is None or term.with_lower, term.upper is None or term.with_upper)]


def _all_of(rank: int) -> Span:
    """Return the span of all values of a type."""
    return Span((rank * _STEP - _STEP // 2, 0), (rank * _STEP + _STEP // 2, 0))


def _spans_of_value(value: Any, depth: int = 0) -> list[Span] | None:
    """Return where values are that may be equal to one; None if it has a ``==`` of its own."""
    kind = type(value)
    if kind in _AS_IT_IS:
        return [_at(stored_position(value))]
    if kind in _NUMBERS or kind is getattr(sys.modules.get("decimal"), "Decimal", None):
        return [_at(position) for position in _equal_numbers(value)]
    if kind is tuple:
        return _spans_of_tuple(value, depth)
    if kind is datetime:
        return _spans_of_datetime(value)
    if kind in _WITHOUT_ORDER or kind is getattr(sys.modules.get("uuid"), "UUID", None):
        return [_at(_WITHOUT)]
    return [_all_of(TUPLE), _at(_WITHOUT)] if kind is Contains else None


#: Types whose values are equal to those of the same type and position, and to nothing else that is stored.
_AS_IT_IS = frozenset({str, bytes, date, timedelta, type(None)})

#: Types whose values are equal across types.
_NUMBERS = frozenset({bool, int, float, complex})

#: Types whose values have no order, so that all of them are at one position; and that position.
_WITHOUT_ORDER = frozenset({list, dict, set, frozenset, time})
_WITHOUT = _stored((OTHER, 0))


def _at(position: Stored) -> Span:
    return Span(position, position)


def _equal_numbers(value: Any) -> Iterator[Stored]:
    """Return where numbers are that may be equal to one: complex ones and decimals have no order."""
    yield _WITHOUT
    for number in _plain_numbers(value):
        if number == value:
            yield stored_position(number)
            return


def _plain_numbers(value: Any) -> Iterable[int | float]:
    """Return ints and floats one of which may be equal to a number."""
    if type(value) is complex:
        return (value.real,)
    if type(value) in _NUMBERS:
        return (value,)
    if not value.is_finite():
        return () if value.is_nan() else (float(value),)
    # Beyond that it is no float, and as an int it might take all memory.
    return (float(value), int(value)) if value.adjusted() < 400 else ()


def _spans_of_datetime(value: datetime) -> list[Span] | None:
    """Of one time zone datetimes are equal whatever their fold is, and it decides on the instant."""
    positions = {stored_position(value.replace(fold=fold)) for fold in (0, 1)}
    if _WITHOUT in positions:
        return None  # a time zone of which only the user's own code knows the offset
    return [_at(position) for position in sorted(positions)]


def _spans_of_tuple(value: tuple[Any, ...], depth: int) -> list[Span]:
    """Return where tuples are whose items are each at one of the positions that are equal to the item's."""
    choices: list[list[bytes]] = []
    count = 1
    for item in value:
        spans = None if depth == _DEEP else _spans_of_value(item, depth + 1)
        if spans is None or any(span.lower != span.upper for span in spans):
            return [_all_of(TUPLE)]
        choices.append([_item(span.lower) for span in spans])
        count *= len(spans)
        if count > _FEW:
            return [_all_of(TUPLE)]
    return [_at((TUPLE * _STEP, b"".join(items))) for items in product(*choices)]
