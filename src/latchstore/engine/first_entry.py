"""The seam between a work queue and a store: commits that find their key at their own instant.

Which entry is the first of a range is known at one instant, and by the next it may be another one. A queue
that looked first and wrote on the condition of a revision would do both again whenever another worker was
quicker. Here the commit itself looks, by its `check`.

Thread safety: functions that any thread may call. `revise` is called as that of any edit is: in the section
of a commit, with builtin code alone.
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
    """There is no entry in the range; nothing was committed."""


class InTheWayError(Exception):
    """There is an entry where none is to be, or this thread is in a transaction; nothing was committed."""


class IndexIsMissingError(Exception):
    """Whoever shares the entries has removed the index by which they are found; nothing was committed."""


class Leasing(NamedTuple):
    """A lease of the first entry in a range, for an engine that finds and edits it by itself.

    The text of the entry becomes `due`, the end of the lease in microseconds with 20 digits, ``/leased/``,
    and what the text has after its last slash; the counter is raised by one.

    Attributes
    ----------
    item : str
        The metadata item that has the text.
    counter : str
        The metadata item that is raised; it counts from 0 where it is missing.
    ready : str
        What the texts of the range begin with.
    due : str
        What other texts begin with, which go on with a time in 20 digits: nothing is committed, and
        InTheWayError raised, if one of them has come.
    seconds : float
        How long the lease lasts.
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
    """The one edit of a commit, and itself that edit, of the entry that is the first in a range.

    Parameters
    ----------
    store : TransactionalStore
    values : FirstValues

    Attributes
    ----------
    look_back : callable or None
        Assigned by an engine that finds the entry, before it commits. Called with this object if an exception
        has struck before `made` was called: has `made` called if the commit was made.
    """

    __slots__ = ("_found", "_store", "_values", "look_back")

    blind = False
    whole = False

    def __init__(self, store: TransactionalStore, values: FirstValues) -> None:
        self._store = store
        self._values = values
        # The key; None until it is found, in the section of the commit.
        self._found: str | None = None
        self.look_back: Callable[[FirstEntry], object] | None = None

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        """Return the new entry, as any edit does: in the section of a commit, by builtin code alone."""
        raise NotImplementedError

    def commit(self, prefix: str, unless: tuple[str, str], purpose: str) -> None:
        """Edit the first entry in a range.

        Nobody waits for a transaction of others only to find that there is none.

        Parameters
        ----------
        prefix : str
            Of the range.
        unless : pair of str
            The prefix of another range, and a value: nothing is committed if that range begins before it.
        purpose : str
            For those who have to wait.

        Raises
        ------
        NothingFoundError, InTheWayError
        """
        store, values = self._store, self._values
        engine, dispatcher = store._engine, store._dispatcher
        if engine.routes and engine.routes.current() is not None:
            raise InTheWayError
        if store._closed or dispatcher.throttled:
            store._check_door(purpose)
        if values.may_wait:
            in_the_way, first = values.look((unless[0], prefix))
            self._choose(in_the_way, first, unless[1])
        if engine.commit(self, purpose, None, lambda: self._find(prefix, unless)):
            dispatcher.start_if_needed()

    def _find(self, prefix: str, unless: tuple[str, str]) -> None:
        """Find the entry; in the section of the commit, before that is decided."""
        first = self._values.first
        self._choose(first(unless[0]), first(prefix), unless[1])

    # -- by an engine that finds the entry ------------------------------------------------------------

    @property
    def leasing(self) -> Leasing:
        """What is to be done to the entry."""
        raise NotImplementedError

    def made(self, key: str, old: Entry | None, new: Entry | None) -> None:
        """Take note of what the engine has committed."""
        self._found = key

    def commit_there(self, purpose: str) -> None:
        """Edit the first entry in a range, which the engine finds.

        Raises
        ------
        NothingFoundError, InTheWayError
        """
        store, values = self._store, self._values
        engine, dispatcher = store._engine, store._dispatcher
        if engine.routes and engine.routes.current() is not None:
            raise InTheWayError
        if store._closed or dispatcher.throttled:
            store._check_door(purpose)
        while True:
            try:
                queued = engine.commit(self, purpose)
                break
            except IndexIsMissingError:
                values.add_index()
        if queued:
            dispatcher.start_if_needed()

    def look(self) -> None:
        """Raise what a commit would, if there is nothing for it now: before it waits for others."""
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
    """Return what finds the first entries of some ranges of a metadata item; see `Engine.first_values`."""
    store._refuse_in_transaction("WorkQueue")
    return store._engine.first_values(queue, name, prefixes)


def commit_edit(store: TransactionalStore, key: str, edit: Edit, purpose: str) -> Transaction | None:
    """Commit an edit of one key; inside a transaction of this thread, add it to that, and return that."""
    store._write_one(key, edit, purpose)
    routes = store._engine.routes
    return routes.current() if routes else None


def entry_of(store: TransactionalStore, key: str) -> Any:
    """Return the entry of a key, as this thread sees it; KeyError if there is none."""
    return store._entry(key)


def clock_of(store: TransactionalStore) -> Callable[[], float]:
    """Return the clock of a store's entries; see `Engine.clock`."""
    return store._engine.clock


def clock_offset_of(store: TransactionalStore) -> Callable[[], float]:
    """Return what returns how far that clock is ahead of this machine's; see `Engine.clock_offset`."""
    return store._engine.clock_offset
