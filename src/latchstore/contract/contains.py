"""Conditions on membership: `Contains` looks in the entry's collection, `In` in its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from latchstore.contract.arguments import checked_iterable
from latchstore.contract.condition import FAULTS, Condition, FrozenCondition, equal, fits


class Contains(Condition):
    """Matches every tuple, list, set and frozenset that contains the item; for queries.

    ``store.query(tags=Contains("new"))`` returns the entries whose metadata item ``tags`` is a collection
    that contains ``"new"``. An index on ``tags`` is used where the collections are tuples or frozensets.

    Parameters
    ----------
    item : object
        The item, compared by identity or ``==`` as by ``in``.

    Thread safety
    -------------
    Immutable.

    Examples
    --------
    >>> from latchstore import Contains, DictMemoryStore, EventManager
    >>> store = DictMemoryStore(EventManager(), indexes=["tags"])
    >>> store.set("page", (b"", {"tags": ("new", "draft")}))
    >>> list(store.query_keys(tags=Contains("draft")))
    ['page']
    """

    __slots__ = ("item",)

    def __init__(self, item: object) -> None:
        self.item: object = item

    def matches(self, value: Any) -> bool:
        return equal(value, self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Contains):
            return bool(self.item == other.item)
        if not isinstance(other, (tuple, list, set, frozenset)):
            return False
        try:
            return self.item in other
        except FAULTS:
            raise
        except Exception:
            # `in` of a set needs the hash of the item, which may be unhashable, and it fails with items that
            # cannot be compared; then `==` decides.
            return any(self.item is each or equal(each, self.item) for each in other)

    def __hash__(self) -> int:
        # It equals collections with any hash, so a dict lookup by one of those does not find it.
        return hash((Contains, self.item))

    def __repr__(self) -> str:
        return f"Contains({self.item!r})"


class In(FrozenCondition):
    """Matches values that are equal to one of the given values.

    An index on the item is used if all the values are of builtin types.

    Parameters
    ----------
    values : iterable
        The values; each may be a condition as well.

    Thread safety
    -------------
    Immutable.

    Examples
    --------
    >>> from latchstore import DictMemoryStore, EventManager, In
    >>> store = DictMemoryStore(EventManager(), indexes=["state"])
    >>> store.multiset(list("abc"), [(b"", {"state": state}) for state in ("new", "done", "failed")])
    >>> sorted(store.query_keys(state=In(["done", "failed"])))
    ['b', 'c']
    """

    __slots__ = ("_compare", "values")
    _positional = ("values",)

    values: tuple[Any, ...]
    _compare: Callable[[Any, Any], bool]

    def __init__(self, values: Iterable[Any]) -> None:
        found = tuple(checked_iterable(values, "values"))
        # hot path: plain values need no look for conditions.
        compare = fits if any(issubclass(type(each), Condition) for each in found) else equal
        self._freeze(values=found, _compare=compare)

    def matches(self, value: Any) -> bool:
        compare = self._compare
        return any(value is each or compare(value, each) for each in self.values)

    def __repr__(self) -> str:
        return f"In({list(self.values)!r})"
