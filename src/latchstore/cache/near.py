"""A near cache: copies of a shared cache's entries, in the memory of one process.

1. A copy is what its key had at an instant that is no longer ago than the staleness that is allowed. For that
   it is dropped by each commit that changes its key (`Copies.changed`), and served only while what was
   committed before `fresh_until`, less the staleness, is known to be dropped (`Copies.proved`). So first
   `fresh_until` is looked at, and then whether the copy is still there: it may have been found long before.
2. A thread never gets an older value of a key than it has read or written before. A copy is served once it
   was *promoted*. A read of a key in the store ends all reads of that key that have begun before it has
   ended: their copies are promoted no more. So does a commit that changes the key, and it drops the copy.
3. A read finds, or puts there, what stands for the reads of its key that have begun (`_reads`), and puts its
   copy among the others before it takes that away, which promotes the copy. To take it away is one call in
   C, and so is dropping a copy. So no copy is served whose key was changed since its read began, whichever
   of the two comes first.

Thread safety: no locks. All state is changed by single operations of dicts and a deque.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from latchstore.contract.arguments import checked_count, checked_seconds
from latchstore.contract.values import Entry
from latchstore.delivery.waiting import clock
from latchstore.engine.bounded import BoundedStore
from latchstore.engine.entry_facts import EXPIRES, IDLE, number

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

#: What stands for a value that is not to be shared.
UNSHARED: Any = object()

#: The seconds after which a hit is noted as a use at the latest, and the share of an idle time likewise.
_USE_NOTED_AFTER, _SHARE = 1.0, 0.125

#: How many looks at the log there are to be within the staleness that is allowed, and the least time between
#: two of them.
_LOOKS, _LEAST_INTERVAL = 4, 0.000_5

#: hot path: quicker than `clock`. In a tuple, as tests that freeze time replace what modules have by a name.
_TICK = (perf_counter,)

#: Of which objects all callers may get the same one.
_ATOMS = frozenset({str, bytes, int, float, bool, complex, type(None)})
_ATOMIC_COLLECTIONS = frozenset({tuple, frozenset})


class NearCache:
    """How a `Cache` on a store that processes share keeps copies of entries in the memory of its process.

    Parameters
    ----------
    max_entries : int
        How many entries there may be copies of.
    staleness : Seconds
        How old a value may be: ``get`` returns what the key has, or has had less than so many seconds
        before.

    Examples
    --------
    >>> from latchstore import NearCache
    >>> NearCache(staleness=0.1)
    NearCache(max_entries=10000, staleness=0.1)
    """

    __slots__ = ("max_entries", "staleness")

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
        When it expires, by the cache's clock.
    value : object
        What its content is decoded to, if all may share it; `UNSHARED` if it is to be decoded again.
    until : float
        Up to when, by `Copies.tick`, it is served without another look at it; minus infinity before it is
        promoted.
    noted, noted_until : BoundedStore or None, and float
        What its use was noted in, and up to when that is enough.
    visited : bool
        Whether it was hit since it was last spared.
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
        """Return the value, by a function of key and content; for each caller anew if it can be changed."""
        value = decoded(self.key, self.entry.content)
        if _is_shareable(value):
            self.value = value
        return value


class Copies:
    """The copies that one cache, and its namespaces, have; an observer of the store's commits.

    Parameters
    ----------
    options : NearCache

    Attributes
    ----------
    copies : dict
        Key to `Copy`; always the same object.
    tick : callable
        The clock of the times of this and its copies.
    fresh_until : float
        Up to when copies may be served.
    interval : float
    """

    def __init__(self, options: NearCache) -> None:
        self._most = options.max_entries
        self._staleness = options.staleness
        self.interval: float = max(self._staleness / _LOOKS, _LEAST_INTERVAL)
        self.copies: dict[str, Copy] = {}
        (self.tick,) = _TICK
        self.fresh_until: float = -inf
        # What stands for the reads of a key that have begun: rule 3.
        self._reads: dict[str, object] = {}
        # The copies, and some that were dropped, the oldest first.
        self._order: deque[Copy] = deque()
        self._closed = False

    # -- reading ----------------------------------------------------------------------------------

    def serves(self, copy: Copy, bounded: BoundedStore, now: float) -> bool:
        """Tell whether a copy may be returned that is fresh by `tick`, by a cache with this bound.

        Its use is noted when it is first hit, and then again after a while.
        """
        deadline = copy.deadline
        if deadline is not None and deadline <= bounded.clock():
            return False
        return (now < copy.noted_until and copy.noted is bounded) or self._note_use(copy, bounded)

    def _note_use(self, copy: Copy, bounded: BoundedStore) -> bool:
        """Have the store note that the entry is used; return whether it may be, and has not expired."""
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
            # It may be what nobody else sees; or newer than the copy.
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
        """End the reads of a key that have begun before this entry was read: they may have an older one."""
        self._reads.pop(key, None)
        copy = self.copies.get(key)
        if copy is not None and (entry is None or copy.entry.revision != entry.revision):
            self.copies.pop(key, None)

    def _keep(self, copy: Copy, read: object) -> None:
        """Keep a copy, and promote it unless its key was changed since its read began."""
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
        # Each is spared once in a round; others may be hit meanwhile.
        for _ in range(2 * len(order)):
            if len(copies) <= self._most and len(order) <= 2 * self._most:
                return
            try:
                copy = order.popleft()
            except IndexError:
                return
            if copies.get(copy.key) is not copy:
                continue  # it was dropped
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
        # In this order: if something comes in between, the time seems to be longer ago than it is.
        now = self.tick()
        self.fresh_until = max(self.fresh_until, now - (clock() - time) + self._staleness)

    def close(self) -> None:
        """Keep no copies any more; the cache has ended to have this notified of commits."""
        self._closed = True
        self.renew_in_child()

    def renew_in_child(self) -> None:
        self.fresh_until = -inf
        self.lost()


def _idle_of(entry: Entry, bounded: BoundedStore) -> float:
    """Return the shortest of the idle times of an entry; infinity if there is none."""
    shortest = inf
    each: BoundedStore | None = bounded
    while each is not None:
        idle = number(entry.get(IDLE, each.idle)) if entry else each.idle
        shortest = min(shortest, idle or inf)
        each = each.outer
    return shortest


def _is_shareable(value: object) -> bool:
    """Tell whether nobody can change an object."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    return kind in _ATOMIC_COLLECTIONS and all(type(each) in _ATOMS for each in value)  # type: ignore
