"""What tests of watches read, and buffers without a store."""

from __future__ import annotations

from typing import Any, TypeVar, TypeVarTuple

from latchstore import DictMemoryStore, EventManager, EventsLost, WaitTimeoutError, Watch, WatchClosedError
from latchstore.contract.values import Entry
from latchstore.delivery.change_buffer import ChangeBuffer, Commit, Interest

TIMEOUT = 30.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.02


def new_store(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), **options)


def read_all(watch: Watch) -> list[Any]:
    """Return what is there now, in short: revision and key, or the revisions that were lost."""
    short: list[Any] = []
    while True:
        try:
            change = watch.get(0)
        except (WaitTimeoutError, WatchClosedError):
            return short
        if isinstance(change, EventsLost):
            short.append(("lost", change.first_revision, change.last_revision))
        else:
            short.append((change.revision, change.key))


def new_buffer(limit: int = 10, coalesce: bool = False) -> ChangeBuffer:
    return ChangeBuffer(Interest("*", {}), limit, coalesce)


def commit_of(revision: int, changes: int = 1) -> Commit:
    return Commit(revision, [(f"k{each}", None, Entry()) for each in range(changes)], None)


def taken_from(buffer: ChangeBuffer) -> list[Any]:
    return list(iter(lambda: buffer.take(0), None))
