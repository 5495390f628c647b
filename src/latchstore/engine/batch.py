"""Batches: the uncommitted edits of a transaction, and what an optimistic transaction has read.

Thread safety: only the thread of its transaction uses a batch.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from latchstore.contract.errors import TransactionConflictError
from latchstore.contract.matching import may_match
from latchstore.contract.ordering import Place, is_at_or_before
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.edits import Combined, Edit, Resolved, cause_of_edit, parts_of
from latchstore.engine.interface import Engine, View
from latchstore.engine.owner import Claim
from latchstore.engine.selection import found, overlaid

_NOTHING: Any = object()


class WriteBatch:
    """The edits of an exclusive transaction, on entries that no other thread can change meanwhile.

    A blind edit is only recorded; the entry of its key is computed when the block reads it.

    Parameters
    ----------
    engine : Engine
    revision : int
        The revision that the commit will have.
    """

    __slots__ = (
        "_beneath",
        "_check",
        "_edits",
        "_known",
        "_rollbacks",
        "_undo",
        "revision",
        "rooms",
    )

    def __init__(self, engine: Engine, revision: int) -> None:
        # What the block reads beneath its edits.
        self._beneath: Engine | View = engine
        self._check = engine.check_edit
        self.revision: int = revision
        # By key, in the order in which the keys were first edited.
        self._edits: dict[str, Edit] = {}
        # The resulting entries, for the keys that the block has read after an edit.
        self._known: dict[str, Entry | None] = {}
        # (key, its edit before, its known entry before), each _NOTHING if there was none, since the first
        # savepoint; undone from the end. None before there is a savepoint.
        self._undo: list[tuple[str, Any, Any]] | None = None
        self._rollbacks = 0
        # Records of bounds about the batch.
        self.rooms: dict[object, Any] | None = None

    def current(self, key: str) -> Entry | None:
        """Return the entry of a key as the transaction sees it, or None."""
        if key not in self._edits:
            return self._beneath.entry(key)
        known = self._known
        while key not in known:
            if key not in self._edits:
                return self._beneath.entry(key)  # a signal handler or finalizer has rolled the edit back
            edit = self._edits[key]
            entry = edit.revise(key, self._beneath.entry(key), self.revision, time.time())
            # No call between the look and the assignment, in which one may edit the key.
            if key in self._edits and self._edits[key] is edit:
                known[key] = entry
        return known[key]

    def entries_of(self, keys: list[str]) -> dict[str, Entry | None]:
        """Return the entries of several keys as the transaction sees them."""
        edits = self._edits
        unwritten = [key for key in keys if key not in edits]
        found = self._beneath.entries_of(unwritten) if unwritten else {}
        return {key: self.current(key) if key in edits else found[key] for key in keys}

    def put(self, key: str, edit: Edit) -> None:
        """Add an edit.

        Raises
        ------
        KeyError, RevisionMismatchError
            If it needs an entry or a revision that is not there; nothing was added.
        TypeError, ValueError
            If the engine cannot store its value; nothing was added.
        """
        if self._check is not None:
            self._check(key, edit)
        edits = self._edits
        if edit.blind and self._undo is None and key not in edits:
            edits[key] = edit  # hot path: most keys of a transaction are edited once and not read
            return
        while not self._put(key, edit):
            pass

    def _put(self, key: str, edit: Edit) -> bool:
        """Add an edit; return False if a signal handler or finalizer has used the key meanwhile."""
        edits, known = self._edits, self._known
        before = edits[key] if key in edits else _NOTHING
        entry = known[key] if key in known else _NOTHING
        new = _NOTHING if entry is _NOTHING and edit.blind else self._revised(key, edit)
        combined = edit if before is _NOTHING else Combined(before, edit)
        undo = [(key, before, known[key] if key in known else _NOTHING)]
        # No calls from here on, so that none edits or reads the key in between.
        if (edits[key] if key in edits else _NOTHING) is not before or (new is _NOTHING and key in known):
            return False
        if self._undo is not None:
            self._undo += undo
        edits[key] = combined
        if new is not _NOTHING:
            known[key] = new
        return True

    def put_all(self, edits: Iterable[tuple[str, Edit]]) -> None:
        """Add several edits in order."""
        for key, edit in edits:
            self.put(key, edit)

    def _revised(self, key: str, edit: Edit) -> Entry | None:
        return edit.revise(key, self.current(key), self.revision, time.time())

    def savepoint(self) -> int:
        """Return a mark that `rollback_to` rolls the batch back to."""
        if self._undo is None:
            self._undo = []
        return len(self._undo)

    def rollback_to(self, savepoint: int) -> None:
        """Roll back all edits since the savepoint, the latest first."""
        undo = self._undo
        assert undo is not None
        self._rollbacks += 1
        # Freed at the end: finalizers of objects in the entries may write to the store.
        dropped: list[object] = []
        while len(undo) > savepoint:
            key, edit, known = undo[-1]
            # Neither is there if an exception interrupted this, or `put`, here.
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
            None if edits were rolled back since, so `keys` are all keys.
        """
        if mark is None or self._undo is None or mark[0] != self._rollbacks:
            return list(self._edits), None
        return [key for key, _, _ in self._undo[mark[1] :]], mark

    def mark(self) -> tuple[int, int]:
        """Return a mark of the current state for `written_since`."""
        return self._rollbacks, self.savepoint()

    def has_edit(self, key: str) -> bool:
        """Return whether the key was written in the batch."""
        return key in self._edits

    def seen(self, key: str) -> Entry | None:
        """Return the entry of a written key as the transaction sees it; does not count as a read."""
        return WriteBatch.current(self, key)

    def edits(self) -> Collection[tuple[str, Edit]]:
        """Return the edits to commit, one for each key."""
        known = self._known
        if not known:
            return self._edits.items()
        return [
            (key, Resolved(known[key], cause_of_edit(edit)) if key in known else edit)
            for key, edit in self._edits.items()
        ]

    def check(self) -> None:
        """Do nothing: the reads of an exclusive transaction cannot change. Called under the table lock."""

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return keys and entries, as the transaction sees them, that include all matches of `terms`."""
        return overlaid(self._beneath.candidates(terms), self._written())

    def found(self, request: Request, only_keys: bool = False) -> Iterable[tuple[str, Entry]]:
        """Return the result of a query, as the transaction sees it.

        Parameters
        ----------
        only_keys : bool
            Whether the caller uses the keys only.
        """
        return found(self._beneath, request, self._written())

    def _written(self) -> dict[str, Entry | None]:
        # A copy: a finalizer or a signal handler may write in this transaction meanwhile.
        return {key: self.seen(key) for key in list(self._edits)}

    def close(self) -> None:
        """Do nothing: an exclusive transaction holds no view."""


class Query(NamedTuple):
    """A query that was executed, for validation against later changes.

    Attributes
    ----------
    request : Request
    only_keys : bool
        Whether only keys were read.
    edge : Place or None
        The place of the last entry returned: nothing after it was read. None if all matches were returned.
    """

    request: Request
    only_keys: bool = False
    edge: Place | None = None

    def has_read(self, key: str, old: Entry | None, new: Entry | None) -> bool:
        """Return whether a change may alter the result. Runs builtin code only."""
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
    """The edits of an optimistic transaction, and all its reads, which are validated at commit.

    The validation is that of Kung and Robinson, "On optimistic methods for concurrency control" (ACM TODS
    6(2), 1981, section 4: serial validation): nothing that was read may have been written since. The
    pre-images behind the view show what has been written since, so a query is validated against the changed
    keys and not executed again.

    Parameters
    ----------
    engine : Engine
    view : View
        The view that the transaction reads; `close` closes it.
    claim : Claim
        Names the transaction in the error of a conflict.
    """

    __slots__ = ("_claim", "_engine", "_partial", "_queries", "_read", "_view")

    def __init__(self, engine: Engine, view: View, claim: Claim) -> None:
        super().__init__(engine, view.revision + 1)
        self._engine = engine
        self._beneath = self._view = view
        self._claim = claim
        # Keys that were read, including missing ones; and queries.
        self._read: set[str] = set()
        # Keys of which only data or only metadata was written: reading them reads the view as well.
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
        """Return the edit in a form that is applied again to the entry at the moment of commit.

        A condition that holds in the view holds then, or else the key is in conflict.
        """
        if key not in self._known:
            return edit
        # The block may have values over entries that it has put, so those entries must not change.
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
            # Any other entries would have been as good, so only those returned must stay the same.
            self._read.update([key for key, _ in entries])
        elif entries:
            key, entry = entries[-1]
            self._queries.append(Query(request, only_keys, request.order.place(key, entry)))
        return entries

    def check(self) -> None:
        """Raise TransactionConflictError if a key was changed since it was read.

        Called under the table lock. No user code runs: a value whose ``==`` is not CPython's own counts as a
        match. Entries are compared by their revisions.
        """
        # hot path: mostly there was no commit since.
        changed = {} if self._engine.revision == self._view.revision else self._view.changed()
        keys = [
            key
            for key, (old, new) in changed.items()
            if _revision_of(old) != _revision_of(new) and self._has_read(key, old, new)
        ]
        if keys:
            raise TransactionConflictError(
                f"{self._claim.purpose}: changed by others since it was read: {_shown(keys)}", tuple(keys)
            )
        # The commit that follows in the same section frees the pre-images that it held.
        self.close()

    def _has_read(self, key: str, old: Entry | None, new: Entry | None) -> bool:
        if key in self._read:
            return True
        return any(query.has_read(key, old, new) for query in self._queries)

    def close(self) -> None:
        """Close the view."""
        self._view.close()


def _revision_of(entry: Entry | None) -> int:
    return 0 if entry is None else entry.revision


def _shown(keys: list[str]) -> str:
    """Return up to five keys as text."""
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(map(repr, sorted(keys)[:5])) + more
