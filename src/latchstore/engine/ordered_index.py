"""One ordered index: the keys in the order of a metadata item, or of a fact of their entries.

1. A commit only notes what each key had before (`replace_all`): one operation of a dict, which may be done
   again. `catch_up` moves the keys to their new places, in a section, before the places are used. So a commit
   costs little, and keys that are written again and again are moved once.
2. An exception may leave the places half changed, or the sorted list broken: `_is_sound` is false from the
   first change to the last. Then they are built again from the entries, as after loading and as if very many
   keys have changed.
3. They are built with no lock held: of the entries of one section, with what commits note from then on.
   Whoever builds holds a token, referred to weakly: if an exception has struck it, another thread may build.
4. The places are tuples of builtin objects, which are compared by builtin code. A value of a user's own that
   is noted is given back to be freed after the section.

Thread safety: none of its own. All methods are called in sections of the writer, but for `made_of`.
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

#: How many changed keys one section moves, beside the few that a query moves itself.
FEW = 256

#: From how many changed keys on, of those there are, all places are built again: it takes less time.
_MANY, _SHARE = 4 * FEW, 4


class _AfterAllKeys:
    """Comes after every key, so that a place with it is the end of all places of one position."""

    __slots__ = ()

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True


_AFTER_ALL_KEYS: Any = _AfterAllKeys()

#: A place, or the beginning of one: it comes before all places that begin with it.
Edge = tuple[Any, ...]


def first_of(position: Position) -> Edge:
    """Return what comes before all places of a position, and after all others before them."""
    return position


def last_of(position: Position) -> Edge:
    """Return what comes after all places of a position."""
    return (*position, _AFTER_ALL_KEYS)


def edges_of(term: Any) -> tuple[Edge, Edge] | None:
    """Return between which edges all values are that match a term; None if they may be anywhere.

    Values whose ``==`` is not CPython's own may match a value from anywhere: see `OrderedIndex.odd`.
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
    """Return whether a value equals others only where it stands in the order, by code of CPython's own.

    Times with a zone do not: two of one zone are equal if they read the same, at different instants as well.
    """
    kind = type(value)
    if kind in _EXACT:
        return True
    if kind is tuple:
        return all(map(has_builtin_equality, value))
    rank, position = position_of(value)
    return BYTES < rank < OTHER and kind is type(position)


def _is_odd(value: Any) -> bool:
    # hot path: most are of these types.
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
        # Keys whose value may equal others by code of the user's own; they have places as well.
        self._odd: set[str] = set()
        self._is_sound = False
        # The keys that were changed since the places were right, with the value of then.
        self._changed: dict[str, Any] = {}
        self._builder: weakref.ref[Token] | None = None

    # -- commits ----------------------------------------------------------------------------------

    def replace_all(self, changes: Iterable[Change]) -> None:
        """Note the changes of a commit; doing it twice is harmless, so it can be broken off and repeated."""
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
        """Whether nobody has built the places or builds them: what changes is found when they are built."""
        return self._places is None and self._builder is None

    def _note(self, changed: dict[str, Any], key: str, before: Any, is_deleted: bool) -> None:
        if key not in changed:
            changed[key] = before
        elif is_deleted and changed[key] is _ABSENT:
            del changed[key]  # it came and went

    # -- bringing it up to date -------------------------------------------------------------------

    @property
    def must_be_built(self) -> bool:
        """Whether the places are not there, broken, or so far behind that building takes less time."""
        if self._places is None or not self._is_sound:
            return True
        behind = len(self._changed)
        return behind > _MANY and _SHARE * behind > len(self._places)

    @property
    def behind(self) -> int:
        """How many keys have changed since."""
        return len(self._changed)

    def catch_up(self, entries: dict[str, Entry], garbage: deque[object], most: int | None = None) -> None:
        """Move keys that have changed, at most so many, to the places that they have now."""
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
        """Return where an entry stands; None if it lacks the item."""
        value = self._read(key, entry)
        return None if value is _ABSENT else (*position_of(value), key)

    def _read(self, key: str, entry: Entry) -> Any:
        """Return what an entry is ordered by."""
        return entry[self.order.name] if self.order.name in entry else _ABSENT

    # -- building ---------------------------------------------------------------------------------

    def begin(
        self, token: Token, entries: dict[str, Entry], garbage: deque[object]
    ) -> Iterable[tuple[str, Entry]] | None:
        """Return what to build the places of; None if another thread is building them."""
        builder = None if self._builder is None else self._builder()
        if builder is not None:
            return None
        garbage.append((self._places, self._changed, self._odd))
        self._places = None
        self._changed = {}
        self._builder = weakref.ref(token)
        return zip(list(entries), list(entries.values()), strict=True)

    def made_of(self, found: Iterable[tuple[str, Entry]]) -> tuple[Any, set[str]]:
        """Return places and odd keys; with no lock held."""
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
        """Take what was built, unless that was broken off and begun again."""
        builder = None if self._builder is None else self._builder()
        if builder is token:
            self._is_sound = False
            self._places, self._odd = places, odd
            self._builder = None
            self._is_sound = True

    def forget_builder(self) -> None:
        """Let others build what a thread was building that is not in this process."""
        self._builder = None

    # -- reading ----------------------------------------------------------------------------------

    def places_between(self, edges: tuple[Edge, Edge] | None, descending: bool = False) -> Iterator[Place]:
        """Return the places between two edges, or all, in order; `catch_up` has returned before."""
        first, last = (None, None) if edges is None else edges
        found: Iterator[Place] = self._places.irange(first, last, reverse=descending)
        return found

    def edges_of(self, term: Any) -> tuple[Edge, Edge] | None:
        """Return between which edges all keys are that match a term; None if they may be anywhere."""
        return None if self._odd and not isinstance(term, Range) else edges_of(term)

    def candidates(self, wanted: tuple[Any, ...], fewest: int) -> list[str] | None:
        """Return the keys that may have one of some values, or match a range; None if not fewer than that."""
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
        """Raise AssertionError unless the places and the changes come to the entries exactly; for tests."""
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
    """Held by the call that builds an index."""

    __slots__ = ("__weakref__",)


def index_for(order: Order) -> OrderedIndex:
    """Return a new index, which is still to be built.

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
