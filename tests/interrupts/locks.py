"""How many exceptions leave a store's lock taken for good: ``python -m tests.interrupts.locks``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager, LockTimeoutError
from tests.interrupts.striker import Striker

#: Seconds after which a lock that should be free is taken for wedged.
_PATIENCE = 0.01


class Wedged(NamedTuple):
    """How many exceptions were raised, and after how many of them the store could not be used any more."""

    struck: int
    wedged: int


def wedged(lock_class: Callable[[], Any]) -> Wedged:
    """Strike reading and writing at each place of store and lock where CPython can."""
    struck = stuck = 0
    with ThreadPoolExecutor(1) as other:
        for use in (_write, _read):
            number = 1
            while True:
                store = DictMemoryStore(EventManager(), lock_class=lock_class, lock_timeout=_PATIENCE)
                store.from_bytes("key", b"")
                striker = Striker(number, KeyboardInterrupt, files=(Path(rwlock.__file__),))
                try:
                    with striker:
                        use(store)
                except KeyboardInterrupt:
                    pass
                if striker.place is None:
                    break
                struck += 1
                stuck += other.submit(_is_stuck, store).result()
                number += 1
    return Wedged(struck, stuck)


def _write(store: DictMemoryStore) -> None:
    store.from_bytes("key", b"written")


def _read(store: DictMemoryStore) -> None:
    list(store.query())


def _is_stuck(store: DictMemoryStore) -> bool:
    try:
        _write(store)
        _read(store)
    except LockTimeoutError:
        return True
    return False


def default_lock() -> Callable[[], Any]:
    """Return what makes the lock of a store that is given none."""
    default: Callable[[], Any] = inspect.signature(DictMemoryStore).parameters["lock_class"].default
    return default


def main() -> None:
    """Write the table."""
    print("| lock | exceptions | wedged by them |\n|---|---:|---:|")
    for lock_class in (default_lock(), rwlock.RWLockRead, rwlock.RWLockWrite, rwlock.RWLockFair):
        answer = wedged(lock_class)
        name = getattr(lock_class, "__name__", lock_class)
        print(f"| {name} | {answer.struck} | {answer.wedged} |", flush=True)


if __name__ == "__main__":
    main()
