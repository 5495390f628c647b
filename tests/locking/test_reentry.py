"""Calls in the middle of a section of the same thread never wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, FlushTimeoutError, LockTimeoutError
from latchstore.engine.inspection import replace_entries, table_of
from latchstore.engine.locks import AnyReadWriteLock
from tests.locking.elsewhere import ENDLESS, SHORT, check_all_free, with_any_lock
from tests.schedules import TIMEOUT
from tests.tables import Entries


class Finalized:
    """Calls back when the garbage collector or the interpreter frees it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __del__(self) -> None:
        self.call()


#: Calls that need the table, and what their errors begin with.
NEEDING: dict[str, tuple[str, Callable[[DictMemoryStore], object]]] = {
    "len": ("reading", len),
    "query": ("reading", lambda store: list(store.query())),
    "missing key": ("reading", lambda store: list(store.multiget(["a", "missing"]))),
    "info": ("info", lambda store: store.info()),
    "snapshot": ("snapshot", lambda store: store.snapshot()),
    "from_bytes": ("from_bytes", lambda store: store.from_bytes("x", b"")),
    "multiset": ("multiset_data", lambda store: store.multiset_data(["x", "y"], [b"", b""])),
    "transaction": ("transaction 'mine'", lambda store: store.transaction("mine").__enter__()),
    "optimistic": (
        "transaction 'mine'",
        lambda store: store.transaction("mine", optimistic=True).__enter__(),
    ),
    "add_index": ("add_index", lambda store: store.add_index("n")),
    "watch": ("watch", lambda store: store.watch()),
    "flush": ("flush", lambda store: store.flush()),
}

READING = {name for name, (purpose, _) in NEEDING.items() if purpose == "reading"}


def attempts_of(store: DictMemoryStore, call: Callable[[DictMemoryStore], object]) -> list[object]:
    """Return a list to which the next attempt adds what the call returns or raises."""
    try:
        return [call(store)]
    except BaseException as error:
        return [error]


@pytest.mark.parametrize("name", NEEDING)
@with_any_lock
def test_a_finalizer_in_the_middle_of_a_commit_is_refused_and_the_commit_goes_on(
    lock_class: Callable[[], AnyReadWriteLock], name: str
) -> None:
    """A finalizer or a signal handler may run anywhere; here it runs where a commit puts a key."""
    store = DictMemoryStore(EventManager(), lock_timeout=ENDLESS, lock_class=lock_class)
    purpose, call = NEEDING[name]
    results: list[object] = []

    class Finalizing(Entries):
        def __setitem__(self, key: str, value: Any) -> None:
            Finalized(lambda: results.extend(attempts_of(store, call)))
            super().__setitem__(key, value)

    replace_entries(store, Finalizing())
    store.multiset_data(["a", "b"], [b"1", b"2"])
    assert len(results) == 2
    for error in results:
        assert isinstance(error, (LockTimeoutError, FlushTimeoutError))
        assert str(error).startswith(
            f"{purpose}: this thread is in the middle of multiset_data and would wait for itself"
        )
    assert [store.to_bytes(key) for key in ("a", "b")] == [b"1", b"2"]
    assert sorted(store.query_keys()) == ["a", "b"]
    assert store.current_transaction() is None
    check_all_free(store)


@pytest.mark.parametrize("name", NEEDING)
@with_any_lock
def test_a_finalizer_in_the_middle_of_a_read_may_read_and_is_refused_to_write(
    lock_class: Callable[[], AnyReadWriteLock], name: str
) -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=ENDLESS, lock_class=lock_class)
    store.from_bytes("a", b"1")
    purpose, call = NEEDING[name]
    results = table_of(store).read(attempts_of, store, call)
    if name in READING:
        expected = attempts_of(store, call)
        assert [type(result) for result in results] == [type(result) for result in expected]
        assert str(results) == str(expected)
    else:
        (error,) = results
        assert isinstance(error, (LockTimeoutError, FlushTimeoutError))
        assert str(error).startswith(
            f"{purpose}: this thread is in the middle of a read of several keys and would wait for itself"
        )
    assert sorted(store.query_keys()) == ["a"]
    assert store.current_transaction() is None
    check_all_free(store)


def test_a_read_in_the_middle_of_a_read_does_not_wait_for_a_writer_that_waits(
    store: DictMemoryStore,
) -> None:
    """The writer waits for the read around it."""
    table_of(store).timeout = table_of(store).latches.table.timeout = ENDLESS

    def read() -> int:
        writer.start()
        while not table_of(store).latches.table.own.holder:
            assert writer.is_alive()
        return len(store)

    writer = threading.Thread(target=store.from_bytes, args=("k", b""))
    assert table_of(store).read(read) == 0
    writer.join(TIMEOUT)
    assert len(store) == 1
    table_of(store).timeout = table_of(store).latches.table.timeout = SHORT


@pytest.mark.parametrize("name", sorted(NEEDING.keys() - READING))
def test_a_write_in_the_middle_of_a_read_does_not_wait_for_a_writer_that_waits(
    store: DictMemoryStore, name: str
) -> None:
    """It is refused at once: the writer waits for the read around it."""
    table_of(store).timeout = table_of(store).latches.table.timeout = ENDLESS
    purpose, call = NEEDING[name]

    def read() -> list[object]:
        writer.start()
        while not table_of(store).latches.table.own.holder:
            assert writer.is_alive()
        return attempts_of(store, call)

    writer = threading.Thread(target=store.from_bytes, args=("k", b""))
    (error,) = table_of(store).read(read)
    writer.join(TIMEOUT)
    assert isinstance(error, (LockTimeoutError, FlushTimeoutError))
    assert str(error).startswith(f"{purpose}: this thread is in the middle of a read of several keys")
    assert len(store) == 1
    table_of(store).timeout = table_of(store).latches.table.timeout = SHORT


def test_a_finalizer_in_the_middle_of_a_commit_may_read_a_key() -> None:
    store = DictMemoryStore(EventManager())
    store.from_bytes("a", b"before")
    seen: list[object] = []

    class Finalizing(Entries):
        def __setitem__(self, key: str, value: Any) -> None:
            super().__setitem__(key, value)
            Finalized(lambda: seen.append((store.to_bytes("a"), store.exists("b"))))

    replace_entries(store, Finalizing(table_of(store).entries))
    store.multiset_data(["a", "b"], [b"1", b"2"])
    assert seen == [(b"before", False)] * 2
    assert store.to_bytes("a") == b"1"
