"""Snapshots: read-only stores that show one commit.

Thread safety: any number of threads may read a snapshot. Reading acquires no lock. The time to open or close
one does not depend on the size of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from latchstore.contract.arguments import checked_key
from latchstore.contract.errors import SnapshotClosedError
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.entry_reader import EntryReader, all_there
from latchstore.engine.interface import View
from latchstore.engine.selection import found

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class Snapshot(EntryReader):
    """A read-only store, fixed at the commit after which it was opened; returned by ``store.snapshot()``.

    While it is open, the store keeps the old entries of changed keys. They are freed when the snapshot is
    closed, by the end of its ``with`` block or ``close()``, or when it is no longer referenced.

    Attributes
    ----------
    revision : int
        The revision of the commit that it shows.

    Thread safety
    -------------
    Any number of threads may read a snapshot; reads take no lock.
    """

    def __init__(self, event_manager: BaseEventManager, view: View) -> None:
        super().__init__(event_manager)
        self._view = view
        self.revision: int = view.revision

    def _entry(self, key: str) -> Entry:
        key = checked_key(key)
        entry = self._view.entry(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def _entries_of(self, keys: list[str]) -> list[Entry]:
        return all_there(self._view.entries_of(keys), keys)

    def _items(self) -> Iterable[tuple[str, Entry]]:
        return self._view.items()

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return self._view.candidates(terms)

    def _found(self, request: Request) -> Iterable[tuple[str, Entry]]:
        return super()._found(request) if request.is_plain else found(self._view, request, {})

    def __len__(self) -> int:
        return self._view.count()

    def connect(self, credentials: object = None) -> None:
        """Do nothing: a snapshot is connected until it is closed, and cannot be reopened."""

    def disconnect(self) -> None:
        """Do nothing: a snapshot is connected until it is closed."""

    def is_connected(self) -> bool:
        """Return whether the snapshot is open."""
        return self._view.is_open

    def close(self, timeout: Seconds | None = 30.0) -> None:
        """Free the entries that the snapshot keeps; repeated calls do nothing. Never waits."""
        self._view.close()

    def __enter__(self) -> Self:
        if not self._view.is_open:
            raise SnapshotClosedError(f"{self!r} is used after it was closed")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def info(self) -> dict[str, Any]:
        """Return ``readonly`` (True), ``revision`` and ``keys``, the number of keys."""
        return {"readonly": True, "revision": self.revision, "keys": len(self)}

    def __repr__(self) -> str:
        state = "open" if self._view.is_open else "closed"
        return f"<{state} snapshot of revision {self.revision}>"
