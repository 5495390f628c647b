"""Decide whether an entry matches the terms of a query, a filter or a watch.

Thread safety: the functions have no state. `matching` and `matches` run the ``==`` of users' values, so they
are called with no lock held. `may_match` and `verdict` run builtin code only and may be called under a lock.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from latchstore.contract.arguments import describe, exact_string
from latchstore.contract.condition import FAULTS, Condition, fits
from latchstore.contract.contains import In
from latchstore.contract.ordering import Item, Ordered
from latchstore.contract.ranges import Above, Below, Between, Prefix
from latchstore.contract.values import ATOMIC_TYPES, Entry, is_immutable

logger: logging.Logger = logging.getLogger("latchstore")

_ABSENT = object()

#: Conditions that run builtin code only, for any value.
RANGES = frozenset({Above, Below, Between, Prefix})


def checked_terms(where: Mapping[str, Any] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the terms of a query, with plain strings as names, since they are looked up under a lock.

    Raises
    ------
    TypeError
        If `where` is not a mapping with str keys, an item is named twice, or a term is a function or a class,
        which no value equals.
    """
    terms = kwargs
    if where is not None:
        if not isinstance(where, Mapping):
            raise TypeError(f"where must be a mapping of item names to terms, got {describe(where)}")
        terms = {**kwargs}
        for name, wanted in where.items():
            if not isinstance(name, str):
                raise TypeError(f"where must have str keys, got the key {describe(name)}")
            if name in kwargs:
                raise TypeError(f"the item {name!r} must be named once, got it in where and as a keyword")
            terms[exact_string(name)] = wanted
    for name, wanted in terms.items():
        if type(wanted) not in ATOMIC_TYPES:
            check_term(name, wanted)
        if type(name) is not str:
            terms = {exact_string(each): term for each, term in terms.items()}
            break
    return terms


def check_term(name: str, wanted: Any) -> None:
    """Raise TypeError if a term is neither a value nor a condition, so that nothing stored matches it."""
    kind = type(wanted)
    if kind in ATOMIC_TYPES or isinstance(wanted, Condition):
        return
    if callable(wanted) or kind in (Item, Ordered) or hasattr(kind, "__next__"):
        raise TypeError(
            f"the term for {name!r} must be a value or a condition, got {describe(wanted)}: write "
            "Between(low, high), Above(low), Below(high), Prefix(text), In(values), Contains(item), "
            "or make a subclass of Condition"
        )


def matching(found: Iterable[tuple[str, Entry]], terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
    """Return the pairs that match the terms. Runs the ``==`` of the values, so no lock may be held."""
    for name, wanted in terms.items():
        found = _matching_one(found, name, wanted)
    return found


def _matching_one(found: Iterable[tuple[str, Entry]], name: str, wanted: Any) -> Iterator[tuple[str, Entry]]:
    if is_immutable(wanted):
        return (
            (key, entry)
            for key, entry in found
            if (
                entry.get(name, _ABSENT) == wanted
                if type(entry) is Entry  # all its items are immutable
                else name in entry and _holds(entry[name], wanted)
            )
        )
    return ((key, entry) for key, entry in found if name in entry and _holds(entry[name], wanted))


def _holds(held: Any, wanted: Any) -> bool:
    """Return whether a value matches a term; user code gets a copy of a mutable value, never the value."""
    if type(wanted) in RANGES:
        return bool(wanted.matches(held))
    try:
        value = held if is_immutable(held) else copy.deepcopy(held)
    except FAULTS:
        raise
    except Exception:
        logger.debug("a %s cannot be copied to be compared", type(held), exc_info=True)
        return False
    return fits(value, wanted)


def matches(entry: Entry | None, terms: Mapping[str, Any]) -> bool:
    """Return whether an entry exists and matches all terms. Runs their ``==``, so no lock may be held."""
    return entry is not None and all(
        name in entry and _holds(entry[name], wanted) for name, wanted in terms.items()
    )


def may_match(entry: Entry | None, terms: Mapping[str, Any]) -> bool:
    """Return False if an entry does not match; True also if only user code could decide."""
    return verdict(entry, terms) is not False


def verdict(entry: Entry | None, terms: Mapping[str, Any]) -> bool | None:
    """Return whether an entry matches; None if only user code could decide."""
    if entry is None:
        return False
    known: bool | None = True
    for name, wanted in terms.items():
        if name not in entry:
            return False
        held = entry[name]
        if type(wanted) in RANGES:
            decided: bool | None = wanted.matches(held)
        elif not is_immutable(held):
            decided = None
        elif is_immutable(wanted):
            decided = bool(held == wanted)
        elif type(wanted) is In and is_immutable(wanted.values):
            decided = held in wanted.values
        else:
            decided = None
        if decided is False:
            return False
        if decided is None:
            known = None
    return known
