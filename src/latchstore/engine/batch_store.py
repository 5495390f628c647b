"""A store's methods on a batch: what a transaction does with the calls that go to it.

Thread safety: a batch is used by the thread, and in it by the task (``tasks.py``), that has entered its
block; `_open_batch` checks that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any

from latchstore.contract.arguments import checked_key
from latchstore.contract.errors import TransactionError
from latchstore.contract.glob_pattern import checked_pattern, matching_keys
from latchstore.contract.ordering import OrderBy
from latchstore.contract.requests import Request, request_of
from latchstore.contract.values import Entry
from latchstore.delivery.waiting import this_thread
from latchstore.engine.batch import WriteBatch
from latchstore.engine.edits import Edit
from latchstore.engine.entry_store import EntryStore
from latchstore.engine.tasks import MODULES

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class BatchStore(EntryStore):
    """The store's methods, on the batch of a block."""

    # None before the block and after it.
    _batch: WriteBatch | None = None
    # That have entered the block.
    _thread: Thread | None = None
    _task: object | None = None

    notes: str

    @abstractmethod
    def _open_batch(self) -> WriteBatch:
        """Return the batch, or raise the error that explains why there is none to use."""

    def _entry(self, key: str) -> Entry:
        key = checked_key(key)
        entry = self._open_batch().current(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def _entries_of(self, keys: list[str]) -> list[Entry]:
        return [self._entry(key) for key in keys]

    def _items(self) -> Iterable[tuple[str, Entry]]:
        return self._candidates({})

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return self._open_batch().candidates(terms)

    def _keys_like(self, pattern: str) -> list[str]:
        """Return the keys that match, asking for no more than that: so only keys can conflict."""
        found = self._open_batch().items_like(pattern)
        return matching_keys(pattern, [key for key, _ in found])

    def glob(
        self,
        pattern: str,
        *,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[str]:
        request = request_of(None, {}, order_by, descending, limit)
        if request.is_plain:
            return iter(self._keys_like(checked_pattern(pattern)))
        return super().glob(pattern, order_by=order_by, descending=descending, limit=limit)

    def _found_keys(self, request: Request) -> Iterator[str]:
        if request.is_plain and not request.terms:
            return iter(self._keys_like("*"))
        return super()._found_keys(request)

    def __len__(self) -> int:
        return len(self._keys_like("*"))

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        # hot path: the usual answer of `_open_batch`, without its call.
        batch = self._batch
        if (
            batch is None
            or self._thread is not this_thread.thread
            or self._task is not None
            or "asyncio" in MODULES
            or "trio" in MODULES
            or "greenlet" in MODULES
        ):
            batch = self._open_batch()
        batch.put(key, edit)

    def _write(self, edits: Sequence[tuple[str, Edit]], purpose: str) -> None:
        batch = self._open_batch()
        savepoint = batch.savepoint()
        try:
            batch.put_all(edits)
        except BaseException:
            batch.rollback_to(savepoint)
            raise

    def connect(self, credentials: object = None) -> None:
        """Do nothing: a transaction is connected while its block runs."""

    def disconnect(self) -> None:
        """Do nothing: a transaction is connected while its block runs."""

    def is_connected(self) -> bool:
        """Tell whether the block is running."""
        return self._batch is not None

    def flush(self, timeout: Seconds | None = 30.0) -> None:
        """Refuse: the events of the block are made when it has ended.

        Raises
        ------
        TransactionError
            Always.
        """
        raise TransactionError(f"flush() cannot be called inside {self!r}")

    def info(self) -> dict[str, Any]:
        """Return ``readonly``, ``notes`` and ``keys``, the number of keys as the block sees them."""
        return {"readonly": False, "notes": self.notes, "keys": len(self)}
