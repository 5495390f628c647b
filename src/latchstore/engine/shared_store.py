"""`SharedStore`: a store over an engine whose entries processes share.

Thread safety: that of the engine.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from latchstore.contract.ordering import Ordered, checked_index
from latchstore.engine.transactional_store import TransactionalStore


class SharedIndexes(Protocol):
    """What an engine does that has indexes for all processes."""

    def add_indexes(self, indexes: Sequence[str | Ordered]) -> None:
        """Add those indexes that there are not."""

    def remove_index(self, index: str | Ordered) -> None:
        """Remove an index; KeyError if there is none."""


class SharedStore(TransactionalStore):
    """The methods of a store that any number of processes share."""

    __slots__ = ()

    @property
    @abstractmethod
    def _indexes(self) -> SharedIndexes:
        """The engine, for the indexes."""

    def add_index(self, name: str | Ordered) -> None:
        """Keep an index on a metadata item from now on, in all processes; nothing happens if there is one.

        Takes time in proportion to the number of keys; writers wait meanwhile, readers do not.

        Parameters
        ----------
        name : str or Ordered
            The metadata item. ``Ordered("created")`` and other facts of all entries have indexes as well.

        Raises
        ------
        LockTimeoutError
            If another writer does not finish in time.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        name = checked_index(name, "name")
        self._refuse_in_transaction("add_index")
        self._indexes.add_indexes([name])

    def remove_index(self, name: str | Ordered) -> None:
        """Drop the index on a metadata item, for all processes; queries for it look at all entries again.

        Raises
        ------
        KeyError
            If there is no such index.
        LockTimeoutError, TransactionError
            As `add_index`.
        """
        name = checked_index(name, "name")
        self._refuse_in_transaction("remove_index")
        self._indexes.remove_index(name)
