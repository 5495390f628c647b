"""How many exceptions leave a reader/writer lock taken for good: ``python -m tests.interrupts.locks``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from latchstore.engine.locking import SharedLatch, TableLock, WriterMutex
from readerwriterlock import rwlock

from tests.interrupts.striker import Striker

#: Seconds after which a lock that should be free is taken for wedged.
_PATIENCE = 0.01


class Wedged(NamedTuple):
    """How many exceptions were raised, and after how many of them the lock could not be taken any more."""

    struck: int
    wedged: int


def wedged(lock_class: Callable[[], Any]) -> Wedged:
    """Strike reading and writing under a lock, as a store does it, before each bytecode of lock and store."""
    struck = stuck = 0
    for use in (_write, _read):
        number = 1
        while True:
            lock = lock_class()
            table = TableLock(lock, _PATIENCE, WriterMutex())
            striker = Striker(number, files=(Path(rwlock.__file__),))
            try:
                with striker:
                    use(table)
            except KeyboardInterrupt:
                pass
            if striker.place is None:
                break
            struck += 1
            stuck += not (_is_free(lock.gen_rlock()) and _is_free(lock.gen_wlock()))
            number += 1
    return Wedged(struck, stuck)


def _write(table: TableLock) -> None:
    try:
        try:
            if not table.write_handle.acquire(True, table.timeout):
                table.refuse_writing()
            table.write_handle.release()
        except BaseException:
            table.give_back_write()
            raise
    except BaseException:
        table.give_back_write()
        raise


def _read(table: TableLock) -> None:
    table.reading(int)


def _is_free(handle: Any) -> bool:
    if not handle.acquire(timeout=_PATIENCE):
        return False
    handle.release()
    return True


def main() -> None:
    """Write the table."""
    print("| lock | exceptions | wedged by them |\n|---|---:|---:|")
    for lock_class in (SharedLatch, rwlock.RWLockRead, rwlock.RWLockWrite, rwlock.RWLockFair):
        answer = wedged(lock_class)
        print(f"| {lock_class.__name__} | {answer.struck} | {answer.wedged} |", flush=True)


if __name__ == "__main__":
    main()
