"""Edits that are not committed yet, and what was read to come to them.

Thread safety: a batch is used by the thread of its transaction only.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from latchstore.contract.errors import TransactionConflictError
from latchstore.contract.matching import may_match
from latchstore.contract.ordering import Place, is_at_or_before
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.edits import Combined, Edit, Resolved, cause_of_edit, parts_of
from latchstore.engine.interface import Engine, View
from latchstore.engine.selection import found, overlaid

_NOTHING: Any = object()


class WriteBatch:
    """The edits of an exclusive transaction, on entries that nobody else can change meanwhile.

    A blind edit is only noted: what there is under its key is read when the block reads it.

    Parameters
    ----------
    engine : Engine
    revision : int
        The revision that the commit will have.
    """

    __slots__ = (
        "_base",
        "_base_of",
        "_check",
        "_edits",
        "_engine",
        "_known",
        "_rollbacks",
        "_undo",
        "revision",
        "rooms",
    )

    def __init__(self, engine: Engine, revision: int) -> None:
        self._engine = engine
        # What there is beneath the batch.
        self._base: Callable[[str], Entry | None] = engine.entry
        self._base_of: Callable[[list[str]], dict[str, Entry | None]] = engine.entries_of
        self._check = engine.check_edit
        self.revision: int = revision
        # By key, in the order in which the keys were first edited.
        self._edits: dict[str, Edit] = {}
        # What the edits come to, for the keys that the block has looked at.
        self._known: dict[str, Entry | None] = {}
        # (key, its edit before, what was known before), each _NOTHING if there was nothing, since the first
        # savepoint: read backwards to return to one. None before there is one.
        self._undo: list[tuple[str, Any, Any]] | None = None
        self._rollbacks = 0
        # What bounds note of the batch.
        self.rooms: dict[object, Any] | None = None

    def current(self, key: str) -> Entry | None:
        """Return the entry as the transaction sees it, or None."""
        if key not in self._edits:
            return self._base(key)
        known = self._known
        if key not in known:
            known[key] = self._edits[key].revise(key, self._base(key), self.revision, time.time())
        return known[key]

    def entries_of(self, keys: list[str]) -> dict[str, Entry | None]:
        """Return the entries of several keys as the transaction sees them."""
        edits = self._edits
        unwritten = [key for key in keys if key not in edits]
        found = self._base_of(unwritten) if unwritten else {}
        return {key: self.current(key) if key in edits else found[key] for key in keys}

    def put(self, key: str, edit: Edit) -> None:
        """Add an edit.

        Raises
        ------
        KeyError, RevisionMismatchError
            If it needs what is not there; nothing was added.
        TypeError, ValueError
            If the engine cannot keep what it has; nothing was added.
        """
        if self._check is not None:
            self._check(key, edit)
        edits, known = self._edits, self._known
        if key not in edits:
            # hot path: most keys of a transaction are edited once, and not looked at.
            new = _NOTHING if edit.blind else self._revised(key, edit)
            if self._undo is not None:
                self._undo.append((key, _NOTHING, _NOTHING))
            edits[key] = edit
        else:
            new = self._revised(key, edit) if key in known or not edit.blind else _NOTHING
            if self._undo is not None:
                self._undo.append((key, edits[key], known[key] if key in known else _NOTHING))
            edits[key] = Combined(edits[key], edit)
        if new is not _NOTHING:
            known[key] = new

    def put_all(self, edits: Iterable[tuple[str, Edit]]) -> None:
        """Add several edits, one after the other."""
        for key, edit in edits:
            self.put(key, edit)

    def _revised(self, key: str, edit: Edit) -> Entry | None:
        return edit.revise(key, self.current(key), self.revision, time.time())

    def savepoint(self) -> int:
        """Return a mark that `rollback_to` takes the batch back to."""
        if self._undo is None:
            self._undo = []
        return len(self._undo)

    def rollback_to(self, savepoint: int) -> None:
        """Take back all edits since the savepoint, the latest first."""
        undo = self._undo
        assert undo is not None
        self._rollbacks += 1
        # Freed when all is taken back: objects that entries refer to may write to the store as they go.
        dropped: list[object] = []
        while len(undo) > savepoint:
            key, edit, known = undo[-1]
            # There is none if this, or `put`, was broken off here by an exception.
            dropped.append((self._edits.get(key), self._known.get(key)))
            if known is _NOTHING:
                self._known.pop(key, None)
            else:
                self._known[key] = known
            if edit is _NOTHING:
                self._edits.pop(key, None)
            else:
                self._edits[key] = edit
            undo.pop()

    def written_since(self, mark: tuple[int, int] | None) -> tuple[Iterable[str], tuple[int, int] | None]:
        """Return the keys that were written since a mark.

        Parameters
        ----------
        mark : tuple or None
            From `mark`; None for all keys.

        Returns
        -------
        keys : iterable of str
        mark : tuple or None
            None if something was rolled back since: these are all keys then.
        """
        if mark is None or self._undo is None or mark[0] != self._rollbacks:
            return list(self._edits), None
        return [key for key, _, _ in self._undo[mark[1] :]], mark

    def mark(self) -> tuple[int, int]:
        """Return a mark of this moment for `written_since`."""
        return self._rollbacks, self.savepoint()

    def has_edit(self, key: str) -> bool:
        """Return whether the key was written in the batch."""
        return key in self._edits

    def seen(self, key: str) -> Entry | None:
        """Return the entry of a key that was written, as the transaction sees it; that is no read."""
        return WriteBatch.current(self, key)

    def edits(self) -> Collection[tuple[str, Edit]]:
        """Return what is to be committed: one edit for each key."""
        known = self._known
        if not known:
            return self._edits.items()
        return [
            (key, Resolved(known[key], cause_of_edit(edit)) if key in known else edit)
            for key, edit in self._edits.items()
        ]

    def check(self) -> None:
        """Do nothing: what an exclusive transaction has read cannot change. Called under the table lock."""

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return keys and entries, as the transaction sees them, among which are all that match `terms`."""
        return overlaid(self._engine.candidates(terms), self._written())

    def found(self, request: Request, only_keys: bool = False) -> Iterable[tuple[str, Entry]]:
        """Return what a query gives, as the transaction sees it.

        Parameters
        ----------
        only_keys : bool
            Whether nothing but the keys is looked at.
        """
        return found(self._engine, request, self._written())

    def _written(self) -> dict[str, Entry | None]:
        # A copy: a finalizer or a signal handler may write in this transaction meanwhile.
        return {key: self.seen(key) for key in list(self._edits)}

    def close(self) -> None:
        """Do nothing: an exclusive transaction pins nothing."""


class Query(NamedTuple):
    """A query that was answered, to be validated against what has changed since.

    Attributes
    ----------
    request : Request
    only_keys : bool
        Whether nothing but keys was read.
    edge : Place or None
        Where the last entry stands that was given: nothing after it was read. None if all that match were
        given.
    """

    request: Request
    only_keys: bool = False
    edge: Place | None = None

    def has_read(self, key: str, old: Entry | None, new: Entry | None) -> bool:
        """Return whether the answer may be another one by a change. Runs builtin code alone."""
        matches = self.request.matches
        if (self.only_keys and not self._depends_on_items and (old is None) == (new is None)) or (
            matches is not None and not matches(key)
        ):
            return False
        return self._covers(key, old) or self._covers(key, new)

    @property
    def _depends_on_items(self) -> bool:
        order = self.request.order
        return bool(self.request.terms) or (order is not None and order != (True, "key"))

    def _covers(self, key: str, entry: Entry | None) -> bool:
        request, edge = self.request, self.edge
        if entry is None or not may_match(entry, request.terms):
            return False
        if edge is None or request.order is None:
            return True
        return is_at_or_before(request.order.place(key, entry), edge, request.descending)


class OptimisticBatch(WriteBatch):
    """The edits of an optimistic transaction, with all that was read, to be validated at commit.

    The validation is that of Kung and Robinson, "On optimistic methods for concurrency control" (ACM TODS
    6(2), 1981, section 4: serial validation): nothing that was read may have been written since. What has
    been written since is known from the pre-images behind the view, so a query is validated against the
    changed keys and not run again.

    Parameters
    ----------
    engine : Engine
    view : View
        What the transaction reads; closed by `close`.
    purpose : str
        For the error of a conflict.
    """

    __slots__ = ("_partial", "_purpose", "_queries", "_read", "_view")

    def __init__(self, engine: Engine, view: View, purpose: str) -> None:
        super().__init__(engine, view.revision + 1)
        self._base = view.entry
        self._base_of = view.entries_of
        self._view = view
        self._purpose = purpose
        # Keys that were read, missing ones as well; and queries.
        self._read: set[str] = set()
        # Keys of which data or metadata alone was written: to read them is to read the view as well.
        self._partial: set[str] = set()
        self._queries: list[Query] = []

    def current(self, key: str) -> Entry | None:
        if key not in self._edits or key in self._partial:
            self._read.add(key)
        return super().current(key)

    def entries_of(self, keys: list[str]) -> dict[str, Entry | None]:
        self._read.update([key for key in keys if key not in self._edits])
        return super().entries_of(keys)

    def put(self, key: str, edit: Edit) -> None:
        if key not in self._edits:
            if not edit.blind:
                self._read.add(key)
            if not edit.whole:
                self._partial.add(key)
        super().put(key, edit)

    def edits(self) -> Collection[tuple[str, Edit]]:
        return [(key, self._afresh(key, edit)) for key, edit in self._edits.items()]

    def _afresh(self, key: str, edit: Edit) -> Edit:
        """Return the edit as it is done again on the entry of the moment of commit.

        A condition that holds in the view holds then, or the key is in conflict.
        """
        if key not in self._known:
            return edit
        # The block may have values over entries that it has put: they stay as they are.
        return functools.reduce(
            Combined,
            (
                each.with_items(each.plain, each) if isinstance(each, Entry) else each
                for each in parts_of(edit)
            ),
        )

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        self._queries.append(Query(Request(dict(terms))))
        return overlaid(self._view.candidates(terms), self._written())

    def found(self, request: Request, only_keys: bool = False) -> Iterable[tuple[str, Entry]]:
        request = request._replace(terms=dict(request.terms))
        entries = found(self._view, request, self._written())
        if request.limit is None:
            self._queries.append(Query(request, only_keys))
            return entries
        entries = list(entries)
        if len(entries) < request.limit:
            self._queries.append(Query(request, only_keys))
        elif request.order is None:
            # Any others would have done as well: those that were given are to stay as they are.
            self._read.update([key for key, _ in entries])
        elif entries:
            key, entry = entries[-1]
            self._queries.append(Query(request, only_keys, request.order.place(key, entry)))
        return entries

    def check(self) -> None:
        """Raise TransactionConflictError if a key was changed since that was read.

        Called under the table lock. No user code runs: a value whose ``==`` is not CPython's own counts as a
        match. Entries are compared by their revisions.
        """
        # hot path: mostly nobody has committed anything since.
        changed = {} if self._engine.revision == self._view.revision else self._view.changed()
        keys = [
            key
            for key, (old, new) in changed.items()
            if _revision_of(old) != _revision_of(new) and self._has_read(key, old, new)
        ]
        if keys:
            raise TransactionConflictError(
                f"{self._purpose}: changed by others since it was read: {_shown(keys)}", tuple(keys)
            )
        # What it pins is given up by the commit that follows, in the same section.
        self.close()

    def _has_read(self, key: str, old: Entry | None, new: Entry | None) -> bool:
        if key in self._read:
            return True
        return any(query.has_read(key, old, new) for query in self._queries)

    def close(self) -> None:
        """Give up the view."""
        self._view.close()


def _revision_of(entry: Entry | None) -> int:
    return 0 if entry is None else entry.revision


def _shown(keys: list[str]) -> str:
    """Name up to five keys."""
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(map(repr, sorted(keys)[:5])) + more
