"""Converts the report of a test to the `Result` from which reports, histories and JUnit XML are written.

Thread safety: the functions have no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latchstore.stress.history import History, Operation, environment
from latchstore.stress.result import Result
from latchstore.stress.testing.answers import UNKNOWN_ANSWER, Break, Record, told_apart
from latchstore.stress.verdict import Explanation, Verdict

if TYPE_CHECKING:
    from latchstore.stress.testing.report import Report


def result_of(report: Report) -> Result:
    """Return a report as a `Result`."""
    run = report.run
    records = [] if run is None else run.records
    operations = {id(record.call): _operation(record) for record in records}
    explanation = None if report.broken is None else _explanation(report.broken, operations)
    told = () if explanation is None or explanation.stuck is None else (explanation.stuck,)
    header: dict[str, Any] = {
        **environment(),
        "seed": report.seed,
        "schedule": "native" if run and run.native else "mixed",
    }
    if run is not None and run.among_started:
        header["overlapped"] = True  # the threads that calls have started did
    problems = () if run is None else tuple(run.problems)
    verdict = Verdict(report.answer, report.reason, told, explanation=explanation)
    state = None if run is None else run.state
    return Result(
        report.command,
        History(operations.values(), header),
        {} if problems else {report.test: {"linearizable": verdict}},
        problems,
        () if run is None else tuple(run.steps),
        seconds=report.seconds,
        schedules=report.schedules,
        met=report.overlaps,
        switched_within=report.modules if report.switched else (),
        final_state="" if state is None or state.value[1] is None else str(state),
    )


def _explanation(broken: Break, operations: dict[int, Operation]) -> Explanation:
    expected, got = told_apart(broken.expected, broken.got)
    return Explanation(
        tuple(operations[id(call)] for call in broken.order),
        broken.states,
        None if broken.call is None else operations[id(broken.call)],
        "" if broken.expected is UNKNOWN_ANSWER else expected,
        got,
    )


def as_json(report: Report) -> dict[str, Any]:
    """Return the output of ``--json``."""
    return {
        "answer": report.answer,
        "reason": report.reason,
        "test": report.test,
        "seed": report.seed,
        "command": report.command,
        "seconds": report.seconds,
        "schedules": report.schedules,
        "native": report.native,
        "calls": report.calls,
        "modules": list(report.modules),
        "counts": dict(report.counts),
        "raised": dict(report.raised),
        "overlaps": [[*names, count] for names, count in sorted(report.overlaps.items())],
        "history": [] if report.run is None else [str(record) for record in report.run.records],
    }


class _Text(str):
    """A string whose repr has no quotes, as it stands for another object."""

    __slots__ = ()
    __repr__ = str.__str__


def _operation(record: Record) -> Operation:
    call = record.call
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    return Operation(
        call.thread,
        call.name,
        None,
        _Text(arguments) if arguments else None,
        _Text(record.answer),
        record.begin,
        record.end,
        # For a call that waits forever, that is its answer.
        "ok",
    )
