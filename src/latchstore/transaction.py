"""Transactions: a batch of changes that becomes one commit, or none.

Thread safety:

1. A transaction belongs to the thread that entered it. Every method checks that.
2. An exclusive transaction holds the writer mutex from entry to exit, so what it reads beneath its
   batch cannot change, and the next revision is known: entries are built whole when they are put.
3. Other threads see nothing of a batch before `Committer.commit_batch` applies it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf, nextafter
from threading import get_ident
from types import TracebackType
from typing import Any, Protocol, Self

from latchstore.arguments import checked_key
from latchstore.commit_events import Change
from latchstore.entry_store import Edit, EntryStore, Progress
from latchstore.errors import TransactionClosedError, WrongThreadError
from latchstore.event_manager import BaseEventManager
from latchstore.locking import thread_name
from latchstore.values import Entry

_transaction_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """Which transaction made an event.

    Attributes
    ----------
    number : int
        Counts the transactions of this process, in the order in which they were made.
    notes : str
        What ``store.transaction(notes)`` was given.
    thread : str
        The name of the thread that it ran in.
    """

    number: int
    notes: str
    thread: str


def revised(edit: Edit, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
    """Return the entry that an edit makes of the current one, whole; None if it deletes the key.

    Parameters
    ----------
    revision : int
        The revision that the commit will have.
    now : float
        Seconds since the epoch.

    Raises
    ------
    KeyError
        If the edit needs an entry and there is none.
    """
    new = edit.revise(key, current)
    if new is None:
        return None
    if current is None:
        new.created = now
    else:
        new.created = current.created
        if now <= current.modified:
            # The clock stood still or was set back; `modified` moves on all the same.
            now = nextafter(current.modified, inf)
    new.modified = now
    new.revision = revision
    return new


class WriteBatch:
    """Changes on top of what the table holds, kept apart until they are committed.

    Used under the writer mutex, by the thread that holds it.

    Parameters
    ----------
    base : mapping
        The table's entries.
    revision : int
        The revision that the commit will have.
    """

    __slots__ = ("_base", "_changes", "_revision", "_undo")

    def __init__(self, base: Mapping[str, Entry | None], revision: int) -> None:
        self._base = base
        self._changes: dict[str, Entry | None] = {}
        self._revision = revision
        # (key, what `_changes` held before, whether it held anything): as long as the batch, read
        # backwards to return to a savepoint.
        self._undo: list[tuple[str, Entry | None, bool]] = []

    @property
    def revision(self) -> int:
        """The revision that the commit will have."""
        return self._revision

    def current(self, key: str) -> Entry | None:
        """Return the entry as the transaction sees it, or None."""
        if key in self._changes:
            return self._changes[key]
        return self._base.get(key)

    def put(self, key: str, edit: Edit) -> None:
        """Apply one edit; raises KeyError if it needs an entry and there is none."""
        new = revised(edit, key, self.current(key), self._revision, time.time())
        self._undo.append((key, self._changes.get(key), key in self._changes))
        self._changes[key] = new

    def savepoint(self) -> int:
        """Return a mark that `rollback_to` takes the batch back to."""
        return len(self._undo)

    def rollback_to(self, savepoint: int) -> None:
        """Take back all edits since the savepoint, the latest first."""
        while len(self._undo) > savepoint:
            key, previous, was_there = self._undo[-1]
            if was_there:
                self._changes[key] = previous
            else:
                self._changes.pop(key, None)
            self._undo.pop()

    def net_changes(self) -> list[Change]:
        """Return one change per key, leaving out keys that are absent before and after."""
        base = self._base
        return [
            (key, base.get(key), new)
            for key, new in self._changes.items()
            if new is not None or base.get(key) is not None
        ]

    def overlay(self, found: Iterable[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
        """Return `found`, read from the base, without what the batch has changed, plus the batch."""
        changes = self._changes
        merged = [item for item in found if item[0] not in changes]
        merged.extend((key, entry) for key, entry in changes.items() if entry is not None)
        return merged


class Committer(Protocol):
    """What a transaction needs of the store that it belongs to."""

    event_manager: BaseEventManager

    def begin_exclusive(self, purpose: str, timeout: float | None) -> WriteBatch:
        """Wait at the door, take the writer mutex and return an empty batch."""

    def commit_batch(self, batch: WriteBatch, info: TransactionInfo | None) -> int:
        """Apply the batch at one instant and queue its events; return the store's revision then."""

    def end_exclusive(self) -> None:
        """Give the writer mutex back."""

    def transaction_of_this_thread(self) -> Transaction | None:
        """Return the innermost open transaction of the calling thread."""

    def route(self, transaction: Transaction | None) -> None:
        """Send the calling thread's calls to this transaction; None: to the store again."""

    def indexed_candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return what the table knows of `terms`; the caller holds the writer mutex."""

    def transaction_event(self, info: TransactionInfo, state: str | None) -> None:
        """Queue the start event (`state` None) or the end event of a transaction."""

    def progress(
        self, key: str, metadata: Entry | None, steps: int
    ) -> AbstractContextManager[Progress] | None:
        """As `EntryStore._progress`."""


class Transaction(EntryStore):
    """A block of changes that is committed whole or not at all; ``store.transaction()`` makes it.

    It is a store itself: its methods, like the store's own while the block runs, read and write what
    the transaction sees. It can be used by the thread that entered it only, and inside its block only.

    Parameters
    ----------
    store : Committer
    notes : str
        What the transaction is about.
    timeout : float or None
        Seconds to wait for other writers; None for the store's own ``lock_timeout``.

    Attributes
    ----------
    notes : str
    revision : int or None
        The revision of the commit, once there is one; that of the store if nothing was changed. Always
        None for an inner block, which is committed with the outermost one.
    """

    def __init__(self, store: Committer, notes: str, timeout: float | None) -> None:
        super().__init__(store.event_manager)
        self.notes = notes
        self.revision: int | None = None
        self._store = store
        self._timeout = timeout
        self._outer: Transaction | None = None
        self._batch: WriteBatch | None = None
        self._savepoint = 0
        self._thread: int | None = None
        self._info: TransactionInfo | None = None

    # -- the block --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise TransactionClosedError(f"{self!r} was entered before; each block needs its own")
        outer = self._store.transaction_of_this_thread()
        if outer is None:
            self._begin()
        else:
            self._outer = outer
            self._batch = outer._open_batch()
            self._savepoint = self._batch.savepoint()
            self._info = outer._info
        self._thread = get_ident()
        self._store.route(self)
        return self

    def _begin(self) -> None:
        thread = threading.current_thread().name
        self._info = TransactionInfo(next(_transaction_numbers), self.notes, thread)
        self._batch = self._store.begin_exclusive(f"transaction {self.notes!r}", self._timeout)
        try:
            self._store.transaction_event(self._info, None)
        except BaseException:
            self._store.end_exclusive()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        batch = self._open_batch()
        if self._store.transaction_of_this_thread() is not self:
            raise TransactionClosedError(f"{self!r} was left before a block inside it was")
        self._batch = None
        self._store.route(self._outer)
        if self._outer is None:
            self._finish(batch, kind is None)
        elif kind is not None:
            batch.rollback_to(self._savepoint)

    def _finish(self, batch: WriteBatch, wanted: bool) -> None:
        """Commit if that is wanted, else forget the batch; let the next writer in either way."""
        assert self._info is not None
        done = False
        try:
            if wanted:
                self.revision = self._store.commit_batch(batch, self._info)
                done = True
        finally:
            try:
                if not done:
                    self._store.transaction_event(self._info, "failed")
            finally:
                self._store.end_exclusive()

    def _open_batch(self) -> WriteBatch:
        """Return the batch, or raise the error that says why there is none to use."""
        if self._thread is None:
            raise TransactionClosedError(f"{self!r} is used outside its block: it was never entered")
        if self._thread != get_ident():
            raise WrongThreadError(
                f"{self!r} belongs to thread {thread_name(self._thread)!r}, "
                f"but was used by thread {threading.current_thread().name!r}"
            )
        if self._batch is None:
            raise TransactionClosedError(f"{self!r} is used after the end of its block")
        return self._batch

    def transaction(self, notes: str = "", *, timeout: float | None = None) -> Transaction:
        return Transaction(self._store, notes, timeout)

    # -- the store's methods, on the batch --------------------------------------------------------

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
        return self._open_batch().overlay(self._store.indexed_candidates(terms))

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        self._open_batch().put(key, edit)

    def _write(self, edits: Iterable[tuple[str, Edit]], purpose: str) -> None:
        batch = self._open_batch()
        savepoint = batch.savepoint()
        try:
            for key, edit in edits:
                batch.put(key, edit)
        except BaseException:
            batch.rollback_to(savepoint)
            raise

    def _progress(
        self, key: str, metadata: Entry | None, steps: int
    ) -> AbstractContextManager[Progress] | None:
        return self._store.progress(key, metadata, steps)

    def connect(self, credentials: object = None) -> None:
        """Do nothing: a transaction is connected while its block runs."""

    def disconnect(self) -> None:
        """Do nothing: a transaction is connected while its block runs."""

    def is_connected(self) -> bool:
        """Tell whether the block is running."""
        return self._batch is not None

    def info(self) -> dict[str, Any]:
        """Return ``readonly``, ``notes`` and ``keys``, the number of keys as the block sees them."""
        return {"readonly": False, "notes": self.notes, "keys": len(self)}

    def __repr__(self) -> str:
        state = "new" if self._thread is None else "ended" if self._batch is None else "open"
        return f"<{state} transaction {self.notes!r}>"
