"""The order of entries, by a fact or by a metadata item, for values of any types.

Values of different types have one total order:

1. None
2. NaN, which cannot be compared with other numbers
3. numbers: ``bool``, ``int``, ``float``
4. ``str``, by code points
5. ``bytes``
6. ``date``
7. ``datetime`` without a time zone
8. ``datetime`` with a time zone (``datetime.timezone`` or ``zoneinfo``), by instants
9. ``timedelta``
10. ``tuple``, item by item, each in this order; a prefix comes before a longer tuple
11. all other values, which are equal in this order

Instances of subclasses (``StrEnum``, ``IntEnum``, ``numpy.float64``, ``pandas.Timestamp``) are ordered as
their values of the builtin class. Entries with equal values are ordered by their keys.

Thread safety: the functions have no state. They run builtin code only, never a method of a user's class, so
they may be called under a lock.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from latchstore.contract.arguments import checked_iterable, checked_key, describe, exact_string
from latchstore.contract.values import Entry

#: The sort key of a value: the rank of its type, and an object to compare with those of the same rank.
Position = tuple[int, Any]

NONE, NAN, NUMBER, TEXT, BYTES, DATE, NAIVE, AWARE, DURATION, TUPLE, OTHER, ABSENT = range(12)

#: The position of all values that have no order.
UNORDERED: Position = (OTHER, 0)

#: The depth to which tuples are compared; a deeper tuple has no order.
_DEPTH = 8


def position_of(value: Any, depth: int = 0) -> Position:
    """Return the position of a value in the order of values."""
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
    # ``issubclass`` of the type, since ``isinstance`` may read ``__class__`` of the object; and methods of
    # the builtin class, not of the object.
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
    # hot path: datetime is slow to import, and a caller with such a value has imported it. The C module has
    # the original classes where a test has replaced those of datetime.
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
            return UNORDERED  # computing the offset would run the zone's own code
        return AWARE, naive - datetime.min - naive.replace(tzinfo=zone).utcoffset()
    if issubclass(kind, date):
        return DATE, date.fromordinal(date.toordinal(value))
    if issubclass(kind, timedelta):
        return DURATION, timedelta.__pos__(value)
    return UNORDERED


class Item:
    """Names a metadata item, for ``order_by`` and `Ordered`, whose name may be that of a fact.

    Parameters
    ----------
    name : str

    Thread safety
    -------------
    Immutable.

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
    """An ordered index, for ``DictMemoryStore(indexes=["kind", Ordered("due")])`` and ``add_index``.

    With it, the cost of a query depends on the size of its result only: of a query with a limit in the same
    order, of one with a range or a prefix on the item, and with ``Ordered("key")`` of a glob that begins with
    plain characters. Needs sortedcontainers: ``python -m pip install 'latchstore[ordered]'``.

    Parameters
    ----------
    by : str or Item
        As ``order_by`` of a query.

    Thread safety
    -------------
    Immutable.

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
        #: The argument, as a plain string or an `Item`.
        self.by: OrderBy = Item(order.name) if type(by) is Item else order.name
        self.order: Order = order

    def __eq__(self, other: object) -> bool:
        return self.order == other.order if type(other) is Ordered else NotImplemented

    def __hash__(self) -> int:
        return hash((Ordered, self.order))

    def __repr__(self) -> str:
        return f"Ordered({self.by!r})"


def checked_indexes(indexes: Iterable[str | Ordered]) -> list[str | Ordered]:
    """Return the indexes for a store to keep; raise TypeError if one is neither a str nor an Ordered."""
    found = enumerate(checked_iterable(indexes, "indexes"))
    return [checked_index(each, f"indexes[{position}]") for position, each in found]


def checked_index(index: str | Ordered, argument: str) -> str | Ordered:
    """Return an index for a store to keep; raise TypeError if it is neither a str nor an Ordered."""
    if type(index) is Ordered:
        return index
    if isinstance(index, str):
        return checked_key(index, argument)
    raise TypeError(f"{argument} must be a str or an Ordered, got {describe(index)}")


#: The type of ``order_by``: the name of a fact or of a metadata item.
OrderBy = str | Item

#: The names of the facts that every entry has.
FACTS = ("key", "created", "modified", "revision")


class Order(NamedTuple):
    """The order of a query or an index.

    Attributes
    ----------
    is_fact : bool
        Whether it is one of `FACTS` and not a metadata item.
    name : str
    """

    is_fact: bool
    name: str

    def position(self, key: str, entry: Any) -> Position:
        """Return the position of an entry; ``(ABSENT, 0)`` if it lacks the item."""
        name = self.name
        if self.is_fact:
            return (TEXT, key) if name == "key" else position_of(getattr(entry, name))
        return position_of(entry[name]) if name in entry else (ABSENT, 0)

    def place(self, key: str, entry: Entry) -> Place:
        """Return the position of an entry with its key, which makes it unique."""
        rank, value = self.position(key, entry)
        return rank, value, key


#: The place of an entry among all others: its position and its key.
Place = tuple[int, Any, str]


def order_of(by: OrderBy, argument: str = "order_by") -> Order:
    """Return the order that a name or an Item stands for; raise TypeError for anything else."""
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
    """Return whether a place is at or before an edge; entries without the item come last."""
    if place[0] == ABSENT or edge[0] == ABSENT or not descending:
        return place <= edge
    return place >= edge
