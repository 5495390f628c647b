"""Threads under the scheduler: same strategy, same run; races, deadlocks and hangs are found, and named."""

from __future__ import annotations

import dis
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore.delivery import threads as delivery_threads
from latchstore.stress.cooperative import cooperative
from latchstore.stress.places import checks_of
from latchstore.stress.scheduler import Scheduler, Strategy
from latchstore.stress.strategies import AtRandom, Priorities, Replay, following_schedules, schedule_of
from latchstore.stress.tasks import Task

Body = Callable[[], object]


def traced(code: Any) -> bool:
    ours = code is traced.__code__ or code.co_qualname.startswith("OtherFirst.")
    return not ours and bool(code.co_filename == __file__)


class OtherFirst(Replay):
    """After each point the turn goes to another task if one is ready."""

    def next_choice(self, now: int) -> float:
        return now + 1

    def choose(self, running: Task | None, ready: Sequence[Task]) -> Task:
        return next((task for task in ready if task is not running), ready[0])


def run(
    make: Callable[[], Iterable[Body]], strategy: Strategy, *modules: ModuleType, **options: Any
) -> Scheduler:
    """Run bodies that `make` makes, in one thread each; modules beside this one may be under test."""
    scheduler = Scheduler(strategy, traced, **options)

    def body() -> None:
        threads = [threading.Thread(target=each) for each in make()]
        for thread in threads:
            thread.start()
        scheduler.release()
        for thread in threads:
            thread.join()
        scheduler.hold()

    with cooperative([sys.modules[__name__], rwlock, *modules]):
        assert scheduler.run(body)
    return scheduler


@dataclass
class Counter:
    value: int = 0

    def raise_(self) -> None:
        self.value = self.value + 1


def racing(counter: Counter) -> Callable[[], list[Body]]:
    return lambda: [counter.raise_, counter.raise_]


def strategies(seed: int) -> list[Strategy]:
    chance = random.Random(seed)
    return [AtRandom(chance), *(Priorities(chance, depth, 12) for depth in (2, 3, 4))]


def test_a_lost_update_is_found() -> None:
    lost: dict[str, int] = {}
    for seed in range(30):
        for strategy in strategies(seed):
            counter = Counter()
            run(racing(counter), strategy)
            assert counter.value in (1, 2)
            lost[type(strategy).__name__] = lost.get(type(strategy).__name__, 0) + (counter.value == 1)
    assert set(lost) == {"AtRandom", "Priorities"}
    assert all(lost.values()), lost


def test_nothing_is_lost_without_a_preemption() -> None:
    counter = Counter()
    scheduler = run(racing(counter), Replay(()))
    assert counter.value == 2
    assert not any(turn.interrupted for turn in scheduler.turns)


@pytest.mark.parametrize("seed", range(10))
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    for first, second in zip(strategies(seed), strategies(seed), strict=True):
        counters = Counter(), Counter(), Counter()
        one = run(racing(counters[0]), first)
        other = run(racing(counters[1]), second)
        again = run(racing(counters[2]), Replay(schedule_of(one.turns)))
        assert one.turns == other.turns == again.turns
        assert one.now == other.now == again.now
        assert len({counter.value for counter in counters}) == 1


def test_all_schedules_with_one_preemption_find_what_none_without_does() -> None:
    results: dict[bool, set[int]] = {False: set(), True: set()}
    root = run(racing(Counter()), Replay(()))
    schedules = [(), *following_schedules(0, root.turns, preempt=False)]
    for schedule in schedules:
        counter = Counter()
        turns = run(racing(counter), Replay(schedule)).turns
        results[False].add(counter.value)
        for following in following_schedules(len(schedule), turns, preempt=True):
            counter = Counter()
            run(racing(counter), Replay(following))
            results[True].add(counter.value)
    assert results == {False: {2}, True: {1, 2}}


# -- what makes threads wait -------------------------------------------------------------------------


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


# -- what goes wrong ---------------------------------------------------------------------------------


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
    assert len(lines) == 5  # with the thread that waits for the two
    for line in lines[3:]:
        assert line.count("test_scheduler.py:") == 3
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
    assert "has ended and not given back the lock made at test_scheduler.py" in problem.text

    def waiting() -> list[Body]:
        lock = threading.Lock()
        return [lock.acquire, lambda: lock.acquire(timeout=30)]

    found = run(waiting, Replay(())).problem
    assert found is not None
    assert "waits for a lock that thread 1 took and kept" in found.text


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
    assert "threads wait again and again for what no thread does: 1" in problem.text


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
        assert problem.text.startswith("threads wait again and again for what no thread does: 1, 2")


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


def test_exceptions_may_come_where_cpython_raises_them() -> None:
    def function(lock: Any, other: Any) -> Any:
        with lock:
            for _ in other:
                other.pop()
        try:
            return other.last()
        finally:
            lock.release()

    instructions = list(dis.get_instructions(function))
    checks = checks_of(function.__code__)
    names = [before.opname for before, each in pairwise(instructions) if each.offset in checks]
    assert names[0] == "RESUME"
    # On entry, after a call and before the jump back; after the `with`; not between the lock and its block.
    for before, each in pairwise(instructions):
        if "BACKWARD" in each.opname and "NO_INTERRUPT" not in each.opname:
            assert each.offset in checks
        elif before.opname == "BEFORE_WITH":
            assert each.offset not in checks
    # What follows ``other.last()`` is no more in the ``try``, as the call itself is.
    calls = sum(each.opname.startswith("CALL") and "INTRINSIC" not in each.opname for each in instructions)
    assert sum(name.startswith("CALL") for name in names) < calls


def test_a_wake_up_that_never_comes_is_found() -> None:
    problem = run(lambda: [threading.Event().wait], Replay(())).problem
    assert problem is not None
    assert problem.text.startswith("no thread can go on")


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


def test_the_steps_say_who_was_where() -> None:
    interrupted = ((0, None), (1, 2), (2, None))
    scheduler = run(racing(Counter()), Replay(interrupted), recording=True)
    assert len(scheduler.steps) == sum(turn.task > 0 for turn in scheduler.turns)
    inside = [step for step in scheduler.steps if "Counter.raise_" in step.where]
    assert inside
    assert {step.text for step in inside} == {"self.value = self.value + 1"}


def test_nothing_stays_replaced() -> None:
    before = threading.Lock, threading.Thread.start, time.sleep, queue.SimpleQueue, time.monotonic
    run(racing(Counter()), Replay(()))
    assert before == (threading.Lock, threading.Thread.start, time.sleep, queue.SimpleQueue, time.monotonic)
