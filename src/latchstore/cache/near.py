"""A near cache: copies of a shared cache's entries, in the memory of one process.

1. A copy has the value that its key had within the allowed staleness. To that end each commit that changes a
   key drops its copy (`Copies.changed`), and a copy is served only until `fresh_until`: all commits up to
   that time less the staleness are known to have dropped their copies (`Copies.proved`). So a hit compares
   `fresh_until` first, and checks then whether the copy is still there: it may have been found long before.
2. A thread never gets an older value of a key than it has read or written before. A copy is served only after
   it was *promoted*. A read of a key in the store ends all reads of that key that began before it ended:
   their copies are not promoted any more. So does a commit that changes the key, and it drops the copy.
3. A read finds or adds a token for the reads of its key in progress (`_reads`), and adds its copy to the
   others before it removes the token, which promotes the copy. Removing the token is one call in C, and so
   is dropping a copy. So a copy whose key was changed since its read began is never served, in whichever
   order the two happen.

Thread safety: no locks. Single operations of dicts and a deque change all state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from latchstore.contract.arguments import advising, checked_count, checked_seconds
from latchstore.contract.values import Entry
from latchstore.delivery.waiting import clock
from latchstore.engine.bounded import BoundedStore
from latchstore.engine.entry_facts import EXPIRES, IDLE, number

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

#: Stands for a value that must not be shared.
UNSHARED: Any = object()

#: The seconds after which a hit is recorded as a use at the latest, and the fraction of an idle time
#: likewise.
_USE_NOTED_AFTER, _SHARE = 1.0, 0.125

#: The number of polls of the log within the allowed staleness, and the least time between two polls, in
#: seconds.
_LOOKS, _LEAST_INTERVAL = 4, 0.000_5

#: hot path: faster than `clock`. In a tuple, as tests that freeze time replace module attributes by name.
_TICK = (perf_counter,)

#: Types of which all callers may get the same object.
_ATOMS = frozenset({str, bytes, int, float, bool, complex, type(None)})
_ATOMIC_COLLECTIONS = frozenset({tuple, frozenset})


class NearCache:
    """Near caching: a `Cache` on a store that processes share keeps copies of entries in its own process.

    Parameters
    ----------
    max_entries : int
        Maximum number of copies.
    staleness : Seconds
        Maximum age of a value: ``get`` returns the value that the key has, or had less than this many seconds
        ago.

    Thread safety
    -------------
    The settings never change; one object may serve several caches.

    Examples
    --------
    >>> from latchstore import NearCache
    >>> NearCache(staleness=0.1)
    NearCache(max_entries=10000, staleness=0.1)
    """

    __slots__ = ("max_entries", "staleness")

    @advising
    def __init__(self, *, max_entries: int = 10_000, staleness: Seconds = 0.05) -> None:
        seconds = checked_seconds(staleness, "staleness")
        if seconds is None:
            raise ValueError(f"staleness must be a finite number of seconds, got {staleness!r}")
        self.max_entries: int = checked_count(max_entries, "max_entries", 1)
        self.staleness: float = seconds

    def __repr__(self) -> str:
        return f"NearCache(max_entries={self.max_entries}, staleness={self.staleness:g})"


class Copy:
    """A copy of an entry.

    Attributes
    ----------
    key : str
    entry : Entry
    deadline : float or None
        Time of its expiry, by the cache's clock.
    value : object
        The decoded value, if all callers may share it; `UNSHARED` if each hit decodes it again.
    until : float
        Time, by `Copies.tick`, until which it is served without another check; minus infinity until it is
        promoted.
    noted, noted_until : BoundedStore or None, and float
        The bound in which its use was recorded, and the time until which that suffices.
    visited : bool
        Whether it was hit since the last round of eviction.
    """

    __slots__ = ("deadline", "entry", "key", "noted", "noted_until", "until", "value", "visited")

    def __init__(self, key: str, entry: Entry) -> None:
        self.key: str = key
        self.entry: Entry = entry
        self.deadline: float | None = number(entry.get(EXPIRES)) if entry else None
        self.value: Any = UNSHARED
        self.until: float = -inf
        self.noted: BoundedStore | None = None
        self.noted_until: float = 0.0
        self.visited: bool = False

    def decode(self, decoded: Callable[[str, Any], Any]) -> Any:
        """Return the decoded value; each caller gets a new one if it is mutable."""
        value = decoded(self.key, self.entry.content)
        if _is_shareable(value):
            self.value = value
        return value


class Copies:
    """The copies of one cache and its namespaces; an observer of the store's commits.

    Parameters
    ----------
    options : NearCache

    Attributes
    ----------
    copies : dict
        Maps a key to its `Copy`; always the same dict.
    tick : callable
        The clock of `fresh_until` and of the copies' times.
    fresh_until : float
        Time until which copies may be served.
    interval : float
    """

    def __init__(self, options: NearCache) -> None:
        self._most = options.max_entries
        self._staleness = options.staleness
        self.interval: float = max(self._staleness / _LOOKS, _LEAST_INTERVAL)
        self.copies: dict[str, Copy] = {}
        (self.tick,) = _TICK
        self.fresh_until: float = -inf
        # A token for the reads of a key that are in progress: rule 3.
        self._reads: dict[str, object] = {}
        # The copies, and some dropped ones, oldest first.
        self._order: deque[Copy] = deque()
        self._closed = False

    # -- reading ----------------------------------------------------------------------------------

    def serves(self, copy: Copy, bounded: BoundedStore, now: float) -> bool:
        """Return whether a cache with this bound may return a copy that is fresh by `tick`.

        Records the use of the entry at the first hit, and again after a while.
        """
        deadline = copy.deadline
        if deadline is not None and deadline <= bounded.clock():
            return False
        return (now < copy.noted_until and copy.noted is bounded) or self._note_use(copy, bounded)

    def _note_use(self, copy: Copy, bounded: BoundedStore) -> bool:
        """Record a use of the entry in the store; return whether it may be served and has not expired."""
        if copy.until == -inf or not bounded.use(copy.key, copy.entry):
            return False
        copy.noted = bounded
        copy.noted_until = self.tick() + min(_USE_NOTED_AFTER, _idle_of(copy.entry, bounded) * _SHARE)
        if copy.deadline is None:
            copy.until = copy.noted_until
        return True

    def read(self, key: str, bounded: BoundedStore) -> Entry | None:
        """Read the entry of a key in the store, expired or not, and keep a copy of it."""
        if self._closed:
            return bounded.entry(key)
        if bounded.current_transaction() is not None:
            # A transaction's own entry, which nobody else sees, or a newer one than the copy.
            entry = bounded.entry(key)
            self.changed((key,))
            return entry
        read = self._reads.setdefault(key, object())
        try:
            entry = bounded.entry(key)
        except BaseException:
            self._reads.pop(key, None)
            raise
        if entry is None or self._reads.get(key) is not read:
            self._end_others(key, entry)
        else:
            self._keep(Copy(key, entry), read)
        return entry

    def _end_others(self, key: str, entry: Entry | None) -> None:
        """End the reads of a key that began before this entry was read: they may have an older one."""
        self._reads.pop(key, None)
        copy = self.copies.get(key)
        if copy is not None and (entry is None or copy.entry.revision != entry.revision):
            self.copies.pop(key, None)

    def _keep(self, copy: Copy, read: object) -> None:
        """Add a copy; promote it unless its key was changed since its read began."""
        key = copy.key
        self._order.append(copy)
        self.copies[key] = copy
        if self._reads.pop(key, None) is read:
            copy.until = 0.0
        elif self.copies.get(key) is copy:
            self.copies.pop(key, None)
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest copies that were not hit, if there are too many."""
        order, copies = self._order, self.copies
        # Each copy is spared once per round; others may be hit meanwhile.
        for _ in range(2 * len(order)):
            if len(copies) <= self._most and len(order) <= 2 * self._most:
                return
            try:
                copy = order.popleft()
            except IndexError:
                return
            if copies.get(copy.key) is not copy:
                continue  # dropped already
            if copy.visited:
                copy.visited = False
                order.append(copy)
            else:
                copies.pop(copy.key, None)

    def check(self) -> None:
        """Raise AssertionError if the books do not match the copies; for tests, while nobody reads."""
        assert len(self.copies) <= self._most, "there are too many copies"
        assert not self._reads, f"reads are left: {list(self._reads)}"
        ordered = {id(copy) for copy in self._order}
        assert all(id(copy) in ordered for copy in self.copies.values()), "a copy is never dropped"
        assert all(copy.until > -inf for copy in self.copies.values()), "a copy is not promoted"

    # -- observing --------------------------------------------------------------------------------

    def changed(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._reads.pop(key, None)
            self.copies.pop(key, None)

    def lost(self) -> None:
        self._reads.clear()
        self.copies.clear()
        self._order.clear()

    def proved(self, time: float) -> None:
        # This order: an interruption in between makes the time seem longer ago, which is safe.
        now = self.tick()
        self.fresh_until = max(self.fresh_until, now - (clock() - time) + self._staleness)

    def close(self) -> None:
        """Drop all copies and keep none from now on; the cache has unsubscribed from commits."""
        self._closed = True
        self.renew_in_child()

    def renew_in_child(self) -> None:
        self.fresh_until = -inf
        self.lost()


def _idle_of(entry: Entry, bounded: BoundedStore) -> float:
    """Return the shortest idle time of an entry; infinity if there is none."""
    shortest = inf
    each: BoundedStore | None = bounded
    while each is not None:
        idle = number(entry.get(IDLE, each.idle)) if entry else each.idle
        shortest = min(shortest, idle or inf)
        each = each.outer
    return shortest


def _is_shareable(value: object) -> bool:
    """Return whether an object is immutable."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    return kind in _ATOMIC_COLLECTIONS and all(type(each) in _ATOMS for each in value)  # type: ignore
