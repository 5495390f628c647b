"""Searches find what is wrong with a store, make it small, and run it again; ours they find nothing in."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from latchstore import AbstractStore, DictMemoryStore, EventManager
from latchstore.stress.controlled import Laboratory, Program
from latchstore.stress.faults import FAULTS
from latchstore.stress.search import Found, Mode, Settings, measured, search
from latchstore.stress.strategies import Replay, schedule_of
from latchstore.stress.workloads import WORKLOADS, Action, Workload


class NoIsolation(DictMemoryStore):
    """Has transactions that hold up nobody and take back nothing."""

    def __init__(self) -> None:
        super().__init__(EventManager())

    @contextmanager
    def transaction(self, notes: str = "", **options: Any) -> Iterator[None]:  # type: ignore[override]
        yield


class TwoLocks(DictMemoryStore):
    """Takes two locks of its own in both orders."""

    def __init__(self) -> None:
        super().__init__(EventManager())
        self._one, self._other = threading.Lock(), threading.Lock()

    def from_bytes(self, key: str, data: Any, *args: Any, **options: Any) -> None:
        with self._one, self._other:
            super().from_bytes(key, data, *args, **options)

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        with self._other, self._one:
            return super().to_bytes(key)


class Crashing(DictMemoryStore):
    """Raises what no store may raise, if another thread comes between."""

    def __init__(self) -> None:
        super().__init__(EventManager())
        self._busy = 0

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        self._busy += 1
        if self._busy > 1:
            raise ZeroDivisionError("two at once")
        data = super().to_bytes(key)
        self._busy -= 1
        return data


def ours(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), **options)


def look_for(
    factory: Callable[..., AbstractStore],
    workload: str,
    schedules: int = 300,
    faults: str = "",
    **options: Any,
) -> tuple[Laboratory, Found]:
    laboratory = Laboratory(factory, [FAULTS[name] for name in faults.split()])
    with laboratory.open():
        found = search(
            laboratory,
            [WORKLOADS[workload]()],
            Settings(**options),
            lambda found: found.schedules >= schedules,
        )
    return laboratory, found


#: How many schedules a store is looked at in which nothing is to be found.
SCHEDULES = int(os.environ.get("LATCHSTORE_SCHEDULES", "6"))

#: Of each thread, where all schedules are tried; two have thousands of schedules.
OPERATIONS = int(os.environ.get("LATCHSTORE_OPERATIONS", "1"))

MODES: tuple[Mode, ...] = ("random", "whole", "pct", "exhaustive")


@pytest.mark.parametrize("name", ["sizes", "mappings", "removals", "optimistic", "phantoms"])
def test_operations_of_all_names_are_measured(name: str) -> None:
    workload, laboratory = WORKLOADS[name](), Laboratory(ours)
    with laboratory.open():
        size = measured(laboratory, workload, 3)
    seeds = range(5)
    actions = [each for seed in seeds for thread in range(3) for each in _first(workload, seed, thread)]
    unknown = [each.name for each in actions if each.name not in size.of_each]
    assert len(unknown) <= len(actions) / 20, set(unknown)


def _first(workload: Workload, seed: int, thread: int) -> Iterator[Action]:
    return itertools.islice(workload.actions(thread, seed), 8)


@pytest.mark.parametrize("mode", MODES)
def test_a_store_without_isolation_is_found_out(mode: Mode) -> None:
    threads = 2 if mode == "exhaustive" else 3
    laboratory, found = look_for(NoIsolation, "bank", 2_000, mode=mode, threads=threads, preemptions=1)
    (verdict,) = [each for each in found.run.verdicts.values() if each.answer == "invalid"]
    assert verdict.reason
    assert found.program.size <= 3, "two operations, and perhaps an audit"
    assert sum(turn.interrupted for turn in found.run.turns) <= 3
    assert found.run.steps
    with laboratory.open():
        again = laboratory.run(found.program, Replay(schedule_of(found.run.turns)))
    assert again.failed
    assert again.history.operations == found.run.history.operations


def test_a_deadlock_is_found() -> None:
    _, found = look_for(TwoLocks, "registers", mode="random")
    (problem,) = found.run.problems
    assert problem.kind in ("deadlock", "lock order")
    assert "test_search.py" in problem.text


def test_a_crash_is_found() -> None:
    _, found = look_for(Crashing, "registers", mode="random")
    (problem,) = found.run.problems
    assert problem.kind == "crash"
    assert "two at once" in problem.text
    assert found.program.size == 2


@pytest.mark.parametrize("workload", [name for name in WORKLOADS if name != "near"])
def test_nothing_is_found_in_ours(workload: str) -> None:
    _, found = look_for(ours, workload, SCHEDULES, mode="mixed")
    assert not found.run.failed, (found.run.problems, found.run.verdicts)
    assert found.schedules == SCHEDULES
    assert all(each.answer == "valid" for each in found.verdicts[workload].values())


@pytest.mark.timeout(600)
def test_all_schedules_of_two_threads_are_tried() -> None:
    _, found = look_for(
        ours,
        "compare-and-set",
        sys.maxsize,
        mode="exhaustive",
        threads=2,
        operations=OPERATIONS,
        preemptions=1,
    )
    assert found.complete
    assert found.schedules > 40
    assert not found.run.failed


# What is raised in a finalizer (of a transaction that was dropped) goes no further: Python tells of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", sorted(name for name, each in FAULTS.items() if each.controlled))
def test_ours_bears_faults(fault: str) -> None:
    for workload in ("registers", "transactions", "events"):
        _, found = look_for(ours_with_options, workload, SCHEDULES // 2, faults=fault, mode="random")
        assert not found.run.failed, (found.run.problems, found.run.verdicts)


def ours_with_options(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), **options)


def test_the_same_seed_finds_the_same() -> None:
    found = [look_for(NoIsolation, "bank", mode="pct", seed=7, operations=1)[1] for _ in range(2)]
    assert found[0].seed == found[1].seed
    assert found[0].program.kept == found[1].program.kept
    assert found[0].run.turns == found[1].run.turns
    _, again = look_for(NoIsolation, "bank", 1, mode="pct", seed=found[0].seed, operations=1)
    assert again.run.turns == found[0].run.turns


def test_a_failure_may_be_left_as_it_was_found() -> None:
    small = look_for(NoIsolation, "bank", mode="pct", seed=7, operations=1)[1]
    _, found = look_for(NoIsolation, "bank", mode="pct", seed=7, operations=1, shrink=False)
    assert found.run.failed
    assert (found.seed, found.schedules) == (small.seed, small.schedules)
    assert found.program.size == 3 > small.program.size


def test_actions_that_are_left_out_leave_the_others_as_they_are() -> None:
    workload = WORKLOADS["registers"]()
    whole = Program.of(workload, 3, 2, 4)
    part = Program(workload, 3, ((1, 3), ()))
    all_of_them = [(action.name, action.key, action.argument) for action in whole.actions(0)]
    assert [(each.name, each.key, each.argument) for each in part.actions(0)] == all_of_them[1::2]
    assert part.actions(1) == []
    assert part.size == 2
