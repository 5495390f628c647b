"""Threads under the scheduler: same strategy, same run; races are found, and steps tell who was where."""

from __future__ import annotations

import dis
import queue
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import Any

import pytest

from latchstore.stress.places import checks_of
from latchstore.stress.strategies import Replay, following_schedules, schedule_of
from tests.stress.scheduler.running import Body, Counter, racing, run, strategies


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


def test_threads_stop_in_the_first_run_of_a_process() -> None:
    first = (
        "from tests.stress.scheduler.running import Counter, OtherFirst, racing, run;"
        "counter = Counter(); run(racing(counter), OtherFirst(())); assert counter.value == 1, counter"
    )
    subprocess.run([sys.executable, "-c", first], check=True, timeout=60)


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


def test_a_thread_stops_before_it_looks_up_a_key() -> None:
    def look(items: dict[str, int], missing: list[KeyError]) -> None:
        if "a" in items:
            try:
                items["a"]
            except KeyError as error:
                missing.append(error)

    def remove(items: dict[str, int]) -> None:
        items.clear()

    def both(items: dict[str, int], missing: list[KeyError]) -> list[Body]:
        return [lambda: look(items, missing), lambda: remove(items)]

    missing: list[KeyError] = []
    for seed in range(30):
        for strategy in strategies(seed):
            run(lambda: both({"a": 1}, missing), strategy)
    assert missing


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
