"""Mutants whose caches are broken, for the workload `cache` to find; part of the catalogue.

Thread safety: as what they break, as a rule without it.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from latchstore.cache.load import Load
from latchstore.cache.loader import CacheLoader
from latchstore.cache.loading import LoadedInside, LoadTable
from latchstore.cache.reading import CacheReader
from latchstore.cache.writing import CacheWriter
from latchstore.engine.bounded_table import BoundedTable
from latchstore.engine.bounds import Bound
from latchstore.engine.table import Table
from tests.mutants.mutant import mutant, replaces

# -- loads ------------------------------------------------------------------------------------------------


@mutant("cache")
def load_not_kept_out() -> None:
    """What was loaded is kept although the key was set or deleted meanwhile."""

    @replaces(CacheLoader, "_put_loaded")
    def put_loaded(original: Any, self: Any, load: Load, data: Any, options: Any, revisions: Any) -> None:
        self._put_if_it_fits(load.key, data, options)


@mutant("cache")
def tag_forgets_loads() -> None:
    """An invalidation by tag leaves the loads that run alone."""

    def none(key: str, tags: frozenset[str]) -> bool:
        return False

    @replaces(CacheWriter, "_delete_all")
    def delete_all(original: Any, self: Any, notes: str, is_meant: Any, find: Any) -> int:
        count: int = original(self, notes, none if notes.startswith("invalidate tag") else is_meant, find)
        return count


@mutant("cache")
def delete_of_a_missing_key_not_noted() -> None:
    """A commit notes only what it has changed, so a delete of a missing key leaves a load of it alone."""

    @replaces(Bound, "begin")
    def begin(original: Any, self: Any, edits: Any) -> None:
        awaited, self._awaited = self._awaited, {}
        original(self, edits)
        self._awaited = awaited


@mutant("cache")
def old_load_joined() -> None:
    """A caller takes the result of a load that began before a removal which has returned."""

    @replaces(LoadTable, "wait_if_current")
    def wait_if_current(original: Any, self: Any, load: Load, deadline: float | None) -> Any:
        return self._wait(load, deadline)


@mutant("cache")
def two_flights() -> None:
    """A caller that finds a load of its key running loads it as well."""

    @replaces(LoadTable, "claim")
    def claim(original: Any, self: LoadTable, load: Load) -> Load:
        running = original(self, load)
        if running is not load:
            load.kept_out = True
        return load


@mutant("cache")
def outdated_load_committed() -> None:
    """An optimistic transaction commits what it has loaded before others have removed it."""

    @replaces(LoadedInside, "revise")
    def revise(original: Any, self: Any, *args: Any) -> Any:
        self._load.outdated = False
        return original(self, *args)


# -- the bound --------------------------------------------------------------------------------------------


@mutant("cache")
def evicted_after_the_commit() -> None:
    """A commit evicts nothing, and another one after it does."""

    @replaces(Bound, "make_room")
    def make_room(original: Any, self: Bound, entries: Any, before: Any, after: Any, deleted: Any) -> None:
        if not before:
            original(self, entries, before, after, deleted)

    @replaces(BoundedTable, "write")
    def write(original: Any, self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        if self.current_transaction() is None and self._bound.is_exceeded(0, 0):
            self._commit((), "evict", None)


@mutant("cache")
def bytes_not_counted() -> None:
    """A commit looks at the number of entries alone, and not at what they weigh."""

    @replaces(Bound, "__init__")
    def initialise(original: Any, self: Bound, limits: Any) -> None:
        original(self, limits._replace(max_bytes=sys.maxsize))


@mutant("cache")
def transactions_not_bounded() -> None:
    """A transaction evicts nothing, neither when it writes nor when it is committed."""
    committing = threading.local()

    @replaces(BoundedTable, "_make_room_in")
    def make_room_in(original: Any, self: Any, batch: Any, key: str) -> None:
        """Do nothing."""

    @replaces(Table, "_decide")
    def decide(original: Any, self: Table, edits: Any, purpose: str, claim: Any, check: Any) -> Any:
        committing.transaction = claim is not None
        return original(self, edits, purpose, claim, check)

    @replaces(Bound, "make_room")
    def make_room(original: Any, self: Bound, entries: Any, before: Any, after: Any, deleted: Any) -> None:
        if not committing.transaction:
            original(self, entries, before, after, deleted)


# -- entries ----------------------------------------------------------------------------------------------


@mutant("cache")
def expired_value_returned() -> None:
    """A hit does not look whether the entry has expired."""

    @replaces(BoundedTable, "begin_use")
    def begin_use(original: Any, self: BoundedTable, entry: Any, node: Any) -> bool:
        return True


@mutant("cache")
def modification_not_conditional() -> None:
    """A modification does not look whether the value was changed since it was read."""

    @replaces(CacheWriter, "_write")
    def write(original: Any, self: Any, edits: Any, purpose: str, *args: Any) -> None:
        if purpose == "modify":
            edits = tuple((key, edit.edit) for key, edit in edits)
        original(self, edits, purpose, *args)


@mutant("cache")
def hit_past_the_transaction() -> None:
    """A hit in a transaction gives what is committed, and not what the transaction has written."""

    class NoDetour:
        detour = None

    @replaces(CacheReader, "__init__")
    def initialise(original: Any, self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self._hit_detours = self._detours = NoDetour()
