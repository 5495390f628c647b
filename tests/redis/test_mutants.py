"""The harness finds each mutant of `RedisStore` over processes, and nothing in what is not broken."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from latchstore.__main__ import main
from tests.mutants.measure import find_by_processes, is_found
from tests.mutants.redis import REDIS_MUTANTS, UNBROKEN, RedisMutant

# Each run has a parent of its own, as those of tests/stress/processes/test_mutants.py.

#: After how many a mutant is given up. Most are found in the first round of 1,000, one took up to 4,000.
GIVEN_UP = 10_000

#: Those of the long run, of all workloads.
LONG = int(os.environ.get("LATCHSTORE_PROCESS_OPERATIONS", "0"))

#: How many operations all threads of a run do where nothing is broken: one round, or some.
OPERATIONS = 4_000 if LONG else 400

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", REDIS_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: RedisMutant) -> None:
    # The system schedules them. One that crashes by itself is not found; then with another seed.
    told = []
    for seed in (0, 1):
        found = find_by_processes(mutant.factory, mutant.workload, mutant.faults, GIVEN_UP, seed)
        if is_found(found):
            return
        told.append((found["verdicts"], found["problems"]))
    pytest.fail(f"not found: {told}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("unbroken", UNBROKEN, ids=lambda mutant: mutant.name)
def test_what_is_not_broken_is_not_found(unbroken: RedisMutant) -> None:
    found = find_by_processes(unbroken.factory, unbroken.workload, unbroken.faults, OPERATIONS)
    assert found["answer"] == "valid", (found["verdicts"], found["problems"])
    assert found["operations"] >= OPERATIONS


@pytest.mark.skipif(not LONG, reason="LATCHSTORE_PROCESS_OPERATIONS is not set, see tox -e long")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("stores", ["whole", "with_lost_replies"])
def test_many_operations_of_four_processes(stores: str, capsys: pytest.CaptureFixture[str]) -> None:
    factory = f"tests.redis.shared_stores:{stores}"
    main(["stress", "--store", factory, "--processes", "4", "--threads", "2", "--ops", str(LONG), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["answer"] == "valid", (found["verdicts"], found["problems"])
    assert found["operations"] >= LONG
