"""Changes that are not committed yet, and what was read to come to them.

Thread safety: a batch is used by the thread of its transaction only.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from latchstore.contract.matching import may_match
from latchstore.contract.values import Change, Entry, deletion, with_metadata_of
from latchstore.engine.entry_store import Edit, IfRevision, cause_of_edit
from latchstore.engine.snapshot import Snapshot

_NOTHING: Any = object()


class EntrySource(Protocol):
    """Where a batch looks for what it has not changed itself: first whether it is there, then for it.

    Not by ``get``: see ``DictMemoryStore._write_one``.
    """

    def __contains__(self, key: str, /) -> bool: ...

    def __getitem__(self, key: str, /) -> Entry | None: ...


class WriteBatch:
    """Changes on top of entries that nobody else can change: the thread holds the writer mutex.

    Parameters
    ----------
    base : mapping
        The table's entries.
    revision : int
        The revision that the commit will have.

    Attributes
    ----------
    after : dict
        The keys that were changed, each with its new entry, or None.
    before : dict
        The same keys, each with its entry in the base, or None. Those whose changes were taken back may be
        among them.
    """

    __slots__ = ("_base", "_causes", "_undo", "after", "before", "revision")

    def __init__(self, base: EntrySource, revision: int) -> None:
        self._base = base
        self.after: dict[str, Entry | None] = {}
        # Of the keys that are deleted, why those are that a cache evicts.
        self._causes: dict[str, str | None] = {}
        self.before: dict[str, Entry | None] = {}
        self.revision = revision
        # (key, what `after` held before, or _NOTHING, and `_causes`) since the first savepoint: read
        # backwards to return to one. None before there is one.
        self._undo: list[tuple[str, Any, str | None]] | None = None

    def current(self, key: str) -> Entry | None:
        """Return the entry as the transaction sees it, or None."""
        after, base = self.after, self._base
        if key in after:
            return after[key]
        return base[key] if key in base else None

    def put(self, key: str, edit: Edit) -> None:
        """Apply one edit; raises KeyError if it needs an entry and there is none."""
        after = self.after
        if key in after:
            previous = current = after[key]
        else:
            previous, base = _NOTHING, self._base
            current = self.before[key] = base[key] if key in base else None
        new = edit.revise(key, current, self.revision, time.time())
        if self._undo is not None:
            self._undo.append((key, previous, self._causes.get(key)))
        after[key] = new
        if new is None or self._causes:
            self._causes[key] = None if new is not None else cause_of_edit(edit)

    def savepoint(self) -> int:
        """Return a mark that `rollback_to` takes the batch back to."""
        if self._undo is None:
            self._undo = []
        return len(self._undo)

    def rollback_to(self, savepoint: int) -> None:
        """Take back all edits since the savepoint, the latest first."""
        undo = self._undo
        assert undo is not None
        while len(undo) > savepoint:
            key, previous, cause = undo[-1]
            if previous is _NOTHING:
                self.after.pop(key, None)
            else:
                self.after[key] = previous
            self._causes[key] = cause
            undo.pop()

    def changes_anything(self) -> bool:
        """Tell whether there is a key that is not absent before and after."""
        before = self.before
        return any(new is not None or before[key] is not None for key, new in self.after.items())

    def net_changes(self) -> list[Change]:
        """Return one change per key, leaving out keys that are absent before and after."""
        before, causes = self.before, self._causes
        return [
            (key, old, new) if new is not None else deletion(key, old, causes.get(key))
            for key, new in self.after.items()
            if (old := before[key]) is not None or new is not None
        ]

    def overlay(self, found: Iterable[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
        """Return `found`, read from the base, without what the batch has changed, plus the batch."""
        after = self.after
        merged = [item for item in found if item[0] not in after]
        merged.extend((key, entry) for key, entry in after.items() if entry is not None)
        return merged


class OptimisticBatch(WriteBatch):
    """Changes on top of a snapshot, with all that was read of it, to be validated at commit.

    The validation is that of Kung and Robinson, "On optimistic methods for concurrency control" (ACM TODS
    6(2), 1981, section 4: serial validation): nothing that was read may have been written since. What has
    been written since is known from the layers behind the snapshot, so a query is validated against the
    changed keys and not run again.

    Parameters
    ----------
    snapshot : Snapshot
        What the transaction reads; closed by `close`.
    """

    __slots__ = ("_edits", "_key_patterns", "_partial", "_read", "_snapshot", "_terms")

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(_SnapshotSource(snapshot), snapshot.revision + 1)
        self._snapshot = snapshot
        self.savepoint()
        # As long as `_undo`, which begins with it: what to do again on the entries of the moment of commit.
        self._edits: list[tuple[str, Edit]] = []
        # Keys that were read, missing ones too; queries; and patterns of keys that were asked for.
        self._read: set[str] = set()
        # Keys of which data or metadata alone was written: to read them is to read the snapshot, too.
        self._partial: set[str] = set()
        self._terms: list[Mapping[str, Any]] = []
        self._key_patterns: set[str] = set()

    def current(self, key: str) -> Entry | None:
        if key not in self.after or key in self._partial:
            self._read.add(key)
        return super().current(key)

    def put(self, key: str, edit: Edit) -> None:
        if key not in self.after:
            if not edit.blind:
                self._read.add(key)
            if not edit.whole:
                self._partial.add(key)
        super().put(key, edit)
        # A condition that holds here holds at commit, or the key is in conflict.
        self._edits.append((key, edit.edit if isinstance(edit, IfRevision) else edit))

    def rollback_to(self, savepoint: int) -> None:
        super().rollback_to(savepoint)
        del self._edits[savepoint:]

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return what the snapshot has for a query, and note that it was asked."""
        self._terms.append(dict(terms))
        return self._snapshot._candidates(terms)

    def items_like(self, pattern: str) -> Iterable[tuple[str, Entry]]:
        """Return what the snapshot has, and note that keys like `pattern` were asked for."""
        self._key_patterns.add(pattern)
        return self._snapshot._items()

    def conflicts(self, entries: Mapping[str, Entry | None]) -> list[str]:
        """Return the keys that were changed since, and read; the caller holds the writer mutex.

        No user code runs: a value whose ``==`` is not CPython's own counts as a match.
        """
        return [
            key
            for key, old in self._snapshot.changed().items()
            if (new := entries[key] if key in entries else None) is not old and self._has_read(key, old, new)
        ]

    def _has_read(self, key: str, old: Entry | None, new: Entry | None) -> bool:
        if key in self._read:
            return True
        if (old is None) != (new is None) and any(
            fnmatch.fnmatchcase(key, pattern) for pattern in self._key_patterns
        ):
            return True
        return any(may_match(old, terms) or may_match(new, terms) for terms in self._terms)

    def rebased(self, entries: Mapping[str, Entry | None], revision: int) -> WriteBatch:
        """Return the same edits as a batch on top of `entries`; the caller holds the writer mutex."""
        batch = WriteBatch(entries, revision)
        for key, edit in self._edits:
            # The transaction may have handed out values over its entries: they stay as they are.
            batch.put(key, _copied(edit) if isinstance(edit, Entry) else edit)
        return batch

    def close(self) -> None:
        """Give up the snapshot."""
        self._snapshot.close()


def _copied(entry: Entry) -> Entry:
    copied = with_metadata_of(entry)
    copied.data = entry.data
    return copied


class _SnapshotSource:
    """A snapshot as a batch asks it: it has an answer for every key, which may be None."""

    __slots__ = ("_snapshot",)

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __contains__(self, key: str, /) -> bool:
        return True

    def __getitem__(self, key: str, /) -> Entry | None:
        return self._snapshot.find(key)
