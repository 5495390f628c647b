"""The first values of some ranges of a metadata item, for work queues.

The state of a job is such a value (``queue/places.py``), and the next job is the first one of a range. An
engine that maintains them in its commits has its own class (``heads.py``); any other executes queries.

Thread safety: any thread may call the methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from latchstore.contract.ordering import Order
from latchstore.contract.ranges import Prefix
from latchstore.contract.requests import Request
from latchstore.engine.selection import Source, found

if TYPE_CHECKING:
    from latchstore.engine.interface import Engine

#: A value and its key.
Item = tuple[str, str]


class FirstValues(ABC):
    """Finds the first value of a metadata item with a prefix.

    Attributes
    ----------
    is_found_by_commit : bool
        Whether the engine accepts a `FirstEntry` itself, and finds its entry at the instant of the commit.
    """

    is_found_by_commit: bool = False

    def add_index(self) -> object:
        """Add the index that the commit of a `FirstEntry` did not find."""
        raise NotImplementedError

    @property
    @abstractmethod
    def may_wait(self) -> bool:
        """Whether a commit may have to wait for other threads' transactions, so that `look` is worthwhile."""

    @abstractmethod
    def first(self, prefix: str) -> Item | None:
        """Return the first value with a prefix, and its key; called in the `check` of a commit."""

    @abstractmethod
    def look(self, prefixes: Sequence[str]) -> list[Item | None]:
        """Return the first committed value of each prefix at one instant; waits for no transaction."""


class QueriedValues(FirstValues):
    """Finds them by queries with a limit, which an index of the engine makes cheap.

    For engines whose queries in the `check` of a commit see the instant of that commit.

    Parameters
    ----------
    engine : Engine
    name : str
        The metadata item.
    """

    may_wait = True

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def first(self, prefix: str) -> Item | None:
        return self._first_of(self._engine, prefix)

    def look(self, prefixes: Sequence[str]) -> list[Item | None]:
        view = self._engine.view()
        try:
            return [self._first_of(view, prefix) for prefix in prefixes]
        finally:
            view.close()

    def _first_of(self, source: Source, prefix: str) -> Item | None:
        name = self._name
        request = Request({name: Prefix(prefix)}, Order(False, name), limit=1)
        for key, entry in found(source, request, {}):
            return entry[name], key
        return None
