"""Translate a term of a query to spans of positions that an ordered index can look up.

`spans_of` returns all positions of values that match, and may return others: the caller compares each entry
that the index returns with the term.

Thread safety: the functions have no state and run no user code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from itertools import product
from typing import Any, NamedTuple, cast

from latchstore.contract.contains import Contains, In
from latchstore.contract.ordering import TUPLE, UNORDERED, Position, position_of
from latchstore.contract.ranges import Above, Below, Between, Prefix, Range

#: The most positions that are looked up for a tuple, and its greatest depth for that.
_FEW = 16
_DEEP = 4


class Span(NamedTuple):
    """The positions of one rank between two of them.

    Attributes
    ----------
    rank : int
    lower, upper : Position or None
        None if that end is open.
    with_lower, with_upper : bool
        Whether the position itself is included.
    """

    rank: int
    lower: Position | None = None
    upper: Position | None = None
    with_lower: bool = True
    with_upper: bool = True


def spans_of(term: object) -> list[Span] | None:
    """Return spans that contain all values that match a term; they may contain others.

    Parameters
    ----------
    term : object
        A value, a `Range` (`Above`, `Below`, `Between`, `Prefix`), or an `In`.

    Returns
    -------
    spans : list of Span or None
        None if the values may be anywhere. Spans may overlap.
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
    if isinstance(term, Between) and (term.lower, True) > (term.upper, term.with_upper):
        return []
    return [Span(term.rank, term.lower, term.upper, term.with_lower, term.with_upper)]


def _spans_of_value(value: Any, depth: int = 0) -> list[Span] | None:
    """Return spans of the values that may equal one; None if it has its own ``==``."""
    kind = type(value)
    if kind in _AS_IT_IS:
        return [_at(position_of(value))]
    if kind in _NUMBERS or kind is getattr(sys.modules.get("decimal"), "Decimal", None):
        return [_at(position) for position in _equal_numbers(value)]
    if kind is tuple:
        return _spans_of_tuple(value, depth)
    if kind is datetime:
        return _spans_of_datetime(value)
    if kind in _WITHOUT_ORDER or kind is getattr(sys.modules.get("uuid"), "UUID", None):
        return [_at(UNORDERED)]
    return [_ANY_TUPLE, _at(UNORDERED)] if kind is Contains else None


#: Types whose values equal stored values of the same type and position only.
_AS_IT_IS = frozenset({str, bytes, date, timedelta, type(None)})

#: Types whose values are equal across types.
_NUMBERS = frozenset({bool, int, float, complex})

#: Types whose values have no order, so they all share one position.
_WITHOUT_ORDER = frozenset({list, dict, set, frozenset, time})

_ANY_TUPLE = Span(TUPLE)


def _at(position: Position) -> Span:
    return Span(position[0], position, position)


def _equal_numbers(value: Any) -> Iterator[Position]:
    """Return the positions of numbers that may equal one; complex numbers and decimals have no order."""
    yield UNORDERED
    for number in _plain_numbers(value):
        if number == value:
            yield position_of(number)
            return


def _plain_numbers(value: Any) -> Iterable[int | float]:
    """Return ints and floats of which one may equal a number."""
    if type(value) is complex:
        return (value.real,)
    if type(value) in _NUMBERS:
        return (value,)
    if not value.is_finite():
        return () if value.is_nan() else (float(value),)
    # A larger number does not fit into a float, and as an int might exhaust the memory.
    return (float(value), int(value)) if value.adjusted() < 400 else ()


def _spans_of_datetime(value: datetime) -> list[Span] | None:
    """Return spans of a datetime: its equals may differ in fold, and the fold decides the instant."""
    positions = {position_of(value.replace(fold=fold)) for fold in (0, 1)}
    if UNORDERED in positions:
        return None  # the offset of the time zone is known to user code only
    return [_at(position) for position in sorted(positions)]


def _spans_of_tuple(value: tuple[Any, ...], depth: int) -> list[Span]:
    """Return the positions of tuples whose items are equal to those of a tuple."""
    choices: list[list[Position]] = []
    count = 1
    for item in value:
        spans = None if depth == _DEEP else _spans_of_value(item, depth + 1)
        if spans is None:
            return [_ANY_TUPLE]
        positions = [span.lower for span in spans if span.lower is not None and span.lower == span.upper]
        count *= len(positions)
        if len(positions) < len(spans) or count > _FEW:
            return [_ANY_TUPLE]
        choices.append(positions)
    return [_at((TUPLE, items)) for items in product(*choices)]
