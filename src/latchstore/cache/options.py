"""How an entry of a cache is to be kept, and how its metadata says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from latchstore.arguments import checked_count, checked_keys, describe
from latchstore.cache.ledger import Facts
from latchstore.values import Value

#: Metadata items that a cache writes. Times are in seconds of its clock.
EXPIRES, IDLE, REFRESH, WEIGHT, TAGS = (
    "cache_expires",
    "cache_idle",
    "cache_refresh",
    "cache_weight",
    "cache_tags",
)

#: What a plain object that is neither str nor bytes counts, in bytes.
_PLAIN_WEIGHT = 8


class Options(NamedTuple):
    """How an entry is to be kept; each as in `Cache.set`."""

    ttl: float | None = None
    idle: float | None = None
    refresh_after: float | None = None
    weight: int | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None

    def items(self, now: float) -> dict[str, Any]:
        """Return the entry's metadata."""
        items: dict[str, Any] = {} if self.metadata is None else dict(self.metadata)
        if self.ttl is not None:
            items[EXPIRES] = now + self.ttl
        if self.refresh_after is not None:
            items[REFRESH] = now + self.refresh_after
        if self.idle is not None:
            items[IDLE] = self.idle
        if self.weight is not None:
            items[WEIGHT] = self.weight
        if self.tags:
            items[TAGS] = self.tags
        return items


#: Those of an entry of which nothing is said; told by identity, as most are like that.
DEFAULT_OPTIONS = Options()


def checked_options(
    default_ttl: float | None,
    ttl: float | None = None,
    idle: float | None = None,
    refresh_after: float | None = None,
    weight: int | None = None,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Options:
    """Return what `Cache.set` was given; ValueError or TypeError name what is wrong with it."""
    said = (default_ttl, ttl, idle, refresh_after, weight, metadata)
    if not tags and said.count(None) == len(said):
        return DEFAULT_OPTIONS
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping with str keys, got {describe(metadata)}")
    return Options(
        default_ttl if ttl is None else checked_seconds(ttl, "ttl"),
        # Infinity is kept here: it says that the cache's own is not meant.
        None if idle is None else checked_seconds(idle, "idle") or math.inf,
        checked_seconds(refresh_after, "refresh_after"),
        None if weight is None else checked_count(weight, "weight", 0),
        tuple(sorted(set(checked_keys(tags, "tags")))) if tags else (),
        metadata,
    )


def checked_seconds(seconds: float | None, argument: str) -> float | None:
    """Return a positive number of seconds; None for infinity, too."""
    if seconds is None:
        return None
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{argument} must be a number of seconds or None, got {describe(seconds)}")
    if not seconds > 0:
        raise ValueError(f"{argument} must be positive, got {seconds} seconds")
    return None if seconds == math.inf else float(seconds)


def facts_of(key: str, value: Value | None, default_idle: float | None) -> Facts | None:
    """Return what a cache wants to know of what the store has."""
    if value is None:
        return None
    metadata = value.metadata
    if not metadata:
        return Facts(value.revision or 0, len(key) + value.size, None, default_idle, None)
    weight = metadata.get(WEIGHT)
    if type(weight) is not int or weight < 0:
        weight = weight_of_entry(key, value.size, metadata)
    return Facts(
        value.revision or 0,
        weight,
        _number(metadata.get(EXPIRES)),
        _number(metadata.get(IDLE, default_idle)),
        _number(metadata.get(REFRESH)),
    )


def _number(value: object) -> float | None:
    """Return what is a number; in a store of others' anything may stand there."""
    return value if type(value) in (float, int) and value < math.inf else None  # type: ignore


def weight_of_entry(key: str, size: int, metadata: Mapping[str, Any]) -> int:
    """Return what an entry weighs, in bytes: key, data, and the metadata's names and values."""
    weight = len(key) + size
    for name, value in metadata.items():
        weight += len(name) + _weight_of(value)
    return weight


def _weight_of(value: object) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_weight_of(name) + _weight_of(item) for name, item in value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        return sum(map(_weight_of, value))
    return _PLAIN_WEIGHT
