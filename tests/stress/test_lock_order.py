"""The graph of locks: what is a circle, and what is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import BaseEventManager, DictMemoryStore, EventManager
from latchstore.delivery.waiting import Latch
from latchstore.engine.inspection import table_of
from latchstore.engine.locks import ReadWriteLock, TableLock
from latchstore.stress.campaign import carry_out
from latchstore.stress.faults import FAULTS
from latchstore.stress.lock_order import LockOrder, NamedLock, NotingReaders, note_handles
from latchstore.stress.plan import Plan
from latchstore.stress.recording import RecordingLock, held_now, recorded
from latchstore.stress.scope import Scope
from latchstore.stress.workloads import Registers


class Plain:
    """A lock that only has a name."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.owner: object = self


class TwoReaders:
    """A reader/writer lock, and what two threads have taken, without threads."""

    def __init__(self) -> None:
        self.order = LockOrder()
        self.held: dict[str, list[NamedLock]] = {"one": [], "two": []}
        self.who = "one"
        self.lock = rwlock.RWLockFair()
        assert note_handles(self.lock, "the lock", self.begin)
        self.other = Plain("the other")

    def begin(self, lock: NamedLock) -> list[NamedLock]:
        held = self.held[self.who]
        self.order.note(self.who, held, lock)
        held.append(lock)
        return held


def test_three_locks_in_a_circle() -> None:
    order = LockOrder()
    first, second, third = Plain("first"), Plain("second"), Plain("third")
    order.note("one", [first], second)
    order.note("two", [second], third)
    assert order.problem() is None
    order.note("three", [third], first)
    problem = order.problem()
    assert problem is not None
    assert problem.kind == "lock order"
    for text in ("one took second", "while it held first", "three took first"):
        assert text in problem.text
    assert [(edge.held, edge.taken) for edge in order.edges()] == [
        ("first", "second"),
        ("second", "third"),
        ("third", "first"),
    ]


def test_a_reader_that_has_left_before_others_holds_nothing() -> None:
    # The first reader takes a part of the lock which the last one gives back.
    both = TwoReaders()
    first, second = both.lock.gen_rlock(), both.lock.gen_rlock()
    first.acquire()
    both.who = "two"
    second.acquire()
    both.who = "one"
    first.release()
    assert not both.held["one"]
    assert len(both.held["two"]) == 1
    second.release()
    assert not both.held["two"]


def test_a_reader_and_a_writer_count_as_one_lock() -> None:
    both = TwoReaders()
    with both.lock.gen_rlock():
        both.begin(both.other)
    both.held["one"].clear()
    both.who = "two"
    both.begin(both.other)
    with both.lock.gen_wlock():
        problem = both.order.problem()
    assert problem is not None
    assert "two took the lock" in problem.text


def test_what_is_not_taken_is_not_noted() -> None:
    both = TwoReaders()
    with both.lock.gen_wlock():
        handle = both.lock.gen_rlock()
        assert not handle.acquire(blocking=False)
    assert not both.held["one"]


def test_a_lock_that_cannot_be_changed_is_left_as_it_is() -> None:
    class Fixed:
        __slots__ = ()

        def gen_rlock(self) -> None: ...

        def gen_wlock(self) -> None: ...

    assert not note_handles(Fixed(), "fixed", lambda lock: [])


class OurLocks:
    """A table lock of ours and a latch, made while locks write down their order."""

    def __init__(self, order: LockOrder) -> None:
        with recorded(Scope(OurLocks, DictMemoryStore), order):
            self.table = TableLock(ReadWriteLock(), 5.0)
            self.latch = Latch()

    def write(self, function: Callable[[], object]) -> None:
        own = self.table.own
        with own.mutex:
            own.holder = threading.get_ident()
            try:
                function()
            finally:
                own.holder = 0

    def read(self, function: Callable[[], object]) -> None:
        readers = self.table.own.readers
        mine = object()
        readers[mine] = threading.get_ident()
        function()
        readers.pop(mine, None)


@pytest.mark.parametrize("side", ["read", "write"])
def test_a_latch_and_both_sides_of_our_table_lock_are_a_circle(side: str) -> None:
    order = LockOrder()
    locks = OurLocks(order)
    take: Callable[[Callable[[], object]], None] = getattr(locks, side)
    take(lambda: locks.latch.during(int))
    assert order.problem() is None
    (edge,) = order.edges()
    assert edge.held.endswith("OurLocks.__init__")
    assert edge.held.startswith("ReadWriteLock")
    assert edge.taken.endswith("OurLocks.__init__")
    locks.write(lambda: None)
    locks.read(lambda: None)
    assert order.problem() is None
    locks.latch.during(take, lambda: None)
    problem = order.problem()
    assert problem is not None
    assert problem.text.count("while it held") == 2


def test_a_lock_that_is_only_tried_for_closes_no_circle() -> None:
    order = LockOrder()
    with recorded(Scope(OurLocks, DictMemoryStore), order):
        one, two = threading.Lock(), threading.Lock()
    with one, two:
        pass
    with two:
        assert one.acquire(blocking=False)
        one.release()
    assert order.problem() is None


def test_locks_of_a_store_are_noted() -> None:
    order = LockOrder()
    with recorded(Scope(DictMemoryStore), order):
        store = DictMemoryStore(EventManager())
        store.from_bytes("key", b"1")
        assert list(store.glob("*")) == ["key"]
        own = table_of(store).latches.table.own
        mutex = getattr(own.mutex.acquire, "__self__", None)  # on 3.14 the mutex is a `WithLock` of it
        assert isinstance(mutex, RecordingLock)
        assert isinstance(own.readers, NotingReaders)
        assert mutex.label.endswith("._renew_locks")
        store.close()
    assert order.problem() is None
    # Afterwards locks are what they were.
    assert not isinstance(threading.Lock(), RecordingLock)


def test_a_foreign_lock_of_a_store_is_noted_for_as_long_as_it_is_held() -> None:
    order = LockOrder()
    with recorded(Scope(DictMemoryStore), order):
        store = DictMemoryStore(EventManager(), lock_class=rwlock.RWLockFair)
        store.from_bytes("key", b"1")
        assert list(store.glob("*")) == ["key"]
        assert not held_now()
    edges = {(edge.held.split(",")[0], edge.taken.split(",")[0]) for edge in order.edges()}
    assert ("ReadWriteLock", "RWLockFair") in edges
    assert order.problem() is None


@pytest.mark.parametrize(("name", "is_recorded"), [("streams", True), ("async", False), ("gc", False)])
def test_under_some_faults_the_locks_are_those_of_the_system(name: str, is_recorded: bool) -> None:
    kinds = set()

    def make(event_manager: BaseEventManager | None = None, **options: Any) -> DictMemoryStore:
        store = DictMemoryStore(event_manager, **options)
        mutex = table_of(store).latches.table.own.mutex
        kinds.add(isinstance(getattr(mutex.acquire, "__self__", None), RecordingLock))
        return store

    plan = Plan([Registers()], threads=2, seconds=None, operations=400, faults=[FAULTS[name]])
    assert not carry_out(plan, make, lambda progress: None).result.problems
    assert (True in kinds) is is_recorded
