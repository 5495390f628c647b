"""The table lock: who holds it is named, and it is free after every failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager, LockTimeoutError, StoreError, TransactionError
from latchstore.engine.inspection import check, table_of
from latchstore.engine.locks import AnyReadWriteLock, Lockable
from tests.locking.elsewhere import SHORT, Elsewhere, check_all_free, with_any_lock
from tests.schedules import in_another_thread


def in_a_commit(store: DictMemoryStore, purpose: str) -> Callable[[Callable[[], object]], object]:
    """Return a section of the writer."""
    return lambda stay: table_of(store).exclusively(purpose, stay)


# -- the table lock -------------------------------------------------------------------------------


def test_readers_share_the_table(store: DictMemoryStore) -> None:
    table = table_of(store)
    assert table.read(in_another_thread, lambda: table.read(int)) == 0


def test_a_writer_keeps_everybody_out_and_is_named(store: DictMemoryStore) -> None:
    with Elsewhere(in_a_commit(store, "rebuilding"), "the accountant"):
        for purpose, call in (
            ("reading", lambda: len(store)),
            ("set", lambda: store.set("k", (b"", {}))),
            ("transaction 'mine'", store.transaction("mine").__enter__),
        ):
            with pytest.raises(LockTimeoutError) as raised:
                call()
            assert str(raised.value) == (
                f"{purpose}: the table was not free in 0.05 s, held by thread 'the accountant' (rebuilding)"
            )
    assert isinstance(raised.value, StoreError)
    assert isinstance(raised.value, TimeoutError)
    assert not store.exists("k")


def test_a_reader_keeps_writers_out_and_is_named(store: DictMemoryStore) -> None:
    with (
        Elsewhere(table_of(store).read, "the auditor"),
        pytest.raises(LockTimeoutError) as raised,
    ):
        store.from_bytes("k", b"")
    assert str(raised.value) == ("from_bytes: the table was not free in 0.05 s, read by thread 'the auditor'")
    assert not store.exists("k")


@pytest.mark.parametrize("side", ["gen_rlock", "gen_wlock"])
@with_any_lock
def test_who_takes_the_lock_by_itself_keeps_writers_out(
    lock_class: Callable[[], AnyReadWriteLock], side: str
) -> None:
    """Whoever gave the lock to the store may use it beside the store."""
    locks: list[AnyReadWriteLock] = []

    def make() -> AnyReadWriteLock:
        locks.append(lock_class())
        return locks[-1]

    store = DictMemoryStore(EventManager(), lock_class=make, lock_timeout=SHORT)
    handle: Any = getattr(locks[0], side)()
    with handle:
        expected = r"^set: the table was not free in 0\.05 s"
        with pytest.raises(LockTimeoutError, match=expected):
            in_another_thread(lambda: store.set("k", (b"", {})))
        if side == "gen_rlock":
            assert len(store) == 0
        else:
            with pytest.raises(LockTimeoutError, match=r"^reading: the table was not free"):
                in_another_thread(lambda: len(store))
    check_all_free(store)
    assert not store.exists("k")


class RecordingLock:
    """A foreign lock that notes which of its sides are taken and given back."""

    def __init__(self) -> None:
        self._lock = rwlock.RWLockFair()
        self.noted: list[str] = []

    def gen_rlock(self) -> Lockable:
        return RecordingHandle(self._lock.gen_rlock(), "read", self.noted)

    def gen_wlock(self) -> Lockable:
        return RecordingHandle(self._lock.gen_wlock(), "write", self.noted)


class RecordingHandle:
    """One side of a `RecordingLock`."""

    def __init__(self, handle: Any, side: str, noted: list[str]) -> None:
        self._handle, self._side, self._noted = handle, side, noted
        self.locked: Callable[[], bool] = handle.locked

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._noted.append(f"{self._side} taken")
        return bool(self._handle.acquire(blocking, timeout))

    def release(self) -> None:
        self._handle.release()
        self._noted.append(f"{self._side} given back")


SIDES: dict[str, tuple[str | None, Callable[[DictMemoryStore], object]]] = {
    "set": ("write", lambda store: store.from_bytes("a", b"2")),
    "multiset": ("write", lambda store: store.multiset_data(["a", "b"], [b"2", b"3"])),
    "delete": ("write", lambda store: store.delete("a")),
    "snapshot": ("write", lambda store: store.snapshot()),
    "len": ("read", len),
    "query": ("read", lambda store: list(store.query())),
    "query, indexed": ("read", lambda store: list(store.query(n=1))),
    "query_keys": ("read", lambda store: list(store.query_keys())),
    "glob": ("read", lambda store: list(store.glob("*"))),
    "to_bytes": (None, lambda store: store.to_bytes("a")),
    "get": (None, lambda store: store.get("a")),
    "exists": (None, lambda store: store.exists("missing")),
}


@pytest.mark.parametrize("name", SIDES)
def test_the_sides_of_a_foreign_lock_that_are_taken(name: str) -> None:
    lock = RecordingLock()
    store = DictMemoryStore(EventManager(), lock_class=lambda: lock, indexes=["n"])
    store.set("a", (b"1", {"n": 1}))
    lock.noted.clear()
    side, call = SIDES[name]
    call(store)
    assert lock.noted == ([] if side is None else [f"{side} taken", f"{side} given back"])


def test_the_end_of_a_transaction_takes_the_write_side_once_and_its_block_holds_nothing() -> None:
    lock = RecordingLock()
    store = DictMemoryStore(EventManager(), lock_class=lambda: lock)
    with store.transaction():
        lock.noted.clear()
        store.from_bytes("a", b"1")
        store.from_bytes("b", b"2")
        assert lock.noted == []
    assert lock.noted == ["write taken", "write given back"]


def test_a_section_that_fails_gives_the_table_back(store: DictMemoryStore) -> None:
    with pytest.raises(ZeroDivisionError):
        table_of(store).read(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        table_of(store).exclusively("dividing", divmod, 1, 0)
    check_all_free(store)


@with_any_lock
def test_a_store_works_with_any_lock_of_the_library(lock_class: Any) -> None:
    store = DictMemoryStore(EventManager(), lock_class=lock_class, indexes=["n"])
    store.multiset(["a", "b"], [(b"1", {"n": 1}), (b"2", {"n": 2})])
    store.delete("a")
    assert list(store.query_keys(n=2)) == ["b"]
    assert store.info()["keys"] == len(store) == 1
    check(store)
    check_all_free(store)


# -- after failures ---------------------------------------------------------------------------------


FAILURES: dict[str, Callable[[DictMemoryStore], object]] = {
    "missing key": lambda store: store.delete("missing"),
    "missing key of many": lambda store: store.multiupdate_metadata(["k", "missing"], [{}, {}]),
    "missing key read": lambda store: store.to_bytes("missing"),
    "missing keys read": lambda store: store.multiget(["k", "missing"]),
    "bad key": lambda store: store.set(3, (b"", {})),  # type: ignore[arg-type]
    "bad data": lambda store: store.multiset_data(["k", "l"], [b"", "text"]),  # type: ignore[list-item]
    "bad metadata": lambda store: store.set_metadata("k", {1: 2}),  # type: ignore[dict-item]
    "no index": lambda store: store.remove_index("none"),
    "bad pattern": lambda store: store.glob(3),  # type: ignore[arg-type]
    "bad name": lambda store: store.get_metadata("k", ["missing"]),
}


@pytest.mark.parametrize("name", FAILURES)
def test_all_locks_are_free_after_every_failure(name: str) -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=SHORT)
    store.from_bytes("k", b"data")
    with pytest.raises((KeyError, TypeError)):
        FAILURES[name](store)
    check_all_free(store)
    with pytest.raises((KeyError, TypeError, TransactionError)), store.transaction():
        FAILURES[name](store)
    check_all_free(store)
    assert store.to_bytes("k") == b"data"
    assert store.info()["revision"] == 1
