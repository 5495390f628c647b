"""The harness finds each mutant of our store, from one seed; tests/mutants/README.md has it from twenty."""

from __future__ import annotations

import pytest

from tests.mutants.catalogue import MUTANTS, unbroken
from tests.mutants.measure import find, is_found
from tests.mutants.mutant import Mutant


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: Mutant) -> None:
    assert is_found(find(mutant.factory, mutant.workload, mutant.faults, seed=0))


@pytest.mark.parametrize(
    ("workload", "faults"),
    [("transactions", ""), ("transactions", "exceptions"), ("cache", ""), ("queue", "exceptions")],
)
def test_a_mutant_that_is_none_is_not_found(workload: str, faults: str) -> None:
    """The same way of running it, with nothing broken: so it is the break that was found."""
    factory = f"{unbroken.__module__}:{unbroken.__name__}"
    found = find(factory, workload, faults, 0, "--length", "3", "--ops", "540")
    assert found["answer"] == "valid"
    assert found["schedules"] == 60
