"""Options of a cache's entries, and the metadata items that store them.

Thread safety: options are immutable. Checking them, and `Options.of`, may run code of the caller, so no lock
is held.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from latchstore.contract.arguments import (
    alike,
    check_callable,
    checked_count,
    checked_key,
    checked_keys,
    checked_seconds,
    checked_timeout,
    describe,
    exact_seconds,
)
from latchstore.contract.values import Entry, entry_from_metadata
from latchstore.delivery.waiting import clock
from latchstore.engine.entry_facts import EXPIRES, IDLE, NUMBERS, REFRESH, STALE, WEIGHT

if TYPE_CHECKING:
    from latchstore.cache.policies import EvictionPolicy
    from latchstore.contract.seconds import Seconds

#: The metadata item that a cache writes in addition to those of ``entry_facts.py``.
TAGS = "cache_tags"


class EntryOptions(TypedDict, total=False):
    """Options of every entry; `Cache.set` describes them."""

    ttl: Seconds | Callable[[Any], Seconds | None] | None
    idle: Seconds | None
    refresh_after: Seconds | None
    weight: int | None
    metadata: Mapping[str, Any] | None


class SetOptions(EntryOptions, total=False):
    """Options of `Cache.set`, which describes them."""

    tags: Iterable[str]


class LoadManyOptions(SetOptions, total=False):
    """Options of `Cache.get_many_or_load`; `Cache.get_or_load` describes them."""

    keep: Callable[[Any], object] | None
    timeout: Seconds | None


class LoadOptions(LoadManyOptions, total=False):
    """Options of `Cache.get_or_load`, which describes them."""

    negative_ttl: Seconds | None
    stale_on_error: Seconds | None


class MemoizeOptions(EntryOptions, total=False):
    """Options of `Cache.memoize`, which describes them."""

    keep: Callable[[Any], object] | None
    timeout: Seconds | None
    negative_ttl: Seconds | None
    stale_on_error: Seconds | None
    tags: Iterable[str] | Callable[..., Iterable[str]]
    key: Callable[..., object] | None
    name: str | None


class NamespaceOptions(TypedDict, total=False):
    """Options of `Cache.namespace`, which describes them."""

    ttl: Seconds | None
    idle: Seconds | None
    max_entries: int | None
    max_bytes: int | None
    policy: str | Callable[[], EvictionPolicy] | None


class Options(NamedTuple):
    """Checked options of an entry; each as in `Cache.memoize`.

    Attributes
    ----------
    ttl : float or None
        None: the entry does not expire.
    ttl_of : callable or None
        Returns the ttl of a value, None for `ttl`.
    tags_of : callable or None
        Returns the tags of a call.
    """

    ttl: float | None = None
    idle: float | None = None
    refresh_after: float | None = None
    weight: int | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None
    ttl_of: Callable[[Any], Seconds | None] | None = None
    keep: Callable[[Any], object] | None = None
    timeout: float | None = None
    negative_ttl: float | None = None
    stale_on_error: float | None = None
    tags_of: Callable[..., Iterable[str]] | None = None
    key: Callable[..., object] | None = None
    name: str | None = None

    def of(self, value: Any) -> Options | None:
        """Return the options for a loaded value; None if it is not to be stored."""
        if self.keep is not None and not self.keep(value):
            return None
        if self.ttl_of is None or (seconds := self.ttl_of(value)) is None:
            return self
        seconds = exact_seconds(seconds, "the result of ttl")
        return None if seconds <= 0 else self._replace(ttl=checked_seconds(seconds, "the result of ttl"))

    def of_set(self, value: Any) -> Options:
        """Return the options for a value that is set; ValueError if its ttl is not positive."""
        options = self.of(value)
        if options is None:
            raise ValueError("the result of ttl must be positive for a value that is set")
        return options

    def deadline(self) -> float | None:
        """Return the deadline for waits that begin now, in monotonic seconds."""
        return None if self.timeout is None else clock() + self.timeout

    def entry(self, now: float) -> Entry:
        """Return a new entry with its metadata only."""
        entry = Entry() if self.metadata is None else Entry(self.metadata)
        if self.ttl is not None:
            entry[EXPIRES] = now + self.ttl
        if self.refresh_after is not None:
            entry[REFRESH] = now + self.refresh_after
        if self.idle is not None:
            entry[IDLE] = 0 if self.idle == math.inf else self.idle  # JSON has no infinity
        if self.weight is not None:
            entry[WEIGHT] = self.weight
        if self.tags:
            entry[TAGS] = list(self.tags)  # a list can be saved, a tuple cannot
        if self.stale_on_error is not None:
            entry[STALE] = self.stale_on_error
        # hot path: metadata with only our own numbers needs no check.
        return entry_from_metadata(entry) if self.tags or self.metadata else entry


_FIELDS = tuple(Options.__annotations__)

#: Options of an entry without any; compared by identity, as most entries have them.
DEFAULT_OPTIONS = Options()


def checked_options(kind: Any, options: Mapping[str, Any], defaults: Options) -> Options:
    """Return checked options; TypeError or ValueError names the wrong option.

    Parameters
    ----------
    kind : type
        The TypedDict that defines the option names.
    options : mapping
        Options to check; None stands for the value in `defaults`.
    defaults : Options
    """
    if not options:
        return defaults
    if defaults is DEFAULT_OPTIONS and len(options) == 1 and type(ttl := options.get("ttl")) in NUMBERS:
        return _options_of_ttl(ttl)
    check_names(kind, options)
    checked = {}
    for name, value in options.items():
        if value is None:
            continue
        if callable(value) and (name == "ttl" or (name == "tags" and kind is MemoizeOptions)):
            checked[f"{name}_of"] = value
        else:
            checked[name] = _CHECKS[name](value, name)
    # hot path: like `_replace`, in one call in C.
    return Options(*map(checked.get, _FIELDS, defaults)) if checked else defaults


def check_names(kind: Any, options: Mapping[str, Any]) -> None:
    """Raise TypeError for a name that the TypedDict `kind` lacks."""
    if not kind.__optional_keys__.issuperset(options):
        unknown = min(options.keys() - kind.__optional_keys__)
        raise TypeError(f"{unknown!r} is no option; {alike(unknown, kind.__optional_keys__)}")


@functools.lru_cache
def _options_of_ttl(ttl: float) -> Options:
    """Return options with only a ttl; most caches use few different ones."""
    seconds = checked_seconds(ttl, "ttl")
    return DEFAULT_OPTIONS if seconds is None else Options(seconds)


def _checked_idle(seconds: Any, name: str) -> float:
    # Infinity is kept: it overrides the idle time of the cache.
    return checked_seconds(seconds, name) or math.inf


def _checked_stale(seconds: Any, name: str) -> float:
    # A finite number, as it is stored in the metadata.
    return checked_seconds(seconds, name) or sys.float_info.max


def checked_tags(tags: Iterable[str], name: str = "tags") -> tuple[str, ...]:
    """Return the tags in order; TypeError if one is not a string."""
    return tuple(sorted(set(checked_keys(tags, name))))


def _checked_callable(function: Any, name: str) -> Any:
    check_callable(function, name)
    return function


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "ttl": checked_seconds,
    "idle": _checked_idle,
    "refresh_after": checked_seconds,
    "weight": lambda weight, name: checked_count(weight, name, 0),
    "tags": checked_tags,
    # A copy: what follows runs no code of the caller.
    "metadata": lambda metadata, name: entry_from_metadata(metadata),
    "keep": _checked_callable,
    "timeout": checked_timeout,
    "negative_ttl": _checked_idle,
    "stale_on_error": _checked_stale,
    "key": _checked_callable,
    "name": checked_key,
}


def checked_clock(clock: Callable[[], float]) -> Callable[[], float]:
    """Return the clock; TypeError or ValueError if it returns no finite number now; not checked later."""
    check_callable(clock, "clock")
    now = clock()
    if not isinstance(now, (int, float)) or isinstance(now, bool):
        raise TypeError(f"clock must return a number of seconds, got {describe(now)}")
    if not math.isfinite(now):
        raise ValueError(f"clock must return a finite number of seconds, got {now}")
    return clock
