"""The reading methods of a store over entries, shared by the store, its transactions and its snapshots.

A subclass finds entries (`_entry`, `_entries_of`, `_items`, `_candidates`). All code that may run the
caller's code (iterating, deep copies of metadata, comparing) is here, outside those methods, so it never runs
under their locks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from latchstore.contract.arguments import DEFAULT_BUFFER_SIZE, checked_keys, checked_select
from latchstore.contract.matching import checked_terms, matching
from latchstore.contract.ordering import OrderBy
from latchstore.contract.requests import Request, chosen, request_for_glob, request_of
from latchstore.contract.store import AbstractReadOnlyStore
from latchstore.contract.values import Entry, StoredValue, Value

_new_object = object.__new__


class EntryReader(AbstractReadOnlyStore):
    """The reading methods, over entries."""

    @abstractmethod
    def _entry(self, key: str) -> Entry:
        """Return the entry of a key; raise KeyError if it is missing, TypeError if the key is not a str."""

    @abstractmethod
    def _entries_of(self, keys: list[str]) -> list[Entry]:
        """Return the entries of many keys at one instant; raise KeyError if one is missing."""

    @abstractmethod
    def _items(self) -> Iterable[tuple[str, Entry]]:
        """Return all keys and entries at one instant, as an iterable to use once."""

    @abstractmethod
    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        """Return keys and entries at one instant that include all matches of `terms`."""

    def get(self, key: str) -> Value:
        # hot path: StoredValue(entry), without the call of __init__.
        value = _new_object(StoredValue)
        value._entry = self._entry(key)
        value._stream = None
        return value

    def get_metadata(self, key: str, select: Iterable[str] | None = None) -> dict[str, Any]:
        if select is None:
            return self._entry(key).isolated_metadata()
        names = checked_select(select) or ()
        entry = self._entry(key)
        for name in names:
            if name not in entry:
                raise KeyError(name)
        return entry.selected_metadata(names)

    def exists(self, key: str) -> bool:
        try:
            self._entry(key)
        except KeyError:
            return False
        return True

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        return self._entry(key).data

    def multiget(self, keys: Iterable[str]) -> Iterator[Value]:
        return map(StoredValue, self._entries_of(checked_keys(keys)))

    def multiget_metadata(
        self, keys: Iterable[str], select: Iterable[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        names = checked_select(select)
        entries = self._entries_of(checked_keys(keys))
        return (_metadata(entry, names) for entry in entries)

    def _found(self, request: Request) -> Iterable[tuple[str, Entry]]:
        """Return the result of a query at one instant of the call."""
        return chosen(self._candidates(request.terms), request)

    def _found_keys(self, request: Request) -> Iterator[str]:
        """Return the keys of the result of a query."""
        return iter([key for key, _ in self._found(request)])

    def query(
        self,
        select: Iterable[str] | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        names = checked_select(select)
        if order_by is None and limit is None and descending is False:
            # hot path: most queries are plain, and need no request.
            terms = checked_terms(where, kwargs)
            found = matching(self._candidates(terms), terms)
        else:
            found = self._found(request_of(where, kwargs, order_by, descending, limit))
        return ((key, _metadata(entry, names)) for key, entry in found)

    def query_keys(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
        **kwargs: Any,
    ) -> Iterator[str]:
        if (where or kwargs) and order_by is None and limit is None and descending is False:
            terms = checked_terms(where, kwargs)  # hot path: as in `query`
            return (key for key, _ in matching(self._candidates(terms), terms))
        return self._found_keys(request_of(where, kwargs, order_by, descending, limit))

    def glob(
        self,
        pattern: str,
        *,
        order_by: OrderBy | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[str]:
        return self._found_keys(request_for_glob(pattern, order_by, descending, limit))

    def __len__(self) -> int:
        return sum(1 for _ in self._items())


def all_there(found: Mapping[str, Entry | None], keys: Sequence[str]) -> list[Entry]:
    """Return the entries of keys, in order; raise KeyError for the first that is missing."""
    entries = list(found.values()) if len(found) == len(keys) else [found[key] for key in keys]
    if None in entries:
        raise KeyError(keys[entries.index(None)])
    return entries  # type: ignore[return-value]


def _metadata(entry: Entry, names: tuple[str, ...] | None) -> dict[str, Any]:
    return entry.isolated_metadata() if names is None else entry.selected_metadata(names)
