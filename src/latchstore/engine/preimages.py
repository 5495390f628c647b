"""Pre-images: the old entries that open views need, replaced since the views were opened.

Opening a view adds an empty layer. A commit puts the old entry of each key that it changes into the newest
layer, before it changes the entries. So the entry of a key in a view is the one in the first layer that has
the key, beginning with the view's own layer; if none has it, the current entry.

Thread safety:

1. Layers are added, filled and removed in sections of the table lock's writer.
2. They are read without a lock: first the entries, then the layers from old to new. A reader that found a new
   entry finds the old one in a layer, since it was put there first. In each layer the link to the next is
   read before its entries: when a layer is removed, its entries are first moved to the older one and then the
   link is changed, so the reader finds one of the two.
3. A layer references its views weakly. When a view is freed, its reference is put on a list, by one
   ``deque.append`` in C; the next section does the rest. So a view whose opening an exception has
   interrupted pins nothing.
4. Each step may be interrupted and repeated. Dropped objects are put into `garbage`, which is emptied after
   the lock is released: entries may contain users' objects.
"""

from __future__ import annotations

import time
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from operator import attrgetter
from threading import get_ident

from latchstore.contract.requests import Request
from latchstore.contract.values import Change, Entry
from latchstore.engine.interface import View
from latchstore.engine.selection import Overlay, Selected

_revision_of = attrgetter("revision")


class Layer:
    """The old entries of the keys that changed after one moment and before that of the next layer.

    Attributes
    ----------
    revision : int
        The revision of the moment.
    opened : float
        The time of the moment, in monotonic seconds.
    entries : dict
        The entries at that moment by key; None for a missing key.
    newer : Layer or None
        The next layer.
    views : dict
        The views of this moment, by the identity of the weak reference, since the reference to a freed view
        cannot be hashed.
    """

    __slots__ = ("entries", "newer", "opened", "revision", "views")

    def __init__(self, revision: int) -> None:
        self.revision: int = revision
        self.opened: float = time.monotonic()
        self.entries: dict[str, Entry | None] = {}
        self.newer: Layer | None = None
        self.views: dict[int, ViewReference] = {}


#: Selects entries of an earlier moment; see `LayerView`.
Select = Callable[[Request, Overlay, Callable[[], dict[str, Entry | None]]], Selected | None]


def _select_nothing(request: Request, overlay: Overlay, changed: object) -> None:
    return None


class LayerView(View):
    """A view over entries and layers.

    Parameters
    ----------
    preimages : Preimages
    select : callable, optional
        Selects entries of the moment, given a request, an overlay, and a function that returns the keys
        that have changed since.
    """

    __slots__ = ("_layer", "_preimages", "_select", "_thread", "reference", "revision")

    reference: ViewReference | None

    def __init__(self, preimages: Preimages, select: Select = _select_nothing) -> None:
        self._preimages = preimages
        self._select = select
        self._thread = get_ident()
        # Contains the layer while the view is open. Popping it is atomic, so of two threads that close the
        # view only one releases it.
        self._layer: list[Layer] = []
        self.revision: int = 0

    def begin(self, layer: Layer) -> None:
        """Show the moment of a layer."""
        self.revision = layer.revision
        self._layer.append(layer)

    def _open_layer(self) -> Layer:
        try:
            return self._layer[0]
        except IndexError:
            raise self.closed_error() from None

    def entry(self, key: str) -> Entry | None:
        layer = self._open_layer()
        entry = entry_at(self._preimages.base, layer, key)
        self._open_layer()  # if it was closed meanwhile, the read may have missed a commit
        return entry

    def items(self) -> Iterable[tuple[str, Entry]]:
        entries = entries_at(self._preimages.base, self._open_layer())
        self._open_layer()
        return entries.items()

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        return self._select(request, overlay, self._changed)

    def _changed(self) -> dict[str, Entry | None]:
        return changed_since(self._open_layer())

    def changed(self) -> dict[str, tuple[Entry | None, Entry | None]]:
        base = self._preimages.base
        return {
            key: (old, base[key] if key in base else None)
            for key, old in changed_since(self._open_layer()).items()
        }

    @property
    def is_open(self) -> bool:
        return bool(self._layer)

    def close(self) -> None:
        if not self._layer:
            return  # closed already, or never opened
        try:
            self._layer.pop()
        except IndexError:
            return  # another thread has just closed it
        self._preimages.close(self)

    def close_if_of(self, threads: Container[int]) -> None:
        """Close the view if one of these threads, given by identifier, has opened it."""
        if self._thread in threads:
            self.close()


class ViewReference(weakref.ref[LayerView]):
    """A layer's weak reference to a view."""

    __slots__ = ("layer",)

    layer: Layer | None


class Preimages:
    """The layers of one table.

    Parameters
    ----------
    base : dict
        The table's entries.
    garbage : deque
        Receives dropped layers.
    closed : callable
        Called after a view was closed, with no lock held; may have `forget_closed` called.

    Attributes
    ----------
    layers : list of Layer
        From old to new, at most one for each revision. While no view is open it is empty, and commits need
        not call `record`.
    """

    __slots__ = ("_closed", "_closing", "_garbage", "_on_close", "base", "layers")

    def __init__(self, base: dict[str, Entry], garbage: deque[object], closed: Callable[[], object]) -> None:
        self.base: dict[str, Entry] = base
        self._on_close = closed
        self.layers: list[Layer] = []
        self._closed: deque[ViewReference] = deque()
        self._closing: list[ViewReference] = []
        self._garbage = garbage

    def open(self, revision: int, view: LayerView) -> None:
        """Make a view show the current moment; in a section of the writer."""
        self.forget_closed()
        newest = self.layers[-1] if self.layers else None
        reference = view.reference = ViewReference(view, self._closed.append)
        if newest is None or newest.revision != revision:
            layer = reference.layer = Layer(revision)
            layer.views[id(reference)] = reference
            if newest is not None:
                newest.newer = layer
            self.layers.append(layer)
        else:
            layer = reference.layer = newest
            newest.views[id(reference)] = reference
        view.begin(layer)

    def close(self, view: LayerView) -> None:
        """Free what only this view needed, although the view is still referenced; no lock is held."""
        if view.reference is not None:
            self._closed.append(view.reference)
            view.reference = None  # else it would be added again when the view is freed
        self._on_close()

    def close_others(self, threads: Container[int]) -> None:
        """Close the views that these threads have opened; in a forked child, which lacks the threads."""
        for layer in list(self.layers):
            for reference in list(layer.views.values()):
                view = reference()
                if view is not None:
                    view.close_if_of(threads)
        self.forget_closed()

    def record(self, changes: Sequence[Change]) -> None:
        """Keep the entries that are about to be replaced; in a section of the writer."""
        if self._closed:
            self.forget_closed()
        if self.layers:
            entries = self.layers[-1].entries
            for key, old, _ in changes:
                entries.setdefault(key, old)

    def forget_closed(self) -> None:
        """Free what only closed views needed; in a section of the writer."""
        if not self._closed:
            return
        # One stays in `_closed` until all is done, so that the next thread continues after an interruption.
        closing = self._closing
        while len(self._closed) > 1:
            closing.append(self._closed[0])
            self._closed.popleft()
        unused: dict[int, Layer] = {}
        references = (*closing, self._closed[0])
        for reference in references:
            # Missing if an exception interrupted before it was assigned.
            layer = getattr(reference, "layer", None)
            if layer is not None:
                layer.views.pop(id(reference), None)
                if not layer.views:
                    unused[id(layer)] = layer
        if 8 * len(unused) < len(self.layers):
            for layer in unused.values():
                self._take_away(layer)
        elif unused:
            self._take_all_away()
        for reference in references:
            reference.layer = None  # added again when the view is freed, it must pin nothing
        closing.clear()
        self._closed.popleft()

    def _take_away(self, layer: Layer) -> None:
        """Move what older views need of the layer to the one before it; rule 2 has the order."""
        position = bisect_left(self.layers, layer.revision, key=_revision_of)
        if self.layers[position : position + 1] != [layer]:
            return  # removed already, before an interruption
        if position > 0:
            _leave(layer, self.layers[position - 1])
        self._garbage.append(layer)
        del self.layers[position]

    def _take_all_away(self) -> None:
        """Remove all layers without views, the oldest first, so that no entry is moved twice."""
        older: Layer | None = None
        for layer in self.layers:
            if layer.views:
                older = layer
                continue
            if older is not None:
                _leave(layer, older)
            self._garbage.append(layer)
        self.layers = [layer for layer in self.layers if layer.views]

    def facts(self) -> dict[str, float | int]:
        """Return the number of views and what they pin; in a section of the writer.

        Returns
        -------
        facts : dict
            ``snapshots`` (open ones), ``oldest_snapshot`` (its age in seconds, 0.0 if there is none),
            ``pinned_entries`` and ``pinned_bytes`` (the old entries that are kept, and their data).
        """
        self.forget_closed()
        kept = [entry for layer in self.layers for entry in layer.entries.values() if entry is not None]
        return {
            "snapshots": sum(len(layer.views) for layer in self.layers),
            "oldest_snapshot": time.monotonic() - self.layers[0].opened if self.layers else 0.0,
            "pinned_entries": len(kept),
            "pinned_bytes": sum(entry.size for entry in kept),
        }


def _leave(layer: Layer, older: Layer) -> None:
    """Merge two layers into the one with more entries: each entry is moved at most log(n) times."""
    if len(layer.entries) > len(older.entries):
        # Readers that come from an older layer have already looked there for the entries added here.
        layer.entries.update(older.entries)
        older.entries = layer.entries
    else:
        for key, entry in layer.entries.items():
            older.entries.setdefault(key, entry)
    older.newer = layer.newer


def entry_at(base: dict[str, Entry], layer: Layer, key: str) -> Entry | None:
    """Return the entry of a key at the moment of the layer; needs no lock."""
    entry: Entry | None
    try:
        entry = base[key]  # not ``get``: see ``Table.commit``
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
    """Return the keys that changed after the moment of the layer, with their entries at that moment."""
    changed: dict[str, Entry | None] = {}
    at: Layer | None = layer
    while at is not None:
        newer = at.newer
        for key, entry in at.entries.copy().items():
            changed.setdefault(key, entry)
        at = newer
    return changed


def entries_at(base: dict[str, Entry], layer: Layer) -> dict[str, Entry]:
    """Return all entries at the moment of the layer; needs no lock.

    ``dict.copy`` is atomic, with and without the GIL. It may contain part of a commit that is being applied;
    the layers have all entries that the commit replaces, since they are filled first.
    """
    entries = base.copy()
    for key, entry in changed_since(layer).items():
        if entry is None:
            entries.pop(key, None)
        else:
            entries[key] = entry
    return entries
