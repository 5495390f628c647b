"""The seam between a work queue and a store: commits that find their key at their own instant.

Which entry is the first of a range is known in a section of the table lock, and by the next section it may be
another one. A queue that looked first and wrote on the condition of a revision would do both again whenever
another worker was quicker. Here the commit itself looks.

Thread safety: functions that any thread may call. `edit_of` and `edits` run under the table lock, with
builtin code alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from latchstore.contract.values import Entry
from latchstore.engine.edits import Edit
from latchstore.engine.heads import Heads
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.transaction import Transaction
from latchstore.engine.transactional_store import TransactionalStore


class NothingFoundError(Exception):
    """There is no entry in the range; nothing was committed."""


class InTheWayError(Exception):
    """There is an entry where none is to be, or a transaction is the owner; nothing was committed.

    Whoever only wants to know whether there is an entry need not wait for the owner.
    """


class FirstEntry(Collection[tuple[str, Edit]]):
    """The one edit of a commit, of the entry that is the first in a range of `Heads`.

    Parameters
    ----------
    store : DictMemoryStore
    heads : Heads

    Attributes
    ----------
    key : str or None
        None before it is found.
    entry : Entry
        As it was before the commit.
    """

    __slots__ = ("_edit", "_heads", "_store", "entry", "key")

    entry: Entry
    _edit: Edit

    def __init__(self, store: DictMemoryStore, heads: Heads) -> None:
        self._store = store
        self._heads = heads
        self.key: str | None = None

    def edit_of(self, entry: Entry) -> Edit:
        """Return the edit of the entry. Called under the table lock, runs builtin code alone."""
        raise NotImplementedError

    def commit(self, prefix: str, unless: tuple[str, str], purpose: str) -> None:
        """Edit the first entry in a range.

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
        store = self._store
        table, dispatcher = store._table, store._dispatcher
        routes = table.routes
        if table.owner.claims or (routes and routes.current() is not None):
            raise InTheWayError
        if store._closed or dispatcher.crowded:
            store._check_door(purpose)
        if table.commit(self, purpose, None, lambda: self._find(prefix, unless)):
            dispatcher.start_if_needed()

    def _find(self, prefix: str, unless: tuple[str, str]) -> None:
        """Find the entry; in the section of the commit, before that is decided."""
        table, heads = self._store._table, self._heads
        entries, garbage = table.entries, table.garbage
        in_the_way = heads.first(unless[0], entries, garbage)
        if in_the_way is not None and in_the_way[0] < unless[1]:
            raise InTheWayError
        first = heads.first(prefix, entries, garbage)
        if first is None:
            raise NothingFoundError
        key = first[1]
        self.entry = entry = entries[key]
        self._edit = self.edit_of(entry)
        self.key = key

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[str, Edit]]:
        return iter(((self.key, self._edit),))  # type: ignore[arg-type]

    def __contains__(self, item: object) -> bool:
        return item == (self.key, self._edit)


def keep_heads(store: DictMemoryStore, queue: str, name: str, prefixes: Sequence[str]) -> Heads:
    """Keep the first entries of some ranges from now on; see `IndexedEngine.keep_heads`."""
    store._refuse_in_transaction("WorkQueue")
    return store._table.keep_heads(queue, name, prefixes)


def first_entries(
    store: DictMemoryStore, heads: Heads, prefixes: Sequence[str]
) -> list[tuple[str, Entry] | None]:
    """Return the key and the entry that are the first in each of some ranges, committed, at one instant."""
    table = store._table

    def find() -> list[tuple[str, Entry] | None]:
        entries = table.entries
        found = [heads.first(prefix, entries, table.garbage) for prefix in prefixes]
        return [None if first is None else (first[1], entries[first[1]]) for first in found]

    return table.exclusively("a work queue", find)


def commit_edit(store: TransactionalStore, key: str, edit: Edit, purpose: str) -> Transaction | None:
    """Commit an edit of one key; inside a transaction of this thread, add it to that, and return that."""
    store._write_one(key, edit, purpose)
    routes = store._engine.routes
    return routes.current() if routes else None


def entry_of(store: TransactionalStore, key: str) -> Any:
    """Return the entry of a key, as this thread sees it; KeyError if there is none."""
    return store._entry(key)
