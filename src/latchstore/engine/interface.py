"""The interface between a store and its engine.

`TransactionalStore` has the store's methods, transactions, events, back-pressure and watches; an `Engine` has
the entries and makes commits. `Table` (``table.py``) is the one in memory. Another engine implements these
methods, passes each commit to a `Publisher`, and is passed to a subclass of `TransactionalStore`.

Thread safety: any thread may call any method. None runs user code.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from latchstore.contract.errors import CompactedError, SnapshotClosedError
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.delivery.change_buffer import Published
from latchstore.engine.edits import Edit
from latchstore.engine.first_values import FirstValues, QueriedValues
from latchstore.engine.owner import Activity, Claim, Route
from latchstore.engine.routes import Routes
from latchstore.engine.selection import Overlay, Selected

T = TypeVar("T")


class View(ABC):
    """The entries as of one commit, readable until the view is closed.

    Attributes
    ----------
    revision : int
        The revision of that commit.
    """

    revision: int

    @abstractmethod
    def entry(self, key: str) -> Entry | None:
        """Return the entry of a key, or None. Raises SnapshotClosedError if the view is closed."""

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        """Return the entries of several keys. Raises SnapshotClosedError if the view is closed."""
        return {key: self.entry(key) for key in keys}

    @abstractmethod
    def items(self) -> Iterable[tuple[str, Entry]]:
        """Return all keys and entries, as an iterable to use once. Raises SnapshotClosedError."""

    def count(self) -> int:
        """Return the number of keys. Raises SnapshotClosedError if the view is closed."""
        return sum(1 for _ in self.items())

    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        """Return keys and entries that include all matches of `terms`. Raises SnapshotClosedError."""
        return self.items()

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        """Return entries that include the result of a request, found without scanning all entries.

        Parameters
        ----------
        request : Request
        overlay : mapping of str to Entry or None
            Entries that replace those of these keys for the reader.

        Returns
        -------
        selection : Selected or None
            None if no index helps; then the caller uses `candidates`.

        Raises
        ------
        SnapshotClosedError
            If the view is closed.
        """
        return None

    @abstractmethod
    def changed(self) -> dict[str, tuple[Entry | None, Entry | None]]:
        """Return the keys changed since, each with its entry in the view and its current entry."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the view has not been closed."""

    @abstractmethod
    def close(self) -> None:
        """Release what the view holds; repeated calls do nothing. Never waits."""

    def closed_error(self) -> SnapshotClosedError:
        """Return the error for a read after the end."""
        return SnapshotClosedError(
            f"<closed snapshot of revision {self.revision}> is used after it was closed"
        )


class Engine(ABC):
    """The storage of a store with transactions.

    Attributes
    ----------
    revision : int
        The revision of the last commit; 0 before the first.
    timeout : float
        The most seconds to wait for a lock or another writer, unless a call has its own timeout.
    routes : Routes
        The open transactions by thread: `begin` adds them, `commit` and `end` remove them.
    abandon : callable
        Notes the route of a block that was freed without being exited; the engine ends it.
    reads_wait : bool
        Whether a read may block, on a disk or a server; an asyncio task then reads in another thread.
    waits_in_loops : bool
        Whether calls of tasks await, in the loop, what they wait for (``delivery/awaiting.py``).
    check_edit : callable or None
        Called with each key and edit that is added to a transaction, with no lock held; raises TypeError or
        ValueError if the engine cannot store the value. None if the engine stores whatever can be copied.
    """

    reads_wait: ClassVar[bool] = True
    waits_in_loops: bool = False

    revision: int
    timeout: float
    routes: Routes
    abandon: Callable[[Route], None]
    check_edit: Callable[[str, Edit], None] | None = None

    # -- reading what is committed ----------------------------------------------------------------

    @abstractmethod
    def entry(self, key: str) -> Entry | None:
        """Return the entry of a key, or None."""

    @abstractmethod
    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        """Return the entries of several keys at one instant."""

    @abstractmethod
    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        """Return keys and entries at one instant that include all matches of `terms`."""

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        """Return entries at one instant that include the result of a request, as `View.select` does."""
        return None

    @abstractmethod
    def keys(self) -> list[str]:
        """Return all keys at one instant."""

    @abstractmethod
    def count(self) -> int:
        """Return the number of keys."""

    @abstractmethod
    def view(self) -> View:
        """Return a view of the last commit, which later commits do not change."""

    def clock(self) -> float:
        """Return seconds since the epoch, by the clock that all processes which share the entries use."""
        return time.time()  # looked up at each call, as tests replace it

    def clock_offset(self) -> float:
        """Return an estimate of the seconds by which that clock is ahead of ``time.time()``; never waits."""
        return 0.0

    def first_values(self, queue: str, name: str, prefixes: Sequence[str]) -> FirstValues:
        """Return an object that finds the first values of a metadata item with some prefixes.

        Called with no lock held, once for each `WorkQueue`. By default each lookup is a query: an engine
        whose queries with a limit need an index creates that index here.

        Parameters
        ----------
        queue : str
            The name of the work queue.
        name : str
            The metadata item.
        prefixes : sequence of str
            The prefixes that will be looked up.
        """
        return QueriedValues(self, name)

    # -- committing -------------------------------------------------------------------------------

    @abstractmethod
    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        operation: str | Claim,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Make all edits at one instant, or raise and make none; wait while another transaction is the owner.

        Parameters
        ----------
        edits : collection of str and Edit
            One for each key. If it is empty, the call ends a transaction that has changed nothing.
        operation : str or Claim
            The name of the operation, for error messages of other writers; or the claim of the committing
            transaction, whose `revision` is set, and which stops being the owner.
        check : callable, optional
            Called at the instant of the commit, before it is decided; raises to prevent the commit.
        timeout : float, optional
            The most seconds to wait for other writers; negative waits forever.

        Returns
        -------
        queued : bool
            Whether anything was queued for listeners.

        Raises
        ------
        LockTimeoutError
            If another writer does not finish in time; names that writer.
        KeyError, RevisionMismatchError
            If an edit needs an entry or a revision that is not there.
        StoreClosedError
            If the store has been closed.
        """

    @abstractmethod
    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        """Begin a transaction: make it the owner, or open the view of an optimistic one.

        Raises
        ------
        LockTimeoutError, StoreClosedError
            As `commit`.
        """

    @abstractmethod
    def end(self, claim: Claim) -> None:
        """End a transaction without a commit; do nothing if it has ended."""

    @abstractmethod
    def settle(self, purpose: str, timeout: float | None = None) -> None:
        """Finish what exceptions have interrupted, so that all visible commits are published.

        This includes the commits of other processes if they are followed.

        Raises
        ------
        LockTimeoutError
            If a running commit does not end in time.
        """

    def facts(self) -> dict[str, Any]:
        """Return the engine's part of ``store.info()``, at one instant: at least ``keys``, ``revision``."""
        return {"keys": self.count(), "revision": self.revision}

    def activity(self) -> Activity:
        """Return the current writer and the threads that wait for it; acquires no lock."""
        return Activity()

    # -- following --------------------------------------------------------------------------------

    @abstractmethod
    def between_commits(self, function: Callable[[int], T]) -> T:
        """Call an internal function at an instant when nothing is being published; return its result.

        Its argument is the revision up to which all commits have been published.
        """

    def past(self, since: int, revision: int) -> Iterable[Published]:
        """Return the commits after the revision `since` up to `revision`, in order.

        Called by the function of `between_commits`, with its revision. The result is iterated over once,
        later, with no lock held.

        Raises
        ------
        CompactedError
            If the engine no longer has all of them.
        """
        if since < revision:
            raise CompactedError(since, revision + 1)
        return ()

    def follow(self) -> None:  # noqa: B027 (most engines need not do anything)
        """Publish the commits of other processes from now on, since there is a listener or watch.

        Called whenever a watch is opened or a listener is connected to the store's event manager, by any
        thread, with no lock held; also repeatedly, and in finalizers and signal handlers. Never raises and
        does not wait for other processes. The publisher's ``is_followed`` shows whether there are listeners
        or watches; it is always true for an event manager that is not an `EventManager`.
        """

    @abstractmethod
    def close(self, timeout: float | None) -> None:
        """Refuse commits from now on, once the last writer of this process has ended.

        Reads still work. Commits of other processes are published until the next `between_commits`, and then
        not before `reopen`.

        Raises
        ------
        LockTimeoutError
            If a writer does not end within `timeout` seconds; None waits forever.
        """

    @abstractmethod
    def reopen(self) -> None:
        """Accept commits again, and publish from now on."""

    @abstractmethod
    def renew_in_child(self) -> None:
        """Make the copy in a forked child an independent engine: no lock is held, and nothing is pending."""
