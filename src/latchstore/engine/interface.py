"""The seam between a store and whatever keeps its entries.

`TransactionalStore` has the store's methods, transactions, events, back-pressure and watches; an `Engine` has
the entries and makes commits. `Table` (``table.py``) is the one in memory. Another engine implements these
methods, passes each commit to a `Publisher`, and is given to a subclass of `TransactionalStore`.

Thread safety: all methods may be called by any thread. None runs user code.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
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
    """The entries as one commit has left them, until it is closed.

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
        """Return all keys and entries, to iterate over once. Raises SnapshotClosedError."""

    def count(self) -> int:
        """Return how many keys there are. Raises SnapshotClosedError if the view is closed."""
        return sum(1 for _ in self.items())

    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        """Return keys and entries among which are all that match `terms`. Raises SnapshotClosedError."""
        return self.items()

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        """Return entries among which the answer to a request is, without looking at all of them.

        Parameters
        ----------
        request : Request
        overlay : mapping of str to Entry or None
            What the reader sees in place of the entries of these keys.

        Returns
        -------
        selection : Selected or None
            None if no index helps: then `candidates` has all.

        Raises
        ------
        SnapshotClosedError
        """
        return None

    @abstractmethod
    def changed(self) -> dict[str, tuple[Entry | None, Entry | None]]:
        """Return the keys that were changed since, each with its entry in the view and now."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the view was not closed yet."""

    @abstractmethod
    def close(self) -> None:
        """Give up what the view pins; closing twice is harmless. Never waits."""

    def closed_error(self) -> SnapshotClosedError:
        """Return the error of a read after the end."""
        return SnapshotClosedError(
            f"<closed snapshot of revision {self.revision}> is used after it was closed"
        )


class Engine(ABC):
    """What a store with transactions needs of whatever keeps its entries.

    Attributes
    ----------
    revision : int
        The revision of the last commit, 0 before the first.
    timeout : float
        Seconds that a wait for a lock or for another writer may take, unless a call has its own.
    routes : Routes
        The open transactions, by thread: `begin` puts them there, `commit` and `end` take them away.
    abandoned : deque of Route
        Where the routes of blocks are put that were freed without an end; the engine ends them.
    reads_wait : bool
        Whether a read may wait, for a disk or a server: then a task of asyncio has another thread read.
    check_edit : callable or None
        Called with each key and edit that a transaction is given, with no lock held; raises TypeError or
        ValueError if the engine cannot keep what it has. None: the engine keeps whatever can be copied.
    """

    reads_wait: ClassVar[bool] = True

    revision: int
    timeout: float
    routes: Routes
    abandoned: deque[Route]
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
        """Return, at one instant, keys and entries among which are all that match `terms`."""

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        """Return, at one instant, entries among which the answer to a request is, as `View.select` does."""
        return None

    @abstractmethod
    def keys(self) -> list[str]:
        """Return all keys at one instant."""

    @abstractmethod
    def count(self) -> int:
        """Return how many keys there are."""

    @abstractmethod
    def view(self) -> View:
        """Return what the last commit has left, which no later commit changes."""

    def clock(self) -> float:
        """Return seconds since the epoch, by the one clock that all go by who share the entries."""
        return time.time()  # looked up at each call, as tests replace it

    def clock_offset(self) -> float:
        """Return by how many seconds that clock is ahead of ``time.time()``, roughly and without a wait."""
        return 0.0

    def first_values(self, queue: str, name: str, prefixes: Sequence[str]) -> FirstValues:
        """Return what finds the first values of a metadata item that begin with some prefixes.

        Called with no lock held, once for each `WorkQueue`. By default they are queried each time: an engine
        whose queries with a limit need an index makes that here.

        Parameters
        ----------
        queue : str
            The name of the work queue.
        name : str
            The metadata item.
        prefixes : sequence of str
            Those that will be asked for.
        """
        return QueriedValues(self, name)

    # -- committing -------------------------------------------------------------------------------

    @abstractmethod
    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        purpose: str,
        claim: Claim | None = None,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Make all edits at one instant, or raise and make none; wait while another transaction is the owner.

        Parameters
        ----------
        edits : collection of str and Edit
            One for each key. With none of them it ends a transaction that has changed nothing.
        purpose : str
            What it is for, for those who have to wait.
        claim : Claim, optional
            Of the transaction that commits; its `revision` is set, and it is the owner no more.
        check : callable, optional
            Called at the instant of the commit, before it is decided; raises if it must not be made.
        timeout : float, optional
            Seconds to wait for other writers; negative for ever.

        Returns
        -------
        queued : bool
            Whether anything was queued for listeners.

        Raises
        ------
        LockTimeoutError
            If another writer does not finish in time; it names the writer.
        KeyError, RevisionMismatchError
            If an edit needs what is not there.
        StoreClosedError
            If the store was closed meanwhile.
        """

    @abstractmethod
    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        """Begin a transaction: make it the owner, or open the view that an optimistic one reads.

        Raises
        ------
        LockTimeoutError, StoreClosedError
            As `commit`.
        """

    @abstractmethod
    def end(self, claim: Claim) -> None:
        """End a transaction that is not to commit; nothing happens if it has ended."""

    @abstractmethod
    def settle(self, purpose: str, timeout: float | None = None) -> None:
        """Finish what exceptions have broken off, so that all commits that can be seen are published.

        Those of other processes as well, if anybody follows.

        Raises
        ------
        LockTimeoutError
            If a commit that is being made does not end in time.
        """

    def facts(self) -> dict[str, Any]:
        """Return what ``store.info()`` has of the engine, of one instant: ``keys``, ``revision`` at least."""
        return {"keys": self.count(), "revision": self.revision}

    def activity(self) -> Activity:
        """Return who writes at this moment, and who waits for that; waits for no lock."""
        return Activity()

    # -- following --------------------------------------------------------------------------------

    @abstractmethod
    def between_commits(self, function: Callable[[int], T]) -> T:
        """Call a function of ours at an instant at which nothing is being published; return its result.

        It is called with the revision of the last commit that was published, with all before it.
        """

    def past(self, since: int, revision: int) -> Iterable[Published]:
        """Return the commits after the revision `since` up to `revision`, in order.

        Called by the function of `between_commits`, with the revision of that. The result is gone through
        once, later, when no lock is held.

        Raises
        ------
        CompactedError
            If the engine does not have all of them any more.
        """
        if since < revision:
            raise CompactedError(since, revision + 1)
        return ()

    def follow(self) -> None:  # noqa: B027 (most engines need not do anything)
        """Have commits published from now on that other processes make, as somebody listens or watches.

        Called whenever a watch has been opened, and a listener connected to the store's event manager, by any
        thread, with no lock held; also in a finalizer or a signal handler, and again and again. Never raises;
        does not wait for other processes. The publisher's ``is_followed`` tells whether there is anybody; it
        is always true with an event manager of another kind than `EventManager`, which cannot be asked.
        """

    @abstractmethod
    def close(self, timeout: float | None) -> None:
        """Refuse commits from now on, when the last writer of this process has ended.

        Everything can still be read. What other processes commit is published until the next
        `between_commits`, and then not before `reopen`.

        Raises
        ------
        LockTimeoutError
            If a writer does not end within `timeout` seconds; None waits for ever.
        """

    @abstractmethod
    def reopen(self) -> None:
        """Take commits again, and publish from now on."""

    @abstractmethod
    def renew_in_child(self) -> None:
        """Make of a forked child's copy an engine of its own: no lock is held, and nothing is under way."""
