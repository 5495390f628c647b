"""Terms of a query that match by what is in a collection: the entry's, or the term's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from latchstore.contract.arguments import checked_iterable
from latchstore.contract.condition import Condition, FrozenCondition, equal


class Contains(Condition):
    """Equal to every tuple, list, set and frozenset that has the item in it; for queries.

    ``store.query(tags=Contains("new"))`` finds the entries whose metadata item ``tags`` is a collection with
    ``"new"`` among its items. An index on ``tags`` answers it, where the collections are tuples or
    frozensets.

    Parameters
    ----------
    item : object
        What is looked for, by identity or ``==`` as ``in`` does.

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
        except (MemoryError, RecursionError):
            raise
        except Exception:
            # `in` of a set needs the hash of the item, which may have none, and `in` fails with an item that
            # cannot be compared; then `==` decides.
            return any(self.item is each or equal(each, self.item) for each in other)

    def __hash__(self) -> int:
        # Equal to collections of any hash: so it is not found in a dict by way of one of these.
        return hash((Contains, self.item))

    def __repr__(self) -> str:
        return f"Contains({self.item!r})"


class In(FrozenCondition):
    """Matches what is equal to one of the values.

    An index on the item answers it, where all the values are of builtin types.

    Parameters
    ----------
    values : iterable
        Each as it could be a term itself.

    Examples
    --------
    >>> from latchstore import DictMemoryStore, EventManager, In
    >>> store = DictMemoryStore(EventManager(), indexes=["state"])
    >>> store.multiset(list("abc"), [(b"", {"state": state}) for state in ("new", "done", "failed")])
    >>> sorted(store.query_keys(state=In(["done", "failed"])))
    ['b', 'c']
    """

    __slots__ = ("values",)
    _positional = ("values",)

    values: tuple[Any, ...]

    def __init__(self, values: Iterable[Any]) -> None:
        self._freeze(values=tuple(checked_iterable(values, "values")))

    def matches(self, value: Any) -> bool:
        return any(value is each or equal(value, each) for each in self.values)

    def __repr__(self) -> str:
        return f"In({list(self.values)!r})"
