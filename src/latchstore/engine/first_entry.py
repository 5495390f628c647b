"""The interface between a work queue and a store: commits that find their key at their own instant.

The first entry of a range may be another one an instant later. A queue that reads it first and then writes
conditionally would have to repeat both whenever another worker was faster. Here the commit itself finds the
entry, in its `check`.

Thread safety: any thread may call the functions. `revise` is called like that of any edit: in the section of
a commit, with builtin code only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from latchstore.contract.values import Entry
from latchstore.engine.edits import Edit
from latchstore.engine.first_values import FirstValues, Item
from latchstore.engine.transaction import Transaction
from latchstore.engine.transactional_store import TransactionalStore


class NothingFoundError(Exception):
    """The range has no entry; nothing was committed."""


class InTheWayError(Exception):
    """An entry exists that must not, or this thread is in a transaction; nothing was committed."""


class IndexIsMissingError(Exception):
    """Another process has removed the index that finds the entries; nothing was committed."""


class Leasing(NamedTuple):
    """A lease of the first entry in a range, for an engine that finds and edits the entry by itself.

    The text of the entry is replaced by `due`, the end of the lease in microseconds with 20 digits,
    ``/leased/``, and the part of the text after its last slash; the counter is incremented.

    Attributes
    ----------
    item : str
        The metadata item that has the text.
    counter : str
        The metadata item that is incremented, from 0 where it is missing.
    ready : str
        The prefix of the texts in the range.
    due : str
        The prefix of other texts, which continue with a time in 20 digits: if one of those times has come,
        nothing is committed and InTheWayError is raised.
    seconds : float
        The duration of the lease.
    now : float or None
        Seconds since the epoch; None for the clock of the engine.
    """

    item: str
    counter: str
    ready: str
    due: str
    seconds: float
    now: float | None


class FirstEntry(Collection[tuple[str, Edit]]):
    """The only edit of a commit, and the collection of it: an edit of the first entry in a range.

    Parameters
    ----------
    store : TransactionalStore
    values : FirstValues

    Attributes
    ----------
    look_back : callable or None
        Assigned by an engine that finds the entry, before it commits. Called with this object if an exception
        interrupts before `made` was called; calls `made` if the commit was made.
    """

    __slots__ = ("_found", "_store", "_values", "look_back")

    blind = False
    whole = False

    def __init__(self, store: TransactionalStore, values: FirstValues) -> None:
        self._store = store
        self._values = values
        # The key; None until the commit's section has found it.
        self._found: str | None = None
        self.look_back: Callable[[FirstEntry], object] | None = None

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        """Return the new entry, like any edit: in the section of a commit, with builtin code only."""
        raise NotImplementedError

    def commit(self, prefix: str, unless: tuple[str, str], purpose: str) -> None:
        """Edit the first entry in a range.

        If the range is empty, the call does not wait for other threads' transactions.

        Parameters
        ----------
        prefix : str
            The prefix of the range.
        unless : pair of str
            The prefix of another range, and a value: nothing is committed if that range begins before it.
        purpose : str
            For error messages of other writers.

        Raises
        ------
        NothingFoundError, InTheWayError
        """
        store, values = self._store, self._values
        engine, dispatcher = store._engine, store._dispatcher
        if engine.routes and engine.routes.current() is not None:
            raise InTheWayError
        if store._closed or dispatcher.throttled:
            store._admit_writer(purpose)
        if values.may_wait:
            in_the_way, first = values.look((unless[0], prefix))
            self._choose(in_the_way, first, unless[1])
        if engine.commit(self, purpose, lambda: self._find(prefix, unless)):
            dispatcher.start_if_needed()

    def _find(self, prefix: str, unless: tuple[str, str]) -> None:
        """Find the entry, in the section of the commit, before the commit is decided."""
        first = self._values.first
        self._choose(first(unless[0]), first(prefix), unless[1])

    # -- by an engine that finds the entry ------------------------------------------------------------

    @property
    def leasing(self) -> Leasing:
        """The lease to commit."""
        raise NotImplementedError

    def made(self, key: str, old: Entry | None, new: Entry | None) -> None:
        """Record what the engine has committed."""
        self._found = key

    def commit_there(self, purpose: str) -> None:
        """Edit the first entry in a range, found by the engine.

        Raises
        ------
        NothingFoundError, InTheWayError
        """
        store, values = self._store, self._values
        engine, dispatcher = store._engine, store._dispatcher
        if engine.routes and engine.routes.current() is not None:
            raise InTheWayError
        if store._closed or dispatcher.throttled:
            store._admit_writer(purpose)
        while True:
            try:
                queued = engine.commit(self, purpose)
                break
            except IndexIsMissingError:
                values.add_index()
        if queued:
            dispatcher.start_if_needed()

    def look(self) -> None:
        """Raise what a commit would raise now, before it waits for other writers."""
        _, _, ready, due, _, now = self.leasing
        in_the_way, first = self._values.look((due, ready))
        if now is None:
            now = self._store._engine.clock()
        self._choose(in_the_way, first, f"{due}{int(now * 1_000_000):020d}0")

    def _choose(self, in_the_way: Item | None, first: Item | None, until: str) -> None:
        if in_the_way is not None and in_the_way[0] < until:
            raise InTheWayError
        if first is None:
            raise NothingFoundError
        self._found = first[1]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[str, Edit]]:
        return iter(()) if self._found is None else iter(((self._found, self),))

    def __contains__(self, item: object) -> bool:
        return item == (self._found, self)


def first_values(store: TransactionalStore, queue: str, name: str, prefixes: Sequence[str]) -> FirstValues:
    """Return an object that finds the first entries of some ranges; see `Engine.first_values`."""
    store._refuse_in_transaction("WorkQueue")
    return store._engine.first_values(queue, name, prefixes)


def commit_edit(store: TransactionalStore, key: str, edit: Edit, purpose: str) -> Transaction | None:
    """Commit an edit of one key; inside a transaction of this thread, add it to that and return that."""
    store._write_one(key, edit, purpose)
    routes = store._engine.routes
    return routes.current() if routes else None


def entry_of(store: TransactionalStore, key: str) -> Any:
    """Return the entry of a key as this thread sees it; raise KeyError if it is missing."""
    return store._entry(key)


def clock_of(store: TransactionalStore) -> Callable[[], float]:
    """Return the clock of a store's entries; see `Engine.clock`."""
    return store._engine.clock


def clock_offset_of(store: TransactionalStore) -> Callable[[], float]:
    """Return a function for the difference of that clock from this machine's; see `Engine.clock_offset`."""
    return store._engine.clock_offset
