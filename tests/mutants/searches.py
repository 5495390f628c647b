"""Mutants of what looks through a store, from queries to mappings; part of the catalogue.

The table of README.md names them by method.

Thread safety: as what they break, as a rule without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from latchstore import StoreMapping
from latchstore.engine.inspection import table_of
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.table import Table
from tests.mutants.mutant import metadata_of, mutant, replaces

# -- looking through the store ----------------------------------------------------------------------------


@mutant("sizes")
def uncommitted_keys_counted() -> None:
    """The length counts keys that an open transaction has added, for all threads."""

    @replaces(DictMemoryStore, "__len__")
    def length(original: Any, self: DictMemoryStore) -> int:
        table: Any = table_of(self)
        added: set[str] = set()
        for route in list(table.routes.values()):
            batch: Any = route.batch
            # The thread of the block goes on meanwhile; if it writes, this one is left out.
            with suppress(RuntimeError):
                if batch is not None:
                    added.update(key for key, _ in list(batch.edits()) if batch.current(key) is not None)
        return len(added.union(list(table.entries)))


@mutant("sizes")
def keys_counted_one_by_one() -> None:
    """The length is counted by a look at each key that there was."""

    @replaces(DictMemoryStore, "__len__")
    def length(original: Any, self: DictMemoryStore) -> int:
        return sum(1 for key in list(self.query_keys()) if self.exists(key))


@mutant("scans")
def glob_in_two_looks() -> None:
    """A glob looks through one half of the keys, and later through the other."""

    @replaces(DictMemoryStore, "glob")
    def glob(original: Any, self: DictMemoryStore, pattern: str, **order: Any) -> Iterator[str]:
        if order:
            return iter(original(self, pattern, **order))
        one = sorted(original(self, pattern))
        middle = one[len(one) // 2] if one else ""
        return iter(
            [key for key in one if key < middle] + [key for key in original(self, pattern) if key >= middle]
        )


#: The arguments of queries that are no terms.
_ORDER = {"order_by", "descending", "limit"}


@mutant("scans")
def query_key_by_key() -> None:
    """A query finds the keys, and then reads the metadata of each."""

    @replaces(DictMemoryStore, "query")
    def query(original: Any, self: DictMemoryStore, select: Any = None, **terms: Any) -> Iterator[Any]:
        if _ORDER & terms.keys():
            return iter(original(self, select, **terms))
        keys = [key for key, _ in original(self, (), **terms)]
        found = ((key, metadata_of(self, key)) for key in keys)
        return iter([(key, metadata) for key, metadata in found if metadata])


@mutant("scans")
def query_of_candidates() -> None:
    """A query of keys takes all keys, and then looks at the metadata of each."""

    @replaces(DictMemoryStore, "query_keys")
    def query_keys(original: Any, self: DictMemoryStore, **terms: Any) -> Iterator[str]:
        if _ORDER & terms.keys():
            return iter(original(self, **terms))
        keys = list(original(self))
        return iter([key for key in keys if terms.items() <= metadata_of(self, key).items()])


@mutant("scans")
def ordered_key_by_key() -> None:
    """A query with an order or a limit takes the keys, and then reads the metadata of each."""

    @replaces(DictMemoryStore, "query")
    def query(original: Any, self: DictMemoryStore, select: Any = None, **terms: Any) -> Iterator[Any]:
        if not _ORDER & terms.keys():
            return iter(original(self, select, **terms))
        keys = [key for key, _ in original(self, (), **terms)]
        found = ((key, metadata_of(self, key)) for key in keys)
        return iter([(key, metadata) for key, metadata in found if metadata])


@mutant("scans")
def sorted_after_the_search() -> None:
    """Keys are put in order by metadata that is read after the search for them."""

    @replaces(DictMemoryStore, "query_keys")
    def query_keys(original: Any, self: DictMemoryStore, **terms: Any) -> Iterator[str]:
        order = terms.pop("order_by", None)
        if order is None:
            return iter(original(self, **terms))
        limit = terms.pop("limit", None)
        return iter(sorted(original(self, **terms), key=lambda key: metadata_of(self, key)[order])[:limit])


def _forget_others(table: Table, name: str, known: Mapping[str, Any]) -> None:
    """Take all keys out of an index but those that were known, as what they are known."""
    if name in table.indexes:
        for key, entry in table.entries.items():
            if key not in known or known[key] not in (None, entry):
                table.indexes[name].replace(key, entry, None)


@mutant("indexes")
def index_built_beside_commits() -> None:
    """An index is built while others commit, which it does not find."""

    @replaces(Table, "add_index")
    def add_index(original: Any, self: Table, name: str) -> None:
        known = None if name in self.indexes else dict(self.candidates({}))
        original(self, name)
        if known is not None:
            self.exclusively("add_index", _forget_others, self, name, known)


@mutant("indexes")
def old_index_used_again() -> None:
    """An index that was removed and is made again finds the keys that it had."""
    removed: dict[str, dict[str, Any]] = {}

    @replaces(Table, "remove_index")
    def remove_index(original: Any, self: Table, name: str) -> None:
        if name in self.indexes:
            removed[name] = dict.fromkeys(list(self.entries))
        original(self, name)

    @replaces(Table, "add_index")
    def add_index(original: Any, self: Table, name: str) -> None:
        known = None if name in self.indexes else removed.pop(name, None)
        original(self, name)
        if known is not None:
            self.exclusively("add_index", _forget_others, self, name, known)


# -- mappings ---------------------------------------------------------------------------------------------


@mutant("mappings")
def default_set_in_two_steps() -> None:
    """The default of a mapping is set by a look and a write."""

    @replaces(StoreMapping, "setdefault")
    def setdefault(original: Any, self: Any, key: str, default: Any = None) -> Any:
        found = self.get(key)
        if found is None:
            self[key] = found = default
        return found


@mutant("mappings")
def pop_in_two_steps() -> None:
    """A pop of a mapping is a read and a delete."""

    @replaces(StoreMapping, "pop")
    def pop(original: Any, self: Any, key: str, default: Any = None) -> Any:
        found = self.get(key, default)
        try:
            del self[key]
        except KeyError:
            return found
        return found


@mutant("mappings")
def item_popped_in_two_steps() -> None:
    """A popitem is a read and a delete, and ignores that the key has been removed between them."""

    @replaces(StoreMapping, "popitem")
    def popitem(original: Any, self: Any) -> Any:
        for key in self:
            value = self.get(key)
            if value is not None:
                self.pop(key, None)
                return key, value
        raise KeyError("empty")


@mutant("mappings")
def mapping_updated_key_by_key() -> None:
    """An update of a mapping is a commit for each key."""

    @replaces(StoreMapping, "update")
    def update(original: Any, self: Any, other: Mapping[str, Any]) -> None:
        for key, value in other.items():
            self[key] = value
