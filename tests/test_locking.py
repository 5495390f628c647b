"""The latches: a wait ends with the lock or an error that names the holder, and nothing is left held."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager, LockTimeoutError, StoreError, TransactionError
from latchstore.engine.locking import (
    Latch,
    Latches,
    SharedLatch,
    TableLock,
    Waiters,
    WriterMutex,
    this_thread,
    thread_name,
)

TIMEOUT = 30.0

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05


def taken(mutex: WriterMutex, purpose: str, timeout: float = 0) -> tuple[threading.Thread, str]:
    """Take a mutex; return the claim to give it back with."""
    claim = (this_thread.thread, purpose)
    mutex.acquire_as_writer(claim, timeout)
    return claim


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


def take_for_writing(table: TableLock) -> None:
    if not table.write_handle.acquire(True, table.timeout):
        table.refuse_writing()


def check_all_free(latches: Latches) -> None:
    """Take everything once, in another thread, without waiting."""

    def take() -> None:
        claim = taken(latches.writer, "check")
        take_for_writing(latches.table)
        latches.table.write_handle.release()
        assert latches.table.reading(int) == latches.table.excluding(int) == 0
        latches.writer.release(claim)

    assert in_thread(take) is None


LOCKS = [SharedLatch, rwlock.RWLockFair, rwlock.RWLockRead, rwlock.RWLockWrite]


@pytest.fixture(params=LOCKS, ids=lambda lock: lock.__name__)
def latches(request: pytest.FixtureRequest) -> Iterator[Latches]:
    latches = Latches(request.param, SHORT)
    yield latches
    check_all_free(latches)


# -- the writer mutex -----------------------------------------------------------------------------


def test_one_thread_holds_the_mutex() -> None:
    mutex = WriterMutex()
    assert not mutex.held_by_this_thread()
    claim = taken(mutex, "one")
    assert mutex.held_by_this_thread()
    seen: list[bool] = []
    assert in_thread(lambda: seen.append(mutex.held_by_this_thread())) is None
    assert seen == [False]
    assert isinstance(in_thread(lambda: taken(mutex, "two")), LockTimeoutError)
    mutex.release(claim)
    assert not mutex.held_by_this_thread()
    assert in_thread(lambda: taken(mutex, "two")) is None


def test_a_claim_that_does_not_hold_the_mutex_does_not_give_it_back() -> None:
    mutex = WriterMutex()
    first = taken(mutex, "one")
    mutex.release((this_thread.thread, "one"))
    assert mutex.holder is first
    mutex.release(first)
    second = taken(mutex, "two")
    mutex.release(first)
    assert mutex.holder is second


def test_waiting_for_the_mutex_ends_with_the_name_of_the_holder(latches: Latches) -> None:
    with Elsewhere(lambda stay: latches.writing("counting beans", stay), "the accountant"):
        with pytest.raises(LockTimeoutError) as raised:
            taken(latches.writer, "set", SHORT)
        with pytest.raises(LockTimeoutError):
            latches.writing("delete", pytest.fail, "two writers")
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
    claim = (this_thread.thread, "slow")
    monkeypatch.setattr("latchstore.engine.locking.time.time", lambda: 1000.0)
    assert mutex.acquire_as_writer(claim, 0) == 1000.0
    monkeypatch.setattr("latchstore.engine.locking.time.time", lambda: 1012.5)
    assert mutex.describe() == "held for 12.500 s by thread 'MainThread' (slow)"
    # The clock may be set back.
    monkeypatch.setattr("latchstore.engine.locking.time.time", lambda: 5.0)
    assert mutex.describe() == "held for 0.000 s by thread 'MainThread' (slow)"
    mutex.release(claim)
    assert mutex.describe() == "which is free now"


def test_a_thread_that_would_wait_for_itself_is_told_at_once() -> None:
    # A timeout that the test would not survive: nothing may wait for it.
    latches = Latches(SharedLatch, 10_000.0)

    def again() -> None:
        with pytest.raises(
            LockTimeoutError,
            match=r"^the second: this thread is already writing \(the first\) and would wait for itself$",
        ):
            taken(latches.writer, "the second", 10_000.0)
        assert latches.writer.held_by_this_thread()

    latches.writing("the first", again)
    check_all_free(latches)


def test_a_section_of_the_mutex_that_fails_gives_it_back(latches: Latches) -> None:
    with pytest.raises(ZeroDivisionError):
        latches.writing("dividing", divmod, 1, 0)
    assert latches.writer.describe() == "which is free now"


# -- a latch ----------------------------------------------------------------------------------------


def test_a_latch_lets_one_thread_in_after_the_other() -> None:
    latch = Latch()
    count = 0
    ready = threading.Barrier(4)

    def step() -> None:
        nonlocal count
        before = count
        count = before + 1

    def work() -> None:
        ready.wait(TIMEOUT)
        for _ in range(2000):
            latch.during(step)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert count == 8000
    assert latch.claim is None


def test_a_thread_that_is_in_the_middle_of_a_section_is_told_so() -> None:
    """A signal handler may run there, and a finalizer."""
    latch = Latch()

    def again() -> None:
        with pytest.raises(LockTimeoutError, match="would wait for itself"):
            latch.during(int)

    latch.during(again)
    assert latch.during(int, "7") == 7


def test_a_wake_up_that_is_lost_costs_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    latch, claim = Latch(), object()
    assert latch.acquire(claim)
    monkeypatch.setattr(Waiters, "ring", lambda waiters: None)
    waiting = threading.Thread(target=latch.during, args=(int,))
    waiting.start()
    while not latch._waiters.bells:
        assert waiting.is_alive()
    latch.release(claim)
    waiting.join(TIMEOUT)
    assert not waiting.is_alive()


def test_who_gives_up_waiting_leaves_no_bell() -> None:
    latch = Latch()
    assert latch.acquire(object())
    assert not latch.acquire(object(), SHORT)
    assert not latch._waiters.bells


def test_a_thread_that_has_ended_is_said_to_have() -> None:
    thread = threading.Thread(target=lambda: None, name="short-lived")
    thread.start()
    thread.join(TIMEOUT)
    assert thread_name(thread) == "short-lived (ended)"
    assert thread_name(threading.current_thread()) == threading.current_thread().name


# -- the table lock -------------------------------------------------------------------------------


def test_readers_share_the_table(latches: Latches) -> None:
    table = latches.table
    assert table.reading(in_thread, lambda: table.reading(int)) is None


def test_a_writer_keeps_readers_out_and_is_named(latches: Latches) -> None:
    claim = taken(latches.writer, "rebuilding")
    take_for_writing(latches.table)
    error = in_thread(lambda: latches.table.reading(pytest.fail, "a reader got in"))
    latches.table.write_handle.release()
    latches.writer.release(claim)
    assert isinstance(error, LockTimeoutError)
    name = re.escape(threading.current_thread().name)
    assert re.fullmatch(
        rf"no read lock in 0\.05 s, held for \d+\.\d{{3}} s by thread '{name}' \(rebuilding\)", str(error)
    )


def test_a_reader_keeps_writers_out(latches: Latches) -> None:
    error = latches.table.reading(in_thread, lambda: latches.writing("set", take_for_writing, latches.table))
    assert isinstance(error, LockTimeoutError)
    assert str(error) == "the table was not free for writing in 0.05 s: readers hold it"


def test_the_exclusive_side_keeps_everybody_out(latches: Latches) -> None:
    table = latches.table
    seen: list[object] = []

    def others() -> None:
        assert isinstance(in_thread(lambda: table.reading(seen.append, "reader")), LockTimeoutError)
        assert isinstance(
            in_thread(lambda: latches.writing("set", take_for_writing, table)), LockTimeoutError
        )
        assert in_thread(lambda: table.try_excluding(lambda: seen.append("second"))) is None

    table.excluding(others)
    assert seen == []
    table.try_excluding(others)
    assert seen == []
    table.try_excluding(lambda: seen.append("only one"))
    assert seen == ["only one"]


def test_a_thread_that_applies_a_commit_must_not_read(latches: Latches) -> None:
    """As a finalizer would that the garbage collector runs in the middle of a commit."""
    table = latches.table
    table.timeout = 10_000.0
    claim = taken(latches.writer, "set")
    take_for_writing(table)
    assert table.held_for_writing_by_this_thread()
    expected = "this thread is applying a commit and would wait for itself"
    with pytest.raises(LockTimeoutError, match=expected):
        table.reading(pytest.fail, "read in the middle of a commit")
    with pytest.raises(LockTimeoutError, match=expected):
        table.excluding(pytest.fail, "wrote in the middle of a commit")
    table.write_handle.release()
    assert not table.held_for_writing_by_this_thread()
    assert table.reading(int) == 0
    latches.writer.release(claim)
    table.timeout = SHORT


def test_a_section_that_fails_gives_the_table_back(latches: Latches) -> None:
    for section in (latches.table.reading, latches.table.excluding):
        with pytest.raises(ZeroDivisionError):
            section(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        latches.table.try_excluding(lambda: divmod(1, 0))


def test_a_writer_that_gives_up_lets_readers_in() -> None:
    """Its claim keeps new readers out while it waits for those that are in."""
    lock = SharedLatch()
    reader, writer = lock.gen_rlock(), lock.gen_wlock()
    assert reader.acquire()
    assert not writer.acquire(blocking=False)
    assert not writer.locked()
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


def test_the_handles_of_the_store_s_own_lock_are_the_library_s() -> None:
    lock = SharedLatch()
    assert isinstance(lock, rwlock.RWLockable)
    for handle in (lock.gen_rlock(), lock.gen_wlock()):
        assert isinstance(handle, rwlock.Lockable)
        with handle:
            assert handle.locked()
        assert not handle.locked()
        handle.release()  # twice is harmless


def test_a_writer_lets_waiting_readers_in_first() -> None:
    """Or writers that come one after the other would keep readers out for ever."""
    lock = SharedLatch()
    first, reader, second = lock.gen_wlock(), lock.gen_rlock(), lock.gen_wlock()
    assert first.acquire()
    done: list[str] = []

    def read() -> None:
        with reader:
            done.append("reader")

    def write() -> None:
        with second:
            done.append("writer")

    threads = [threading.Thread(target=read), threading.Thread(target=write)]
    threads[0].start()
    while not lock._held_back:
        assert threads[0].is_alive()
    threads[1].start()
    while len(lock._waiters.bells) < 2:
        assert threads[1].is_alive()
    first.release()
    for thread in threads:
        thread.join(TIMEOUT)
    assert done == ["reader", "writer"]


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
