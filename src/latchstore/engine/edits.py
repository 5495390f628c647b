"""Edits: the changes that a call makes to one key.

An edit is built outside all locks and carries everything it does in attributes that any engine can read: an
engine in another process is sent these, one in memory calls `revise` under its lock.

Thread safety: an edit belongs to one call. `revise` runs builtin code only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf, nextafter
from typing import Any, Protocol

from latchstore.contract.errors import RevisionMismatchError
from latchstore.contract.values import Entry, merged_metadata, with_metadata_of


class Edit(Protocol):
    """A change to one key.

    The kinds are `Entry` (with data and metadata, it replaces the whole entry), `SetData`, `SetMetadata`,
    `MergeMetadata`, `Delete`, and `IfRevision`, `IfItems`, `Combined` and `Resolved`, which contain others.

    Attributes
    ----------
    blind : bool
        Whether it succeeds whatever the old entry is, so that it cannot conflict with other writes.
    whole : bool
        Whether it replaces the whole entry.
    """

    @property
    def blind(self) -> bool: ...

    @property
    def whole(self) -> bool: ...

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
        """Return the new, complete entry, or None if the key is deleted.

        Parameters
        ----------
        current : Entry or None
            The entry of the key now.
        revision : int
            The revision that the commit will have.
        now : float
            Seconds since the epoch.

        Raises
        ------
        KeyError
            If the edit needs an entry and there is none.
        RevisionMismatchError
            If it is conditional, and its condition does not hold.
        If its condition does not hold.
        """


class SetData:
    """Sets the data and keeps the metadata."""

    __slots__ = ("data",)

    blind = True
    whole = False

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        # hot path: `with_metadata_of` and `Entry.revise`, inlined.
        if current is None:
            entry = Entry()
            entry.created = now
        else:
            entry = current.plain(current)
            entry.created = current.created
            if now <= current.modified:
                now = nextafter(current.modified, inf)
        entry.data = self.data
        entry.modified = now
        entry.revision = revision
        return entry


class SetMetadata:
    """Sets the metadata and keeps the data."""

    __slots__ = ("metadata",)

    blind = True
    whole = False

    def __init__(self, metadata: Entry) -> None:
        self.metadata: Entry = metadata

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        items = self.metadata
        if current is None:
            entry = with_metadata_of(items)
            entry.data = b""
        else:
            entry = current.with_items(items.plain, items)
        return entry.revise(key, current, revision, now)


class MergeMetadata:
    """Sets some metadata items and keeps the others.

    Parameters
    ----------
    metadata : Entry
        The items, from `entry_from_metadata`.
    """

    __slots__ = ("metadata",)

    blind = False
    whole = False

    def __init__(self, metadata: Entry) -> None:
        self.metadata: Entry = metadata

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        if current is None:
            raise KeyError(key)
        return merged_metadata(current, self.metadata).revise(key, current, revision, now)


class Delete:
    """Removes the key.

    Parameters
    ----------
    cause : str or None
        The cause of an eviction; None for any other delete.
    """

    __slots__ = ("cause",)

    blind = False
    whole = True

    def __init__(self, cause: str | None = None) -> None:
        self.cause: str | None = cause

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> None:
        if current is None:
            raise KeyError(key)


class IfRevision:
    """Applies another edit if the key has the expected revision.

    Parameters
    ----------
    edit : Edit
    expected : int
        0 for a key that must not exist.
    """

    __slots__ = ("edit", "expected")

    blind = False

    def __init__(self, edit: Edit, expected: int) -> None:
        self.edit: Edit = edit
        self.expected: int = expected

    @property
    def whole(self) -> bool:
        return self.edit.whole

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
        actual = 0 if current is None else current.revision
        if actual != self.expected:
            raise RevisionMismatchError(key, self.expected, actual)
        return self.edit.revise(key, current, revision, now)


class OtherItemsError(Exception):
    """The metadata items of an entry differ from those that an edit expects; nothing was changed."""


class IfItems:
    """Applies another edit if some metadata items of the entry have the expected values.

    Parameters
    ----------
    edit : Edit
    items : tuple of pairs
        Names and immutable values of builtin types.
    """

    __slots__ = ("edit", "items")

    blind = False

    def __init__(self, edit: Edit, items: tuple[tuple[str, Any], ...]) -> None:
        self.edit: Edit = edit
        self.items: tuple[tuple[str, Any], ...] = items

    @property
    def whole(self) -> bool:
        return self.edit.whole

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
        if current is None:
            raise OtherItemsError(key)
        for name, expected in self.items:
            if name not in current:
                raise OtherItemsError(key)
            item = current[name]
            # hot path: mostly it is the same object.
            if item is not expected and (type(item) is not type(expected) or item != expected):
                raise OtherItemsError(key)
        return self.edit.revise(key, current, revision, now)


#: The edits that contain another one and a condition.
_CONDITIONAL = (IfRevision, IfItems)


class Combined:
    """Several edits of one key, applied in order.

    It shares all but the last one with the `Combined` that it extends, so that a block which edits a key
    repeatedly does not copy them each time.

    Parameters
    ----------
    first : Edit
    then : Edit
        Not a `Combined`.
    """

    __slots__ = ("_first", "_then", "blind", "whole")

    def __init__(self, first: Edit, then: Edit) -> None:
        self._first = first
        self._then = then
        self.blind: bool = first.blind and then.blind
        self.whole: bool = first.whole or then.whole

    @property
    def edits(self) -> list[Edit]:
        """The edits in order."""
        found: list[Edit] = []
        edit: Edit = self
        while type(edit) is Combined:
            found.append(edit._then)
            edit = edit._first
        found.append(edit)
        found.reverse()
        return found

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
        for edit in self.edits:
            current = edit.revise(key, current, revision, now)
        return current


class Resolved:
    """An edit whose result is already known, since its block has read it.

    Parameters
    ----------
    entry : Entry or None
        The complete entry; the key has not changed since.
    cause : str or None
        The cause of an eviction; None for any other edit.
    """

    __slots__ = ("cause", "entry")

    blind = False
    whole = True

    def __init__(self, entry: Entry | None, cause: str | None) -> None:
        self.entry: Entry | None = entry
        self.cause: str | None = cause

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry | None:
        return self.entry


def parts_of(edit: Edit) -> tuple[Edit, ...]:
    """Return the edits that an edit consists of, without their conditions."""
    if type(edit) is Combined:
        return tuple(part for each in edit.edits for part in parts_of(each))
    if isinstance(edit, _CONDITIONAL):
        return parts_of(edit.edit)
    return (edit,)


def cause_of_edit(edit: Edit) -> str | None:
    """Return the cause if an edit evicts the key, else None."""
    while isinstance(edit, _CONDITIONAL):
        edit = edit.edit  # hot path: most deletions are conditional
    if type(edit) is Combined:
        edit = parts_of(edit)[-1]
    cause: str | None = getattr(edit, "cause", None)
    return cause


def by_key(edits: Sequence[tuple[str, Edit]]) -> Collection[tuple[str, Edit]]:
    """Return one edit for each key, in the order of the keys."""
    found = dict(edits)
    if len(found) == len(edits):
        return edits
    found.clear()
    for key, edit in edits:
        found[key] = Combined(found[key], edit) if key in found else edit
    return found.items()
