"""An ordered index: the keys in the order of a metadata item, or of a fact of their entries.

1. A commit only records the old value of each key (`replace_all`), by one dict operation that may be
   repeated. `catch_up` moves the keys to their new places, in a section, before the places are used. So a
   commit costs little, and keys that are written repeatedly are moved once.
2. An exception may leave the places partly changed, or the sorted list broken: `_is_sound` is false from the
   first change to the last. Then they are rebuilt from the entries, as after loading and after very many
   changes.
3. They are built with no lock held: from the entries of one section, plus the changes that commits record
   from then on. The builder holds a token, which is referenced weakly: if an exception has interrupted it,
   another thread may build.
4. The places are tuples of builtin objects, which builtin code compares. A recorded value of a user's class
   is
   returned to the caller, to be freed after the section.

Thread safety: none of its own. All methods but `made_of` are called in sections of the writer.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from latchstore.contract.extras import missing_extra
from latchstore.contract.ordering import (
    BYTES,
    OTHER,
    Order,
    Place,
    Position,
    position_of,
)
from latchstore.contract.ranges import Range
from latchstore.contract.values import ATOMIC_TYPES, Change, Entry

_ABSENT: Any = object()

#: The changed keys that one section moves, and that a query may move itself.
FEW = 256

#: With more changed keys than this, and than this share of all, rebuilding the places is faster.
_MANY, _SHARE = 4 * FEW, 4


class _AfterAllKeys:
    """Sorts after every key, so that a place with it is the end of all places of one position."""

    __slots__ = ()

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True


_AFTER_ALL_KEYS: Any = _AfterAllKeys()

#: A place, or the beginning of one, which sorts before all places that begin with it.
Edge = tuple[Any, ...]


def first_of(position: Position) -> Edge:
    """Return the edge before all places of a position."""
    return position


def last_of(position: Position) -> Edge:
    """Return the edge after all places of a position."""
    return (*position, _AFTER_ALL_KEYS)


def edges_of(term: Any) -> tuple[Edge, Edge] | None:
    """Return the edges between which all matches of a term are; None if they may be anywhere.

    Values whose ``==`` is not CPython's own may equal values anywhere: see `OrderedIndex._odd`.
    """
    if isinstance(term, Range):
        lower, upper, rank = term.lower, term.upper, term.rank
        return (
            (rank,) if lower is None else first_of(lower) if term.with_lower else last_of(lower),
            (rank + 1,) if upper is None else last_of(upper) if term.with_upper else first_of(upper),
        )
    if has_builtin_equality(term):
        position = position_of(term)
        return first_of(position), last_of(position)
    return None


_EXACT = frozenset({type(None), bool, int, float, str, bytes})


def has_builtin_equality(value: Any) -> bool:
    """Return whether a value equals only values at its own position, compared by CPython's own code.

    That is false for times with a zone: two of one zone are equal if they read the same, also if their
    instants differ.
    """
    kind = type(value)
    if kind in _EXACT:
        return True
    if kind is tuple:
        return all(map(has_builtin_equality, value))
    rank, position = position_of(value)
    return BYTES < rank < OTHER and kind is type(position)


def _is_odd(value: Any) -> bool:
    # hot path: most values are of these types.
    return type(value) not in _EXACT and not has_builtin_equality(value)


class OrderedIndex:
    """The places of the keys that have a metadata item, in order.

    Parameters
    ----------
    order : Order
    """

    __slots__ = ("_builder", "_changed", "_is_sound", "_list", "_odd", "_places", "order")

    def __init__(self, order: Order) -> None:
        self._list = _sorted_list_class()
        self.order: Order = order
        # None until they are built.
        self._places: Any = None
        # Keys whose value may equal others by user code; they have places as well.
        self._odd: set[str] = set()
        self._is_sound = False
        # The keys that have changed since the places were right, with their old values.
        self._changed: dict[str, Any] = {}
        self._builder: weakref.ref[Token] | None = None

    # -- commits ----------------------------------------------------------------------------------

    def replace_all(self, changes: Iterable[Change]) -> None:
        """Record the changes of a commit; may be repeated, so an interruption is repaired by a repetition."""
        if self._is_unused():
            return
        name, changed = self.order.name, self._changed
        for key, old, new in changes:
            before = _ABSENT if old is None or name not in old else old[name]
            after = _ABSENT if new is None or name not in new else new[name]
            if before is after:
                continue
            kind = type(before)
            if kind is type(after) and kind in ATOMIC_TYPES and before == after:
                continue
            self._note(changed, key, before, new is None)

    def _is_unused(self) -> bool:
        """Return whether the places are neither built nor being built, so that changes need no record."""
        return self._places is None and self._builder is None

    def _note(self, changed: dict[str, Any], key: str, before: Any, is_deleted: bool) -> None:
        if key not in changed:
            changed[key] = before
        elif is_deleted and changed[key] is _ABSENT:
            del changed[key]  # created and deleted meanwhile

    # -- catching up ------------------------------------------------------------------------------

    @property
    def must_be_built(self) -> bool:
        """Whether the places are missing, broken, or so outdated that building them is faster."""
        if self._places is None or not self._is_sound:
            return True
        behind = len(self._changed)
        return behind > _MANY and _SHARE * behind > len(self._places)

    @property
    def behind(self) -> int:
        """The number of keys that have changed since the places were right."""
        return len(self._changed)

    def catch_up(self, entries: dict[str, Entry], garbage: deque[object], most: int | None = None) -> None:
        """Move changed keys, at most `most`, to their current places."""
        changed, places, odd, read = self._changed, self._places, self._odd, self._read
        if not changed or places is None or not self._is_sound:
            return
        self._is_sound = False
        done = list(changed if most is None else islice(changed, most))
        for key in done:
            before = changed[key]
            if before is not _ABSENT:
                places.discard((*position_of(before), key))
            now = read(key, entries[key]) if key in entries else _ABSENT
            if now is not _ABSENT:
                places.add((*position_of(now), key))
                if _is_odd(now):
                    odd.add(key)
                    continue
            odd.discard(key)
        if len(done) == len(changed):
            garbage.append(changed)
            self._changed = {}
        else:
            garbage.extend([changed.pop(key) for key in done])
        self._is_sound = True

    def place(self, key: str, entry: Entry) -> Place | None:
        """Return the place of an entry; None if it lacks the item."""
        value = self._read(key, entry)
        return None if value is _ABSENT else (*position_of(value), key)

    def _read(self, key: str, entry: Entry) -> Any:
        """Return the value by which an entry is ordered."""
        return entry[self.order.name] if self.order.name in entry else _ABSENT

    # -- building ---------------------------------------------------------------------------------

    def begin(
        self, token: Token, entries: dict[str, Entry], garbage: deque[object]
    ) -> Iterable[tuple[str, Entry]] | None:
        """Return the entries to build the places of; None if another thread is building them."""
        builder = None if self._builder is None else self._builder()
        if builder is not None:
            return None
        garbage.append((self._places, self._changed, self._odd))
        self._places = None
        self._changed = {}
        self._builder = weakref.ref(token)
        return zip(list(entries), list(entries.values()), strict=True)

    def made_of(self, found: Iterable[tuple[str, Entry]]) -> tuple[Any, set[str]]:
        """Return places and odd keys of entries; called with no lock held."""
        places: list[Place] = []
        odd: set[str] = set()
        for key, entry in found:
            value = self._read(key, entry)
            if value is not _ABSENT:
                places.append((*position_of(value), key))
                if _is_odd(value):
                    odd.add(key)
        return self._list(places), odd

    def install(self, token: Token, places: Any, odd: set[str]) -> None:
        """Install what was built, unless the build was interrupted and begun again."""
        builder = None if self._builder is None else self._builder()
        if builder is token:
            self._is_sound = False
            self._places, self._odd = places, odd
            self._builder = None
            self._is_sound = True

    def forget_builder(self) -> None:
        """Drop the builder, a thread that does not exist in this process, so that others may build."""
        self._builder = None

    # -- reading ----------------------------------------------------------------------------------

    def places_between(self, edges: tuple[Edge, Edge] | None, descending: bool = False) -> Iterator[Place]:
        """Return the places between two edges, or all, in order; called after `catch_up`."""
        first, last = (None, None) if edges is None else edges
        found: Iterator[Place] = self._places.irange(first, last, reverse=descending)
        return found

    def edges_of(self, term: Any) -> tuple[Edge, Edge] | None:
        """Return the edges between which all matches of a term are; None if they may be anywhere."""
        return None if self._odd and not isinstance(term, Range) else edges_of(term)

    def candidates(self, wanted: tuple[Any, ...], fewest: int) -> list[str] | None:
        """Return the keys that may match one of some terms; None if there are `fewest` or more."""
        found: list[str] = []
        for term in wanted:
            edges = edges_of(term)
            if edges is None:
                return None
            found += [key for _, _, key in islice(self.places_between(edges), fewest - len(found))]
            if not isinstance(term, Range):
                found += self._odd
            if len(found) >= fewest:
                return None
        return found if len(wanted) == 1 and not self._odd else list(dict.fromkeys(found))

    def check(self, entries: dict[str, Entry]) -> None:
        """Raise AssertionError unless places and recorded changes match the entries exactly; for tests."""
        if self._places is None or not self._is_sound:
            return
        places, odd = set(self._places), set(self._odd)
        assert list(self._places) == sorted(places), self.order
        for key, before in self._changed.items():
            if before is not _ABSENT:
                places.discard((*position_of(before), key))
            odd.discard(key)
        assert not {key for _, _, key in places} & self._changed.keys(), self.order
        expected, expected_odd = self.made_of(
            (key, entry) for key, entry in entries.items() if key not in self._changed
        )
        assert places == set(expected), (self.order, places ^ set(expected))
        assert odd == expected_odd, (self.order, odd ^ expected_odd)


class FactIndex(OrderedIndex):
    """The places of all keys, in the order of a fact: key, created, modified or revision."""

    __slots__ = ()

    def replace_all(self, changes: Iterable[Change]) -> None:
        if self._is_unused():
            return
        name, changed = self.order.name, self._changed
        if name == "key":
            for key, old, new in changes:
                if (old is None) != (new is None):
                    self._note(changed, key, _ABSENT if old is None else key, new is None)
            return
        for key, old, new in changes:
            self._note(changed, key, _ABSENT if old is None else getattr(old, name), new is None)

    def _read(self, key: str, entry: Entry) -> Any:
        return key if self.order.name == "key" else getattr(entry, self.order.name)


class Token:
    """Referenced by the call that builds an index."""

    __slots__ = ("__weakref__",)


def index_for(order: Order) -> OrderedIndex:
    """Return a new index that is not built yet.

    Raises
    ------
    ModuleNotFoundError
        If sortedcontainers is not installed.
    """
    return FactIndex(order) if order.is_fact else OrderedIndex(order)


def _sorted_list_class() -> Any:
    try:
        from sortedcontainers import SortedList  # here, as only ordered indexes need it
    except ImportError as error:
        raise missing_extra("an ordered index", "sortedcontainers", "ordered", error) from error
    return SortedList
