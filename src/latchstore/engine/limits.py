"""The parts of a bound: limits, an order of eviction, and a witness.

Thread safety: a `Node` is changed in sections of the table lock's writer, except `hits`, `seen`, `used` and
`refresh`, which readers set without a lock: each by one assignment, as a hint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol


class Node:
    """The record of a bounded cache on one entry, which an `EvictionPolicy` orders.

    A user's policy may read `key`, `weight`, `revision` and `visited`, and may set `visited`, `visits`,
    `older`, `newer` and `queue` freely; all other attributes belong to the cache. Nodes are used under the
    table lock only.

    Attributes
    ----------
    key : str
    weight : int
        In bytes.
    revision : int
        The revision of the entry that the record is about.
    hits : int
        The number of hits without a lock.
    seen : int
        The value of `hits` when the policy last read it (SIEVE).
    used : float
        The time of the last use, in seconds of the bound's clock, if the entry has an idle time; infinity if
        it was not used since it was written.
    refresh : float or None
        The earliest time of the next refresh, after one has failed.
    expected : float or None
        The time of the bound's next check, if the entry may expire.
    visits : int
        The number of hits, at most three (S3-FIFO).
    older, newer : Node or None
        The neighbours in the policy's list (SIEVE).
    queue : object or None
        The queue that it is in (SIEVE, S3-FIFO).

    Thread safety
    -------------
    A policy may read and change a node within its own methods only.
    """

    __slots__ = (
        "expected",
        "hits",
        "key",
        "newer",
        "older",
        "queue",
        "refresh",
        "revision",
        "seen",
        "used",
        "visits",
        "weight",
    )

    def __init__(self, key: str) -> None:
        self.key: str = key
        self.weight: int = 0
        self.revision: int = 0
        self.hits: int = 0
        self.visits: int = 0
        self.seen: int = 0
        self.used: float = math.inf
        self.refresh: float | None = None
        self.expected: float | None = None
        self.older: Node | None = None
        self.newer: Node | None = None
        self.queue: Any = None

    @property
    def visited(self) -> bool:
        """Whether the entry was hit since the policy last set this to False."""
        return self.hits != self.seen

    @visited.setter
    def visited(self, visited: bool) -> None:
        # hot path: a hit that counts only increments `hits`.
        self.seen = self.hits - 1 if visited else self.hits


class Policy(Protocol):
    """The order in which entries are evicted; ``cache/policies.py`` documents the methods."""

    @property
    def on_hit(self) -> Callable[[Any], None] | None: ...

    def add(self, node: Any) -> None: ...

    def remove(self, node: Any) -> None: ...

    def choose(self) -> Any: ...


class Witness(Protocol):
    """Notified of each commit that writes keys of a bound, in the commit's section.

    It is internal code that acquires no lock.

    Attributes
    ----------
    awaited : mapping
        The keys that it is notified of; always the same object. While it is empty, the witness is not called.
    """

    @property
    def awaited(self) -> Mapping[str, object]: ...

    def note_written(self, keys: Iterable[str]) -> None:
        """Record that keys are set or deleted, not evicted; called before that is visible, and after."""


class _Nobody:
    """A witness that awaits no keys."""

    awaited: Mapping[str, object] = {}

    def note_written(self, keys: Iterable[str]) -> None:
        """Do nothing."""


class Limits(NamedTuple):
    """The limits of a bound.

    Attributes
    ----------
    max_entries, max_bytes : int or None
    idle : float or None
        Seconds without a use after which an entry expires, unless the entry has its own.
    make_policy : callable
        Returns a new, empty policy.
    clock : callable
        Returns the time of deadlines in seconds; called with no lock held.
    witness : Witness
    prefix : str
        The prefix of the keys that the limits are for.
    """

    max_entries: int | None
    max_bytes: int | None
    idle: float | None
    make_policy: Callable[[], Policy]
    clock: Callable[[], float]
    witness: Witness = _Nobody()
    prefix: str = ""


class Request(NamedTuple):
    """A request to the next commit to evict expired entries.

    Attributes
    ----------
    now : float
        The time of the clock.
    limit : int
        The most entries to check.
    found : list of str
        Receives the evicted keys.
    """

    now: float
    limit: int
    found: list[str]
