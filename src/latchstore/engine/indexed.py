"""The indexes of an engine, and the queries that use them.

Thread safety: rules 1 to 3 of ``table.py``. Hashed indexes are right after each commit. Ordered ones record
the changes of a commit; a reader first has the index catch up, in short sections, or without a lock if all of
it must be built (``ordered_index.py``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from latchstore.contract.contains import In
from latchstore.contract.ordering import Order, Ordered
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.first_values import FirstValues
from latchstore.engine.guarded import GuardedEngine
from latchstore.engine.heads import Heads, KeptValues
from latchstore.engine.locks import AnyReadWriteLock
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.ordered_index import FEW, OrderedIndex, Token, index_for
from latchstore.engine.publishing import Publisher
from latchstore.engine.selection import Overlay, Selected, index_for_request, selected

#: How often a reader lets an index catch up before it scans all entries: writers may be faster.
_ROUNDS = 1_000

#: An index is not used for a range with more than one in this many keys.
_SHARE = 4


class IndexedEngine(GuardedEngine):
    """An engine with indexes.

    Parameters
    ----------
    lock_class, timeout, publisher
        As for `GuardedEngine`.
    indexes : iterable of str and Ordered
        Metadata items with an index, and the orders of ordered indexes.

    Attributes
    ----------
    entries : dict
        Entries by key. Lock-free readers use it, so the dict is never replaced.
    indexes : dict
        `MetadataIndex` by metadata item, and `OrderedIndex` by `Ordered`.
    ordered : dict
        `OrderedIndex` by order.
    heads : dict
        `Heads` by the name of a work queue.
    """

    __slots__ = ("entries", "heads", "indexes", "ordered")

    def __init__(
        self,
        lock_class: Callable[[], AnyReadWriteLock],
        timeout: float,
        publisher: Publisher,
        indexes: Iterable[str | Ordered],
    ) -> None:
        super().__init__(lock_class, timeout, publisher)
        self.entries: dict[str, Entry] = {}
        self.indexes: dict[str | Ordered, Any] = {}
        self.ordered: dict[Order, OrderedIndex] = {}
        self.heads: dict[str, Heads] = {}
        for name in indexes:
            self._put_index(name, _empty(name))

    # -- adding and removing ----------------------------------------------------------------------

    def add_index(self, name: str | Ordered) -> None:
        """Build an index unless it exists; readers continue, writers wait unless the index is ordered."""
        self.alone("add_index", self.timeout, self._add_index, name)
        if isinstance(name, Ordered):
            self._is_ready(self.ordered.get(name.order), "add_index")

    def _add_index(self, name: str | Ordered) -> None:
        if name in self.indexes and (isinstance(name, str) or name.order in self.ordered):
            return
        index = _empty(name)
        if isinstance(index, MetadataIndex):
            for key, entry in self.candidates({}):
                index.replace(key, None, entry)
        self.exclusively("add_index", self._put_index, name, index)

    def _put_index(self, name: str | Ordered, index: MetadataIndex | OrderedIndex) -> None:
        self.indexes = {**self.indexes, name: index}
        if isinstance(index, OrderedIndex):
            self.ordered = {**self.ordered, index.order: index}

    def remove_index(self, name: str | Ordered) -> None:
        """Remove the index; raise KeyError if there is none."""
        self.alone("remove_index", self.timeout, self._remove_index, name)

    def _remove_index(self, name: str | Ordered) -> None:
        if name not in self.indexes:
            raise KeyError(name)
        self.exclusively("remove_index", self._take_index, name)

    def _take_index(self, name: str | Ordered) -> None:
        if isinstance(name, Ordered):
            self.ordered = {order: each for order, each in self.ordered.items() if order != name.order}
        self.garbage.append(self.indexes)
        self.indexes = {each: index for each, index in self.indexes.items() if each != name}

    def first_values(self, queue: str, name: str, prefixes: Sequence[str]) -> FirstValues:
        if queue not in self.heads:
            self.alone("a work queue", self.timeout, self._keep_heads, queue, name, prefixes)
        return KeptValues(self, self.heads[queue])

    def _keep_heads(self, queue: str, name: str, prefixes: Sequence[str]) -> None:
        if queue not in self.heads:
            heads = Heads(name, prefixes)
            heads.replace_all((key, None, entry) for key, entry in self.candidates({}))
            self.exclusively("a work queue", self._put_heads, {**self.heads, queue: heads})

    def _put_heads(self, heads: dict[str, Heads]) -> None:
        self.heads = heads

    # -- ordered indexes --------------------------------------------------------------------------

    def _is_ready(self, index: OrderedIndex | None, purpose: str) -> bool:
        """Bring an index up to date except for a few keys, with no lock held; return whether that is done."""
        if index is None:
            return False
        for _ in range(_ROUNDS):
            if index.must_be_built:
                if not self._build(index, purpose):
                    return False
            elif index.behind > FEW:
                self.exclusively(purpose, index.catch_up, self.entries, self.garbage, FEW)
            else:
                return True
        return False

    def _build(self, index: OrderedIndex, purpose: str) -> bool:
        """Build the places; return False if another thread is building them."""
        token = Token()
        entries = self.exclusively(purpose, index.begin, token, self.entries, self.garbage)
        if entries is None:
            return False
        places, odd = index.made_of(entries)
        self.exclusively(purpose, index.install, token, places, odd)
        return True

    def _caught_up(self, index: OrderedIndex | None) -> bool:
        """Have an index catch up with the remaining keys, in a section; return False if it cannot."""
        if index is None or index.must_be_built:
            return False
        index.catch_up(self.entries, self.garbage)
        return True

    # -- queries ----------------------------------------------------------------------------------

    def candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        if self.ordered and terms:
            ready = [
                index
                for (is_fact, name), index in self.ordered.items()
                if name in terms and not is_fact and self._is_ready(index, "query")
            ]
            if ready:
                return self.exclusively("query", self._candidates, terms, ready)
        return self.read(self._candidates, terms)

    def _candidates(
        self, terms: Mapping[str, Any], ordered: Iterable[OrderedIndex] = ()
    ) -> Iterable[tuple[str, Entry]]:
        """Return the shortest result of an index for any of the terms, or else all entries."""
        entries = self.entries
        known = self._shortest(terms)
        for index in ordered:
            if self._caught_up(index):
                fewest = len(entries) // _SHARE + 1 if known is None else len(known)
                keys = index.candidates(_wanted(terms[index.order.name]), fewest)
                known = known if keys is None else keys
        if known is not None:
            return [(key, entries[key]) for key in known]
        # Two copies zipped instead of one of ``items()``: no pair is made for entries that the reader skips.
        return zip(list(entries), list(entries.values()), strict=True)

    def _shortest(self, terms: Mapping[str, Any]) -> Any:
        """Return the shortest result of a hashed index for any of the terms; None if there is none."""
        indexes = self.indexes
        answers = [indexes[name].candidates(value) for name, value in terms.items() if name in indexes]
        known: list[Any] = [keys for keys in answers if keys is not None]
        return min(known, key=len) if known else None

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        return self.select_at(request, overlay, None)

    def select_at(
        self, request: Request, overlay: Overlay, changed: Callable[[], dict[str, Entry | None]] | None
    ) -> Selected | None:
        """Return the result of `select` for an earlier state.

        Parameters
        ----------
        changed : callable or None
            Returns the keys that have changed since, with their entries in that state; None: the state is
            the present one.
        """
        index = index_for_request(request, self.ordered)
        if index is None:
            if request.order is not None or request.limit is None:
                return None
        elif not self._is_ready(index, "query"):
            return None
        return self.exclusively("query", self._select, request, overlay, index, changed)

    def _select(
        self,
        request: Request,
        overlay: Overlay,
        index: OrderedIndex | None,
        changed: Callable[[], dict[str, Entry | None]] | None,
    ) -> Selected | None:
        if index is not None and not self._caught_up(index):
            return None
        if changed is None:
            return selected(request, overlay, self.entries, index, self._shortest(request.terms))
        return selected(request, {**changed(), **overlay}, self.entries, index, None)

    @abstractmethod
    def finish(self) -> None: ...


def _empty(name: str | Ordered) -> MetadataIndex | OrderedIndex:
    return MetadataIndex(name) if isinstance(name, str) else index_for(name.order)


def _wanted(term: Any) -> tuple[Any, ...]:
    return term.values if type(term) is In else (term,)
