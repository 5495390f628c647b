"""All workloads pass our store, and their threads meet from the beginning."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, DictMemoryStore, EventManager, SqliteStore
from latchstore.stress.history import History, Operation, Outcome
from latchstore.stress.native import WorkerError, run_native
from latchstore.stress.verdict import VALID
from latchstore.stress.workloads import WORKLOADS, store_for
from latchstore.stress.workloads.stages import ReplaceModel, check_replacements, check_stages
from tests.stress.workloads.benches import our_store

# -- all of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKLOADS)
def test_our_store_passes(name: str, tmp_path: Path) -> None:
    workload = WORKLOADS[name]()
    assert workload.name == name
    make: Callable[..., AbstractStore] = functools.partial(DictMemoryStore, EventManager())
    if name == "near":
        make = functools.partial(SqliteStore, tmp_path / "store", EventManager(), durability="off")
    store = store_for(workload, make)
    assert workload.supports(store)
    assert not list(store.query_keys()), "asking leaves no trace"
    operations = 100 if name == "files" else 250  # each opens and syncs a file
    history = run_native(store, [workload], threads=4, operations=operations, seed=7, switch_interval=1e-6)
    store.close()
    history.write(tmp_path / "history.jsonl")
    verdicts = WORKLOADS[name]().verdicts(History.read(tmp_path / "history.jsonl"))
    assert verdicts
    for check, verdict in verdicts.items():
        assert verdict == VALID, check
    assert verdicts == workload.verdicts(history)
    assert len({operation.outcome for operation in history.operations} & {"ok"}) == 1


def test_a_mapping_can_read_what_is_there_from_the_beginning() -> None:
    # Else most of its calls raise, and are no test of anything.
    workload = WORKLOADS["mappings"]()
    store = store_for(workload, our_store)
    history = run_native(store, [workload], threads=3, operations=30, seed=7, switch_interval=1e-6)
    assert {operation.outcome for operation in history.operations} == {"ok"}


def mapped(name: str, key: str, result: Any, time: int, outcome: Outcome = "ok") -> Operation:
    return Operation(time % 3, f"mapping: {name}", key, None, result, 2 * time, 2 * time + 1, outcome)


@pytest.mark.parametrize(
    ("calls", "answer"),
    [
        (
            [("popitem", "mappings/0", ["mappings/0/0", "initial"], 1), ("get", "mappings/0/0", None, 2)],
            "valid",
        ),
        ([("popitem", "mappings/0", ["mappings/0/0", "initial"], time) for time in (1, 2)], "invalid"),
        ([("popitem", "mappings/0", ["mappings/0/0", "other"], 1)], "invalid"),
        ([("popitem", "mappings/0", None, 1)], "invalid"),
        ([("pop", "mappings/0/0", "initial", 1), ("popitem", "mappings/0", None, 2)], "valid"),
        ([("popitem", "mappings/0", None, 1, "info"), ("get", "mappings/0/0", None, 2)], "valid"),
        ([("popitem", "mappings/0", None, 1, "info"), ("get", "mappings/0/0", "initial", 2)], "valid"),
        ([("popitem", "mappings/0", None, 1, "fail"), ("get", "mappings/0/0", None, 2)], "invalid"),
    ],
)
def test_a_popitem_removes_the_key_that_it_returns(calls: list[Any], answer: str) -> None:
    (verdict,) = WORKLOADS["mappings"]().verdicts(History([mapped(*call) for call in calls])).values()
    assert verdict.answer == answer


class WokenTooEarly(DictMemoryStore):
    """Raises what it would if it read the key that it waits for before the key is there."""

    def wait_for_key(self, key: str, timeout: Any = 30.0) -> Any:
        raise KeyError(key)


class RefusesWrites(DictMemoryStore):
    """Raises what no store may raise."""

    def from_bytes(self, *arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("broken", "error"), [(WokenTooEarly, "KeyError"), (RefusesWrites, "ZeroDivisionError")]
)
def test_errors_of_a_wait_and_of_the_thread_that_ends_it_are_told(broken: Any, error: str) -> None:
    with pytest.raises(WorkerError, match=error):
        run_native(broken(EventManager()), [WORKLOADS["waiting"]()], threads=3, operations=200, seed=7)


#: They look at all that a store holds, or need one that is made with options or shared.
_ALONE = {"cache", "files", "mappings", "near", "resuming", "sizes", "snapshots"}


def test_all_together() -> None:
    workloads = [make() for name, make in WORKLOADS.items() if name not in _ALONE]
    history = run_native(our_store(), workloads, threads=6, operations=700, seed=8, switch_interval=1e-6)
    assert len(history.operations) == 4_200
    for workload in workloads:
        for check, verdict in workload.verdicts(history).items():
            assert verdict == VALID, (workload.name, check)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_catalogue_describes_each(name: str) -> None:
    first_line = (inspect.getdoc(WORKLOADS[name]) or "").splitlines()[0]
    assert first_line.endswith(".")


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_gives_the_same_actions(name: str) -> None:
    def first(seed: int, thread: int) -> list[Any]:
        actions = WORKLOADS[name]().actions(thread, seed)
        return [(each.name, each.key, each.argument) for each, _ in zip(actions, range(100), strict=False)]

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(2, 0)
    assert first(1, 0) != first(1, 1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_threads_meet_from_the_beginning(name: str) -> None:
    # Within three actions, two of three threads touch one key that one of them writes, in most runs.
    reads = (
        "get",
        "exists",
        "total",
        "scan",
        "query",
        "glob",
        "all keys",
        "read",
        "multiget",
        "look",
        "open",
    )
    met = 0
    for seed in range(40):
        touched: Counter[str] = Counter()
        written: set[str] = set()
        for thread in range(3):
            actions = WORKLOADS[name]().actions(thread, seed)
            mine = [each for each, _ in zip(actions, range(3), strict=False)]
            keys = {str(each.key) for each in mine}
            for each in mine:
                if not each.name.startswith(reads):
                    written.add(str(each.key))
            touched.update(keys)
        met += any(touched[key] > 1 for key in written)
    # B to D write seldom, and C never: that is what they are.
    least = {"ycsb-b": 4, "ycsb-c": 0, "ycsb-d": 2}.get(name, 20)
    assert met >= least


# -- orders that are known --------------------------------------------------------------------------


def replaced(old: str | None, new: str, begin: int, end: int, outcome: Outcome = "ok") -> Operation:
    return Operation(0, "replace", "k", new, old, begin, end, outcome)


def got(value: str | None, begin: int, end: int) -> Operation:
    return Operation(1, "get", "k", None, value, begin, end)


REPLACEMENTS = [
    ([replaced(None, "a", 1, 2), got("a", 3, 4), replaced("a", "b", 3, 5), got("b", 4, 6)], "valid"),
    ([replaced(None, "a", 1, 2), replaced(None, "b", 1, 2)], "invalid"),
    ([replaced(None, "a", 3, 4), replaced("a", "b", 1, 2)], "invalid"),
    ([replaced(None, "a", 1, 2), got(None, 3, 4)], "invalid"),
    ([got("a", 1, 2), replaced(None, "a", 3, 4)], "invalid"),
    ([got("x", 1, 2)], "invalid"),
    ([replaced("x", "y", 1, 2)], "invalid"),
    ([replaced(None, "a", 1, 9), got("a", 2, 3), got(None, 4, 5)], "invalid"),
    ([replaced(None, "a", 1, 9, "fail"), got("a", 2, 3)], "invalid"),
    ([replaced(None, "a", 1, 9, "fail"), got(None, 2, 3)], "valid"),
    ([replaced(None, "a", 1, 9, "info"), got(None, 2, 3)], "valid"),
    ([replaced(None, "a", 1, 9, "info"), got("a", 2, 3), replaced("a", "b", 10, 11)], "valid"),
    ([replaced(None, "a", 1, 9, "info"), got("a", 2, 3), got(None, 4, 5)], "invalid"),
]


@pytest.mark.parametrize(("operations", "answer"), REPLACEMENTS)
def test_replacements(operations: list[Operation], answer: str) -> None:
    assert check_replacements(operations, ReplaceModel(lambda _, new: new)).answer == answer


def test_a_replacement_that_only_a_later_value_shows_took_effect() -> None:
    model = ReplaceModel(lambda value, new: (value or "") + new)
    unseen = [replaced(None, "a", 1, 2, "info"), replaced(None, "b", 3, 4, "info")]
    assert check_replacements([*unseen, got("ab", 5, 6)], model) == VALID
    assert check_replacements([*unseen, got("ba", 3, 4)], model) == VALID
    assert check_replacements([*unseen, got("aa", 5, 6)], model).answer == "invalid"


def test_replacements_that_nobody_saw_end_may_follow_each_other() -> None:
    model = ReplaceModel(
        lambda value, new: f"{len(value or '')}{new}", rank=lambda value: int(value[0]) + 1 if value else 0
    )
    unseen = [replaced(None, name, 1, 2, "info") for name in "abcdefghijklmnop"]
    assert check_replacements([*unseen, got("2b", 3, 4)], model) == VALID
    assert check_replacements([*unseen, got("2z", 3, 4)], model).answer == "invalid"


def test_stages() -> None:
    early, long, late = got("a", 1, 2), got("a", 1, 9), got("a", 5, 6)
    assert check_stages([[early], [long, late]]) == VALID
    assert check_stages([[late], [long]]) == VALID
    assert check_stages([]) == VALID
    verdict = check_stages([[late, long], [early]])
    assert verdict.answer == "invalid"
    assert verdict.operations == (early, late)
