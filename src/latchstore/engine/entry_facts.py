"""The facts that a bound reads in an entry's metadata: when it expires, and its weight.

An entry is its own metadata, so these are fields of the entry: they are published together with the data, and
a reader without a lock finds those that belong to the data it has read.

Thread safety: the functions have no state. Only builtin code runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Metadata items that a bound reads. Times are in seconds of the clock of the bound.
EXPIRES, IDLE, REFRESH, WEIGHT = "cache_expires", "cache_idle", "cache_refresh", "cache_weight"

#: The seconds that an expired entry is kept, for loads that fail; otherwise it is invisible.
STALE = "cache_stale"

#: The bytes of an entry beside the characters of its key and the bytes of its data: the objects around these,
#: the entry itself, its node in the books, and its places in the dicts. Measured with 100,000 entries on
#: CPython 3.11 to 3.13, by ``python -m benchmarks memory``.
OVERHEAD = 440

#: The bytes of metadata beside names and values, measured likewise: the dict, and the place in the deadlines.
METADATA_OVERHEAD = 240

#: The weight in bytes of a plain object that is neither str nor bytes.
_PLAIN_WEIGHT = 8

#: The weight of an entry whose only metadata is its deadline, beside key and data.
_EXPIRES_WEIGHT = OVERHEAD + METADATA_OVERHEAD + len(EXPIRES) + _PLAIN_WEIGHT

_COLLECTIONS = frozenset({dict, tuple, list, set, frozenset})


class Facts(NamedTuple):
    """The facts of an entry.

    Attributes
    ----------
    revision : int
    weight : int
        In bytes.
    deadline : float or None
        The time at which it is evicted as expired.
    idle : float or None
        The seconds without a use after which it is evicted.
    refresh : float or None
        The time from which it is to be reloaded.
    """

    revision: int
    weight: int
    deadline: float | None
    idle: float | None
    refresh: float | None


def facts_in(
    key: str, size: int, revision: int, metadata: Mapping[str, Any], default_idle: float | None
) -> Facts:
    """Return the facts in the metadata of an entry whose data has `size` bytes."""
    if not metadata:
        return Facts(revision, OVERHEAD + len(key) + size, None, default_idle, None)
    if len(metadata) == 1 and EXPIRES in metadata:
        # hot path: most metadata is like that. Equal to Facts(...), without its call.
        deadline = metadata[EXPIRES]
        if type(deadline) is float and deadline < math.inf:
            facts = (revision, len(key) + size + _EXPIRES_WEIGHT, deadline, default_idle, None)
            return tuple.__new__(Facts, facts)
    weight = metadata.get(WEIGHT)
    if type(weight) is not int or weight < 0:
        weight = weight_of_entry(key, size, metadata)
    deadline = number(metadata.get(EXPIRES))
    idle = number(metadata.get(IDLE, default_idle)) or None
    longer = stale_of(metadata)
    if longer:
        deadline = None if deadline is None else deadline + longer
        idle = None if idle is None else idle + longer
    return Facts(revision, weight, deadline, idle, number(metadata.get(REFRESH)))


def stale_of(metadata: Mapping[str, Any]) -> float:
    """Return the seconds that an expired entry is kept."""
    return max(0, number(metadata.get(STALE)) or 0)


#: The types of numbers that are accepted.
NUMBERS = frozenset({float, int})


def number(value: object) -> float | None:
    """Return a finite number, or None for any other value: users may write any value into metadata."""
    return value if type(value) in NUMBERS and value < math.inf else None  # type: ignore


def weight_of_entry(key: str, size: int, metadata: Mapping[str, Any]) -> int:
    """Return the weight of an entry in bytes: key, data, names and values of the metadata, and overhead."""
    weight = OVERHEAD + len(key) + size
    if metadata:
        weight += METADATA_OVERHEAD
    for name, value in metadata.items():
        # hot path: most values are numbers.
        kind = type(value)
        weight += len(name) + (_PLAIN_WEIGHT if kind is float or kind is int else _weight_of(value))
    return weight


def _weight_of(value: object) -> int:
    """Return the weight of a metadata item at any depth; an object in it several times counts once.

    Types are compared; methods of users' objects, which may run any code, are not called.
    """
    weight = 0
    seen: set[int] = set()
    values = [value]
    while values:
        value = values.pop()
        kind = type(value)
        if kind is str or kind is bytes:
            weight += len(value)  # type: ignore[arg-type]
        elif kind not in _COLLECTIONS:
            weight += _PLAIN_WEIGHT
        elif id(value) not in seen:
            seen.add(id(value))
            values.extend(value)  # type: ignore[arg-type]
            if kind is dict:
                values.extend(value.values())  # type: ignore[attr-defined]
    return weight
