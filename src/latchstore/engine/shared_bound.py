"""The common part of bounded stores whose books are outside this process, where other processes share them.

Each process applies the limits of its own caches to all of its commits. A hit is a read: the next commit of
the process, or a write of its own when many are pending, records it for the policy and for idle times. A
transaction does not see evictions: its commit makes them.

Thread safety: any thread may call any method. `ProcessBound.hits` is changed by single dict operations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from math import inf
from typing import Generic, Self, TypeVar

from latchstore.contract.errors import EntryTooLargeError, StoreError
from latchstore.contract.values import Entry
from latchstore.engine.bounded import BoundedStore, Check, Edits, OpenTransaction, Totals
from latchstore.engine.entry_facts import EXPIRES, IDLE, REFRESH, number, stale_of
from latchstore.engine.following import FollowingEngine
from latchstore.engine.limits import Limits, Node
from latchstore.engine.store_access import StoreAccess

#: The most hits that wait for the next commit; more are recorded by themselves.
_MANY_HITS = 1_024

#: The share of an idle time after which a use is recorded by itself.
_SHARE = 0.125


class ProcessBound:
    """The limits of one cache of this process, applied to the commits of this process.

    Parameters
    ----------
    limits : Limits
    number : int
        The number of the bound in the books.

    Attributes
    ----------
    hits : dict
        The keys used since the last commit, each with the time if it matters.
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
        """Whether entries are evicted to make room."""
        return self._most_entries < inf or self._most_weight < inf

    def is_exceeded(self, entries: int, weight: int) -> bool:
        """Return whether so many entries and bytes exceed the limits."""
        return entries > self._most_entries or weight > self._most_weight

    def refuse_heavy(self, key: str, weight: int) -> None:
        """Raise EntryTooLargeError if the weight of one entry exceeds the limit."""
        if weight > self._most_weight:
            raise EntryTooLargeError(
                f"the value of key {key!r} weighs {weight} bytes, more than max_bytes={self.max_bytes}"
            )

    def take_hits(self) -> list[tuple[str, float | None]]:
        """Return and clear the recorded uses."""
        taken = []
        for _ in range(len(self.hits)):
            try:
                taken.append(self.hits.popitem())
            except KeyError:
                break  # another thread has taken the rest
        return taken

    def note_written(self, keys: Sequence[str]) -> None:
        """Notify this process's loads of keys that a commit may write.

        Called once, before the commit is made: a load that is claimed later needs a lease, which waits for
        the commit.
        """
        if self._witness.awaited:
            self._witness.note_written(keys)


class Books(ABC):
    """The books of a bound, outside this process."""

    @abstractmethod
    def totals(self) -> tuple[int, int]:
        """Return the number of entries and their weight."""

    @abstractmethod
    def evictions(self) -> dict[str, int]:
        """Return the number of evictions by all processes, by cause."""

    @abstractmethod
    def may_expire(self) -> bool:
        """Return whether any entry may expire."""

    @abstractmethod
    def last_use(self, key: str, revision: int) -> float | None:
        """Return the last recorded use of an entry of this revision; None if there is none."""

    @abstractmethod
    def note_hits(self) -> None:
        """Record the uses of this process; raise a StoreError or OSError instead of waiting."""

    @abstractmethod
    def weight_of(self, key: str, entry: Entry) -> int:
        """Return the weight of an entry that a transaction has written."""

    @abstractmethod
    def expired(self, now: float) -> list[tuple[str, str]]:
        """Return some expired entries that are not being loaded, each with the cause."""

    @abstractmethod
    def check(self) -> None:
        """Raise AssertionError if the books do not match the entries."""


B = TypeVar("B", bound=ProcessBound)


class SharedBound(BoundedStore, Generic[B]):
    """A store that processes share, kept within the limits of a cache of this process.

    Parameters
    ----------
    access : StoreAccess
    engine : FollowingEngine
    limits : Limits
    bounds : list
        The active bounds of this process, which its commits apply.
    place : str
        Where the order of eviction is kept, for the error.

    Raises
    ------
    ValueError
        If the policy is not SIEVE.

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
                f"policy must be 'sieve' on a {access.kind}, whose order of eviction is in the {place} and "
                f"shared by all processes; {_name_of(limits.make_policy)} keeps its order in memory"
            )
        self.access = access
        self.routes: Collection[object] = engine.routes
        self.shared: FollowingEngine = engine
        self._bounds = bounds
        self.idle: float | None = limits.idle
        self.clock: Callable[[], float] = limits.clock
        self.current_transaction: Callable[[], OpenTransaction | None] = access.current_transaction
        # The times until which failed refreshes are not repeated, by key and revision.
        self._put_off: dict[tuple[str, int], float] = {}
        # When uses whose time matters were last recorded.
        self._noted_at = -inf
        # With more hits than this they are recorded.
        self._most_hits = _MANY_HITS
        # The evictions of all processes before this cache was created.
        self._evictions: dict[str, int] = {}

    def begin(self, bound: B, books: Books) -> None:
        """Set the bound and its books, and apply the limits from now on."""
        self.bound, self._books = bound, books
        self._evictions = self._books.evictions()
        self._open()

    def _open(self) -> None:
        """Apply the bound to this process's commits, and evict what exceeds it already."""
        if self.bound not in self._bounds:
            self._bounds.append(self.bound)
        if self.current_transaction() is None and self.bound.is_exceeded(*self._books.totals()):
            self.trim()

    def open_again(self) -> None:
        """Apply the bound again, after `close`."""
        if self.bound not in self._bounds:
            self._open()

    def __del__(self) -> None:
        if hasattr(self, "bound"):
            self.close()

    @abstractmethod
    def trim(self) -> None:
        """Evict what exceeds the bound."""

    # -- reading ----------------------------------------------------------------------------------

    def count(self) -> int:
        return self._books.totals()[0]

    def entry(self, key: str) -> Entry | None:
        return self.access.entry(key) if self.routes else self.shared.entry(key)

    def is_same(self, entry: Entry | None, found: Entry) -> bool:
        if entry is None or entry is found:
            return entry is found
        # The revision of an entry written in a transaction is not that of a commit yet.
        return entry.revision == found.revision <= self.shared.revision

    def items(self) -> Sequence[tuple[str, Entry]]:
        return self.access.items()

    def last_use(self, key: str, entry: Entry) -> float:
        noted = self._books.last_use(key, entry.revision)
        here = self.bound.hits.get(key)
        times = [time for time in (noted, here) if time is not None]
        return max(times) if times else inf

    def begin_use(self, entry: Entry, node: Node | None) -> bool:
        # `use` handles idle times, since it has the key.
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
        """Record hits, unless that would have to wait for other processes."""
        if now is not None:
            self._noted_at = now
        try:
            self._books.note_hits()
        except (StoreError, OSError):
            # Recorded by the next commit, or here when there are more, so that not each hit tries. Losing
            # them affects only the order of eviction.
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
        """Return this bound, and those whose namespace it is in."""
        each: Self | None = self
        while each is not None:
            yield each
            each = each.outer

    def write(
        self, edits: Edits, purpose: str, *, now: float | None = None, check: Check | None = None
    ) -> None:
        self.open_again()
        if self.current_transaction() is None:
            self.commit(edits, purpose, now, check)
        else:
            self._write_inside(edits, purpose)

    @abstractmethod
    def commit(self, edits: Edits, purpose: str, now: float | None, check: Check | None) -> None:
        """Do what `write` does outside a transaction."""

    def _write_inside(self, edits: Edits, purpose: str) -> None:
        """Add edits to a transaction; its commit evicts, but entries that are too heavy are refused here."""
        bounds = [each.bound for each in self.chain() if each.bound.max_bytes is not None]
        if not bounds:
            self.access.write(edits, purpose)
            return
        with self.access.transaction(purpose):
            self.access.write(edits, purpose)
            self._refuse_heavy(edits, bounds)

    def _refuse_heavy(self, edits: Edits, bounds: Sequence[B]) -> None:
        """Raise EntryTooLargeError if an entry that a transaction has written exceeds a limit."""
        for key, _ in edits:
            entry = self.access.entry(key)
            if entry is not None:
                weight = self._books.weight_of(key, entry)
                for bound in bounds:
                    bound.refuse_heavy(key, weight)

    def evict_expired(self, now: float) -> tuple[int, int]:
        """Evict some expired entries, in a transaction; return how many were found, and evicted."""
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
            return  # closed already


def _name_of(policy: object) -> str:
    """Return the name of a policy, or of its factory."""
    policy = getattr(policy, "args", (policy,))[0]
    return repr(getattr(policy, "name", None) or getattr(policy, "__qualname__", None) or policy)
