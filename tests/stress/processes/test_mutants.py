"""The harness finds each mutant of `SqliteStore` over processes, and nothing in what is not broken."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from latchstore.__main__ import main
from tests.mutants.sqlite import SQLITE_MUTANTS, SqliteMutant, unbroken

#: How many operations all threads of a run do.
OPERATIONS = 1_000

#: Those of the long run, of all workloads.
LONG = int(os.environ.get("LATCHSTORE_PROCESS_OPERATIONS", "0"))


def find(capsys: pytest.CaptureFixture[str], store: str, *words: str) -> dict[str, Any]:
    """Run the harness by processes of two threads; return what it prints as JSON."""
    main(["stress", "--store", store, "--threads", "2", "--json", *words])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", SQLITE_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: SqliteMutant, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--processes", "2", "--workload", mutant.workload, "--ops", str(OPERATIONS)]
    if mutant.faults:
        words += ["--faults", mutant.faults]
    assert find(capsys, mutant.factory, *words)["answer"] == "invalid"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("workload", "faults"),
    [("optimistic", ""), ("events,indexes", ""), ("resuming", "kill"), ("registers", "forks")],
)
def test_what_is_not_broken_is_not_found(
    workload: str, faults: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--processes", "2", "--workload", workload, "--ops", str(OPERATIONS)]
    if faults:
        words += ["--faults", faults]
    assert find(capsys, unbroken.factory, *words)["answer"] == "valid"


@pytest.mark.skipif(not LONG, reason="LATCHSTORE_PROCESS_OPERATIONS is not set, see tox -e long")
@pytest.mark.timeout(7200)
def test_many_operations_of_four_processes(capsys: pytest.CaptureFixture[str]) -> None:
    found = find(capsys, "sqlite", "--processes", "4", "--ops", str(LONG))
    assert found["answer"] == "valid", found["verdicts"]
    assert found["operations"] >= LONG
