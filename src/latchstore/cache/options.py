"""How an entry of a cache is to be kept, and how its metadata says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from latchstore.contract.arguments import (
    check_callable,
    checked_count,
    checked_keys,
    checked_seconds,
    describe,
)
from latchstore.contract.values import entry_from_metadata
from latchstore.engine.entry_facts import EXPIRES, IDLE, REFRESH, WEIGHT

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

#: The metadata item that a cache writes beside those of ``entry_facts.py``.
TAGS = "cache_tags"


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
            items[IDLE] = 0 if self.idle == math.inf else self.idle  # JSON has no infinity
        if self.weight is not None:
            items[WEIGHT] = self.weight
        if self.tags:
            items[TAGS] = list(self.tags)  # which can be saved, as a tuple cannot
        return items


# Told by identity: there is one empty tuple in CPython.
_NO_TAGS: tuple[str, ...] = ()

#: Those of an entry of which nothing is said; told by identity, as most are like that.
DEFAULT_OPTIONS = Options()


def checked_options(
    default_ttl: float | None,
    ttl: Seconds | None = None,
    idle: Seconds | None = None,
    refresh_after: Seconds | None = None,
    weight: int | None = None,
    tags: Iterable[str] = _NO_TAGS,
    metadata: Mapping[str, Any] | None = None,
) -> Options:
    """Return what `Cache.set` was given; ValueError or TypeError name what is wrong with it."""
    # By identity: the ``==`` of what is handed in may be anybody's.
    if (
        tags is _NO_TAGS
        and default_ttl is None
        and ttl is None
        and idle is None
        and refresh_after is None
        and weight is None
        and metadata is None
    ):
        return DEFAULT_OPTIONS
    if metadata is not None:
        metadata = entry_from_metadata(metadata)  # a copy: what follows runs none of the caller's code
    return Options(
        default_ttl if ttl is None else checked_seconds(ttl, "ttl"),
        # Infinity is kept here: it says that the cache's own is not meant.
        None if idle is None else checked_seconds(idle, "idle") or math.inf,
        checked_seconds(refresh_after, "refresh_after"),
        None if weight is None else checked_count(weight, "weight", 0),
        _NO_TAGS if tags is _NO_TAGS else tuple(sorted(set(checked_keys(tags, "tags")))),
        metadata,
    )


def checked_clock(clock: Callable[[], float]) -> Callable[[], float]:
    """Return the clock; TypeError or ValueError if it tells no time now, as it is not looked at later."""
    check_callable(clock, "clock")
    now = clock()
    if not isinstance(now, (int, float)) or isinstance(now, bool):
        raise TypeError(f"clock must return a number of seconds, got {describe(now)}")
    if not math.isfinite(now):
        raise ValueError(f"clock must return a finite number of seconds, got {now}")
    return clock
