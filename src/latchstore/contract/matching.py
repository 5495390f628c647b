"""Whether an entry has the metadata that a query, a filter or a watch names.

Thread safety: the functions keep nothing. `matching` and `matches` run the ``==`` of users' values, so they
are called with no lock held; `may_match` runs builtin code alone and may be called under one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from latchstore.contract.arguments import exact_string
from latchstore.contract.contains import equal
from latchstore.contract.values import Entry, is_immutable

logger: logging.Logger = logging.getLogger("latchstore")

_ABSENT = object()


def exact_terms(terms: dict[str, Any]) -> dict[str, Any]:
    """Return `terms` with plain strings for names: Python takes others, and we look them up under a lock."""
    for name in terms:
        if type(name) is not str:
            return {exact_string(name): wanted for name, wanted in terms.items()}
    return terms


def matching(found: Iterable[tuple[str, Entry]], terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
    """Leave out what does not match. Runs the ``==`` of the values, so no lock is held."""
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
                if type(entry) is Entry  # all that it holds is immutable
                else name in entry and _equals(entry[name], wanted)
            )
        )
    return ((key, entry) for key, entry in found if name in entry and _equals(entry[name], wanted))


def _equals(held: Any, wanted: Any) -> bool:
    """Compare with a value whose own ``==`` may run: it never gets hold of what the store holds."""
    try:
        return equal(held if is_immutable(held) else copy.deepcopy(held), wanted)
    except (MemoryError, RecursionError):
        raise  # as in `equal`
    except Exception:
        logger.debug("a %s cannot be copied to be compared", type(held), exc_info=True)
        return False


def matches(entry: Entry | None, terms: Mapping[str, Any]) -> bool:
    """Tell whether an entry is there and has all the values. Runs their ``==``, so no lock is held."""
    return entry is not None and all(
        name in entry and _equals(entry[name], wanted) for name, wanted in terms.items()
    )


def may_match(entry: Entry | None, terms: Mapping[str, Any]) -> bool:
    """Return false if an entry does not match; true also if only an ``==`` of users' own could decide it."""
    if entry is None:
        return False
    for name, wanted in terms.items():
        if name not in entry:
            return False
        held = entry[name]
        if is_immutable(held) and is_immutable(wanted) and held != wanted:
            return False
    return True
