"""Checks a store in a test: `linearizable_store` of the pytest plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from latchstore.engine.memory import DictMemoryStore
from latchstore.stress.campaign import Outcome, carry_out
from latchstore.stress.factories import Factory, factory_of
from latchstore.stress.faults import FAULTS
from latchstore.stress.plan import OUR_STORE, Plan
from latchstore.stress.schedules import SCHEDULES, ScheduleKind
from latchstore.stress.words import first_fault, outcome_text
from latchstore.stress.workloads import WORKLOADS, Workload, supported_by


class StressError(AssertionError):
    """A store has failed; the message has the verdicts and the command that reproduces the failure.

    Attributes
    ----------
    outcome : Outcome
    """

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


def linearizable_store(
    factory: Callable[..., Any],
    *,
    workloads: Iterable[str] = (),
    schedule: ScheduleKind = "mixed",
    threads: int = 3,
    operations: int = 1_000,
    length: int | None = None,
    seed: int = 0,
    faults: Iterable[str] = (),
) -> Outcome:
    """Test a store under concurrent load, and raise if it is not proved correct.

    Parameters
    ----------
    factory : callable
        Returns a new `AbstractStore`: a class, or a function without arguments.
    workloads : iterable of str
        Names of workloads; if empty, all that the store supports.
    schedule : str
        ``"mixed"`` (whole, random and PCT in turn, then native), ``"native"``, ``"random"``, ``"whole"``,
        ``"pct"`` or ``"exhaustive"``.
    threads, operations : int
        Number of threads, and number of operations over all threads.
    length : int, optional
        Number of operations of each thread in one schedule or round.
    seed : int
    faults : iterable of str
        Names of faults.

    Returns
    -------
    outcome : Outcome

    Raises
    ------
    StressError
        If the store violates a guarantee, or the result is unknown.
    PlanError
        If no store can be made, or a name is unknown.
    ValueError
        If an argument is invalid.
    """
    faults = tuple(faults)
    for name, value, known in (
        ("workloads", workloads, WORKLOADS),
        ("faults", faults, FAULTS),
        ("schedule", [schedule], SCHEDULES),
    ):
        for each in value:
            if each not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {each!r}")
    make = factory_of(factory, name_of(factory))
    chosen = [WORKLOADS[name]() for name in workloads or WORKLOADS]
    plan = Plan(
        [workload for workload in chosen if workloads or _can_be_run(workload, make, faults)],
        name_of(factory),
        threads,
        None,
        operations,
        seed,
        schedule,
        length,
        [FAULTS[name] for name in faults],
    )
    outcome = carry_out(plan, make, lambda progress: None)
    if outcome.result.answer != "valid":
        # The problem comes first, as pytest's summary shows one line.
        raise StressError(f"{first_fault(outcome.result)}\n\n{outcome_text(outcome)}", outcome)
    return outcome


def _can_be_run(workload: Workload, factory: Factory, faults: Iterable[str]) -> bool:
    bears = not set(workload.left_out_with).intersection(faults)
    return bears and supported_by(workload, factory)


def name_of(factory: Callable[..., Any]) -> str:
    """Return a factory's name in the form of ``--store``."""
    module = getattr(factory, "__module__", "")
    name = getattr(factory, "__qualname__", repr(factory))
    ours = f"{DictMemoryStore.__module__}:{DictMemoryStore.__qualname__}"
    return OUR_STORE if f"{module}:{name}" == ours else f"{module}:{name}"
