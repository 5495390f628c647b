"""The locks: a wait ends with the lock or an error that names the holder, and nothing is left held."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import (
    DictMemoryStore,
    EventManager,
    FlushTimeoutError,
    LockTimeoutError,
    StoreError,
    TransactionError,
)
from latchstore.delivery.waiting import Latch, Waiters, thread_name
from latchstore.engine.inspection import check, replace_entries, table_of
from latchstore.engine.locks import AnyReadWriteLock, Lockable, ReadWriteLock
from tests.schedules import TIMEOUT, in_another_thread, run_threads
from tests.tables import Entries

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


@pytest.fixture(params=LOCKS, ids=lambda lock: lock.__name__)
def store(request: pytest.FixtureRequest) -> Iterator[DictMemoryStore]:
    store = DictMemoryStore(EventManager(), lock_class=request.param, lock_timeout=SHORT)
    yield store
    check_all_free(store)


def in_transaction(store: DictMemoryStore, notes: str) -> Callable[[Callable[[], object]], object]:
    """Return a section that is a block of the store."""

    def section(stay: Callable[[], object]) -> None:
        with store.transaction(notes):
            stay()

    return section


def in_a_commit(store: DictMemoryStore, purpose: str) -> Callable[[Callable[[], object]], object]:
    """Return a section of the writer."""
    return lambda stay: table_of(store).exclusively(purpose, stay)


# -- a reader/writer lock ---------------------------------------------------------------------------


@with_any_lock
def test_many_readers_or_one_writer(lock_class: Callable[[], AnyReadWriteLock]) -> None:
    lock = lock_class()
    readers, writer, other = [lock.gen_rlock(), lock.gen_rlock()], lock.gen_wlock(), lock.gen_wlock()
    assert all(reader.acquire(blocking=False) for reader in readers)
    assert not writer.acquire(blocking=False)
    readers[0].release()
    assert not writer.acquire(blocking=False)
    readers[1].release()
    assert writer.acquire(blocking=False)
    assert not other.acquire(blocking=False)
    assert not any(reader.acquire(blocking=False) for reader in readers)
    writer.release()
    assert other.acquire(blocking=False)
    other.release()


@with_any_lock
def test_waiting_for_a_side_ends_in_time(lock_class: Callable[[], AnyReadWriteLock]) -> None:
    lock = lock_class()
    reader, writer = lock.gen_rlock(), lock.gen_wlock()
    assert reader.acquire(timeout=SHORT)
    assert not writer.acquire(timeout=SHORT)
    reader.release()
    assert writer.acquire(timeout=SHORT)
    assert not reader.acquire(timeout=SHORT)
    assert not lock.gen_wlock().acquire(timeout=SHORT)
    writer.release()


def test_a_writer_that_gives_up_lets_readers_in() -> None:
    """It keeps new readers out while it waits for those that are in."""
    lock = ReadWriteLock()
    reader, writer, other = lock.gen_rlock(), lock.gen_wlock(), lock.gen_rlock()
    assert reader.acquire()
    for _ in range(2):
        assert not writer.acquire(timeout=0)
        assert not writer.locked()
        assert other.acquire(blocking=False)
        other.release()
    reader.release()


def test_a_writer_that_waits_for_readers_keeps_new_ones_out() -> None:
    """Or readers that come one after the other would keep writers out for ever."""
    lock = ReadWriteLock()
    reader, writer, other = lock.gen_rlock(), lock.gen_wlock(), lock.gen_rlock()
    assert reader.acquire()
    waiting = threading.Thread(target=writer.acquire)
    waiting.start()
    while not lock.holder:
        assert waiting.is_alive()
    assert not other.acquire(blocking=False)
    reader.release()
    waiting.join(TIMEOUT)
    assert writer.locked()
    writer.release()
    assert other.acquire(blocking=False)
    other.release()


@pytest.mark.parametrize("side", ["gen_rlock", "gen_wlock"])
def test_the_handles_of_the_store_s_own_lock_are_the_library_s(side: str) -> None:
    lock = ReadWriteLock()
    assert isinstance(lock, rwlock.RWLockable)
    handle: Any = getattr(lock, side)()
    assert isinstance(handle, rwlock.Lockable)
    assert not handle.locked()
    with pytest.raises(ZeroDivisionError), handle:
        divmod(handle.locked(), 0)
    assert not handle.locked()
    with handle:
        assert handle.locked()
    assert not handle.locked()
    handle.release()  # twice is harmless
    with lock.gen_wlock() as taken:
        assert taken
        handle.release()  # and gives back nobody else's
        assert not handle.acquire(blocking=False)


def test_a_handle_that_is_asked_twice_for_the_write_side_has_it_yet() -> None:
    lock = ReadWriteLock()
    writer = lock.gen_wlock()
    assert writer.acquire()
    assert not writer.acquire(blocking=False)
    assert writer.locked()
    writer.release()
    assert lock.gen_wlock().acquire(blocking=False)


def test_readers_and_writers_exclude_each_other() -> None:
    lock = ReadWriteLock()
    pair = [0, 0]

    def write() -> None:
        handle = lock.gen_wlock()
        for _ in range(500):
            with handle:
                pair[0] += 1
                pair[1] += 1

    def read() -> None:
        handle = lock.gen_rlock()
        for _ in range(500):
            with handle:
                first, second = pair
                assert first == second

    run_threads([write, write, read, read])
    assert pair == [1000, 1000]


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


# -- the owner --------------------------------------------------------------------------------------


def test_waiting_for_the_owner_ends_with_its_thread_notes_and_time(store: DictMemoryStore) -> None:
    with Elsewhere(in_transaction(store, "counting beans"), "the accountant"):
        with pytest.raises(LockTimeoutError) as raised:
            store.from_bytes("k", b"")
        with pytest.raises(LockTimeoutError), store.transaction():
            raise AssertionError("two owners")
        with pytest.raises(LockTimeoutError), store.transaction(optimistic=True):
            store.from_bytes("k", b"")
        with pytest.raises(LockTimeoutError):
            store.add_index("n")
        assert len(store) == 0, "readers never wait for a block"
    assert re.fullmatch(
        r"from_bytes: no write lock in 0\.05 s, held for \d+\.\d{3} s by thread 'the accountant' "
        r"\(transaction 'counting beans'\)",
        str(raised.value),
    )
    assert not store.exists("k")


def test_a_timeout_of_its_own(store: DictMemoryStore) -> None:
    table_of(store).timeout = ENDLESS
    with (
        Elsewhere(in_transaction(store, "")),
        pytest.raises(LockTimeoutError, match=r"^transaction 'mine': no write lock in 0 s"),
        store.transaction("mine", timeout=0),
    ):
        raise AssertionError("two owners")
    table_of(store).timeout = SHORT


@pytest.mark.parametrize("woken", [True, False], ids=["woken", "the wake-up is lost"])
def test_waiting_ends_when_the_owner_ends(woken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if woken:
        monkeypatch.setattr("latchstore.engine.owner.LOOK_AGAIN", ENDLESS)
        monkeypatch.setattr(Waiters.wait, "__defaults__", (0, ENDLESS))
    else:
        monkeypatch.setattr(Waiters, "ring", lambda waiters: None)
    store = DictMemoryStore(EventManager(), lock_timeout=ENDLESS)
    with Elsewhere(in_transaction(store, "")) as elsewhere:
        threads = [
            threading.Thread(target=store.from_bytes, args=(key, b"written")) for key in ("a", "b", "c")
        ]
        for thread in threads:
            thread.start()
        while len(table_of(store).latches.writer.waiters.bells) < 3:
            assert all(thread.is_alive() for thread in threads)
        assert len(store) == 0
        elsewhere.leave()
        for thread in threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in threads)
    assert len(store) == 3
    assert not table_of(store).latches.writer.waiters.bells
    check_all_free(store)


def test_waiting_ends_when_a_block_that_nobody_holds_is_freed(store: DictMemoryStore) -> None:
    table_of(store).timeout = ENDLESS
    held = [store.transaction("dropped")]
    held[0].__enter__()
    store.from_bytes("k", b"never committed")
    writer = threading.Thread(target=store.from_bytes, args=("other", b""))
    writer.start()
    while not table_of(store).latches.writer.waiters.bells:
        assert writer.is_alive()
    held.clear()
    writer.join(TIMEOUT)
    assert not writer.is_alive()
    assert list(store.query_keys()) == ["other"]
    assert store.current_transaction() is None
    table_of(store).timeout = SHORT


def test_who_gives_up_waiting_for_the_owner_leaves_no_bell(store: DictMemoryStore) -> None:
    with Elsewhere(in_transaction(store, "")):
        with pytest.raises(LockTimeoutError):
            store.from_bytes("k", b"")
        assert not table_of(store).latches.writer.waiters.bells


def test_the_time_that_the_owner_has_held_counts_from_its_beginning(
    store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = "latchstore.engine.owner.time.time"
    writer = table_of(store).latches.writer
    assert writer.describe() == "which is free now"
    monkeypatch.setattr(clock, lambda: 1000.0)
    with store.transaction("slow"):
        monkeypatch.setattr(clock, lambda: 1012.5)
        name = threading.current_thread().name
        assert writer.describe() == f"held for 12.500 s by thread {name!r} (transaction 'slow')"
        # The clock may be set back.
        monkeypatch.setattr(clock, lambda: 5.0)
        assert writer.describe() == f"held for 0.000 s by thread {name!r} (transaction 'slow')"
    assert writer.describe() == "which is free now"


def test_one_thread_is_the_owner(store: DictMemoryStore) -> None:
    def begin() -> None:
        with store.transaction("second", timeout=0):
            pass

    assert store.current_transaction() is None
    with store.transaction("first") as first:
        assert store.current_transaction() is first
        assert in_another_thread(store.current_transaction) is None
        with pytest.raises(LockTimeoutError, match="'first'"):
            in_another_thread(begin)
    assert store.current_transaction() is None
    in_another_thread(begin)


def test_the_end_of_a_claim_that_is_not_the_owner_s_lets_nobody_in(store: DictMemoryStore) -> None:
    with store.transaction("first"):
        ended = table_of(store).latches.writer.claim
    assert ended is not None
    with store.transaction("second"):
        owner = table_of(store).latches.writer.claim
        table_of(store).end(ended)
        assert table_of(store).latches.writer.claim is owner is not None


def test_an_owner_that_would_wait_for_itself_is_told_at_once(store: DictMemoryStore) -> None:
    """As the store's calls go to the block it takes a call of the engine to come to this."""
    with store.transaction("mine"):
        table_of(store).timeout = ENDLESS
        with pytest.raises(
            LockTimeoutError,
            match=r"^again: this thread is already writing \(transaction 'mine'\) and would wait for itself$",
        ):
            table_of(store).commit((), "again")
        table_of(store).timeout = SHORT


def test_a_thread_that_has_ended_is_said_to_have() -> None:
    thread = threading.Thread(target=lambda: None, name="short-lived")
    thread.start()
    thread.join(TIMEOUT)
    assert thread_name(thread) == "short-lived (ended)"
    assert thread_name(threading.current_thread()) == threading.current_thread().name


# -- a latch ----------------------------------------------------------------------------------------


def test_a_latch_lets_one_thread_in_after_the_other() -> None:
    latch = Latch()
    count = 0

    def step() -> None:
        nonlocal count
        before = count
        count = before + 1

    def work() -> None:
        for _ in range(2000):
            latch.during(step)

    run_threads([work] * 4)
    assert count == 8000
    assert not latch.locked()


def test_a_thread_that_is_in_the_middle_of_a_latch_s_section_is_told_so() -> None:
    """A signal handler may run there, and a finalizer."""
    latch = Latch()

    def again() -> None:
        with pytest.raises(LockTimeoutError, match="would wait for itself"):
            latch.during(int)

    latch.during(again)
    assert latch.during(int, "7") == 7


# -- calls in the middle of a section of the same thread ---------------------------------------------


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
