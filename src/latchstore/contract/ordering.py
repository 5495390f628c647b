"""The order of entries: by a fact of theirs or by a metadata item, over values of any types.

Values of different types have one total order:

1. None
2. NaN, which is no number that others could be compared with
3. numbers: ``bool``, ``int``, ``float``
4. ``str``, by code points
5. ``bytes``
6. ``date``
7. ``datetime`` without a time zone
8. ``datetime`` with one, by instants: of ``datetime.timezone`` and ``zoneinfo``
9. ``timedelta``
10. ``tuple``, item by item, each in this order, a shorter one before a longer one that begins with it
11. all other values, which are equal in this order

Instances of subclasses (``StrEnum``, ``IntEnum``, ``numpy.float64``, ``pandas.Timestamp``) stand where the
value of the class above does. Entries of equal values are ordered by their keys.

Thread safety: functions of what never changes. Builtin code runs alone, never a method of the user's own, so
they may be called under a lock.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from latchstore.contract.arguments import checked_iterable, checked_key, describe, exact_string
from latchstore.contract.values import Entry

#: Where a value stands: the rank of its type, and what is compared among those of the rank.
Position = tuple[int, Any]

NONE, NAN, NUMBER, TEXT, BYTES, DATE, NAIVE, AWARE, DURATION, TUPLE, OTHER, ABSENT = range(12)

#: Where all values stand that have no order of their own.
UNORDERED: Position = (OTHER, 0)

#: How deep tuples are compared; deeper ones have no order of their own.
_DEPTH = 8


def position_of(value: Any, depth: int = 0) -> Position:
    """Return where a value stands in the order of values."""
    kind = type(value)
    if kind is float:
        return (NUMBER, value) if value == value else (NAN, 0)
    if kind is int or kind is bool:
        return NUMBER, value
    if kind is str:
        return TEXT, value
    if value is None:
        return NONE, 0
    if kind is tuple:
        if depth == _DEPTH:
            return UNORDERED
        return TUPLE, tuple([position_of(item, depth + 1) for item in value])
    if kind is bytes:
        return BYTES, value
    return _position_of_subclass(value, kind, depth)


def _position_of_subclass(value: Any, kind: type, depth: int) -> Position:
    # ``issubclass`` of the type and not ``isinstance``, which may ask the object for its ``__class__``; and
    # methods of the builtin class, not of the object.
    if issubclass(kind, str):
        return TEXT, exact_string(str.__str__(value))
    if issubclass(kind, int):
        return NUMBER, int.__int__(value)
    if issubclass(kind, float):
        return position_of(float.__float__(value))
    if issubclass(kind, bytes):
        return BYTES, bytes.__getitem__(value, slice(None))
    if issubclass(kind, tuple) and depth < _DEPTH:
        return TUPLE, tuple([position_of(item, depth + 1) for item in tuple.__iter__(value)])
    # Not imported here, as that takes long: who has such a value has imported it. The module in C has the
    # classes that a test may have replaced in the other.
    module = sys.modules.get("_datetime")
    return UNORDERED if module is None else _position_of_time(value, kind, module)


def _position_of_time(value: Any, kind: type, module: Any) -> Position:
    date, datetime, timedelta = module.date, module.datetime, module.timedelta
    if issubclass(kind, datetime):
        zone = datetime.tzinfo.__get__(value)
        naive = datetime.combine(datetime.date(value), datetime.time(value))
        if zone is None:
            return NAIVE, naive
        if type(zone) not in (module.timezone, getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)):
            return UNORDERED  # to ask it would run its own code
        return AWARE, naive - datetime.min - naive.replace(tzinfo=zone).utcoffset()
    if issubclass(kind, date):
        return DATE, date.fromordinal(date.toordinal(value))
    if issubclass(kind, timedelta):
        return DURATION, timedelta.__pos__(value)
    return UNORDERED


class Item:
    """A metadata item by its name, for ``order_by`` and `Ordered`, where the name is that of a fact as well.

    Parameters
    ----------
    name : str

    Examples
    --------
    >>> from latchstore import DictMemoryStore, EventManager, Item
    >>> store = DictMemoryStore(EventManager())
    >>> store.multiset(list("ab"), [(b"", {"key": 2}), (b"", {"key": 1})])
    >>> list(store.query_keys(order_by="key")), list(store.query_keys(order_by=Item("key")))
    (['a', 'b'], ['b', 'a'])
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not issubclass(type(name), str):
            raise TypeError(f"name must be a str, got {describe(name)}")
        self.name: str = exact_string(name)

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if type(other) is Item else NotImplemented

    def __hash__(self) -> int:
        return hash((Item, self.name))

    def __repr__(self) -> str:
        return f"Item({self.name!r})"


class Ordered:
    """An index in order, for ``DictMemoryStore(indexes=["kind", Ordered("due")])`` and `add_index`.

    A query with a limit that is ordered by the same costs what it returns, and so does one whose term on the
    item is a range or a prefix; with ``Ordered("key")`` a glob that begins with plain characters. Needs
    sortedcontainers: ``python -m pip install 'latchstore[ordered]'``.

    Parameters
    ----------
    by : str or Item
        As `order_by` of a query.

    Examples
    --------
    >>> from latchstore import Below, DictMemoryStore, EventManager, Ordered
    >>> store = DictMemoryStore(EventManager(), indexes=[Ordered("due")])
    >>> store.multiset(list("abc"), [(b"", {"due": due}) for due in (30, 10, 20)])
    >>> list(store.query_keys(due=Below(25), order_by="due", limit=1))
    ['b']
    """

    __slots__ = ("by", "order")

    def __init__(self, by: OrderBy) -> None:
        order = order_of(by, "by")
        #: What was given, a plain string if it is one.
        self.by: OrderBy = Item(order.name) if type(by) is Item else order.name
        self.order: Order = order

    def __eq__(self, other: object) -> bool:
        return self.order == other.order if type(other) is Ordered else NotImplemented

    def __hash__(self) -> int:
        return hash((Ordered, self.order))

    def __repr__(self) -> str:
        return f"Ordered({self.by!r})"


def checked_indexes(indexes: Iterable[str | Ordered]) -> list[str | Ordered]:
    """Return the indexes that a store is to keep; TypeError if one of them is none."""
    found = enumerate(checked_iterable(indexes, "indexes"))
    return [checked_index(each, f"indexes[{position}]") for position, each in found]


def checked_index(index: str | Ordered, argument: str) -> str | Ordered:
    """Return what a store is to keep an index on; TypeError if it is nothing of that kind."""
    if type(index) is Ordered:
        return index
    if isinstance(index, str):
        return checked_key(index, argument)
    raise TypeError(f"{argument} must be a str or an Ordered, got {describe(index)}")


#: What `order_by` takes: the name of a fact or of a metadata item.
OrderBy = str | Item

#: What every entry has, metadata or not.
FACTS = ("key", "created", "modified", "revision")


class Order(NamedTuple):
    """What entries are ordered by.

    Attributes
    ----------
    is_fact : bool
        Whether it is one of `FACTS` and not a metadata item.
    name : str
    """

    is_fact: bool
    name: str

    def position(self, key: str, entry: Any) -> Position:
        """Return where an entry stands; ``(ABSENT, 0)`` if it has no such item."""
        name = self.name
        if self.is_fact:
            return (TEXT, key) if name == "key" else position_of(getattr(entry, name))
        return position_of(entry[name]) if name in entry else (ABSENT, 0)

    def place(self, key: str, entry: Entry) -> Place:
        """Return where an entry stands, told from all others by its key."""
        rank, value = self.position(key, entry)
        return rank, value, key


#: Where an entry stands among all others: its position and its key.
Place = tuple[int, Any, str]


def order_of(by: OrderBy, argument: str = "order_by") -> Order:
    """Return what is meant by a name; TypeError if it is none."""
    if type(by) is Item:
        return Order(False, by.name)
    if not isinstance(by, str):
        raise TypeError(
            f"{argument} must be 'key', 'created', 'modified', 'revision' or the name of a metadata item "
            f"(a str, or an Item), got {describe(by)}"
        )
    name = exact_string(by)
    return Order(name in FACTS, name)


def is_at_or_before(place: Place, edge: Place, descending: bool) -> bool:
    """Tell whether a place comes at another one or before it, entries without the item coming last."""
    if place[0] == ABSENT or edge[0] == ABSENT or not descending:
        return place <= edge
    return place >= edge
