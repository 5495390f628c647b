"""A term of a query that matches collections by what is in them."""

from __future__ import annotations


class Contains:
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

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Contains):
            return bool(self.item == other.item)
        if not isinstance(other, (tuple, list, set, frozenset)):
            return False
        try:
            return self.item in other
        except TypeError:
            # `in` of a set needs the hash of the item, which may have none; then `==` decides.
            return any(self.item is each or self.item == each for each in other)

    def __hash__(self) -> int:
        # Equal to collections of any hash: so it is not found in a dict by way of one of these.
        return hash((Contains, self.item))

    def __repr__(self) -> str:
        return f"Contains({self.item!r})"
