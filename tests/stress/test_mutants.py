"""The harness finds the mutants of our store, from one seed; tests/mutants/README.md has it from twenty."""

from __future__ import annotations

import os

import pytest

from tests.mutants.catalogue import MUTANTS, unbroken
from tests.mutants.measure import find, is_found
from tests.mutants.mutant import Mutant

#: Those that take longest to be found, where others of the same workload are found soon: all are looked for
#: with LATCHSTORE_ALL_MUTANTS.
LONG = {
    "commit applied key by key",
    "dirty read",
    "event twice on redo",
    "evicted after the commit",
    "expired value returned",
    "gate left open",
    "iteration without lock",
    "old load joined",
    "outdated load committed",
    "query of candidates",
    "tag forgets loads",
}


def test_those_that_take_long_have_others_of_their_workload() -> None:
    names = {mutant.name for mutant in MUTANTS}
    assert names > LONG
    assert {mutant.workload for mutant in MUTANTS if mutant.name not in LONG} == {
        mutant.workload for mutant in MUTANTS
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "mutant",
    [each for each in MUTANTS if each.name not in LONG or "LATCHSTORE_ALL_MUTANTS" in os.environ],
    ids=lambda mutant: mutant.name,
)
def test_a_mutant_is_found(mutant: Mutant) -> None:
    # A mutant that crashes by itself is not found by the harness; then with another seed.
    assert any(is_found(find(mutant.factory, mutant.workload, mutant.faults, seed)) for seed in (0, 1))


@pytest.mark.parametrize(
    ("workload", "faults"),
    [("transactions", ""), ("transactions", "exceptions"), ("cache", ""), ("queue", "exceptions")],
)
def test_a_mutant_that_is_none_is_not_found(workload: str, faults: str) -> None:
    """The same way of running it, with nothing broken: so it is the break that was found."""
    factory = f"{unbroken.__module__}:{unbroken.__name__}"
    found = find(factory, workload, faults, 0, "--length", "3", "--ops", "180")
    assert found["answer"] == "valid"
    assert found["schedules"] == 20
