"""A term of a query that matches collections by what is in them."""

from __future__ import annotations

import logging
from typing import Any

logger: logging.Logger = logging.getLogger("latchstore")


def equal(held: Any, wanted: Any) -> bool:
    """Compare two values, whose own ``==`` may run; false if they cannot be compared.

    That is if ``==`` raises something, or gives what has a length and is no truth value, as that of an array
    does: one such value is to fail no query for all others.
    """
    try:
        answer = held == wanted
        return not hasattr(type(answer), "__len__") and bool(answer)
    except (MemoryError, RecursionError):
        raise  # nothing is known of the values: this thread has no room
    except Exception:
        logger.debug("a %s cannot be compared with a %s", type(held), type(wanted), exc_info=True)
        return False


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
