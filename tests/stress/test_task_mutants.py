"""The harness finds each mutant of what tasks use, and nothing in what is not broken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.mutants.measure import find_in_tasks, is_found

pytest.importorskip("greenlet")
pytest.importorskip("redis")
tasks = pytest.importorskip("tests.mutants.tasks")

#: After how many operations a mutant is given up, and how many there are where nothing is broken.
GIVEN_UP, OPERATIONS = 10_000, 500


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", tasks.TASK_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: Any) -> None:
    found = find_in_tasks(mutant.factory, mutant.workload, mutant.faults, "random", GIVEN_UP)
    assert is_found(found), (found["verdicts"], found["problems"])


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("redis_server")
@pytest.mark.parametrize("mutant", tasks.TASK_REDIS_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_of_a_server_is_found(mutant: Any) -> None:
    found = find_in_tasks(mutant.factory, mutant.workload, mutant.faults, "native", GIVEN_UP)
    assert is_found(found), (found["verdicts"], found["problems"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("store", "workloads", "faults"),
    [("latchstore:DictMemoryStore", "all", "cancel"), ("sqlite", "registers,transactions,bank", "")],
)
def test_what_is_not_broken_is_not_found(store: str, workloads: str, faults: str) -> None:
    """In random order, and in loops of asyncio's own."""
    found = find_in_tasks(store, workloads, faults, "mixed", OPERATIONS, 10)
    assert found["answer"] == "valid", (found["verdicts"], found["problems"])
    assert found["operations"] >= OPERATIONS
