"""The arguments of a query, checked: terms, order and limit.

Thread safety: requests are immutable and belong to one call. `chosen` runs the ``==`` of users' values, so it
is called with no lock held.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from latchstore.contract.arguments import checked_count, checked_select, describe
from latchstore.contract.glob_pattern import checked_pattern, matcher, prefix_of
from latchstore.contract.matching import checked_terms, matching
from latchstore.contract.ordering import ABSENT, Order, OrderBy, order_of
from latchstore.contract.values import Entry, Value, entry_from_metadata


class Request(NamedTuple):
    """The checked arguments of a query.

    Attributes
    ----------
    terms : dict
        Names of metadata items and their terms.
    order : Order or None
        The order of the result; None for any order.
    descending : bool
    limit : int or None
        The most entries to return.
    pattern : str or None
        The glob that the keys must match.
    prefix : str
        The prefix of all keys that match the pattern; empty if there is no pattern.
    matches : callable or None
        Returns a true object for a key that matches the pattern.
    """

    terms: Mapping[str, Any]
    order: Order | None = None
    descending: bool = False
    limit: int | None = None
    pattern: str | None = None
    prefix: str = ""
    matches: Callable[[str], object] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the result is every match, in any order."""
        return self.order is None and self.limit is None and not self.prefix

    @property
    def is_all_keys(self) -> bool:
        """Whether the result is all keys, or all that match a pattern, in any order."""
        return self.order is None and self.limit is None and not self.terms


def request_of(
    where: Mapping[str, Any] | None,
    kwargs: dict[str, Any],
    order_by: OrderBy | None,
    descending: bool,
    limit: int | None,
) -> Request:
    """Return the checked arguments of a query.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong; names it.
    """
    terms = checked_terms(where, kwargs)
    if order_by is None and limit is None and descending is False:
        return Request(terms)
    if not isinstance(descending, bool):
        raise TypeError(f"descending must be a bool, got {describe(descending)}")
    if descending and order_by is None:
        raise ValueError("descending=True needs order_by, such as order_by='key'")
    return Request(
        terms,
        None if order_by is None else order_of(order_by),
        descending,
        None if limit is None else checked_count(limit, "limit", 0),
    )


def request_for_glob(pattern: str, order_by: OrderBy | None, descending: bool, limit: int | None) -> Request:
    """Return the checked arguments of a glob; raises as `request_of` does."""
    pattern = checked_pattern(pattern)
    request = request_of(None, {}, order_by, descending, limit)
    return request._replace(pattern=pattern, prefix=prefix_of(pattern), matches=matcher(pattern))


def chosen(found: Iterable[tuple[str, Entry]], request: Request) -> Iterable[tuple[str, Entry]]:
    """Return the result of a query from keys and entries that include all matches, in any order."""
    order, limit, matches = request.order, request.limit, request.matches
    if matches is not None:
        found = [pair for pair in found if matches(pair[0])]
    matched = matching(found, request.terms)
    if order is not None:
        return _ordered(matched, order, request.descending, limit)
    return matched if limit is None else list(islice(matched, limit))


def answer(
    values: Iterable[tuple[str, Value]], request: Request, select: Iterable[str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the result of `query` from all keys and values of one instant; for stores that hold values.

    Parameters
    ----------
    values : iterable of pairs
        Keys and values, in any order.
    request : Request
        From `request_of`.
    select : iterable of str, optional
        The `select` of the query.
    """
    names = checked_select(select)
    found = chosen([(key, _entry_of(value)) for key, value in values], request)
    return (
        (key, entry.isolated_metadata() if names is None else entry.selected_metadata(names))
        for key, entry in found
    )


def _entry_of(value: Value) -> Entry:
    entry = entry_from_metadata(value.metadata)
    entry.created, entry.modified = value.created, value.modified
    entry.revision = value.revision  # type: ignore[assignment]  # None of a store without revisions
    return entry


def _ordered(
    matched: Iterable[tuple[str, Entry]], order: Order, descending: bool, limit: int | None
) -> list[tuple[str, Entry]]:
    absent: list[tuple[str, Entry]] = []
    placed = _placed(matched, order, absent)
    if limit is None:
        present = sorted(placed, reverse=descending)
    else:
        # The keys make places unique, so entries themselves are never compared.
        present = (heapq.nlargest if descending else heapq.nsmallest)(limit, placed)
    result = [(key, entry) for _, _, key, entry in present]
    left = None if limit is None else limit - len(result)
    if absent and left != 0:
        result += sorted(absent, key=_key)[:left]
    return result


def _placed(
    matched: Iterable[tuple[str, Entry]], order: Order, absent: list[tuple[str, Entry]]
) -> Iterator[tuple[int, Any, str, Entry]]:
    for key, entry in matched:
        rank, value = order.position(key, entry)
        if rank == ABSENT:
            absent.append((key, entry))
        else:
            yield rank, value, key, entry


def _key(item: tuple[str, Entry]) -> str:
    return item[0]
