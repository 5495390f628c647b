"""Deadlocks, circles of locks, hangs and threads that run for ever are found, and named."""

from __future__ import annotations

import queue
import random
import threading
import time
from typing import Any

from readerwriterlock import rwlock

from latchstore.delivery import threads as delivery_threads
from latchstore.stress.strategies import AtRandom, Replay
from tests.stress.scheduler.running import Body, Counter, run


def two_orders() -> list[Body]:
    one, two = threading.Lock(), threading.Lock()

    def first() -> None:
        with one, two:
            pass

    def second() -> None:
        with two, one:
            pass

    return [first, second]


def test_a_deadlock_is_found_and_told_as_a_table() -> None:
    problems = [run(two_orders, AtRandom(random.Random(seed))).problem for seed in range(40)]
    problem = next(each for each in problems if each is not None)
    assert problem.kind == "deadlock"
    first = problem.text.splitlines()[0]
    assert first.startswith("threads wait for each other: ")
    assert first.endswith(("1 -> 2 -> 1", "2 -> 1 -> 2"))
    lines = problem.text.splitlines()
    assert lines[1].split() == ["thread", "holds", "waits", "for", "at"]
    assert len(lines) == 4
    for line in lines[3:]:
        assert line.count("test_standstill.py:") == 3
        assert "in two_orders" in line


def test_a_deadlock_counts_though_a_timeout_would_end_it() -> None:
    def make() -> list[Body]:
        one, two = threading.Lock(), threading.Lock()

        def body(mine: Any, other: Any) -> None:
            with mine:
                other.acquire(timeout=30)

        return [lambda: body(one, two), lambda: body(two, one)]

    problems = [run(make, AtRandom(random.Random(seed))).problem for seed in range(40)]
    assert any(each is not None and each.kind == "deadlock" for each in problems)


def test_a_circle_of_locks_is_found_though_nobody_met() -> None:
    scheduler = run(two_orders, Replay(()))
    assert scheduler.problem is None
    problem = scheduler.lock_order.problem()
    assert problem is not None
    assert problem.kind == "lock order"
    assert problem.text.count("while it held") == 2


def test_one_order_of_locks_is_no_circle() -> None:
    def make() -> list[Body]:
        one, two = threading.Lock(), threading.Lock()

        def body() -> None:
            with one, two:
                pass

        return [body, body]

    scheduler = run(make, Replay(()))
    assert scheduler.lock_order.problem() is None
    assert len(list(scheduler.lock_order.edges())) == 1


def test_the_parts_of_a_reader_writer_lock_are_no_circle() -> None:
    def make() -> list[Body]:
        lock = rwlock.RWLockFair()

        def read() -> None:
            with lock.gen_rlock():
                pass

        def write() -> None:
            with lock.gen_wlock():
                pass

        return [read, read, write]

    for seed in range(20):
        scheduler = run(make, AtRandom(random.Random(seed)))
        assert scheduler.problem is None
        assert scheduler.lock_order.problem() is None


def test_a_lock_that_an_ended_thread_has_kept_is_found() -> None:
    def make() -> list[Body]:
        lock = threading.Lock()
        return [lock.acquire]

    problem = run(make, Replay(())).kept_locks()
    assert problem is not None
    assert "ended without releasing the lock made at test_standstill.py" in problem.text

    def waiting() -> list[Body]:
        lock = threading.Lock()
        return [lock.acquire, lambda: lock.acquire(timeout=30)]

    found = run(waiting, Replay(())).problem
    assert found is not None
    assert "waits for a lock that thread 1 never releases" in found.text


def test_a_delivery_thread_that_is_never_started_keeps_no_lock() -> None:
    """An exception may strike whoever has made the thread and is about to start it."""
    made: list[threading.Thread] = []

    def make() -> list[Body]:
        return [lambda: made.append(delivery_threads.DeliveryThread(list, "never started"))]

    assert run(make, Replay(()), delivery_threads).kept_locks() is None
    assert len(made) == 1


def test_a_thread_that_polls_for_ever_is_in_a_deadlock() -> None:
    def make() -> list[Body]:
        lock, flags = threading.Lock(), list[str]()

        def poll() -> None:
            with lock:
                for _ in range(32):
                    time.sleep(0)
                while not flags:
                    time.sleep(0.001)

        def set_flag() -> None:
            with lock:
                flags.append("set")

        return [poll, set_flag]

    problem = run(make, Replay(())).problem
    assert problem is not None
    assert problem.kind == "deadlock"
    assert "threads wait repeatedly for something that no thread does: 1" in problem.text


def test_threads_that_poll_for_each_other_are_in_a_deadlock() -> None:
    def make() -> list[Body]:
        bells: list[queue.SimpleQueue[None]] = [queue.SimpleQueue(), queue.SimpleQueue()]

        def wait(mine: int) -> None:
            while True:
                try:
                    bells[mine].get(timeout=0.05)
                except queue.Empty:
                    time.sleep(0)
                else:
                    bells[1 - mine].put(None)

        return [lambda: wait(0), lambda: wait(1)]

    for seed in range(5):
        problem = run(make, AtRandom(random.Random(seed))).problem
        assert problem is not None
        assert problem.text.startswith("threads wait repeatedly for something that no thread does: 1, 2")


def test_a_wake_up_that_never_comes_is_found() -> None:
    problem = run(lambda: [threading.Event().wait], Replay(())).problem
    assert problem is not None
    assert problem.text.startswith("no thread can continue")


def test_a_thread_that_runs_for_ever_is_found() -> None:
    def spin() -> None:
        counter = Counter()
        while True:
            counter.raise_()

    problem = run(lambda: [spin], Replay(()), limit=1_000).problem
    assert problem is not None
    assert problem.kind == "hang"
    assert "no end after 1,000 points" in problem.text


def test_a_thread_that_will_not_be_told_to_end_is_left_behind() -> None:
    never = threading.Event()

    def make() -> list[Body]:
        lock = threading.Lock()
        lock.acquire()

        def stubborn() -> None:
            while not never.is_set():
                try:
                    lock.acquire()
                except BaseException:
                    continue

        return [stubborn]

    problem = run(make, Replay(())).problem
    assert problem is not None
