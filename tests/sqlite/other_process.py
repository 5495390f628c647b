"""Another process that has a store open, and does with it what a test asks for."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

from latchstore import EventManager, SqliteStore
from tests.processes import TIMEOUT, Call, CallingProcess

__all__ = ["TIMEOUT", "OtherProcess"]


class OtherProcess(CallingProcess):
    """A process with one open store at a time."""

    def open(self, path: Path, **options: Any) -> None:
        """Open a store, and close the one before."""
        self.enter(_opened, path, options)

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return what a method of the store returns, or raise what it raises."""
        return self.run(_call, method, arguments, options)

    def begin_block(self, notes: str) -> None:
        """Begin a transaction; `call` goes to it."""
        self.run(_begin, notes)

    def commit(self) -> None:
        """Commit the transaction."""
        self.run(_commit)

    def fill(self, commits: int) -> None:
        """Make so many commits of one key each."""
        self.run(_fill, commits)

    def count(self) -> int:
        """Set two keys to the next number in one commit; return the number."""
        number: int = self.run(_count)
        return number

    def count_on(self) -> None:
        """Have the process count on and on, and return when it has begun."""
        self.run(_count)
        self.begin(_count_on)

    def limit(self, size: int | None) -> None:
        """Let no file of the process grow beyond a number of bytes, as if the disk was full."""
        self.run(_limit, size)


def _opened(path: Path, options: dict[str, Any]) -> SqliteStore:
    return SqliteStore(path, EventManager(), **{"durability": "off", **options})


def _call(
    call: Call, store: SqliteStore, method: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    return getattr(store, method)(*arguments, **options)


def _begin(call: Call, store: SqliteStore, notes: str) -> None:
    call.block.enter_context(store.transaction(notes))


def _commit(call: Call, store: SqliteStore) -> None:
    call.block.close()


def _fill(call: Call, store: SqliteStore, commits: int) -> None:
    for number in range(commits):
        store.from_bytes(f"filled{number % 10}", b"%d" % number)


def _count(call: Call, store: SqliteStore) -> int:
    number = 1 + int(store.to_bytes("first") if store.exists("first") else 0)
    store.multiset_data(["first", "second"], [b"%d" % number] * 2)
    return number


def _count_on(call: Call, store: SqliteStore) -> None:
    while True:
        _count(call, store)


def _limit(call: Call, store: SqliteStore, size: int | None) -> None:
    most = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))
