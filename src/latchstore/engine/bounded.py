"""The interface between a cache and a store that keeps itself within limits.

A `Cache` works on stores that evict and expire entries in their own commits, since only there is a bound
exact. A subclass of `TransactionalStore` over another engine can offer that: its `_keep_within` returns a
`BoundedStore`. That of `DictMemoryStore` is in ``bounded_table.py``.

Thread safety: any thread may call any method. The only user code that they run is the clock, with no lock
held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from latchstore.contract.errors import RecursiveLoadError
from latchstore.contract.values import Entry
from latchstore.engine.edits import Edit
from latchstore.engine.entry_facts import EXPIRES, IDLE, number
from latchstore.engine.limits import Limits, Node
from latchstore.engine.observing import CommitObserver, Observable
from latchstore.engine.processes import name_of
from latchstore.engine.revocations import Revocation

#: Edits of different keys.
Edits = Sequence[tuple[str, Edit]]

#: Called at the instant of a commit; raises to prevent it.
Check = Callable[[], None]


class Totals(NamedTuple):
    """Counts of one instant.

    Attributes
    ----------
    entries : int
    weight : int
        In bytes.
    evictions : dict
        The number of evictions by cause.
    hits : int
        The number of hits that the nodes have counted.
    """

    entries: int
    weight: int
    evictions: dict[str, int]
    hits: int


class Detour(Protocol):
    """Lists the threads that must not use an entry that they have read without a lock.

    Attributes
    ----------
    detour : container or None
        The identifiers of these threads.
    """

    @property
    def detour(self) -> Any: ...


class EveryThread:
    """A `Detour` that contains every thread."""

    __contains__ = staticmethod(bool)  # hot path: no identifier of a thread is 0

    def __init__(self) -> None:
        self.detour = self


class Leases(Protocol):
    """Leases of loads: one of the processes that share a store loads a key while it holds the key's lease.

    A lease ends when any process sets or deletes its key, when its process ends, and after a timeout. A
    loaded value is stored only while the lease is held.
    """

    def take(self, wanted: Collection[tuple[str, Iterable[str]]]) -> dict[str, int]:
        """Take the leases of those keys that no other load has; return a token for each of them.

        Parameters
        ----------
        wanted : collection of str and iterable of str
            Keys, each with the tags that its entry will have.
        """

    def is_held(self, key: str, token: int) -> bool:
        """Return whether a lease has not ended."""

    def holder(self, key: str) -> str | None:
        """Return the name of the process that holds the lease of a key, or None."""

    def wait(self, key: str, seconds: float) -> bool:
        """Wait until the lease of a key is free, at most `seconds`; return whether it is.

        Raises RecursiveLoadError if that would deadlock, since its holder waits for a load of this thread.
        """

    def end(self, held: Mapping[str, int]) -> None:
        """End leases, given as keys with their tokens, unless they have ended."""

    def revoke(self, revocation: Revocation) -> None:
        """End leases now, and again those taken until the caller's transaction commits."""

    def forget(self, revocation: Revocation) -> None:
        """Drop a revocation, since its transaction has ended or the change was rolled back."""


def circle_error(key: str, holder: str, path: Sequence[str]) -> RecursiveLoadError:
    """Return the error of a thread whose wait for a key would close a circle of loads.

    Parameters
    ----------
    key : str
    holder : str
        The process that loads the key, as `this_process` describes it.
    path : sequence of str
        The keys of the circle.
    """
    return RecursiveLoadError(
        f"key {key!r} is being loaded by {name_of(holder)}, which waits for what this thread loads: "
        + " -> ".join(map(repr, path))
    )


class Fenced:
    """The `check` of a commit that stores a loaded value, with its parts for stores that check by themselves.

    Parameters
    ----------
    before : callable
        Raises if the commit is known to be too late.
    at_commit : callable
        Raises if it is too late, under the lock.
    fence : tuple of str and int or None
        The key and the token of the lease, without which nothing is stored. A store whose commits check the
        lease need not call `at_commit`; it raises `error`.
    error : Exception
    """

    def __init__(
        self,
        before: Callable[[], None],
        at_commit: Callable[[], None],
        fence: tuple[str, int] | None,
        error: Exception,
    ) -> None:
        self.before: Callable[[], None] = before
        self.fence: tuple[str, int] | None = fence
        self.error: Exception = error
        self._at_commit = at_commit

    def __call__(self) -> None:
        self.before()
        self._at_commit()


class OpenTransaction(Protocol):
    """The methods of an open transaction that a cache calls."""

    @property
    def optimistic(self) -> bool: ...

    def on_commit(self, function: Callable[[], object]) -> None: ...

    def on_rollback(self, function: Callable[[], object]) -> None: ...


class BoundedStore(ABC):
    """A store within the limits of a cache, through which the cache reads and writes.

    Attributes
    ----------
    entries : mapping
        Entries by key, read without a lock by threads that are not in `detours`; empty if the store has no
        such reads.
    nodes : mapping
        Nodes by key, for hits of those entries.
    detours : Detour
    hits : deque of Node or None
        Receives the nodes of hits; None if setting `visited` is enough.
    clock : callable
    idle : float or None
        Seconds without a use after which an entry expires, unless the entry has its own.
    current_transaction : callable
        Returns the open transaction of this thread, or None.
    keeps_references : bool
        Whether it keeps the object of a `ReferenceEntry` itself.
    outer : BoundedStore or None
        That of the cache whose namespace this one is: a use here is a use there, and an entry that has
        expired there has expired here.
    shared : Observable or None
        Notifies of the commits of all processes; None if no other process shares the store.
    routes : collection
        The identifiers of the threads that are in transactions at the moment; for users of `observe`.
    leases : Leases or None
        The leases of loads; None if no other process shares the store, so that turns among threads are
        enough.
    """

    outer: BoundedStore | None = None

    keeps_references: ClassVar[bool] = False
    leases: Leases | None = None
    # The defaults of a store that can be read by its methods only.
    entries: Mapping[str, Entry] = MappingProxyType({})
    nodes: Mapping[str, Node] = MappingProxyType({})
    detours: Detour = EveryThread()
    hits: deque[Node] | None = None
    shared: Observable | None = None
    routes: Collection[object] = ()
    clock: Callable[[], float]
    idle: float | None
    current_transaction: Callable[[], OpenTransaction | None]

    def now(self) -> float:
        """Return the time of the clock; raise TypeError if it is not a number."""
        return self.clock() + 0.0

    @abstractmethod
    def entry(self, key: str) -> Entry | None:
        """Return the entry of a key as the calling thread sees it, expired or not."""

    def count(self) -> int:
        """Return the number of entries; does not block."""
        return len(self.nodes)

    def is_same(self, entry: Entry | None, found: Entry) -> bool:
        """Return whether an entry is the one that was read before, not written again since."""
        return entry is found

    @abstractmethod
    def items(self) -> Sequence[tuple[str, Entry]]:
        """Return all keys and entries of one instant, as the calling thread sees them."""

    def is_expired(self, key: str, entry: Entry, now: float | None = None) -> bool:
        """Return whether an entry has expired, at time `now` or by the clock."""
        if self.outer is not None and self.outer.is_expired(key, entry, now):
            return True
        deadline = number(entry.get(EXPIRES)) if entry else None
        idle = number(entry.get(IDLE, self.idle)) if entry else self.idle
        if deadline is None and not idle:
            return False
        if now is None:
            now = self.now()
        if deadline is not None and deadline <= now:
            return True
        return idle is not None and idle > 0 and self.last_use(key, entry) + idle <= now

    @abstractmethod
    def last_use(self, key: str, entry: Entry) -> float:
        """Return the time of the last use known to this process; infinity if it is unknown."""

    @abstractmethod
    def begin_use(self, entry: Entry, node: Node | None) -> bool:
        """Restart the idle time of an entry, if it has one; return False if the entry has expired."""

    def use(self, key: str, entry: Entry) -> bool:
        """Record a use of an entry, for the policy and for its idle time; return False if it has expired."""
        node = self.nodes.get(key)
        if node is not None and node.revision != entry.revision:
            node = None
        if not self.begin_use(entry, node) or (self.outer is not None and not self.outer.use(key, entry)):
            return False
        if node is not None:
            node.visited = True
            if self.hits is not None:
                self.hits.append(node)
        return True

    @property
    @abstractmethod
    def may_expire(self) -> bool:
        """Whether any committed entry may expire."""

    @abstractmethod
    def write(
        self, edits: Edits, purpose: str, *, now: float | None = None, check: Check | None = None
    ) -> None:
        """Commit edits of different keys with the evictions they cause; in a transaction, add both to it.

        Parameters
        ----------
        edits : sequence of str and Edit
        purpose : str
        now : float, optional
            The time of the clock, if the caller has read it already.
        check : callable, optional
            Called at the instant of the commit, under the lock; raises to prevent the commit. Not used inside
            a transaction.

        Raises
        ------
        EntryTooLargeError
            If an entry weighs more than the maximum.
        KeyError, RevisionMismatchError, LockTimeoutError, BackpressureError, StoreClosedError
            As the methods of a store.
        """

    @abstractmethod
    def refresh_at(self, key: str, entry: Entry) -> float | None:
        """Return the time from which an entry is to be reloaded; None for never."""

    @abstractmethod
    def put_off_refresh(self, key: str, entry: Entry, time: float) -> None:
        """Postpone the reload of an entry to a time."""

    @abstractmethod
    def sweep(self) -> int:
        """Evict expired entries, at a cost proportional to them; return their number."""

    def observe(self, observer: CommitObserver) -> None:
        """Notify an observer of the commits of all processes, until `unobserve`.

        Raises
        ------
        TypeError
            If no other process shares the store.
        """
        if self.shared is None:
            raise TypeError(
                "near= needs a store that processes share, such as a SqliteStore: any other store has its "
                "entries in the memory of this process already"
            )
        self.shared.observe(observer)

    def unobserve(self, observer: CommitObserver) -> None:
        """Stop notifying an observer; acquires no lock."""
        if self.shared is not None:
            self.shared.unobserve(observer)

    @abstractmethod
    def totals(self) -> Totals:
        """Return the counts of entries, bytes, evictions and hits."""

    @abstractmethod
    def check(self) -> None:
        """Raise AssertionError if the books do not match the entries; for tests, with no writers."""

    @abstractmethod
    def close(self) -> None:
        """Stop keeping to the limits, until the next `write`; acquires no lock."""


def traits_of(store: object) -> Traits | None:
    """Return the traits of a cache on a store; None if there are none."""
    traits: Traits | None = getattr(store, "_cache_traits", None)
    return traits


class Traits(NamedTuple):
    """Defaults of a cache on a store that processes share; a store has them as ``_cache_traits``.

    Attributes
    ----------
    clock : callable
        The default clock.
    codec : str
        The default codec.
    trusting : frozenset of str
        Codecs that run code from the data: a cache warns if one is named.
    access : str
        The access that writers of the data have, for the warning.
    """

    clock: Callable[[], float]
    codec: str
    trusting: frozenset[str]
    access: str


def bounded(store: object, limits: Limits) -> BoundedStore:
    """Make a store keep itself within limits.

    Raises
    ------
    TypeError
        If the store does not support that.
    """
    keep_within: Callable[[Limits], BoundedStore] | None = getattr(store, "_keep_within", None)
    if keep_within is None:
        raise TypeError(
            f"store must evict and expire entries in its own commits, as DictMemoryStore does, and a "
            f"{type(store).__name__} cannot: use a DictMemoryStore, SqliteStore or RedisStore"
        )
    return keep_within(limits)
