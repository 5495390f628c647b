"""What tests put in the place of parts of a store's table."""

from __future__ import annotations

from typing import Any, Self

from latchstore import DictMemoryStore
from latchstore.engine.inspection import table_of
from latchstore.engine.interface import View
from latchstore.engine.owner import Claim
from latchstore.engine.table import Table


class Entries(dict[str, Any]):
    """Entries that a commit changes by calls of methods of theirs, one key after the other."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)

    def __ior__(self, changes: dict[str, Any]) -> Self:  # type: ignore[override,misc]
        for key, value in changes.items():
            self[key] = value
        return self

    def pop(self, *arguments: Any) -> Any:
        return super().pop(*arguments)


def with_table(store: DictMemoryStore, table_class: type[Table]) -> None:
    """Have the table of a store be of another class, a subclass with no fields of its own."""
    table_of(store).__class__ = table_class


class NobodyOwns(Table):
    """A table that lets any number of exclusive blocks begin."""

    __slots__ = ()

    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        view = super().begin(claim, False, timeout)
        if exclusive and view is not None:
            view.close()
        return None if exclusive else view
