"""The latches: a wait ends with the lock or an error that names the holder, and nothing is left held."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager, LockTimeoutError, StoreError, TransactionError
from latchstore.locking import FairLock, Latches, WriterMutex, thread_name

TIMEOUT = 30.0

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05


class Elsewhere:
    """A thread that enters a context, and leaves it when it is told to.

    Parameters
    ----------
    make : callable
        Makes the context, in the thread.
    name : str
        The thread's.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]], name: str = "elsewhere") -> None:
        self._make = make
        self._entered = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        with self._make():
            self._entered.set()
            assert self._leave.wait(TIMEOUT)

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        assert self._entered.wait(TIMEOUT)
        return self

    def __exit__(self, *details: object) -> None:
        self._leave.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


def in_thread(function: Callable[[], object]) -> BaseException | None:
    """Run a function in another thread; return what it raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    return errors[0] if errors else None


def check_all_free(latches: Latches) -> None:
    """Take everything once, in another thread, without waiting."""

    def take() -> None:
        latches.writer.acquire(0, "check")
        latches.table.acquire_write()
        latches.table.release_write()
        with latches.table.read():
            pass
        with latches.table.exclusive():
            pass
        latches.writer.release()

    assert in_thread(take) is None


LOCKS = [FairLock, rwlock.RWLockFair, rwlock.RWLockRead, rwlock.RWLockWrite]


@pytest.fixture(params=LOCKS, ids=lambda lock: lock.__name__)
def latches(request: pytest.FixtureRequest) -> Iterator[Latches]:
    latches = Latches(request.param, SHORT)
    yield latches
    check_all_free(latches)


# -- the writer mutex -----------------------------------------------------------------------------


def test_one_thread_holds_the_mutex() -> None:
    mutex = WriterMutex()
    assert not mutex.held_by_this_thread()
    mutex.acquire(0, "one")
    assert mutex.held_by_this_thread()
    seen: list[bool] = []
    assert in_thread(lambda: seen.append(mutex.held_by_this_thread())) is None
    assert seen == [False]
    assert isinstance(in_thread(lambda: mutex.acquire(0, "two")), LockTimeoutError)
    mutex.release()
    assert not mutex.held_by_this_thread()
    assert in_thread(lambda: mutex.acquire(0, "two")) is None


def test_waiting_for_the_mutex_ends_with_the_name_of_the_holder(latches: Latches) -> None:
    with Elsewhere(lambda: latches.writing("counting beans"), "the accountant"):
        with pytest.raises(LockTimeoutError) as raised:
            latches.writer.acquire(SHORT, "set")
        with pytest.raises(LockTimeoutError), latches.writing("delete"):
            pytest.fail("two writers")
    assert re.fullmatch(
        r"set: no write lock in 0\.05 s, held for \d+\.\d{3} s by thread 'the accountant' \(counting beans\)",
        str(raised.value),
    )
    assert isinstance(raised.value, StoreError)
    assert isinstance(raised.value, TimeoutError)


def test_the_time_that_the_mutex_was_held_counts_from_its_acquisition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutex = WriterMutex()
    monkeypatch.setattr("latchstore.locking.time.time", lambda: 1000.0)
    assert mutex.acquire(0, "slow") == 1000.0
    monkeypatch.setattr("latchstore.locking.time.time", lambda: 1012.5)
    assert mutex.describe() == "held for 12.500 s by thread 'MainThread' (slow)"
    # The clock may be set back.
    monkeypatch.setattr("latchstore.locking.time.time", lambda: 5.0)
    assert mutex.describe() == "held for 0.000 s by thread 'MainThread' (slow)"
    mutex.release()
    assert mutex.describe() == "which is free now"


def test_a_thread_that_would_wait_for_itself_is_told_at_once() -> None:
    # A timeout that the test would not survive: nothing may wait for it.
    latches = Latches(FairLock, 10_000.0)
    with latches.writing("the first"):
        with pytest.raises(
            LockTimeoutError,
            match=r"^the second: this thread is already writing \(the first\) and would wait for itself$",
        ):
            latches.writer.acquire(10_000.0, "the second")
        assert latches.writer.held_by_this_thread()
    check_all_free(latches)


def test_a_block_that_fails_gives_the_mutex_back(latches: Latches) -> None:
    with pytest.raises(ZeroDivisionError), latches.writing("dividing"):
        1 / 0
    assert latches.writer.describe() == "which is free now"


def test_a_thread_that_has_ended_is_said_to_have() -> None:
    thread = threading.Thread(target=lambda: None, name="short-lived")
    thread.start()
    thread.join(TIMEOUT)
    assert thread_name(thread) == "short-lived (ended)"
    assert thread_name(threading.current_thread()) == threading.current_thread().name


# -- the table lock -------------------------------------------------------------------------------


def test_readers_share_the_table(latches: Latches) -> None:
    def read() -> None:
        with latches.table.read():
            pass

    with latches.table.read():
        assert in_thread(read) is None


def test_a_writer_keeps_readers_out_and_is_named(latches: Latches) -> None:
    def read() -> None:
        with latches.table.read():
            pytest.fail("a reader got in")

    with latches.writing("rebuilding"):
        latches.table.acquire_write()
        try:
            error = in_thread(read)
        finally:
            latches.table.release_write()
    assert isinstance(error, LockTimeoutError)
    name = re.escape(threading.current_thread().name)
    assert re.fullmatch(
        rf"no read lock in 0\.05 s, held for \d+\.\d{{3}} s by thread '{name}' \(rebuilding\)", str(error)
    )


def test_a_reader_keeps_writers_out(latches: Latches) -> None:
    def write() -> None:
        with latches.writing("set"):
            latches.table.acquire_write()

    with latches.table.read():
        error = in_thread(write)
    assert isinstance(error, LockTimeoutError)
    assert str(error) == "the table was not free for writing in 0.05 s: readers hold it"


def test_the_exclusive_side_keeps_everybody_out(latches: Latches) -> None:
    def read() -> None:
        with latches.table.read():
            pytest.fail("a reader got in")

    def write() -> None:
        with latches.writing("set"):
            latches.table.acquire_write()

    with latches.table.exclusive():
        assert isinstance(in_thread(read), LockTimeoutError)
        assert isinstance(in_thread(write), LockTimeoutError)
        seen: list[object] = []
        assert in_thread(lambda: seen.append(latches.table.try_exclusive())) is None
        assert seen == [None]
    handle = latches.table.try_exclusive()
    assert handle is not None
    assert isinstance(in_thread(read), LockTimeoutError)
    handle.release()


def test_a_thread_that_applies_a_commit_must_not_read(latches: Latches) -> None:
    """As a finalizer would that the garbage collector runs in the middle of a commit."""
    latches.table.timeout = 10_000.0
    with latches.writing("set"):
        latches.table.acquire_write()
        assert latches.table.held_for_writing_by_this_thread()
        expected = "this thread is applying a commit and would wait for itself"
        with pytest.raises(LockTimeoutError, match=expected), latches.table.read():
            pytest.fail("read in the middle of a commit")
        with pytest.raises(LockTimeoutError, match=expected), latches.table.exclusive():
            pytest.fail("wrote in the middle of a commit")
        latches.table.release_write()
        assert not latches.table.held_for_writing_by_this_thread()
        with latches.table.read():
            pass
    latches.table.timeout = SHORT


def test_a_section_that_fails_gives_the_table_back(latches: Latches) -> None:
    with pytest.raises(ZeroDivisionError), latches.table.read():
        1 / 0
    with pytest.raises(ZeroDivisionError), latches.table.exclusive():
        1 / 0


def test_the_quick_writer_gives_back_the_first_lock_when_it_does_not_get_the_second() -> None:
    """Or readers would wait for a writer that has given up."""
    lock = FairLock()
    reader, writer = lock.gen_rlock(), lock.gen_wlock()
    assert reader.acquire()
    assert not writer.acquire(blocking=False)
    assert not writer.acquire(timeout=SHORT)
    other = lock.gen_rlock()
    assert other.acquire(timeout=0)
    other.release()
    reader.release()
    assert writer.acquire(blocking=False)
    assert not lock.gen_rlock().acquire(blocking=False)
    assert not lock.gen_wlock().acquire(blocking=False)
    writer.release()
    assert reader.acquire(blocking=False)
    reader.release()


# -- through the store ----------------------------------------------------------------------------


@pytest.mark.parametrize("lock_class", LOCKS, ids=lambda lock: lock.__name__)
def test_a_store_works_with_any_lock_of_the_library(lock_class: Any) -> None:
    store = DictMemoryStore(EventManager(), lock_class=lock_class, indexes=["n"])
    store.multiset(["a", "b"], [(b"1", {"n": 1}), (b"2", {"n": 2})])
    store.delete("a")
    assert list(store.query_keys(n=2)) == ["b"]
    assert store.info()["keys"] == len(store) == 1
    store._table.check()
    check_all_free(store._latches)


class Reader:
    """Calls back when the garbage collector or the interpreter frees it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __del__(self) -> None:
        self.call()


@pytest.mark.parametrize(
    "call",
    [
        lambda store: len(store),
        lambda store: list(store.query()),
        lambda store: list(store.multiget(["a"])),
        lambda store: store.info(),
        lambda store: store.snapshot(),
        lambda store: store.from_bytes("x", b""),
        lambda store: store.transaction().__enter__(),
        lambda store: store.add_index("n"),
    ],
    ids=["len", "query", "multiget", "info", "snapshot", "from_bytes", "transaction", "add_index"],
)
def test_a_finalizer_in_the_middle_of_a_commit_is_refused_and_the_commit_goes_on(
    call: Callable[[DictMemoryStore], object],
) -> None:
    """A finalizer may run anywhere; here it runs where a commit makes room for its keys."""
    store = DictMemoryStore(EventManager(), lock_timeout=10_000.0)
    errors: list[BaseException] = []

    def from_the_finalizer() -> None:
        try:
            call(store)
        except BaseException as error:
            errors.append(error)

    class Entries(dict[str, Any]):
        def update(self, *arguments: Any) -> None:  # type: ignore[override]
            Reader(from_the_finalizer)
            super().update(*arguments)

    store._table.entries = store._entries = Entries()
    store.multiset_data(["a", "b"], [b"1", b"2"])
    assert {type(error) for error in errors} == {LockTimeoutError}
    assert "would wait for itself" in str(errors[0])
    assert [store.to_bytes(key) for key in ("a", "b")] == [b"1", b"2"]
    assert sorted(store.query_keys()) == ["a", "b"]
    check_all_free(store._latches)


def test_a_finalizer_in_the_middle_of_a_commit_may_read_a_key() -> None:
    store = DictMemoryStore(EventManager())
    store.from_bytes("a", b"before")
    seen: list[object] = []

    class Entries(dict[str, Any]):
        def update(self, *arguments: Any) -> None:  # type: ignore[override]
            super().update(*arguments)
            Reader(lambda: seen.append((store.to_bytes("a"), store.exists("b"))))

    store._table.entries = store._entries = Entries(store._entries)
    store.multiset_data(["a", "b"], [b"1", b"2"])
    assert set(seen) == {(b"before", False)}
    assert store.to_bytes("a") == b"1"


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
    check_all_free(store._latches)
    with pytest.raises((KeyError, TypeError, TransactionError)), store.transaction():
        FAILURES[name](store)
    check_all_free(store._latches)
    assert store.to_bytes("k") == b"data"
    assert store.info()["revision"] == 1
