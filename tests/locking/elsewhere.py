"""Locks that another thread holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import DictMemoryStore
from latchstore.engine.inspection import table_of
from latchstore.engine.locks import ReadWriteLock
from tests.schedules import TIMEOUT, in_another_thread

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05

#: Seconds that no test survives: where nothing may wait.
ENDLESS = 10_000.0


class Elsewhere:
    """A thread that calls a function inside a section, and ends it when it is told to.

    Parameters
    ----------
    section : callable
        Calls, in the thread, what it is given.
    name : str
        The thread's.
    """

    def __init__(self, section: Callable[[Callable[[], object]], object], name: str = "elsewhere") -> None:
        self._section = section
        self._entered = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        self._section(self._stay)

    def _stay(self) -> None:
        self._entered.set()
        assert self._leave.wait(TIMEOUT)

    def leave(self) -> None:
        """Let the section end."""
        self._leave.set()

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        assert self._entered.wait(TIMEOUT)
        return self

    def __exit__(self, *details: object) -> None:
        self._leave.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


def check_all_free(store: DictMemoryStore) -> None:
    """Read, commit and be the owner once, in another thread, without waiting."""
    timeout, latches = table_of(store).timeout, table_of(store).latches

    def use_all() -> None:
        assert table_of(store).read(int) == table_of(store).exclusively("check", int) == 0
        with store.transaction():
            pass

    latches.table.timeout = table_of(store).timeout = 0.0
    try:
        in_another_thread(use_all)
    finally:
        latches.table.timeout = table_of(store).timeout = timeout
    assert latches.writer.claim is None
    assert latches.table.own.holder == 0
    assert not any(latches.table.own.readers.values())


LOCKS: list[Any] = [ReadWriteLock, rwlock.RWLockFair, rwlock.RWLockRead, rwlock.RWLockWrite]

with_any_lock = pytest.mark.parametrize("lock_class", LOCKS, ids=lambda lock: lock.__name__)
