"""The dicts: entries and metadata indexes, and how a commit is applied to them in one step.

Thread safety:

1. `entries` is changed under the writer mutex and the write side of the table lock, by `apply` and
   `apply_one` alone.
2. Several entries are read under the read side of the table lock, or by a thread that holds the writer
   mutex (nobody else can change them then).
3. A single entry is read with no lock at all: ``entries[key]``, and then the gate of ``memory.py``.
   CPython documents ``d[key]``, ``d.get(key)`` and ``key in d`` as atomic, with and without the GIL.
   If the gate is open after the read, the value stands; else the gate has the entries that stood there
   before the commit, and for keys that the commit leaves alone the value stands, too.

Why one look at the gate after the read is enough. The gate is shut before the first entry of a commit
changes; it is opened after the last one has and before the table lock is given back, and that is the
instant of the commit for all readers. A reader that finds the gate shut answers what was true then. A reader
that got a new entry and then finds the gate open returns after the commit is whole. A reader that got an
old entry read it before the commit was whole, so it counts as having read before the commit. The one case
left, a new entry read from a commit that is then taken back, cannot be: `apply` never takes back an entry
that others could see. What can fail (room for new keys, the indexes) is done before the first entry
changes; from there on a commit is only ever finished. A commit of one key needs no gate, as one dict
operation is a single instant by itself. Were the gate opened after the table lock was given back, a query
could see the commit and a read of one key after it what was there before.
This replaces the version stamp of a sequence lock (two looks, which a writer that may abort halfway
would need): to_bytes takes 2.3 times a bare dict.get so, 3.3 times with the stamp.

While a commit of several keys is applied, None stands in `entries` for a key that is being created or
deleted. Readers that hold a lock never see one, and lock-free readers take it for a missing key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from latchstore.contract.values import Change, Entry
from latchstore.engine.locking import Latches, surely
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.preimages import Layer, Preimages, View


class _Commit:
    """A commit of several keys that is being applied.

    Attributes
    ----------
    after : dict
        The keys that change, each with its new entry, or None.
    created, deleted : list of str
        Those that are absent before, and after.
    changes : list of Change
        The same, if there are indexes or snapshots that have to know.
    revision : int
    """

    __slots__ = ("after", "changes", "created", "deleted", "revision")

    def __init__(
        self, before: Mapping[str, Entry | None], after: dict[str, Entry | None], revision: int
    ) -> None:
        self.after = after
        self.created = [key for key in after if before[key] is None]
        self.deleted = [key for key, new in after.items() if new is None]
        self.changes: list[Change] = []
        self.revision = revision


class Table:
    """The entries of one store, by key, and its indexes by metadata item.

    Parameters
    ----------
    latches : Latches
        The store's locks; `apply` takes the write side of the table lock itself.

    Attributes
    ----------
    entries : dict
        Key to entry. Lock-free readers look here, so the dict object is never replaced.
    revision : int
        The revision of the last commit, 0 before the first.
    preimages : Preimages
        What open snapshots need of the past.
    indexes : dict
        Metadata item name to `MetadataIndex`; replaced whole when an index is added or removed.
    """

    __slots__ = (
        "_changing",
        "_committing",
        "_latches",
        "_preparing",
        "entries",
        "indexes",
        "preimages",
        "revision",
    )

    def __init__(self, latches: Latches, indexes: Iterable[str] = ()) -> None:
        self._latches = latches
        self.entries: dict[str, Entry | None] = {}
        self.revision = 0
        self.preimages = Preimages()
        self.indexes: dict[str, MetadataIndex] = {name: MetadataIndex(name) for name in indexes}
        # What a commit that is under way has to take back, and, once it is decided, to finish; each published
        # by one assignment, so that `settle` knows what to do whatever has struck. Under the table lock.
        self._preparing: _Commit | None = None
        self._committing: _Commit | None = None
        # The same for a commit of one key, and its revision: it is made by one operation of the dict.
        self._changing: tuple[Change, int] | None = None

    def apply_one(self, change: Change, revision: int) -> None:
        """Set or delete one key; or raise, and change nothing. The caller holds the writer mutex.

        Nothing has to be decided here, and no gate shut, as one operation of the dict is the commit.
        """
        key, _, new = change
        lock = self._latches.table
        try:
            try:
                if not lock.write_handle.acquire(True, lock.timeout):
                    lock.refuse_writing()
                if self.preimages.layers:
                    self.preimages.record([change])
                self._changing = (change, revision)
                if self.indexes:
                    self._update_indexes([change])
                if new is None:
                    del self.entries[key]
                else:
                    self.entries[key] = new
                self.revision = revision
                self._changing = None
                lock.write_handle.release()
            except BaseException:
                self._settle_one()
                raise
        except BaseException:
            surely(self._settle_one)
            raise

    def _settle_one(self) -> None:
        lock = self._latches.table
        if lock.writing:
            self.settle()
            lock.give_back_write()

    def apply(
        self,
        before: Mapping[str, Entry | None],
        after: dict[str, Entry | None],
        revision: int,
        open_gate: Callable[[], None],
    ) -> None:
        """Make all changes, at one instant for every reader; or raise, and make none.

        The caller holds the writer mutex and has shut the gate, which is opened here. Nothing is undone
        after the first entry has changed: an exception that comes later (an interrupt) is raised when the
        commit is whole.

        Parameters
        ----------
        before : mapping
            What the table has for the keys of `after`, or None; other keys may be in it.
        after : dict
            The keys that change, each with its new entry, or None. It is not changed any more.
        """
        lock = self._latches.table
        commit = _Commit(before, after, revision)
        try:
            try:
                if not lock.write_handle.acquire(True, lock.timeout):
                    lock.refuse_writing()
                if self.indexes or self.preimages.layers:
                    # Else nobody needs them one by one: 0.1 of 2.6 us for each key.
                    commit.changes = [(key, before[key], new) for key, new in after.items()]
                    self.preimages.record(commit.changes)
                self._preparing = commit
                self._prepare(commit)
                self._committing = commit
                self.settle()
                open_gate()
                lock.write_handle.release()
            except BaseException:
                self._settle_all(open_gate)
                raise
        except BaseException:
            surely(self._settle_all, open_gate)
            raise

    def _settle_all(self, open_gate: Callable[[], None]) -> None:
        lock = self._latches.table
        if lock.writing:
            self.settle()
            open_gate()
            lock.give_back_write()

    def settle(self) -> None:
        """Finish the commit that is under way, or take it back if it is not decided; may be done twice.

        The caller holds the write side of the table lock, or is alone, in a forked child.
        """
        decided = self._committing
        if decided is not None:
            self.entries.update(decided.after)
            self._remove(decided.deleted)
            self.revision = decided.revision
            self._preparing = None
            self._committing = None
        if self._changing is not None:
            change, revision = self._changing
            if self.entries.get(change[0]) is change[2]:
                self.revision = revision
            else:
                self._undo_indexes([change])
            self._changing = None
        undecided = self._preparing
        if undecided is not None:
            self._remove(undecided.created)
            self._undo_indexes(undecided.changes)
            self._preparing = None

    def _prepare(self, commit: _Commit) -> None:
        """Do all that can fail; nobody can see any of it."""
        # Room for the new keys now, so that the update that follows only replaces values: it can
        # then neither allocate nor fail.
        self.entries.update(dict.fromkeys(commit.created))
        self._update_indexes(commit.changes)

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            self.entries.pop(key, None)

    def _update_indexes(self, changes: list[Change]) -> None:
        for index in self.indexes.values():
            for key, old, new in changes:
                index.replace(key, old, new)

    def _undo_indexes(self, changes: list[Change]) -> None:
        for index in self.indexes.values():
            for key, old, new in changes:
                index.replace(key, new, old)

    def items(self) -> Iterable[tuple[str, Entry]]:
        """Return all keys and entries of one instant, to iterate over once; the caller holds a lock.

        Two copies zipped and not one of ``items()``: no pair is made for what the reader passes over,
        which is half the time of a query (benchmarks/operations.py).
        """
        entries: dict[str, Any] = self.entries
        return zip(list(entries), list(entries.values()), strict=True)

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return keys and entries among which are all that match `terms`; the caller holds a lock.

        With indexes on some of the terms it is the shortest of their answers, else everything.
        """
        answers = [
            self.indexes[name].candidates(value) for name, value in terms.items() if name in self.indexes
        ]
        known: list[Any] = [keys for keys in answers if keys is not None]
        if not known:
            return self.items()
        entries = self.entries
        return [(key, entries[key]) for key in min(known, key=len)]  # type: ignore[misc]

    def open_snapshot(self, view: View) -> Layer:
        """Return the layer of this moment, which is kept as long as somebody holds the view."""
        return self._latches.table.excluding(lambda: self.preimages.open(self.revision, view))

    def close_snapshot(self, view: View) -> None:
        """Free what only this snapshot needed. Never waits, and may be called by a finalizer at any point.

        If the table is in use just now, the next commit, snapshot or info() does it.
        """
        self.preimages.close(view)
        self._latches.table.try_excluding(self.preimages.forget_closed)

    def add_index(self, name: str) -> None:
        """Build an index, if there is none, and publish it; the caller holds the writer mutex."""
        assert self._latches.writer.held_by_this_thread()
        if name in self.indexes:
            return
        index = MetadataIndex(name)
        for key, entry in self.items():
            index.replace(key, None, entry)
        self.indexes = {**self.indexes, name: index}

    def remove_index(self, name: str) -> None:
        """Forget the index; KeyError if there is none. The caller holds the writer mutex."""
        assert self._latches.writer.held_by_this_thread()
        if name not in self.indexes:
            raise KeyError(name)
        self.indexes = {other: index for other, index in self.indexes.items() if other != name}

    def load(self, entries: dict[str, Entry], revision: int) -> None:
        """Take over what another store held, while nobody else knows of this one."""
        self._update_indexes([(key, None, entry) for key, entry in entries.items()])
        self.entries.update(entries)
        self.revision = revision

    def facts(self) -> dict[str, Any]:
        """Return what ``store.info()`` says of the table; the caller holds the table lock for writing."""
        return {
            "keys": len(self.entries),
            "revision": self.revision,
            "indexes": list(self.indexes),
            **self.preimages.facts(),
        }

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; for tests, while nobody writes."""
        for key, entry in self.entries.items():
            assert type(key) is str, key
            assert isinstance(entry, Entry), (key, entry)
            assert type(entry.data) is bytes, key
            assert entry.created <= entry.modified, key
            assert 0 < entry.revision <= self.revision, key
        for index in self.indexes.values():
            index.check(self.entries)  # type: ignore[arg-type]
