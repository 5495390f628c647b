"""An operation has failed only if its error says that it had no effect; of all others nobody knows."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreError
from latchstore.contract import errors
from latchstore.stress.check import StressError, linearizable_store
from latchstore.stress.native import run_native
from latchstore.stress.workloads import Registers, RolledBackError, outcome_of

#: Errors after which something may have been done. All others refuse a call before it does anything.
UNKNOWN = {
    "StoreError",
    "TransactionError",
    "FlushTimeoutError",
    "DispatcherThreadError",
    "OutcomeUnknownError",
}


def test_each_class_says_whether_it_had_no_effect() -> None:
    found = {
        name: kind.had_no_effect
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, StoreError) and not name.startswith("_")
    }
    assert found == {name: name not in UNKNOWN for name in found}


def test_what_had_no_effect_has_failed() -> None:
    assert outcome_of(errors.LockTimeoutError()) == "fail"
    assert outcome_of(RolledBackError()) == "fail"
    assert outcome_of(StoreError()) == "info"
    assert outcome_of(OSError()) == "info"


class AnswerLostError(StoreError):
    """The commit was made, and nobody was told."""


class LyingError(StoreError):
    had_no_effect = True


class LosesAnswers(DictMemoryStore):
    """Raises after every other write that it has made."""

    error: type[StoreError] = AnswerLostError

    def __init__(self, event_manager: EventManager | None = None) -> None:
        super().__init__(event_manager)
        self._writes = 0

    def from_bytes(self, *arguments: Any, **options: Any) -> None:
        super().from_bytes(*arguments, **options)
        self._writes += 1
        if self._writes % 2:
            raise self.error("no answer")


class Lies(LosesAnswers):
    """Says of these that they had no effect."""

    error = LyingError


def test_what_may_have_been_done_is_of_unknown_outcome() -> None:
    history = run_native(LosesAnswers(EventManager()), [Registers()], operations=100)
    unknown = [each for each in history.operations if each.outcome == "info"]
    assert unknown
    assert {each.name for each in unknown} <= {"set", "swap"}
    assert all(each.end is None for each in unknown)


@pytest.mark.parametrize("schedule", ["native", "random"])
def test_checkers_bear_unknown_outcomes(schedule: Any) -> None:
    workloads = ["registers", "list-append", "compare-and-set", "events"]
    outcome = linearizable_store(
        LosesAnswers,
        workloads=workloads,
        schedule=schedule,
        operations=600,
        length=30 if schedule == "native" else 3,
    )
    assert {name: set(checks) for name, checks in outcome.result.verdicts.items()}.keys() == set(workloads)


@pytest.mark.parametrize("workload", ["registers", "compare-and-set", "events"])
def test_an_error_that_denies_what_was_done_is_found(workload: str) -> None:
    with pytest.raises(StressError):
        linearizable_store(Lies, workloads=[workload], schedule="native", operations=600)
