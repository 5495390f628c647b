"""Formats the report of a test: the failure, the calls in time order, and why no order explains them.

Thread safety: the functions have no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latchstore.stress.testing.result import result_of
from latchstore.stress.words import SEQUENTIAL, failure_parts, text_table

if TYPE_CHECKING:
    from latchstore.stress.testing.report import Report


def report_text(report: Report) -> str:
    """Return a report as lines."""
    parts = [headline(report)]
    if report.run is not None:
        if not report.schedules:
            parts.append("a single thread made these calls")
        elif result_of(report).is_sequential:
            parts.append(SEQUENTIAL)
        elif report.run.among_started:
            parts.append(
                "no two of the calls overlapped: threads that a call has started race with each other"
            )
        parts += failure_parts(result_of(report))
        for problem in report.run.problems:
            if len(problem.text.splitlines()) > 1:
                parts.append(problem.text)
        if report.run.native:
            parts.append("native threads made these calls; it may take several runs to reproduce this")
    if coverage := _coverage(report):
        parts.append(coverage)
    if report.command:
        name = report.test.partition(":")[2]
        line = f"{name}.run(seed={report.seed}, schedules=1)"
        parts.append("again: " + "\n   or: ".join(dict.fromkeys([report.command, line])))
    return "\n\n".join(parts)


def headline(report: Report) -> str:
    """Return the result in one line."""
    native = f", {report.native:,} of them by native threads" if report.native else ""
    plural = "" if report.schedules == 1 else "s"
    done = f"{report.schedules:,} schedule{plural}{native}, {report.calls:,} calls, {report.seconds:.1f} s"
    reason = f": {report.reason}" if report.reason else ""
    return f"{report.test}: {report.answer}{reason} ({done})"


def _coverage(report: Report) -> str:
    """Return the number of calls of each operation, and the overlaps."""
    names = sorted(report.counts)
    rows = [("operation", "calls", "raised", *(f"with {name}" for name in names))]
    for name in names:
        met = (report.overlaps[min(name, other), max(name, other)] for other in names)
        rows.append(
            (name, f"{report.counts[name]:,}", f"{report.raised[name]:,}", *(f"{each:,}" for each in met))
        )
    notes = []
    for name in names:
        if report.counts[name] == report.raised[name] >= 10:
            notes.append(f"note: every call of {name} raised an exception: check the test")
    if report.cycles and report.answer == "valid":
        unfound = "no schedule was found in which these threads wait for each other"
        notes.append(f"note: {report.cycles[0]}\n{unfound}")
    if not report.schedules:
        return "\n".join(notes)
    within = ", ".join(report.modules)
    where = (
        "the operations were tasks of one event loop, switched at each await"
        if report.is_async
        else f"threads were switched within: {within}"
        if report.switched
        else f"native threads only, as {within} has no Python code in which threads can switch"
    )
    table = "calls, and how many overlapped another one:\n" + _indented(text_table(rows))
    return "\n".join([*([table] if names else []), *notes, where])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
