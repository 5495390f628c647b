"""What the bounded stores have in common whose books are outside this process, as others share them.

Each process keeps to the limits of its own caches, in all of its commits. A hit is a read: it is noted for
the policy, and for idle times, by the next commit of its process, or when many wait. In a transaction
evictions are not to be seen: its commit makes them.

Thread safety: all methods may be called by any thread. `ProcessBound.hits` is changed by single operations of
the dict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from math import inf
from typing import Generic, Self, TypeVar

from latchstore.contract.errors import EntryTooLargeError, StoreError
from latchstore.contract.values import Entry
from latchstore.engine.bounded import BoundedStore, OpenTransaction, Totals
from latchstore.engine.edits import Edit
from latchstore.engine.entry_facts import EXPIRES, IDLE, REFRESH, number, stale_of
from latchstore.engine.following import FollowingEngine
from latchstore.engine.limits import Limits, Node
from latchstore.engine.store_access import StoreAccess

#: How many hits wait for the next commit; when there are more they are noted by themselves.
_MANY_HITS = 1_024

#: The share of an idle time after which a use is noted by itself.
_SHARE = 0.125


class ProcessBound:
    """The limits that one cache of this process has, for the commits of this process.

    Parameters
    ----------
    limits : Limits
    number : int
        Of the bound in the books.

    Attributes
    ----------
    hits : dict
        Keys that were used since the last commit, each with the time if that matters.
    """

    def __init__(self, limits: Limits, number: int) -> None:
        self.number: int = number
        self.hits: dict[str, float | None] = {}
        self.max_bytes: int | None = limits.max_bytes
        self.max_entries: int | None = limits.max_entries
        self._most_entries: float = inf if limits.max_entries is None else limits.max_entries
        self._most_weight: float = inf if limits.max_bytes is None else limits.max_bytes
        self._witness = limits.witness

    @property
    def is_limited(self) -> bool:
        """Whether anything is evicted for want of room."""
        return self._most_entries < inf or self._most_weight < inf

    def is_exceeded(self, entries: int, weight: int) -> bool:
        """Return whether this is too much."""
        return entries > self._most_entries or weight > self._most_weight

    def refuse_heavy(self, key: str, weight: int) -> None:
        """Raise EntryTooLargeError if one entry weighs more than all may."""
        if weight > self._most_weight:
            raise EntryTooLargeError(
                f"the value of key {key!r} weighs {weight} bytes, more than max_bytes={self.max_bytes}"
            )

    def take_hits(self) -> list[tuple[str, float | None]]:
        """Return what was used since the last time."""
        taken = []
        for _ in range(len(self.hits)):
            try:
                taken.append(self.hits.popitem())
            except KeyError:
                break  # another thread was quicker
        return taken

    def note_written(self, keys: Sequence[str]) -> None:
        """Have the loads of this process noted that a commit overtakes, or would if there were the keys.

        Once, before the commit is made: whoever claims a load after this needs a lease, which waits for it.
        """
        if self._witness.awaited:
            self._witness.note_written(keys)


class Books(ABC):
    """What is known of the entries of a bound, outside this process."""

    @abstractmethod
    def totals(self) -> tuple[int, int]:
        """Return how many entries there are, and what they weigh."""

    @abstractmethod
    def evictions(self) -> dict[str, int]:
        """Return how many entries were evicted by all processes, by cause."""

    @abstractmethod
    def may_expire(self) -> bool:
        """Return whether there is anything that may expire."""

    @abstractmethod
    def last_use(self, key: str, revision: int) -> float | None:
        """Return when an entry of this revision was last used, as far as that was noted; None: it was not."""

    @abstractmethod
    def note_hits(self) -> None:
        """Note what this process has used; raise a StoreError or OSError if that would be to wait."""

    @abstractmethod
    def weight_of(self, key: str, entry: Entry) -> int:
        """Return what an entry weighs that a transaction has written."""

    @abstractmethod
    def expired(self, now: float) -> list[tuple[str, str]]:
        """Return some of what has expired and is not being loaded, each with the cause."""

    @abstractmethod
    def check(self) -> None:
        """Raise AssertionError if they do not match the entries."""


B = TypeVar("B", bound=ProcessBound)


class SharedBound(BoundedStore, Generic[B]):
    """A store that processes share, kept within the limits of a cache of this process.

    Parameters
    ----------
    access : StoreAccess
    engine : FollowingEngine
    limits : Limits
    bounds : list
        Where the bounds of this process are that its commits keep to.
    place : str
        What has the order of eviction, for the error.

    Raises
    ------
    ValueError
        If the policy is another one than SIEVE.

    Attributes
    ----------
    access : StoreAccess
    bound : ProcessBound
    """

    outer: Self | None = None
    bound: B
    _books: Books

    def __init__(
        self, access: StoreAccess, engine: FollowingEngine, limits: Limits, bounds: list[B], place: str
    ) -> None:
        if getattr(limits.make_policy, "name", None) != "sieve":
            raise ValueError(
                f"policy must be 'sieve' on a {access.kind}: processes share the order of eviction, "
                f"which the {place} has; {_name_of(limits.make_policy)} is kept in memory"
            )
        self.access = access
        self.routes: Collection[object] = engine.routes
        self.shared: FollowingEngine = engine
        self._bounds = bounds
        self.idle: float | None = limits.idle
        self.clock: Callable[[], float] = limits.clock
        self.current_transaction: Callable[[], OpenTransaction | None] = access.current_transaction
        # Until when refreshes that have failed are not tried again, by key and revision.
        self._put_off: dict[tuple[str, int], float] = {}
        # When uses were last noted of which the time matters.
        self._noted_at = -inf
        # When there are more hits they are noted.
        self._most_hits = _MANY_HITS
        # What all processes have evicted before this cache was made.
        self._evictions: dict[str, int] = {}

    def begin(self, bound: B, books: Books) -> None:
        """Keep to a bound from now on."""
        self.bound, self._books = bound, books
        self._evictions = self._books.evictions()
        self._open()

    def _open(self) -> None:
        """Have this process keep to the bound, and evict what is too much already."""
        if self.bound not in self._bounds:
            self._bounds.append(self.bound)
        if self.current_transaction() is None and self.bound.is_exceeded(*self._books.totals()):
            self.trim()

    def open_again(self) -> None:
        """Keep to the bound again, after `close`."""
        if self.bound not in self._bounds:
            self._open()

    def __del__(self) -> None:
        if hasattr(self, "bound"):
            self.close()

    @abstractmethod
    def trim(self) -> None:
        """Evict what is too much."""

    # -- reading ----------------------------------------------------------------------------------

    def count(self) -> int:
        return self._books.totals()[0]

    def entry(self, key: str) -> Entry | None:
        return self.access.entry(key) if self.routes else self.shared.entry(key)

    def is_same(self, entry: Entry | None, found: Entry) -> bool:
        if entry is None or entry is found:
            return entry is found
        # What a transaction has written has a revision that no commit has yet.
        return entry.revision == found.revision <= self.shared.revision

    def items(self) -> Sequence[tuple[str, Entry]]:
        return self.access.items()

    def last_use(self, key: str, entry: Entry) -> float:
        noted = self._books.last_use(key, entry.revision)
        here = self.bound.hits.get(key)
        times = [time for time in (noted, here) if time is not None]
        return max(times) if times else inf

    def begin_use(self, entry: Entry, node: Node | None) -> bool:
        # Of idle times `use` takes care, which has the key.
        deadline = number(entry.get(EXPIRES)) if entry else None
        return deadline is None or deadline > self.now()

    def use(self, key: str, entry: Entry) -> bool:
        idle = number(entry.get(IDLE, self.idle)) if entry else self.idle
        now = None
        if entry or idle:
            now = self.now()
            if self.is_expired(key, entry, now):
                return False
        if self.outer is not None and not self.outer.use(key, entry):
            return False
        bound = self.bound
        if idle:
            bound.hits[key] = now
        elif bound.is_limited:
            bound.hits.setdefault(key, None)
        if len(bound.hits) > self._most_hits or (
            idle and now is not None and now - self._noted_at > idle * _SHARE
        ):
            self._note_hits(now)
        return True

    def _note_hits(self, now: float | None) -> None:
        """Note hits, unless that would be to wait for others."""
        if now is not None:
            self._noted_at = now
        try:
            self._books.note_hits()
        except (StoreError, OSError):
            # The next commit notes them, or this, when there are more: not each hit is to try. They tell no
            # more than what is evicted first.
            self._most_hits = 2 * len(self.bound.hits)
            if self._most_hits > 8 * _MANY_HITS:
                self.bound.hits.clear()
                self._most_hits = _MANY_HITS
        else:
            self._most_hits = _MANY_HITS

    @property
    def may_expire(self) -> bool:
        return self._books.may_expire() or (self.outer is not None and self.outer.may_expire)

    def refresh_at(self, key: str, entry: Entry) -> float | None:
        time = number(entry.get(REFRESH)) if entry else None
        if time is not None and self._put_off:
            return max(time, self._put_off.get((key, entry.revision), time))
        return time

    def put_off_refresh(self, key: str, entry: Entry, time: float) -> None:
        put_off = self._put_off
        if len(put_off) >= _MANY_HITS:
            now = self.now()
            for each, until in list(put_off.items()):
                if until <= now:
                    put_off.pop(each, None)
        put_off[key, entry.revision] = time

    # -- writing ----------------------------------------------------------------------------------

    def chain(self) -> Iterator[Self]:
        """Return this, and those of which its keys are a namespace."""
        each: Self | None = self
        while each is not None:
            yield each
            each = each.outer

    def write_inside(self, edits: Sequence[tuple[str, Edit]], purpose: str) -> None:
        """Add edits to a transaction; its commit evicts what they need, but what is too heavy is refused."""
        bounds = [each.bound for each in self.chain() if each.bound.max_bytes is not None]
        if not bounds:
            self.access.write(edits, purpose)
            return
        with self.access.transaction(purpose):
            self.access.write(edits, purpose)
            self._refuse_heavy(edits, bounds)

    def _refuse_heavy(self, edits: Sequence[tuple[str, Edit]], bounds: Sequence[B]) -> None:
        """Raise EntryTooLargeError if one of the entries that a transaction has written is too much."""
        for key, _ in edits:
            entry = self.access.entry(key)
            if entry is not None:
                weight = self._books.weight_of(key, entry)
                for bound in bounds:
                    bound.refuse_heavy(key, weight)

    def evict_expired(self, now: float) -> tuple[int, int]:
        """Evict some of what has expired, in a transaction; return how many were found, and evicted."""
        found, evicted = self._books.expired(now), 0
        for key, cause in found:
            entry = self.entry(key)
            if entry is not None and self.is_expired(key, entry, now - stale_of(entry)):
                self.access.evict(key, cause)
                evicted += 1
        return len(found), evicted

    # -- facts ------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        entries, weight = self._books.totals()
        evictions = {"size": 0, "expired": 0, "idle": 0}
        for cause, count in self._books.evictions().items():
            evictions[cause] = count - self._evictions.get(cause, 0)
        return Totals(entries, weight, evictions, 0)

    def check(self) -> None:
        self._books.check()
        assert self.bound not in self._bounds or not self.bound.is_exceeded(*self._books.totals())

    def close(self) -> None:
        try:
            self._bounds.remove(self.bound)
        except ValueError:
            return  # it was closed before


def _name_of(policy: object) -> str:
    """Name a policy, or what makes one."""
    policy = getattr(policy, "args", (policy,))[0]
    return repr(getattr(policy, "name", None) or getattr(policy, "__qualname__", None) or policy)
