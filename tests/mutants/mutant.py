"""What a mutant is, and how its function breaks the package.

Thread safety: a mutant breaks the package before there are threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from latchstore import Seconds
from latchstore.contract.event_manager import BaseEventManager
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.table import Table
from latchstore.engine.transaction import Transaction

#: Breaks the package; returns arguments for the constructor of the store, or None.
Break = Callable[[], "dict[str, Any] | None"]


class Optimistic(DictMemoryStore):
    """A store, not broken, in which all transactions are optimistic."""

    def transaction(
        self, notes: str = "", *, timeout: Seconds | None = None, optimistic: bool = True
    ) -> Transaction:
        return super().transaction(notes, timeout=timeout, optimistic=optimistic)


class Mutant:
    """One way to break the store.

    Attributes
    ----------
    factory : str
        What the harness finds it by, ``"module:name"``.
    name : str
    what : str
        What the mutant does, in a few words.
    workload : str
        The workload that is to find it.
    faults : str
        Faults that have to be put in for that, separated by commas.
    """

    def __init__(self, broken: Break, workload: str, faults: str) -> None:
        self.factory = f"{broken.__module__}:{broken.__name__}"
        # Where the harness is to change threads as well.
        self.__module__ = broken.__module__
        self.name = broken.__name__.replace("_", " ")
        self.what = (broken.__doc__ or "").strip().rstrip(".")
        self.workload = workload
        self.faults = faults
        self._break = broken
        self._arguments: dict[str, Any] | None = None

    def __call__(self, event_manager: BaseEventManager | None = None, **options: Any) -> DictMemoryStore:
        """Make a store."""
        if self._arguments is None:
            self._arguments = self._break() or {}
        arguments = {**self._arguments, **options}
        store: DictMemoryStore = arguments.pop("store_class", DictMemoryStore)(event_manager, **arguments)
        return store

    def __repr__(self) -> str:
        return f"<mutant {self.name}>"


MUTANTS: list[Mutant] = []


def mutant(workload: str, faults: str = "") -> Callable[[Break], Mutant]:
    """Return a decorator that makes a mutant of a function, with its docstring as the description."""

    def make(broken: Break) -> Mutant:
        made = Mutant(broken, workload, faults)
        MUTANTS.append(made)
        return made

    return make


def replaces(cls: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that puts a function in the place of a method; it is given the original first."""
    original = getattr(cls, name)

    def patch(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def method(*args: Any, **options: Any) -> Any:
            return function(original, *args, **options)

        setattr(cls, name, method)
        return method

    return patch


def put_off(cls: type, name: str, in_section: bool = False) -> None:
    """Have a method of what observes commits called after the section of the commit, or in another one."""
    waiting = threading.local()

    @replaces(cls, name)
    def note(original: Any, *args: Any) -> None:
        if getattr(waiting, "calls", None) is None:
            original(*args)
        else:
            waiting.calls.append((original, args))

    @replaces(Table, "commit")
    def commit(original: Any, self: Table, *args: Any, **options: Any) -> Any:
        waiting.calls = []
        try:
            return original(self, *args, **options)
        finally:
            calls, waiting.calls = waiting.calls, None
            for call, arguments in calls:
                if in_section:
                    self.exclusively("commit", call, *arguments)
                else:
                    call(*arguments)


def metadata_of(store: DictMemoryStore, key: str) -> dict[str, Any]:
    """Return the metadata of a key; none if it is missing."""
    try:
        return store.get_metadata(key)
    except KeyError:
        return {}
