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
    """The methods of an engine whose indexes all processes share."""

    def add_indexes(self, indexes: Sequence[str | Ordered]) -> None:
        """Add those indexes that do not exist."""

    def remove_index(self, index: str | Ordered) -> None:
        """Remove an index; raise KeyError if it does not exist."""


class SharedStore(TransactionalStore):
    """The methods of a store that any number of processes share."""

    __slots__ = ()

    @property
    @abstractmethod
    def _indexes(self) -> SharedIndexes:
        """The engine, for the indexes."""

    def add_index(self, name: str | Ordered) -> None:
        """Add an index on a metadata item for all processes; do nothing if it exists.

        Takes time in proportion to the number of keys. Writers wait meanwhile, readers do not.

        Parameters
        ----------
        name : str or Ordered
            The metadata item. There are indexes on facts as well, such as ``Ordered("created")``.

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
        """Remove the index on a metadata item for all processes; queries for it scan all entries again.

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
