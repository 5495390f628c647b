"""A reader/writer lock: many readers or one writer; a wait ends in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import LockTimeoutError
from latchstore.delivery.waiting import Latch
from latchstore.engine.locks import AnyReadWriteLock, ReadWriteLock
from tests.locking.elsewhere import SHORT, with_any_lock
from tests.schedules import TIMEOUT, run_threads

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
