"""`SqliteStore` with one thing broken, for the harness to find by several processes.

Each process breaks the package when it attaches. What is broken is found by names of the package, as in
``catalogue.py``, so a refactoring that renames one of them is told by an AttributeError.

Thread safety: a mutant breaks the package before there are threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from latchstore import AbstractStore
from latchstore.contract.values import Change
from latchstore.engine.observing import Observers
from latchstore.sqlite import committing, items, log
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.leases import Leases
from latchstore.sqlite.publication import FilePublication
from latchstore.sqlite.reading import ReadingEngine
from latchstore.sqlite.statements import ADD_ITEM
from latchstore.sqlite.store import SqliteStore
from latchstore.sqlite.view import SqliteView
from latchstore.sqlite.writer_lock import WriterLock
from latchstore.stress.processes.shared import FileStores
from tests.mutants import near
from tests.mutants.mutant import replaces


class SqliteMutant(FileStores):
    """One way to break the store.

    Attributes
    ----------
    name, what : str
    workload : str
        The workload that is to find it.
    faults : str
        Faults that have to be put in for that.
    """

    def __init__(self, broken: Callable[[], None], workload: str, faults: str) -> None:
        super().__init__(_made)
        self.__module__ = broken.__module__
        self.attribute = broken.__name__
        self.factory = f"{broken.__module__}:{broken.__name__}"
        self.name = broken.__name__.replace("_", " ")
        self.what = (broken.__doc__ or "").strip().rstrip(".")
        self.workload = workload
        self.faults = faults
        self._break: Callable[[], None] | None = broken

    def attach(self, where: str, event_manager: Any = None, **options: Any) -> AbstractStore:
        broken, self._break = self._break, None
        if broken is not None:
            broken()
        return super().attach(where, event_manager, **options)

    def __reduce__(self) -> str:
        return self.attribute  # another process finds it by its name, not broken yet


def _made(path: str, event_manager: Any = None, **options: Any) -> SqliteStore:
    # What a loss of power leaves is not looked at.
    return SqliteStore(path, event_manager, durability="off", **options)


SQLITE_MUTANTS: list[SqliteMutant] = []


def sqlite_mutant(workload: str, faults: str = "") -> Callable[[Callable[[], None]], SqliteMutant]:
    """Return a decorator that makes a mutant of a function, with its docstring as the description."""

    def make(broken: Callable[[], None]) -> SqliteMutant:
        made = SqliteMutant(broken, workload, faults)
        SQLITE_MUTANTS.append(made)
        return made

    return make


def _nothing() -> None:
    """Nothing is broken."""


unbroken = SqliteMutant(_nothing, "", "")
unbroken.attribute = "unbroken"
unbroken.factory = f"{__name__}:unbroken"


# -- commits ----------------------------------------------------------------------------------------------


@sqlite_mutant("optimistic")
def no_validation() -> None:
    """An optimistic transaction commits whatever others have changed, but for keys that are gone."""

    @replaces(SqliteView, "changed")
    def changed(original: Any, self: Any) -> dict[str, Any]:
        # To delete one that is gone fails by itself.
        return {key: states for key, states in original(self).items() if states[1] is None}


@sqlite_mutant("list-append")
def lock_released_early() -> None:
    """A writer gives the lock of all processes back as soon as it has it."""

    @replaces(WriterLock, "acquire")
    def acquire(original: Any, self: Any, *args: Any) -> Any:
        hold = original(self, *args)
        hold.release()
        return hold


@sqlite_mutant("events")
def revision_per_process() -> None:
    """Each process numbers its commits by itself."""
    count = 0

    @replaces(committing, "_before")
    def before(original: Any, connection: Any, edits: Any) -> Any:
        nonlocal count
        count += 1
        _, *rest = original(connection, edits)
        return (count * 1_000 + os.getpid() % 1_000, *rest)


@sqlite_mutant("indexes")
def index_not_in_the_commit() -> None:
    """The items of the indexes are written by the next commit of the process."""
    late: list[Any] = []
    # What another process has put there meanwhile is left.
    vars(items)["ADD_ITEM"] = ADD_ITEM.replace("INSERT", "INSERT OR IGNORE")

    @replaces(items, "update")
    def update(original: Any, connection: Any, names: Sequence[str], changes: Sequence[Change]) -> None:
        for each in late:
            original(connection, *each)
        late[:] = [(names, list(changes))]


# -- reads ------------------------------------------------------------------------------------------------


@sqlite_mutant("transactions")
def torn_multiget() -> None:
    """A read of many keys reads one after the other."""

    @replaces(ReadingEngine, "entries_of")
    def entries_of(original: Any, self: Any, keys: Sequence[str]) -> dict[str, Any]:
        return {key: self.entry(key) for key in keys}


@sqlite_mutant("registers", faults="forks")
def connection_used_after_fork() -> None:
    """A forked child goes on with the connections of its parent."""

    @replaces(Connections, "renew_in_child")
    def renew_in_child(original: Any, self: Any) -> None:
        pass


# -- events -----------------------------------------------------------------------------------------------


@sqlite_mutant("events")
def events_lost() -> None:
    """A process passes over every fifth commit of others."""

    @replaces(log, "commits")
    def commits(original: Any, *args: Any) -> Iterator[Any]:
        for commit in original(*args):
            yield commit if commit.revision % 5 else commit._replace(changes=[])


@sqlite_mutant("events")
def events_told_twice() -> None:
    """A process tells of its own commits, and again when it finds them in the log."""

    @replaces(FilePublication, "publish")
    def publish(original: Any, self: Any, decided: Any) -> None:
        original(self, decided)
        self.seen = decided.revision - 1


@sqlite_mutant("resuming")
def resume_off_by_one() -> None:
    """A watch that goes on after a revision leaves out the commit that comes next."""

    @replaces(FilePublication, "past")
    def past(original: Any, self: Any, since: int, revision: int) -> Any:
        return original(self, since + 1, revision)


# -- near caches ------------------------------------------------------------------------------------------


@sqlite_mutant("near")
def near_cache_filled_unguarded() -> None:
    """A near cache keeps what was read, whatever was committed or read meanwhile."""

    near.fill_unguarded()


@sqlite_mutant("near", faults="pause")
def near_cache_that_serves_beside_a_silent_log() -> None:
    """A near cache serves what it has, however long ago the log was looked at."""

    near.serve_beside_a_silent_log()


@sqlite_mutant("near")
def own_writes_not_dropped() -> None:
    """A commit leaves the copies in its own process alone."""

    @replaces(FilePublication, "publish")
    def publish(original: Any, self: FilePublication, decided: Any) -> None:
        observers, self.observers = self.observers, Observers()
        try:
            original(self, decided)
        finally:
            self.observers = observers


# -- caches -----------------------------------------------------------------------------------------------


@sqlite_mutant("loading")
def lease_not_checked() -> None:
    """A cache keeps what it has loaded though its lease has ended meanwhile."""

    @replaces(Leases, "is_held")
    def is_held(original: Any, self: Any, key: str, token: int) -> bool:
        return True
