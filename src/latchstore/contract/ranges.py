"""Conditions that match a range of values: `Above`, `Below`, `Between` and `Prefix`.

Ranges follow the order of values (``ordering.py``), within one type: numbers, ``str``, ``bytes``, ``date``,
``datetime`` without and with a time zone, ``timedelta``, ``tuple``. A value of another type than the bounds
does not match; NaN never does.

Thread safety: conditions are immutable and run no user code, so they may be evaluated under a lock.
"""

from __future__ import annotations

from typing import Any

from latchstore.contract.arguments import describe
from latchstore.contract.condition import FrozenCondition
from latchstore.contract.ordering import BYTES, NUMBER, OTHER, TEXT, Position, position_of

_ORDERED = "a number, str, bytes, date, datetime, timedelta or tuple"


class Range(FrozenCondition):
    """Values between two positions of one rank; either end may be open.

    Attributes
    ----------
    lower, upper : Position or None
        None if that end is open.
    with_lower, with_upper : bool
        Whether the position itself is included.
    rank : int
    """

    __slots__ = ("lower", "rank", "upper", "with_lower", "with_upper")

    lower: Position | None
    upper: Position | None
    with_lower: bool
    with_upper: bool
    rank: int

    def matches(self, value: Any) -> bool:
        position = position_of(value)
        if position[0] != self.rank:
            return False
        lower, upper = self.lower, self.upper
        if lower is not None and not (position > lower or (self.with_lower and position == lower)):
            return False
        return upper is None or position < upper or (self.with_upper and position == upper)


class Above(Range):
    """Matches values greater than `low`, in the order of values of the same type.

    Parameters
    ----------
    low : object
        A number, str, bytes, date, datetime, timedelta or tuple.
    inclusive : bool
        Whether `low` itself matches.

    Thread safety
    -------------
    Immutable.

    Examples
    --------
    >>> from latchstore import Above, DictMemoryStore, EventManager
    >>> store = DictMemoryStore(EventManager())
    >>> store.multiset(list("abc"), [(b"", {"size": size}) for size in (1, 2, 3)])
    >>> sorted(store.query_keys(size=Above(2))), sorted(store.query_keys(size=Above(2, inclusive=True)))
    (['c'], ['b', 'c'])
    """

    __slots__ = ("inclusive", "low")
    _positional = ("low",)
    _keywords = {"inclusive": False}  # noqa: RUF012 (a ClassVar of the class above)

    low: Any
    inclusive: bool

    def __init__(self, low: Any, *, inclusive: bool = False) -> None:
        lower = _bound(low, "low")
        self._freeze(low=low, inclusive=bool(inclusive), rank=lower[0])
        self._freeze(lower=lower, with_lower=self.inclusive, upper=None, with_upper=False)


class Below(Range):
    """Matches values less than `high`, in the order of values of the same type.

    Parameters
    ----------
    high : object
        A number, str, bytes, date, datetime, timedelta or tuple.
    inclusive : bool
        Whether `high` itself matches.

    Thread safety
    -------------
    Immutable.

    Examples
    --------
    >>> from latchstore import Below, DictMemoryStore, EventManager
    >>> store = DictMemoryStore(EventManager())
    >>> store.multiset(list("abc"), [(b"", {"size": size}) for size in (1, 2, 3)])
    >>> sorted(store.query_keys(size=Below(2))), sorted(store.query_keys(size=Below(2, inclusive=True)))
    (['a'], ['a', 'b'])
    """

    __slots__ = ("high", "inclusive")
    _positional = ("high",)
    _keywords = {"inclusive": False}  # noqa: RUF012

    high: Any
    inclusive: bool

    def __init__(self, high: Any, *, inclusive: bool = False) -> None:
        upper = _bound(high, "high")
        self._freeze(high=high, inclusive=bool(inclusive), rank=upper[0])
        self._freeze(lower=None, with_lower=False, upper=upper, with_upper=self.inclusive)


class Between(Range):
    """Matches values of at least `low` and less than `high`, in the order of values of the same type.

    Parameters
    ----------
    low, high : object
        Two values of one type that `Above` accepts, such as two numbers. Nothing matches if `high` is less
        than `low`.
    inclusive : bool
        Whether `high` itself matches; `low` always does.

    Thread safety
    -------------
    Immutable.

    Examples
    --------
    >>> from latchstore import Between, DictMemoryStore, EventManager
    >>> store = DictMemoryStore(EventManager())
    >>> store.multiset(list("abcd"), [(b"", {"size": size}) for size in (1, 2, 3, "2")])
    >>> sorted(store.query_keys(size=Between(1, 3)))
    ['a', 'b']
    >>> sorted(store.query_keys(size=Between(1, 3, inclusive=True)))
    ['a', 'b', 'c']
    """

    __slots__ = ("high", "inclusive", "low")
    _positional = ("low", "high")
    _keywords = {"inclusive": False}  # noqa: RUF012

    low: Any
    high: Any
    inclusive: bool

    def __init__(self, low: Any, high: Any, *, inclusive: bool = False) -> None:
        lower, upper = _bound(low, "low"), _bound(high, "high")
        if lower[0] != upper[0]:
            raise TypeError(
                f"low and high must be of the same type, got {describe(low)} and {describe(high)}"
            )
        self._freeze(low=low, high=high, inclusive=bool(inclusive), rank=lower[0])
        self._freeze(lower=lower, with_lower=True, upper=upper, with_upper=self.inclusive)


class Prefix(Range):
    """Matches every str, or bytes, that begins with `prefix`.

    Parameters
    ----------
    prefix : str or bytes

    Thread safety
    -------------
    Immutable.

    Examples
    --------
    >>> from latchstore import DictMemoryStore, EventManager, Prefix
    >>> store = DictMemoryStore(EventManager())
    >>> store.multiset(list("ab"), [(b"", {"city": city}) for city in ("Bern", "Basel")])
    >>> list(store.query_keys(city=Prefix("Be")))
    ['a']
    """

    __slots__ = ("prefix",)
    _positional = ("prefix",)

    prefix: str | bytes

    def __init__(self, prefix: str | bytes) -> None:
        position = position_of(prefix)
        if position[0] not in (TEXT, BYTES):
            raise TypeError(f"prefix must be a str or bytes, got {describe(prefix)}")
        self._freeze(prefix=position[1], rank=position[0], lower=position, with_lower=True)
        self._freeze(upper=_after_prefix(position), with_upper=False)


def _after_prefix(position: Position) -> Position | None:
    """Return the first position after all values with a prefix; None if there is none of the same type."""
    rank, prefix = position
    greatest: Any = chr(0x10FFFF) if rank == TEXT else b"\xff"
    left = prefix.rstrip(greatest)
    if not left:
        return None
    if rank == TEXT:
        return rank, left[:-1] + chr(ord(left[-1]) + 1)
    return rank, left[:-1] + bytes([left[-1] + 1])


def _bound(value: Any, argument: str) -> Position:
    position = position_of(value)
    if not NUMBER <= position[0] < OTHER:
        raise TypeError(f"{argument} must be {_ORDERED}, got {describe(value)}")
    return position
