"""The graph of locks: what is a circle, and what is none."""

from __future__ import annotations

import threading

from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager
from latchstore.stress.lock_order import LockOrder, NamedLock, note_handles
from latchstore.stress.recording import RecordingLock, recorded
from latchstore.stress.scope import Scope


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


def test_a_latch_that_was_struck_before_it_was_noted_is_given_back() -> None:
    order = LockOrder()
    with recorded(Scope(DictMemoryStore), order):
        store = DictMemoryStore(EventManager())
    latch = store._latches.writer
    claim = store._claim("test")
    dict.setdefault(latch.claims, 0, claim)  # what is left if an exception comes right after it
    latch.release(claim)
    assert latch.claim is None
    store.from_bytes("key", b"")


def test_locks_of_the_system_are_noted_too() -> None:
    order = LockOrder()
    with recorded(Scope(DictMemoryStore), order):
        store = DictMemoryStore(EventManager())
        store.from_bytes("key", b"1")
        assert list(store.glob("*")) == ["key"]
        store.close()
    edges = {(edge.held.split()[-1], edge.taken.split()[-1]) for edge in order.edges()}
    assert ("Latches.renew", "Latches.renew") in edges
    assert order.problem() is None
    # Afterwards locks are what they were.
    assert not isinstance(threading.Lock(), RecordingLock)
