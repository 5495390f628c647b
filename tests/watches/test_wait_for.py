"""Waits under a clock that stands, and what a store in memory refuses."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from latchstore import (
    DictMemoryStore,
    TransactionError,
    WaitTimeoutError,
)
from tests.watches.reading import SHORT, TIMEOUT, new_store


class Unequal:
    """Equals nothing, by an ``==`` of its own."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> Unequal:
        return self


@pytest.fixture
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clock stand, as tests do that freeze time."""
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)


@pytest.mark.usefixtures("frozen_clock")
def test_waiting_ends_though_the_clock_stands_and_changes_come(
    store: DictMemoryStore, pool: ThreadPoolExecutor
) -> None:
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            store.set("k", (b"", {"kind": [1]}))

    unwanted = store.watch(filter={"kind": Unequal()}, max_buffer=1, on_overflow="coalesce")
    writing = pool.submit(write)
    try:
        for wait in (lambda: store.wait_for(lambda: False, SHORT), lambda: unwanted.get(SHORT)):
            assert isinstance(pool.submit(wait).exception(TIMEOUT), WaitTimeoutError)
    finally:
        over.set()
        unwanted.close()
    writing.result(TIMEOUT)


class WritesWhenCompared:
    """Equals nothing, and writes to a store whenever it is compared."""

    def __init__(self, store: DictMemoryStore) -> None:
        self.store = store

    def __eq__(self, other: object) -> bool:
        self.store.set("k", (b"", {"kind": [1]}))
        return False

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> WritesWhenCompared:
        return self


@pytest.mark.parametrize("timeout", [0, SHORT])
def test_waiting_ends_though_it_makes_changes_itself(store: DictMemoryStore, timeout: float) -> None:
    """As a finalizer may that the collector runs meanwhile."""
    with pytest.raises(WaitTimeoutError):
        store.wait_for(lambda: store.from_bytes("k", b""), timeout)
    with store.watch(filter={"kind": WritesWhenCompared(store)}) as changes:
        store.set("k", (b"", {"kind": [1]}))
        with pytest.raises(WaitTimeoutError):
            changes.get(timeout)


def test_building_an_index_is_refused_inside_a_transaction(store: DictMemoryStore) -> None:
    with store.transaction(), pytest.raises(TransactionError, match=r"add_index\(\) cannot be called inside"):
        store.add_index("kind")


def test_a_history_is_a_number_of_commits() -> None:
    with pytest.raises(ValueError, match=r"^history must be at least 0, got -1"):
        new_store(history=-1)
