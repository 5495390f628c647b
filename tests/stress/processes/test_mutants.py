"""The harness finds each mutant of `SqliteStore` over processes, and nothing in what is not broken."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from latchstore.__main__ import main
from tests.mutants.measure import find_by_processes, is_found
from tests.mutants.sqlite import SQLITE_MUTANTS, SqliteMutant, unbroken

# A mutant breaks the package in each process that attaches, the parent included. So each run has a parent of
# its own, and what runs the tests stays whole.

#: After how many a mutant is given up. Mostly the first round of 1,000 finds it, but the system schedules.
GIVEN_UP = 5_000

#: Those of the long run, of all workloads.
LONG = int(os.environ.get("LATCHSTORE_PROCESS_OPERATIONS", "0"))

#: How many operations all threads of a run do where nothing is broken: one round, or some.
OPERATIONS = 4_000 if LONG else 400


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", SQLITE_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: SqliteMutant) -> None:
    # What is too late by some milliseconds is not seen in each round.
    given_up = 3 * GIVEN_UP if mutant.workload == "near" else GIVEN_UP
    found = find_by_processes(mutant.factory, mutant.workload, mutant.faults, given_up)
    assert is_found(found), (found["verdicts"], found["problems"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("workload", "faults"),
    [
        ("optimistic", ""),
        ("events,indexes", ""),
        ("resuming", "kill"),
        ("registers", "forks"),
        ("near", "pause,kill"),
        ("loading", "kill"),
    ],
)
def test_what_is_not_broken_is_not_found(workload: str, faults: str) -> None:
    found = find_by_processes(unbroken.factory, workload, faults, OPERATIONS)
    assert found["answer"] == "valid", (found["verdicts"], found["problems"])
    assert found["operations"] >= OPERATIONS


@pytest.mark.skipif(not LONG, reason="LATCHSTORE_PROCESS_OPERATIONS is not set, see tox -e long")
@pytest.mark.timeout(7200)
def test_many_operations_of_four_processes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["stress", "--store", "sqlite", "--processes", "4", "--threads", "2", "--ops", str(LONG), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["answer"] == "valid", found["verdicts"]
    assert found["operations"] >= LONG
