"""Queries by the indexes of the server.

They return candidates for ``selection.py``: entries that include all matches, in the order of the request.
Scripts find them page by page, together with the log of changes since the instant of the view: a key changed
after that instant is not taken from the page, but replaced by its entry in the view. So a query shows one
instant, however many pages it has. Builtin code checks here whether an entry matches, and `found` checks
terms that may run the user's code. Entries have no data, as queries do not return it.

Thread safety: functions of their arguments; several threads may use a view. No code of users runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from latchstore.contract.matching import verdict
from latchstore.contract.ordering import ABSENT, Order
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.selection import Overlay, Selected
from latchstore.redis.entries import entry_of, name_of, stored_key
from latchstore.redis.index_pages import (
    EVERY_KEY,
    EVERYTHING,
    FewerElsewhereError,
    Found,
    Known,
    Reader,
    Source,
    pages,
)
from latchstore.redis.positions import MemberSpan, member_spans

Pair = tuple[str, Entry]

#: Maximum number of spans of a term that are looked up.
_MOST_SPANS = 200

#: Maximum number of an index's entries, per wanted one, that are sorted here.
_FEW = 16

_BY_KEY = Order(True, "key")


class Undoing(Reader, Protocol):
    """A view: reads the present entries, and has the previous ones of changed keys."""

    def undo_now(self) -> Mapping[bytes, Any]:
        """Return the view's entries, in the log's form, of keys that were changed since."""


def candidates(view: Undoing, known: Known, terms: Mapping[str, Any]) -> list[Pair]:
    """Return keys and entries that include all matches of `terms`, as the view has them.

    Raises
    ------
    IndexesChangedError
    """
    sources = _sources_of(known, terms) or [EVERY_KEY]
    found: dict[bytes, Entry] = {}
    for page in pages(view, known, sources):
        changed = view.undo_now()
        for key, flat in page:
            if key not in changed:
                found[key] = entry_of(name_of(key), flat)
    pairs = [(name_of(key), entry) for key, entry in found.items()]
    pairs += [(name_of(key), entry) for key, entry in _before(view) if key not in found]
    return pairs


def _before(view: Undoing) -> Iterator[tuple[bytes, Entry]]:
    """Yield the view's entries that were changed or deleted since."""
    for key, old in list(view.undo_now().items()):
        if old:
            yield key, entry_of(name_of(key), old)


# -- terms --------------------------------------------------------------------------------------------


def _sources_of(known: Known, terms: Mapping[str, Any], without: str | None = None) -> list[Source]:
    """Return the sources of all entries that may match the terms, for each term with an index."""
    found = [
        _source_of(name, _spans_of(terms[name]))
        for name in known.indexes.names
        if name in terms and name != without
    ]
    return [source for source in found if source is not None]


def _spans_of(wanted: Any) -> Sequence[MemberSpan] | None:
    spans = member_spans(wanted)
    return None if spans is None or len(spans) > _MOST_SPANS else spans


def _source_of(name: str, spans: Sequence[MemberSpan] | None) -> Source | None:
    if spans is None:
        return None
    stored = stored_key(name)
    return Source(b"i:m" + stored, b"item", b"p" + stored, spans)


def _source_of_order(known: Known, request: Request, order: Order) -> Source | None:
    """Return the index that has the entries in an order; None if there is none."""
    if order == _BY_KEY:
        return EVERY_KEY._replace(spans=_key_spans(request.prefix))
    if order.is_fact:
        if order.name not in known.indexes.facts:
            return None
        return Source(b"i:f" + order.name.encode(), b"fact", b"", (EVERYTHING,))
    if order.name not in known.indexes.names:
        return None
    spans = _spans_of(request.terms[order.name]) if order.name in request.terms else None
    return _source_of(order.name, (EVERYTHING,) if spans is None else spans)


def _key_spans(prefix: str) -> Sequence[MemberSpan]:
    """Return the spans of the keys with a prefix."""
    stored = stored_key(prefix)
    return (MemberSpan(stored, stored + EVERYTHING.high),)


# -- order and limit ----------------------------------------------------------------------------------


def select(view: Undoing, known: Known, request: Request, overlay: Overlay) -> Selected | None:
    """Implement `View.select`.

    Raises
    ------
    IndexesChangedError
    """
    found = _pages_for(view, known, request)
    if found is None:
        return None
    try:
        return _selected(view, found, request, overlay)
    except FewerElsewhereError:
        return None


def _pages_for(view: Undoing, known: Known, request: Request) -> Iterator[list[Found]] | None:
    """Return the pages of entries in the order of a request; None if no index has it."""
    order, limit, terms = request.order, request.limit, request.terms
    if request.is_all_keys:
        if not request.prefix:
            return None
        source = EVERY_KEY._replace(spans=_key_spans(request.prefix))
        return pages(view, known, (source,), only_keys=True)
    if order is None:
        if limit is None:
            return None
        by_key = EVERY_KEY._replace(spans=_key_spans(request.prefix))
        return pages(view, known, _sources_of(known, terms) or [by_key], first=limit)
    is_bounded = order.name in terms or (order == _BY_KEY and request.prefix)
    first = _source_of_order(known, request, order)
    if first is None or (limit is None and not is_bounded):
        return None
    others = _sources_of(known, terms, None if order.is_fact else order.name)
    return pages(
        view,
        known,
        (first, *others),
        in_order=True,
        descending=request.descending,
        **({"few": float("inf")} if limit is None else {"first": limit, "few": _FEW * limit}),
    )


def _selected(view: Undoing, found: Iterator[list[Found]], request: Request, overlay: Overlay) -> Selected:
    """Return matches or candidates, from pages until there are enough, and from changed keys."""
    order, limit, only_keys = request.order, request.limit, request.is_all_keys
    result: dict[str, Entry] = {}
    sure = 0
    for page in found:
        changed = view.undo_now()
        for key, flat in page:
            name = name_of(key)
            if key in changed or name in overlay:
                continue
            # The entries of a query for keys only are not read.
            entry = Entry() if only_keys else entry_of(name, flat)
            decided = _matches(name, entry, request)
            if decided is not False:
                result[name] = entry
                sure += decided is True
                if sure == limit:
                    break
        if sure == limit:
            break
    is_full = sure == limit
    more = [(name_of(key), entry) for key, entry in _before(view)]
    more = [(name, entry) for name, entry in more if name not in overlay and name not in result]
    more += [(name, entry) for name, entry in overlay.items() if entry is not None]
    more = [pair for pair in more if _matches(*pair, request) is not False]
    # Entries without the item come after all others, and are in no index.
    is_all = order is None or order.is_fact or order.name in request.terms
    pairs = list(result.items())
    if more and order is not None:
        pairs += [pair for pair in more if order.position(*pair)[0] != ABSENT]
        pairs.sort(key=lambda pair: order.place(*pair), reverse=request.descending)
    else:
        pairs += more
    return Selected(pairs, is_full or is_all)


def _matches(key: str, entry: Entry, request: Request) -> bool | None:
    if request.matches is not None and not request.matches(key):
        return False
    return verdict(entry, request.terms)
