"""Queries that need not look at all entries: by an ordered index, or as they end at a limit.

`selected` is called in a section and compares only what builtin code can compare. What it returns goes on to
`found`, outside: there the rest is compared, and if that leaves too few, all entries are looked at after all,
at a later instant of the same call.

Thread safety: functions of their arguments. `selected` and what it calls run builtin code alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol

from latchstore.contract.matching import matching, verdict
from latchstore.contract.ordering import Place
from latchstore.contract.ranges import Prefix
from latchstore.contract.requests import Request, chosen
from latchstore.contract.values import Entry
from latchstore.engine.ordered_index import OrderedIndex, edges_of

Pairs = list[tuple[str, Entry]]

#: What others see in place of the entries there are: what a transaction has written, or what was there at the
#: moment of a snapshot. None: there is no such key.
Overlay = Mapping[str, Entry | None]

#: How many entries one section looks at, at the least, and which share of all there are.
_LEAST, _SHARE = 1_000, 16


class Selected(NamedTuple):
    """Some of the entries, in the order of the request.

    Attributes
    ----------
    entries : list of pairs
        Those that match, and those that only code of users' own can compare.
    is_enough : bool
        Whether the answer is among them. Else it is if as many match as the limit is.
    """

    entries: Pairs
    is_enough: bool


class Source(Protocol):
    """What has entries: an engine, or a view."""

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]: ...

    def select(self, request: Request, overlay: Overlay) -> Selected | None: ...


def found(source: Source, request: Request, overlay: Overlay) -> Iterable[tuple[str, Entry]]:
    """Return what a query gives. Runs the ``==`` of users' values, so no lock is held."""
    limit = request.limit
    if limit == 0:
        return []
    selection = source.select(request, overlay)
    if selection is not None:
        entries = list(islice(matching(selection.entries, request.terms), limit))
        if selection.is_enough or len(entries) == limit:
            return entries
    return chosen(overlaid(source.candidates(request.terms), overlay), request)


def overlaid(entries: Iterable[tuple[str, Entry]], overlay: Overlay) -> Iterable[tuple[str, Entry]]:
    """Put the entries of an overlay in the place of others."""
    if not overlay:
        return entries
    merged = [item for item in entries if item[0] not in overlay]
    merged += [(key, entry) for key, entry in overlay.items() if entry is not None]
    return merged


def index_for_request(request: Request, indexes: Mapping[Any, OrderedIndex]) -> OrderedIndex | None:
    """Return the ordered index that gives the answer of a request in order; None if there is none."""
    order = request.order
    if order is None:
        return indexes.get(_BY_KEY) if request.prefix else None
    is_bounded = order.name in request.terms or (order == _BY_KEY and request.prefix)
    # All of it is sorted outside the lock, which takes less of everybody's time.
    return indexes.get(order) if is_bounded or request.limit is not None else None


_BY_KEY = (True, "key")


def selected(
    request: Request, overlay: Overlay, entries: dict[str, Entry], index: OrderedIndex | None, keys: Any
) -> Selected | None:
    """Return entries among which the answer is, in a section; None if that takes a look at too many.

    Parameters
    ----------
    index : OrderedIndex or None
        That of the order, up to date.
    keys : collection of str or None
        The keys among which all that match are, in any order, if an index knows them.
    """
    limit = request.limit
    most = max(_LEAST, len(entries) // _SHARE, 2 * (limit or 0))
    if len(overlay) > most:
        return None
    if index is None:
        if request.order is not None or limit is None:
            return None
        pairs = _unordered(entries, keys, overlay)
        return _matching(pairs, request, most, lambda: True)
    if keys is not None and (limit is None or len(keys) <= _FEW_KEYS * limit):
        return None
    order = index.order
    edges = None
    if not order.is_fact and order.name in request.terms:
        edges = index.edges_of(request.terms[order.name])
    elif order == _BY_KEY and request.prefix:
        edges = edges_of(Prefix(request.prefix))
    pairs = _in_order(index, edges, request.descending, entries, overlay)
    # Entries that lack the item are not in the index, and come after all others.
    return _matching(pairs, request, most, lambda: order.is_fact or order.name in request.terms)


#: If an index knows so few keys for each one that is wanted, these are sorted.
_FEW_KEYS = 16


def _unordered(
    entries: dict[str, Entry], keys: Iterable[str] | None, overlay: Overlay
) -> Iterator[tuple[str, Entry]]:
    for key, own in overlay.items():
        if own is not None:
            yield key, own
    if keys is None:
        for key, entry in entries.items():
            if key not in overlay:
                yield key, entry
    else:
        for key in keys:
            if key not in overlay:
                yield key, entries[key]


def _in_order(
    index: OrderedIndex,
    edges: Any,
    descending: bool,
    entries: dict[str, Entry],
    overlay: Overlay,
) -> Iterator[tuple[str, Entry]]:
    places = index.places_between(edges, descending)
    if not overlay:
        return ((key, entries[key]) for _, _, key in places)
    places = (place for place in places if place[2] not in overlay)
    own = sorted(_own_places(index, overlay), reverse=descending)
    merged = heapq.merge(places, own, reverse=descending)
    return ((key, overlay[key] if key in overlay else entries[key]) for _, _, key in merged)  # type: ignore[misc]


def _own_places(index: OrderedIndex, overlay: Overlay) -> Iterator[Place]:
    for key, entry in overlay.items():
        place = None if entry is None else index.place(key, entry)
        if place is not None:
            yield place


def _matching(
    pairs: Iterator[tuple[str, Entry]], request: Request, most: int, is_all: Callable[[], bool]
) -> Selected:
    """Return what matches, or may, of pairs until as many match as are wanted."""
    terms, limit, matches = request.terms, request.limit, request.matches
    result: Pairs = []
    sure = 0
    for pair in islice(pairs, most):
        if matches is not None and not matches(pair[0]):
            continue
        decided = verdict(pair[1], terms)
        if decided is False:
            continue
        result.append(pair)
        if decided:
            sure += 1
            if sure == limit:
                return Selected(result, True)
    return Selected(result, is_all() and next(pairs, None) is None)
