"""Queries that need not scan all entries, since an ordered index helps or a limit ends them.

`selected` is called in a section and compares only what builtin code can compare. Its result goes to `found`,
outside the section, where the rest is compared. If too few entries remain, all entries are scanned after all,
at a later instant of the same call.

Thread safety: the functions have no state. `selected` and the functions it calls run builtin code only.
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

#: Entries that replace those of the engine for a reader: the writes of a transaction, or the old entries of a
#: snapshot. None stands for a missing key.
Overlay = Mapping[str, Entry | None]

#: The entries that one section may scan: at least so many, or this share of all.
_LEAST, _SHARE = 1_000, 16


class Selected(NamedTuple):
    """Some of the entries, in the order of the request.

    Attributes
    ----------
    entries : list of pairs
        Those that match, and those that only user code can compare.
    is_enough : bool
        Whether they include the whole result. If not, they do so if as many match as the limit.
    """

    entries: Pairs
    is_enough: bool


class Source(Protocol):
    """A source of entries: an engine or a view."""

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]: ...

    def select(self, request: Request, overlay: Overlay) -> Selected | None: ...


def found(source: Source, request: Request, overlay: Overlay) -> Iterable[tuple[str, Entry]]:
    """Return the result of a query. Runs the ``==`` of users' values, so no lock may be held."""
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
    """Replace entries by those of an overlay."""
    if not overlay:
        return entries
    merged = [item for item in entries if item[0] not in overlay]
    merged += [(key, entry) for key, entry in overlay.items() if entry is not None]
    return merged


def index_for_request(request: Request, indexes: Mapping[Any, OrderedIndex]) -> OrderedIndex | None:
    """Return the ordered index that has the result of a request in order; None if there is none."""
    order = request.order
    if order is None:
        return indexes.get(_BY_KEY) if request.prefix else None
    is_bounded = order.name in request.terms or (order == _BY_KEY and request.prefix)
    # Without a bound or limit, sorting outside the lock blocks other threads for less time.
    return indexes.get(order) if is_bounded or request.limit is not None else None


_BY_KEY = (True, "key")


def selected(
    request: Request, overlay: Overlay, entries: dict[str, Entry], index: OrderedIndex | None, keys: Any
) -> Selected | None:
    """Return entries that include the result, in a section; None if it would have to scan too many.

    Parameters
    ----------
    index : OrderedIndex or None
        The index of the order, up to date.
    keys : collection of str or None
        Keys that include all matches, in any order, if an index has them.
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
    # Entries without the item are not in the index, and come after all others.
    return _matching(pairs, request, most, lambda: order.is_fact or order.name in request.terms)


#: If an index has at most so many keys for each requested entry, the keys are sorted instead.
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
    """Return the pairs that match or may match, until as many match as requested."""
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
