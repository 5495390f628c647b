"""What makes threads wait does so under the scheduler, and time passes when everybody waits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import pytest
from readerwriterlock import rwlock

from latchstore.stress.strategies import Replay
from tests.stress.scheduler.running import Body, Counter, OtherFirst, run, strategies


def guarded_by_lock(counter: Counter) -> list[Body]:
    lock = threading.Lock()

    def body() -> None:
        with lock:
            counter.raise_()

    return [body] * 3


def guarded_by_rlock(counter: Counter) -> list[Body]:
    lock = threading.RLock()

    def body() -> None:
        with lock, lock:
            counter.raise_()

    return [body] * 3


def guarded_by_condition(counter: Counter) -> list[Body]:
    condition = threading.Condition()
    turn = [0]

    def body(mine: int) -> None:
        with condition:
            assert condition.wait_for(lambda: turn[0] == mine, timeout=1e6)
        counter.raise_()
        with condition:
            turn[0] += 1
            condition.notify_all()

    return [lambda: body(2), lambda: body(0), lambda: body(1)]


def guarded_by_queue(counter: Counter) -> list[Body]:
    jobs: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask() -> None:
        jobs.put(None)

    def work() -> None:
        for _ in range(3):
            jobs.get()
            counter.raise_()

    return [work, ask, ask, ask]


def guarded_by_big_queue(counter: Counter) -> list[Body]:
    jobs: queue.Queue[None] = queue.Queue(1)

    def ask() -> None:
        jobs.put(None)

    def work() -> None:
        for _ in range(3):
            jobs.get()
            counter.raise_()

    return [work, ask, ask, ask]


def guarded_by_writer_lock(counter: Counter) -> list[Body]:
    lock = rwlock.RWLockFair()

    def body() -> None:
        with lock.gen_wlock():
            counter.raise_()

    return [body] * 3


def guarded_by_event(counter: Counter) -> list[Body]:
    first, second = threading.Event(), threading.Event()

    def one() -> None:
        counter.raise_()
        first.set()

    def two() -> None:
        assert first.wait(1e6)
        counter.raise_()
        second.set()

    def three() -> None:
        assert second.wait()
        counter.raise_()

    return [three, two, one]


GUARDS = [
    guarded_by_lock,
    guarded_by_rlock,
    guarded_by_condition,
    guarded_by_queue,
    guarded_by_big_queue,
    guarded_by_writer_lock,
    guarded_by_event,
]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_what_guards_in_earnest_guards_here(guard: Callable[[Counter], list[Body]]) -> None:
    for seed in range(15):
        for strategy in strategies(seed):
            counter = Counter()
            scheduler = run(lambda counter=counter: guard(counter), strategy)  # type: ignore[misc]
            assert scheduler.problem is None
            assert counter.value == 3


def test_time_passes_when_everybody_waits() -> None:
    seen: list[float] = []

    def make() -> list[Body]:
        lock = threading.Lock()
        lock.acquire()

        def body() -> None:
            begun = time.monotonic()
            assert not lock.acquire(timeout=1_000)
            time.sleep(500)
            seen.append(time.monotonic() - begun)

        return [body]

    begun = time.monotonic()
    assert run(make, Replay(())).problem is None
    assert time.monotonic() - begun < 100
    assert seen == [pytest.approx(1_500, abs=0.1)]


def test_threads_of_the_code_under_test_are_controlled_and_end_with_the_run() -> None:
    counter = Counter()
    threads: list[threading.Thread] = []

    def make() -> list[Body]:
        jobs: queue.SimpleQueue[None] = queue.SimpleQueue()

        def serve() -> None:
            while True:
                jobs.get()
                counter.raise_()

        def ask() -> None:
            server = threading.Thread(target=serve, daemon=True)
            threads.append(server)
            server.start()
            jobs.put(None)

        return [ask]

    scheduler = run(make, Replay(()))
    assert scheduler.problem is None
    assert [task.done for task in scheduler.tasks] == [True] * 3
    (server,) = threads
    server.join(20)
    assert not server.is_alive()


class OwnStart(threading.Thread):
    """Has an event of its own for which its start waits, with a lock that the new thread releases."""

    def __init__(self, target: Body) -> None:
        super().__init__(target=target)
        self._started = OwnEvent()


class OwnEvent(threading.Event):
    def __init__(self) -> None:
        super().__init__()
        self.unset = threading.Lock()
        self.unset.acquire()

    def is_set(self) -> bool:
        return not self.unset.locked()

    def set(self) -> None:
        self.unset.release()

    def wait(self, timeout: float | None = None) -> bool:
        return self.unset.acquire(timeout=2.0)


def test_a_thread_that_starts_in_a_way_of_its_own_is_controlled() -> None:
    for seed in range(30):
        for strategy in strategies(seed):
            counter = Counter()

            def begin(counter: Counter = counter) -> None:
                thread = OwnStart(counter.raise_)
                thread.start()
                with pytest.raises(RuntimeError, match="once"):
                    thread.start()
                thread.join()

            scheduler = run(lambda begin=begin: [begin, begin], strategy)  # type: ignore[misc]
            assert scheduler.problem is None
            assert scheduler.kept_locks() is None
            assert counter.value in (1, 2)


def test_a_thread_that_polls_for_one_that_sleeps_long_is_in_none() -> None:
    def make() -> list[Body]:
        flags = list[str]()

        def poll() -> None:
            while not flags:
                time.sleep(0.001)

        def set_flag() -> None:
            time.sleep(10_000)
            flags.append("set")

        return [poll, poll, set_flag]

    for strategy in strategies(0):
        assert run(make, strategy).problem is None


def test_sleeps_in_a_row_let_others_run_for_longer() -> None:
    looks = 0

    def make() -> list[Body]:
        counter = Counter()

        def poll() -> None:
            nonlocal looks
            while counter.value < 1_000:
                looks += 1
                time.sleep(0)

        def count() -> None:
            for _ in range(1_000):
                counter.raise_()

        return [poll, count]

    scheduler = run(make, OtherFirst(()))
    assert scheduler.problem is None
    assert 10 < looks < scheduler.now / 60
