"""The methods of a store on the batch of a transaction.

Thread safety: a batch is used only by the thread, and in it by the task (``tasks.py``), that has entered the
block; `_open_batch` checks that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any

from latchstore.contract.arguments import checked_key
from latchstore.contract.errors import TransactionError
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.delivery.waiting import this_thread
from latchstore.engine.batch import WriteBatch
from latchstore.engine.edits import Edit
from latchstore.engine.entry_reader import all_there
from latchstore.engine.entry_store import EntryStore
from latchstore.engine.tasks import MODULES

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class BatchStore(EntryStore):
    """A store's methods on the batch of a block."""

    __slots__ = ("_batch", "_task", "_thread")

    # None before the block and after it.
    _batch: WriteBatch | None
    # The thread and task that entered the block.
    _thread: Thread | None
    _task: object | None

    notes: str

    @abstractmethod
    def _open_batch(self) -> WriteBatch:
        """Return the batch; raise an error that explains why there is none."""

    def _entry(self, key: str) -> Entry:
        key = checked_key(key)
        entry = self._open_batch().current(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def _entries_of(self, keys: list[str]) -> list[Entry]:
        return all_there(self._open_batch().entries_of(keys), keys)

    def _items(self) -> Iterable[tuple[str, Entry]]:
        return self._candidates({})

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return self._open_batch().candidates(terms)

    def _found(self, request: Request) -> Iterable[tuple[str, Entry]]:
        return self._open_batch().found(request)

    def _found_keys(self, request: Request) -> Iterator[str]:
        # Only keys are requested, so only changed keys can conflict.
        return iter([key for key, _ in self._open_batch().found(request, only_keys=not request.terms)])

    def __len__(self) -> int:
        return sum(1 for _ in self._found_keys(Request({})))

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        # hot path: the usual case of `_open_batch`, inlined.
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
        """Return whether the block is running."""
        return self._batch is not None

    def flush(self, timeout: Seconds | None = 30.0) -> None:
        """Raise TransactionError: the events of the block are emitted after its end.

        Raises
        ------
        TransactionError
            Always.
        """
        raise TransactionError(f"flush() cannot be called inside {self!r}")

    def info(self) -> dict[str, Any]:
        """Return ``readonly``, ``notes`` and ``keys``, the number of keys as the block sees them."""
        return {"readonly": False, "notes": self.notes, "keys": len(self)}
