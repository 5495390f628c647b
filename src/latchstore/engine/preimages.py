"""What open snapshots need of the past: the entries that have been replaced since they were opened.

Opening a snapshot adds an empty layer. A commit puts the old entry of each key that it changes into the
newest layer, before it changes the table. A key at the moment of a snapshot is therefore what the first
layer from the snapshot's own on says of it; and what the table says, if none does.

Thread safety:

1. Layers are added, filled and taken away under the write side of the table lock.
2. They are read without a lock: first the table, then the layers from old to new. A reader that got a
   new entry from the table finds the old one in a layer, as it was put there first. In each layer the
   link to the next is read before the entries: when a layer is taken away its entries go to the older
   one first and the link is changed then, so one of the two is always met.
3. A snapshot holds a `View` and a layer a weak reference to it. When the view goes, the layer is put on a
   list, by one ``deque.append``, which a finalizer may do anywhere; whoever next holds the table lock does
   the rest. So a snapshot that an exception has struck while it was being opened pins nothing.
4. What the lock guards may be broken off anywhere and be done again.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterable

from latchstore.contract.values import Change, Entry


class Layer:
    """The old entries of the keys that were changed after one moment and before the next layer's.

    Attributes
    ----------
    revision : int
        The revision of the moment.
    opened : float
        When, on the monotonic clock, in seconds.
    entries : dict
        Key to its entry at that moment; None if there was none.
    newer : Layer or None
        The next layer.
    views : dict
        The views of this moment, by the identity of the weak reference: one to a view that has gone can no
        longer be hashed.
    """

    __slots__ = ("entries", "newer", "opened", "revision", "views")

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.opened = time.monotonic()
        self.entries: dict[str, Entry | None] = {}
        self.newer: Layer | None = None
        self.views: dict[int, _Viewed] = {}


class View:
    """What keeps a layer: held by a snapshot, and by nobody else."""

    __slots__ = ("__weakref__", "viewed")

    viewed: _Viewed


class _Viewed(weakref.ref[View]):
    """A view, as its layer knows it."""

    __slots__ = ("layer",)

    layer: Layer | None


class Preimages:
    """The layers of one table.

    Attributes
    ----------
    layers : list of Layer
        From old to new; empty while no snapshot is open, and a commit need not call `record` then.
    """

    __slots__ = ("_closed", "layers")

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self._closed: deque[_Viewed] = deque()

    def open(self, revision: int, view: View) -> Layer:
        """Return the layer of this moment; the caller holds the table lock for writing."""
        self.forget_closed()
        newest = self.layers[-1] if self.layers else None
        viewed = view.viewed = _Viewed(view, self._closed.append)
        if newest is not None and newest.revision == revision:
            viewed.layer = newest
            newest.views[id(viewed)] = viewed
            return newest
        viewed.layer = layer = Layer(revision)
        layer.views[id(viewed)] = viewed
        if newest is not None:
            newest.newer = layer
        self.layers.append(layer)
        return layer

    def close(self, view: View) -> None:
        """Note that a view is not needed any more, though somebody may still hold it; no lock is needed."""
        self._closed.append(view.viewed)

    def record(self, changes: Iterable[Change]) -> None:
        """Keep what is about to be replaced; the caller holds the table lock for writing."""
        self.forget_closed()
        if self.layers:
            entries = self.layers[-1].entries
            for key, old, _ in changes:
                entries.setdefault(key, old)

    def forget_closed(self) -> None:
        """Free what only closed snapshots needed; the caller holds the table lock for writing."""
        while self._closed:
            viewed = self._closed[0]
            # There is none if an exception struck before it was noted.
            layer = getattr(viewed, "layer", None)
            if layer is not None:
                layer.views.pop(id(viewed), None)
                if not layer.views and layer in self.layers:
                    self._take_away(layer)
                viewed.layer = None  # it comes again when the view goes, and is to pin nothing until then
            self._closed.popleft()

    def _take_away(self, layer: Layer) -> None:
        """Leave what older snapshots need of the layer to the one before it; rule 2 has the order."""
        position = self.layers.index(layer)
        if position > 0:
            older = self.layers[position - 1]
            for key, entry in layer.entries.items():
                older.entries.setdefault(key, entry)
            older.newer = layer.newer
        del self.layers[position]

    def facts(self) -> dict[str, float | int]:
        """Count snapshots and what they pin; the caller holds the table lock for writing.

        Returns
        -------
        facts : dict
            ``snapshots`` (open ones), ``oldest_snapshot`` (its age in seconds, 0.0 if there is none),
            ``pinned_entries`` and ``pinned_bytes`` (old entries that are kept, and their data).
        """
        self.forget_closed()
        kept = [entry for layer in self.layers for entry in layer.entries.values() if entry is not None]
        return {
            "snapshots": sum(len(layer.views) for layer in self.layers),
            "oldest_snapshot": time.monotonic() - self.layers[0].opened if self.layers else 0.0,
            "pinned_entries": len(kept),
            "pinned_bytes": sum(len(entry.data) for entry in kept),
        }


def entry_at(base: dict[str, Entry | None], layer: Layer, key: str) -> Entry | None:
    """Return what the key had at the moment of the layer; no lock is needed."""
    try:
        entry = base[key]  # not ``get``: see ``DictMemoryStore._write_one``
    except KeyError:
        entry = None
    at: Layer | None = layer
    while at is not None:
        newer = at.newer  # before the entries: rule 2
        if key in at.entries:
            return at.entries[key]
        at = newer
    return entry


def changed_since(layer: Layer) -> dict[str, Entry | None]:
    """Return the keys that were changed after the moment of the layer, with the entries of then."""
    changed: dict[str, Entry | None] = {}
    at: Layer | None = layer
    while at is not None:
        newer = at.newer
        for key, entry in at.entries.copy().items():
            changed.setdefault(key, entry)
        at = newer
    return changed


def entries_at(base: dict[str, Entry | None], layer: Layer) -> dict[str, Entry]:
    """Return all entries of the moment of the layer; no lock is needed.

    ``dict.copy`` is atomic, with and without the GIL. It may show half of a commit that is being
    applied; of that the layers have all that it replaces, since they are filled first.
    """
    entries = base.copy()
    for key, entry in changed_since(layer).items():
        if entry is None:
            entries.pop(key, None)
        else:
            entries[key] = entry
    return entries  # type: ignore[return-value]
