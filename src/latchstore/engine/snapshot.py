"""A read-only store that stays as it was at one commit.

Thread safety: any number of threads may read a snapshot. Reading takes no lock (``preimages.py`` says why
that is sound), opening and closing one takes time that does not depend on the size of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from latchstore.contract.arguments import checked_key
from latchstore.contract.errors import SnapshotClosedError
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.values import Entry
from latchstore.engine.entry_store import EntryReader
from latchstore.engine.preimages import Layer, View, changed_since, entries_at, entry_at
from latchstore.engine.table import Table


class Snapshot(EntryReader):
    """A read-only store, fixed at the commit after which it was opened; ``store.snapshot()`` makes it.

    It costs the old entries of what is changed while it is open. They are freed when it is closed, by
    the end of its ``with`` block or ``close()``, or when nobody holds it any more.

    Attributes
    ----------
    revision : int
        The revision of the commit that it shows.
    """

    def __init__(
        self,
        event_manager: BaseEventManager,
        table: Table,
    ) -> None:
        super().__init__(event_manager)
        self._table = table
        self._base = table.entries
        # Holds the layer, and the view that keeps it, while the snapshot is open. Popping them is atomic, so
        # of two threads that close the snapshot one alone gives them back.
        self._layer: list[tuple[Layer, View]] = []
        view = View()
        layer = table.open_snapshot(view)
        self.revision = layer.revision
        self._layer.append((layer, view))

    def _open_layer(self) -> Layer:
        try:
            return self._layer[0][0]
        except IndexError:
            raise SnapshotClosedError(f"{self!r} is used after it was closed") from None

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key, or None."""
        layer = self._open_layer()
        entry = entry_at(self._base, layer, key)
        self._open_layer()  # closed meanwhile, it may have missed a commit
        return entry

    def changed(self) -> dict[str, Entry | None]:
        """Return the keys that were changed since, with their entries in the snapshot."""
        return changed_since(self._open_layer())

    def _entry(self, key: str) -> Entry:
        key = checked_key(key)
        entry = self.find(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def _entries_of(self, keys: list[str]) -> list[Entry]:
        return [self._entry(key) for key in keys]

    def _items(self) -> Iterable[tuple[str, Entry]]:
        entries = entries_at(self._base, self._open_layer())
        self._open_layer()
        return entries.items()

    def entries(self) -> Iterable[tuple[str, Entry]]:
        """Return all keys and entries; they are the store's own, for reading only."""
        return self._items()

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return self._items()

    def connect(self, credentials: object = None) -> None:
        """Do nothing: a snapshot is connected until it is closed, and cannot be opened again."""

    def disconnect(self) -> None:
        """Do nothing: a snapshot is connected until it is closed."""

    def is_connected(self) -> bool:
        """Tell whether the snapshot is open."""
        return bool(self._layer)

    def close(self, timeout: float | None = 30.0) -> None:
        """Give up what the snapshot pins; closing twice is harmless. Never waits."""
        try:
            _, view = self._layer.pop()
        except (IndexError, AttributeError):
            return  # closed before, or never opened
        self._table.close_snapshot(view)

    def __enter__(self) -> Self:
        self._open_layer()
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
        state = "open" if self._layer else "closed"
        return f"<{state} snapshot of revision {self.revision}>"
