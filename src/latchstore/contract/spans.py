"""Where values are, in the order of values, that match a term of a query.

An index in that order finds them between two positions, or at a few. `spans_of` may return more than match,
and never less: what an index has found is compared with the term.

Thread safety: functions of what never changes. No code of the user's own runs.
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

#: How many positions of a tuple are looked for at the most, and how deep it may be for that.
_FEW = 16
_DEEP = 4


class Span(NamedTuple):
    """Positions of one rank, between two of them.

    Attributes
    ----------
    rank : int
    lower, upper : Position or None
        None if that end is open.
    with_lower, with_upper : bool
        Whether the position itself belongs to it.
    """

    rank: int
    lower: Position | None = None
    upper: Position | None = None
    with_lower: bool = True
    with_upper: bool = True


def spans_of(term: object) -> list[Span] | None:
    """Return where all values are that match a term of a query; there may be others that do not.

    Parameters
    ----------
    term : object
        A value, a `Range` (`Above`, `Below`, `Between`, `Prefix`), or an `In`.

    Returns
    -------
    spans : list of Span or None
        None if they may be anywhere. They may overlap.
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
    """Return where values are that may be equal to one; None if it has a ``==`` of its own."""
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


#: Types whose values are equal to those of the same type and position, and to nothing else that is stored.
_AS_IT_IS = frozenset({str, bytes, date, timedelta, type(None)})

#: Types whose values are equal across types.
_NUMBERS = frozenset({bool, int, float, complex})

#: Types whose values have no order, so that all of them are at one position.
_WITHOUT_ORDER = frozenset({list, dict, set, frozenset, time})

_ANY_TUPLE = Span(TUPLE)


def _at(position: Position) -> Span:
    return Span(position[0], position, position)


def _equal_numbers(value: Any) -> Iterator[Position]:
    """Return where numbers are that may be equal to one: complex ones and decimals have no order."""
    yield UNORDERED
    for number in _plain_numbers(value):
        if number == value:
            yield position_of(number)
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
    positions = {position_of(value.replace(fold=fold)) for fold in (0, 1)}
    if UNORDERED in positions:
        return None  # a time zone of which only the user's own code knows the offset
    return [_at(position) for position in sorted(positions)]


def _spans_of_tuple(value: tuple[Any, ...], depth: int) -> list[Span]:
    """Return where tuples are whose items are each at one of the positions that are equal to the item's."""
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
