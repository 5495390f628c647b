"""What the schedules of a test gave, in the form of which reports, histories and JUnit's XML are written.

Thread safety: the functions keep nothing.
"""

from __future__ import annotations

from typing import Any

from latchstore.stress.history import History, Operation, environment
from latchstore.stress.result import Result
from latchstore.stress.testing.answers import Record
from latchstore.stress.testing.exploration import Report
from latchstore.stress.verdict import Verdict


def result_of(report: Report) -> Result:
    """Return what a report has as a `Result`."""
    run = report.run
    records = [] if run is None else run.records
    broken = None if report.broken is None else report.broken.call
    operations = {id(record.call): _operation(record) for record in records}
    told = tuple(operations[key] for key in operations if broken is not None and key == id(broken))
    header = {**environment(), "seed": report.seed, "schedule": "native" if run and run.native else "mixed"}
    problems = () if run is None else tuple(run.problems)
    verdict = Verdict(report.answer, report.reason, told)
    return Result(
        report.command,
        History(operations.values(), header),
        {} if problems else {report.test: {"linearizable": verdict}},
        problems,
        () if run is None else tuple(run.steps),
        seconds=report.seconds,
        schedules=report.schedules,
    )


def as_json(report: Report) -> dict[str, Any]:
    """Return what ``--json`` prints."""
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
    """A string that stands for something else, so its quotes are not shown."""

    __slots__ = ()
    __repr__ = str.__str__


def _operation(record: Record) -> Operation:
    call = record.call
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    return Operation(
        max(call.thread, -1),
        call.name,
        None,
        _Text(arguments) if arguments else None,
        _Text(record.answer),
        record.begin,
        record.end,
        "info" if record.end is None else "ok",
    )
