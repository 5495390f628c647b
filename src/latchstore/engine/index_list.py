"""The list of indexes that all processes maintain, stored as a text beside the entries.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from latchstore.contract.ordering import Item, Ordered

Index = str | Ordered

#: The text of an empty list.
NO_INDEXES = "[]"


class Indexes(NamedTuple):
    """The indexes of a store.

    Attributes
    ----------
    listed : tuple of str and Ordered
        In the order in which they were added.
    names : tuple of str
        The metadata items with an index; one index serves equality and order.
    facts : tuple of str
        The facts with an index.
    """

    listed: tuple[Index, ...]
    names: tuple[str, ...]
    facts: tuple[str, ...]

    def with_index(self, index: Index) -> str:
        """Return the text of the list with another index."""
        return _text_of([*self.listed, index])

    def without(self, index: Index) -> str:
        """Return the text of the list without one of its indexes."""
        return _text_of([each for each in self.listed if each != index])


@lru_cache(16)
def indexes_of(text: str) -> Indexes:
    """Return the indexes in a text."""
    listed = tuple([_index_of(*each) for each in json.loads(text)])
    items = [item_of(index) for index in listed]
    facts = [fact_of(index) for index in listed]
    return Indexes(listed, _distinct(items), _distinct(facts))


def item_of(index: Index) -> str | None:
    """Return the metadata item of an index, or None."""
    if isinstance(index, str):
        return index
    return None if index.order.is_fact else index.order.name


def fact_of(index: Index) -> str | None:
    """Return the fact of an index, or None."""
    return index.order.name if isinstance(index, Ordered) and index.order.is_fact else None


def _distinct(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([name for name in names if name is not None]))


def _index_of(kind: str, name: str) -> Index:
    if kind == "hashed":
        return name
    return Ordered(name if kind == "fact" else Item(name))


def _text_of(listed: Iterable[Index]) -> str:
    return json.dumps([(_kind_of(index), item_of(index) or fact_of(index) or "") for index in listed])


def _kind_of(index: Index) -> str:
    if isinstance(index, str):
        return "hashed"
    return "fact" if index.order.is_fact else "ordered"
