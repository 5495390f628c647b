"""The first values of some ranges of a metadata item, which a work queue asks an engine for.

The state of a job is such a value (``queue/places.py``), and the next job is the first one of a range. An
engine that keeps them in its commits has a class of its own (``heads.py``); any other answers by queries.

Thread safety: methods that any thread may call.
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
    """Finds the first of those values of a metadata item that begin with some prefix.

    Attributes
    ----------
    is_found_by_commit : bool
        Whether the engine takes a `FirstEntry` as it is, and finds its entry at the instant of the commit.
    """

    is_found_by_commit: bool = False

    def add_index(self) -> object:
        """Add the index that a commit of a `FirstEntry` has found missing."""
        raise NotImplementedError

    @property
    @abstractmethod
    def may_wait(self) -> bool:
        """Whether a commit may have to wait for a transaction of others, so that one looks first."""

    @abstractmethod
    def first(self, prefix: str) -> Item | None:
        """Return the first value that an entry has, and its key; called by the `check` of a commit."""

    @abstractmethod
    def look(self, prefixes: Sequence[str]) -> list[Item | None]:
        """Return the first value of each prefix, committed, at one instant; no transaction is waited for."""


class QueriedValues(FirstValues):
    """Finds them by queries with a limit, which an index of the engine makes cheap.

    For engines whose queries, made in the `check` of a commit, are of the instant of that.

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
