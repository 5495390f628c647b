"""What a bound is made of: limits, an order of eviction, and a witness.

Thread safety: a `Node` is changed in sections of the table lock's writer, but for `hits`, `seen`, `used`
and `refresh`, which readers set without a lock: each is one assignment, and a hint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol


class Node:
    """What a bounded cache keeps of one entry beside it, and what an `EvictionPolicy` orders.

    A policy of one's own may read `key`, `weight`, `revision` and `visited`, and set `visited`, `visits`,
    `older`, `newer` and `queue` as it likes; all else belongs to the cache. Nodes are used under the table
    lock only.

    Attributes
    ----------
    key : str
    weight : int
        In bytes.
    revision : int
        Of the entry that the rest is about.
    hits : int
        How often it was hit without a lock.
    seen : int
        What `hits` was when the policy last looked (SIEVE).
    used : float
        When it was last used, in seconds of the bound's clock, if it expires when it is idle; infinity: not
        yet since it was written.
    refresh : float or None
        A refresh has failed, and is not to be tried before this.
    expected : float or None
        When the bound looks at it next, if it may expire.
    visits : int
        How often it was hit, up to three (S3-FIFO).
    older, newer : Node or None
        Its neighbours in the policy's list (SIEVE).
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
        """Whether the entry was hit since the policy last looked, and assigned False."""
        return self.hits != self.seen

    @visited.setter
    def visited(self, visited: bool) -> None:
        # hot path: a hit that counts does no more than raise `hits`.
        self.seen = self.hits - 1 if visited else self.hits


class Policy(Protocol):
    """The order in which entries are evicted: ``cache/policies.py`` has the promises of each method."""

    @property
    def on_hit(self) -> Callable[[Any], None] | None: ...

    def add(self, node: Any) -> None: ...

    def remove(self, node: Any) -> None: ...

    def choose(self) -> Any: ...


class Witness(Protocol):
    """What is notified of each commit that writes to a bound, in its section.

    It is code of ours that takes no lock.

    Attributes
    ----------
    awaited : mapping
        The keys that it is notified of; always the same object. Empty: it need not be called.
    """

    @property
    def awaited(self) -> Mapping[str, object]: ...

    def note_written(self, keys: Iterable[str]) -> None:
        """Note that keys are set or deleted, and not evicted: before that can be seen, and after it."""


class _Nobody:
    """A witness that waits for nothing."""

    awaited: Mapping[str, object] = {}

    def note_written(self, keys: Iterable[str]) -> None:
        """Do nothing."""


class Limits(NamedTuple):
    """What is to be kept within which limits.

    Attributes
    ----------
    max_entries, max_bytes : int or None
    idle : float or None
        Seconds without a use after which an entry expires that has no such time of its own.
    make_policy : callable
        Returns a new, empty policy.
    clock : callable
        Returns the seconds that deadlines are in; called with no lock held.
    witness : Witness
    prefix : str
        The limits are for the keys that begin with this.
    """

    max_entries: int | None
    max_bytes: int | None
    idle: float | None
    make_policy: Callable[[], Policy]
    clock: Callable[[], float]
    witness: Witness = _Nobody()
    prefix: str = ""


class Request(NamedTuple):
    """What the next commit is to evict as expired.

    Attributes
    ----------
    now : float
        The reading of the clock.
    limit : int
        How many to look at, at the most.
    found : list of str
        Where the keys are put.
    """

    now: float
    limit: int
    found: list[str]
