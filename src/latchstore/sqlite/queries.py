"""Queries by the indexes of the file.

They return candidates for ``selection.py``: entries that include all matches, in the order of the request.
SQL finds them; builtin code checks here whether they match, and `found` checks terms that may run the user's
code.

SQLite orders keys that are blobs after all others; the order of code points places them among the others:
while there is such a key, nothing is ordered here.

Thread safety: functions of a connection that no other thread uses. No code of users runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from latchstore.contract.matching import verdict
from latchstore.contract.ordering import ABSENT, Order
from latchstore.contract.ranges import Prefix
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.selection import Overlay, Selected
from latchstore.sqlite import items
from latchstore.sqlite.positions import stored_spans
from latchstore.sqlite.rows import Row, name_of, pairs_of, stored_key
from latchstore.sqlite.statements import (
    CANDIDATES,
    KEYS,
    KEYS_WITHIN,
    ODD_KEYS,
    ORDERED_BY_FACT,
    ORDERED_BY_ITEM,
)

Pair = tuple[str, Entry]

#: Maximum number of spans of a term for which keys are looked up.
_MOST_SPANS = 200

#: Maximum number of keys that a reader may see differently from the file.
_MOST_OVERLAID = 1_000


class Condition(NamedTuple):
    """A part of a statement's WHERE clause, with its parameters."""

    sql: str
    values: tuple[Any, ...]


def candidates(connection: sqlite3.Connection, terms: Mapping[str, Any]) -> list[Pair]:
    """Return keys and entries that include all matches of `terms`; from one statement."""
    conditions = _conditions_of(items.read(connection).names, terms) if terms else []
    return pairs_of(_execute(connection, CANDIDATES, conditions))


def _execute(
    connection: sqlite3.Connection, sql: str, conditions: list[Condition], end: str = ""
) -> Iterator[Row]:
    where = " AND ".join([condition.sql for condition in conditions])
    values = [value for condition in conditions for value in condition.values]
    return connection.execute(f"{sql} WHERE {where}{end}" if where else f"{sql}{end}", values)


# -- terms --------------------------------------------------------------------------------------------


def _conditions_of(names: Iterable[str], terms: Mapping[str, Any]) -> list[Condition]:
    """Return the conditions for the keys of all entries that may match."""
    found = [_condition_of(name, terms[name]) for name in names if name in terms]
    return [condition for condition in found if condition is not None]


def _condition_of(name: str, wanted: Any) -> Condition | None:
    """Return the condition for keys with an item that may match a term; None if any key may match."""
    spans = stored_spans(wanted)
    if spans is None or len(spans) > _MOST_SPANS:
        return None
    stored = stored_key(name)
    parts = [KEYS_WITHIN.format(conditions=span.sql) for span in spans]
    values = tuple(value for span in spans for value in (stored, *span.parameters))
    return Condition(f"entries.key IN ({' UNION ALL '.join(parts) or 'SELECT NULL'})", values)


def _of_item(name: str, wanted: Any) -> Condition:
    """Return the condition for the rows of an item that include all matches of a term."""
    spans = stored_spans(wanted)
    stored = stored_key(name)
    if spans is None or len(spans) > _MOST_SPANS:
        return Condition("name = ?", (stored,))
    within = " OR ".join([span.sql for span in spans]) or "0"
    return Condition(
        f"name = ? AND ({within})", (stored, *[each for span in spans for each in span.parameters])
    )


# -- order and limit ----------------------------------------------------------------------------------


def select(connection: sqlite3.Connection, request: Request, overlay: Overlay) -> Selected | None:
    """Implement `Engine.select`; in a transaction."""
    order, limit = request.order, request.limit
    if len(overlay) > _MOST_OVERLAID:
        return None
    if request.is_all_keys:
        return _keys_with_prefix(connection, request, overlay)
    names = items.read(connection).names
    if order is None:
        if limit is None:
            return None
        rows = _execute(connection, CANDIDATES, _conditions_of(names, request.terms))
    else:
        is_bounded = order.name in request.terms or (order == _BY_KEY and request.prefix)
        if (limit is None and not is_bounded) or not (order.is_fact or order.name in names):
            return None
        if _has_odd_keys(connection):
            return None
        rows = _in_order(connection, request, order, names)
    return _selected(map(_pair_of, rows), request, overlay)


_BY_KEY = Order(True, "key")


def _pair_of(row: Row) -> Pair:
    return pairs_of((row,))[0]


def _has_odd_keys(connection: sqlite3.Connection) -> bool:
    return connection.execute(ODD_KEYS).fetchone() is not None


def _keys_with_prefix(connection: sqlite3.Connection, request: Request, overlay: Overlay) -> Selected | None:
    """Return the keys that match a pattern, with entries that are not read."""
    if not request.prefix or _has_odd_keys(connection):
        return None
    rows = _execute(connection, KEYS, _key_conditions(request.prefix))
    nothing = Entry()
    return _selected(((name_of(key), nothing) for (key,) in rows), request, overlay)


def _in_order(
    connection: sqlite3.Connection, request: Request, order: Order, names: Iterable[str]
) -> Iterator[Row]:
    """Yield the entries in the order of a request, without those that lack its item."""
    terms = request.terms
    direction = " DESC" if request.descending else ""
    conditions = _conditions_of([name for name in names if name != order.name or order.is_fact], terms)
    if order.is_fact:
        if order == _BY_KEY:
            end = f" ORDER BY key{direction}"
            conditions += _key_conditions(request.prefix)
        else:
            end = f" ORDER BY entries.{order.name}{direction}, key{direction}"
        return _execute(connection, ORDERED_BY_FACT, conditions, end)
    if order.name in terms:
        conditions.insert(0, _of_item(order.name, terms[order.name]))
    else:
        conditions.insert(0, Condition("name = ?", (stored_key(order.name),)))
    end = f" ORDER BY rank{direction}, value{direction}, items.key{direction}"
    return _execute(connection, ORDERED_BY_ITEM, conditions, end)


def _key_conditions(prefix: str) -> list[Condition]:
    """Return the conditions for keys that begin with a prefix, if no key is a blob."""
    if not prefix:
        return []
    if type(stored_key(prefix)) is bytes:
        return [Condition("0", ())]
    high = Prefix(prefix).upper
    conditions = [Condition("entries.key >= ?", (prefix,))]
    if high is not None:
        # If the edge is not text, no key is between it and the first character after all surrogates.
        edge = high[1] if type(stored_key(high[1])) is str else high[1][:-1] + "\ue000"
        conditions.append(Condition("entries.key < ?", (edge,)))
    return conditions


def _selected(pairs: Iterable[Pair], request: Request, overlay: Overlay) -> Selected:
    """Return matches or candidates, from pairs until there are as many as requested, and from the overlay."""
    order, limit = request.order, request.limit
    result: list[Pair] = []
    sure = 0
    for pair in pairs:
        if pair[0] in overlay:
            continue
        decided = _matches(pair, request)
        if decided is False:
            continue
        result.append(pair)
        sure += decided is True
        if sure == limit:
            break
    own = [(key, entry) for key, entry in overlay.items() if entry is not None]
    own = [pair for pair in own if _matches(pair, request) is not False]
    # Entries without the item come after all others, and are not among the rows.
    is_all = order is None or order.is_fact or order.name in request.terms
    if own and order is not None:
        result += [pair for pair in own if order.position(*pair)[0] != ABSENT]
        result.sort(key=lambda pair: order.place(*pair), reverse=request.descending)
    else:
        result += own
    return Selected(result, sure == limit or is_all)


def _matches(pair: Pair, request: Request) -> bool | None:
    if request.matches is not None and not request.matches(pair[0]):
        return False
    return verdict(pair[1], request.terms)
