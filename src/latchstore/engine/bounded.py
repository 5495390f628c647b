"""The seam between a cache and a store that keeps itself within limits.

A `Cache` works on stores that can bound and expire what they hold by themselves, in the commits that are made
anyway: only there is a bound exact. A subclass of `TransactionalStore` over another engine can offer that:
its `_keep_within` returns a `BoundedStore`. `DictMemoryStore` has the one of ``bounded_table.py``.

Thread safety: all methods may be called by any thread. None runs user code but the clock, with no lock held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from latchstore.contract.values import Entry
from latchstore.engine.edits import Edit
from latchstore.engine.entry_facts import EXPIRES, IDLE, number
from latchstore.engine.limits import Limits, Node
from latchstore.engine.observing import CommitObserver, Observable
from latchstore.engine.revocations import Revocation


class Totals(NamedTuple):
    """What there is, of one instant.

    Attributes
    ----------
    entries : int
    weight : int
        In bytes.
    evictions : dict
        How many there were, by cause.
    hits : int
        How many were counted by the nodes.
    """

    entries: int
    weight: int
    evictions: dict[str, int]
    hits: int


class Detour(Protocol):
    """What has the threads that may not take what they have read without a lock.

    Attributes
    ----------
    detour : container or None
        Has the identifiers of these threads.
    """

    @property
    def detour(self) -> Any: ...


class EveryThread:
    """Has every thread make a detour."""

    __contains__ = staticmethod(bool)  # hot path: no identifier of a thread is 0

    def __init__(self) -> None:
        self.detour = self


class Leases(Protocol):
    """Of all processes that share a store one loads a key, and what it loads counts while it has the lease.

    A lease ends when its key is set or deleted, by whatever process, when its process has ended, and after a
    while.
    """

    def take(self, wanted: Collection[tuple[str, Iterable[str]]]) -> dict[str, int]:
        """Take the leases of those keys that nobody else has; return a token for each of these.

        Parameters
        ----------
        wanted : collection of str and iterable of str
            Keys, each with the tags that its entry will have.
        """

    def is_held(self, key: str, token: int) -> bool:
        """Return whether a lease that was taken has not ended yet."""

    def holder(self, key: str) -> str | None:
        """Name the process that has the lease of a key, or return None."""

    def wait(self, key: str, seconds: float) -> bool:
        """Wait until nobody has the lease of a key, `seconds` at the most; return whether that is so.

        RecursiveLoadError if that would never come, as whoever has it waits for a load of this thread.
        """

    def end(self, held: Mapping[str, int]) -> None:
        """End leases, of keys with their tokens, that have not ended yet."""

    def revoke(self, revocation: Revocation) -> None:
        """End leases now, and with the commit of the caller's transaction those that were taken meanwhile."""

    def forget(self, revocation: Revocation) -> None:
        """End none any more, as the transaction has ended, or what it has revoked was rolled back."""


class Fenced:
    """The `check` of a commit that stores what was loaded, with all that a store needs to make it itself.

    Parameters
    ----------
    before : callable
        Raises if the commit is known to come too late.
    at_commit : callable
        Raises if it does, under the lock.
    fence : tuple of str and int or None
        The key and the token of the lease, without which nothing is stored. A store whose commits look for it
        need not call `at_commit`; it raises `error`.
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
    """What a cache needs of an open transaction."""

    @property
    def optimistic(self) -> bool: ...

    def on_commit(self, function: Callable[[], object]) -> None: ...

    def on_rollback(self, function: Callable[[], object]) -> None: ...


class BoundedStore(ABC):
    """A store that keeps itself within the limits of a cache, which reads and writes by way of this.

    Attributes
    ----------
    entries : mapping
        Key to entry, to be read without a lock by threads that are not in `detours`; empty if there is no
        such way.
    nodes : mapping
        Key to node, for hits of those entries.
    detours : Detour
    hits : deque of Node or None
        Where the node of a hit is to be put; None if to set its `visited` is enough.
    clock : callable
    idle : float or None
        Seconds without a use after which an entry expires that has no such time of its own.
    current_transaction : callable
        Returns the open transaction of this thread, or None.
    keeps_references : bool
        Whether it keeps the object of a `ReferenceEntry` as it is.
    outer : BoundedStore or None
        That of the cache of which this one's keys are a namespace: a use is one of that as well, and what has
        expired there has expired.
    shared : Observable or None
        Notifies of the commits of all processes; None if no other one shares the store.
    routes : collection
        The identifiers of the threads that are in transactions, as they are when it is looked at; for those
        that `observe`.
    leases : Leases or None
        What a load needs beside its turn among the threads of this process; None if no other process shares
        the store.
    """

    outer: BoundedStore | None = None

    keeps_references: ClassVar[bool] = False
    leases: Leases | None = None
    # Those of a store that can be read by its methods alone.
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
        """Return the reading of the clock; TypeError if that is no number."""
        return self.clock() + 0.0

    @abstractmethod
    def entry(self, key: str) -> Entry | None:
        """Return the entry of a key as the calling thread sees it, expired or not."""

    def count(self) -> int:
        """Return how many entries there are; waits for nobody."""
        return len(self.nodes)

    def is_same(self, entry: Entry | None, found: Entry) -> bool:
        """Return whether an entry is the one that was found before, and was not written again since."""
        return entry is found

    @abstractmethod
    def items(self) -> Sequence[tuple[str, Entry]]:
        """Return all keys and entries of one instant, as the calling thread sees them."""

    def is_expired(self, key: str, entry: Entry, now: float | None = None) -> bool:
        """Return whether an entry has expired; by the clock if no reading of it is given."""
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
        """Return when an entry was last used, as far as this process can see; infinity: it is not known."""

    @abstractmethod
    def begin_use(self, entry: Entry, node: Node | None) -> bool:
        """Begin the idle time of an entry anew, if it has one; false if the entry has expired."""

    def use(self, key: str, entry: Entry) -> bool:
        """Note that an entry is used, for the policy and for its idle time; false if it has expired."""
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
        """Whether anything that is committed may expire."""

    @abstractmethod
    def write(
        self,
        edits: Sequence[tuple[str, Edit]],
        purpose: str,
        *,
        now: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Commit edits of different keys with the evictions that they need; in a transaction, add both to it.

        Parameters
        ----------
        edits : sequence of str and Edit
        purpose : str
        now : float, optional
            A reading of the clock, if there is one already.
        check : callable, optional
            Called at the instant of the commit, under the lock; raises if it must not be made. Not inside a
            transaction.

        Raises
        ------
        EntryTooLargeError
            If an entry weighs more than all may.
        KeyError, RevisionMismatchError, LockTimeoutError, BackpressureError, StoreClosedError
            As the methods of a store.
        """

    @abstractmethod
    def refresh_at(self, key: str, entry: Entry) -> float | None:
        """Return from when on an entry is to be loaded again; None: never."""

    @abstractmethod
    def put_off_refresh(self, key: str, entry: Entry, time: float) -> None:
        """Have an entry not loaded again before a time."""

    @abstractmethod
    def sweep(self) -> int:
        """Evict what has expired, at a cost of what that is; return how many entries that were."""

    def observe(self, observer: CommitObserver) -> None:
        """Have an observer notified of the commits of all processes, until `unobserve`.

        Raises
        ------
        TypeError
            If no other process shares the store.
        """
        if self.shared is None:
            raise TypeError(
                "near is for a cache on a store that processes share, as a SqliteStore: all others have "
                "their entries in the memory of this process already"
            )
        self.shared.observe(observer)

    def unobserve(self, observer: CommitObserver) -> None:
        """Have an observer notified no more; takes no lock."""
        if self.shared is not None:
            self.shared.unobserve(observer)

    @abstractmethod
    def totals(self) -> Totals:
        """Count what there is."""

    @abstractmethod
    def check(self) -> None:
        """Raise AssertionError if the books do not match the entries; for tests, while nobody writes."""

    @abstractmethod
    def close(self) -> None:
        """Keep to the limits no more, until the next `write`; takes no lock."""


def traits_of(store: object) -> Traits | None:
    """Return what a cache on a store is to do otherwise; None if nothing is."""
    traits: Traits | None = getattr(store, "_cache_traits", None)
    return traits


class Traits(NamedTuple):
    """What a cache does otherwise on a store that processes share; a store has it as ``_cache_traits``.

    Attributes
    ----------
    clock : callable
        The clock, if none is given.
    codec : str
        The codec, if none is named.
    trusting : frozenset of str
        Codecs that run what others have written: named, they are warned of.
    access : str
        What they can do who have written it, for the warning.
    """

    clock: Callable[[], float]
    codec: str
    trusting: frozenset[str]
    access: str


def bounded(store: object, limits: Limits) -> BoundedStore:
    """Have a store keep itself within limits.

    Raises
    ------
    TypeError
        If it cannot.
    """
    keep_within: Callable[[Limits], BoundedStore] | None = getattr(store, "_keep_within", None)
    if keep_within is None:
        raise TypeError(
            "store must bound and expire what it holds in its own commits, as DictMemoryStore does, "
            f"or a cache could not keep its bound; a {type(store).__name__} cannot"
        )
    return keep_within(limits)
