"""Access to a store for a `BoundedStore` over an engine in another room.

Thread safety: that of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from latchstore.contract.values import Entry
from latchstore.engine.bounded import OpenTransaction
from latchstore.engine.edits import Edit
from latchstore.engine.transactional_store import TransactionalStore


class StoreAccess:
    """The entries and edits of a store, read and written by the store's own methods.

    Parameters
    ----------
    store : TransactionalStore
    """

    __slots__ = ("_store",)

    def __init__(self, store: TransactionalStore) -> None:
        self._store = store

    @property
    def kind(self) -> str:
        """The class name of the store, for messages."""
        return type(self._store).__name__

    def entry(self, key: str) -> Entry | None:
        """Return the entry of a key as the calling thread sees it, or None."""
        try:
            return self._store._entry(key)
        except KeyError:
            return None

    def items(self) -> list[tuple[str, Entry]]:
        """Return all keys and entries of one instant, as the calling thread sees them."""
        return list(self._store._items())

    def commit(
        self, edits: Sequence[tuple[str, Edit]], purpose: str, check: Callable[[], None] | None
    ) -> None:
        """Commit edits of different keys outside transactions, like `Engine.commit`."""
        store = self._store
        store._admit_writer(purpose)
        if store._engine.commit(edits, purpose, check):
            store._deliver()

    def write(self, edits: Sequence[tuple[str, Edit]], purpose: str) -> None:
        """Add edits to the transaction of the calling thread."""
        self._store._write(edits, purpose)

    def evict(self, key: str, cause: str) -> None:
        """Evict a key."""
        self._store.evict(key, cause)

    def transaction(self, notes: str) -> AbstractContextManager[object]:
        """Return a transaction, or a savepoint inside one."""
        return self._store.transaction(notes)

    def current_transaction(self) -> OpenTransaction | None:
        """Return the open transaction of the calling thread, or None."""
        return self._store.current_transaction()
