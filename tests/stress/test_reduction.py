"""A native failure is reduced to a part that still proves it, and a correct history to nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, DictMemoryStore, EventManager, SqliteStore
from latchstore.stress.history import History, Operation
from latchstore.stress.native import run_native
from latchstore.stress.reduction import smallest
from latchstore.stress.result import Result
from latchstore.stress.verdict import Verdict
from latchstore.stress.workloads import WORKLOADS, store_for


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_part_of_a_correct_history_is_a_failure(name: str, tmp_path: Path) -> None:
    # If one of the parts that are tried were invalid, a failure could be reduced to it, which proves nothing.
    workload = WORKLOADS[name]()
    make: Callable[..., AbstractStore] = functools.partial(DictMemoryStore, EventManager())
    if name == "near":
        make = functools.partial(SqliteStore, tmp_path / "store", EventManager(), durability="off")
    store = store_for(workload, make)
    history = run_native(store, [workload], threads=3, operations=12, seed=5, switch_interval=1e-6)
    store.close()
    verdicts = workload.verdicts(history)
    for check, verdict in verdicts.items():
        assert verdict.answer == "valid", check
        for operation in history.operations[::4]:
            claimed = {name: {check: Verdict("invalid", "claimed by the test", (operation,))}}
            assert smallest(history, [workload], claimed).operations == history.operations


def history_of(name: str, calls: list[tuple[int, str, str, Any, Any, int, int]], facts: Any) -> History:
    operations = [
        Operation(thread, call, f"{name}/{key}", argument, result, begin, end)
        for thread, call, key, argument, result, begin, end in calls
    ]
    return History(operations, {"workloads": [name], "facts": {name: facts}})


def reduced(history: History) -> History:
    (name,) = history.header["workloads"]
    workload = WORKLOADS[name]()
    verdicts = {name: workload.verdicts(history)}
    part = smallest(history, [workload], verdicts)
    assert "invalid" in [each.answer for each in WORKLOADS[name]().verdicts(part).values()]
    assert not Result("", part, {name: WORKLOADS[name]().verdicts(part)}).is_sequential
    return part


def test_what_only_the_end_shows_keeps_its_end() -> None:
    """Two writes overlap, and the first one's value comes back after a third: no call reads that."""
    part = reduced(
        history_of(
            "ycsb-a",
            [
                (0, "set", "0", "0.1", None, 10, 40),
                (1, "set", "0", "1.1", None, 20, 30),
                (1, "set", "1", "1.2", None, 50, 60),
                (0, "get", "1", None, "1.2", 70, 80),
                (2, "set", "0", "2.1", None, 90, 95),
            ],
            {"ycsb-a/0": "0.1", "ycsb-a/1": "1.2"},
        )
    )
    assert [each.argument for each in part.operations] == ["0.1", "1.1", "2.1"]
    assert part.header["facts"] == {"ycsb-a": {"ycsb-a/0": "0.1"}}


def test_what_a_call_shows_is_cut_after_it() -> None:
    """A read of a value that was overwritten; what the end shows of the key is no part of the proof."""
    part = reduced(
        history_of(
            "ycsb-a",
            [
                (1, "set", "1", "1.1", None, 5, 15),
                (0, "set", "0", "0.1", None, 10, 20),
                (0, "set", "0", "0.2", None, 30, 40),
                (1, "get", "0", None, "0.1", 50, 60),
                (1, "set", "0", "1.2", None, 70, 80),
            ],
            {"ycsb-a/0": "1.2", "ycsb-a/1": "1.1"},
        )
    )
    assert [(each.name, each.key) for each in part.operations] == [("set", "ycsb-a/0")] * 2 + [
        ("get", "ycsb-a/0")
    ]
    assert "facts" not in part.header
