"""What is printed of a test: what failed, the calls as a table in time order, and why no order explains it.

Thread safety: the functions keep nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latchstore.stress.testing.answers import Break, Record
from latchstore.stress.testing.execution import Run
from latchstore.stress.testing.program import AFTER, BEFORE, Call
from latchstore.stress.words import steps_table, text_table

if TYPE_CHECKING:
    from latchstore.stress.testing.exploration import Report

_NAMES = {BEFORE: "before", AFTER: "after"}


def report_text(report: Report) -> str:
    """Return a report as lines."""
    parts = [headline(report)]
    if report.run is not None:
        parts.append("the calls, in time order:\n" + calls_table(report.run))
        if report.broken is not None:
            parts.append(_explanation(report.broken, report.run))
        for problem in report.run.problems:
            if len(problem.text.splitlines()) > 1:
                parts.append(problem.text)
        if report.run.steps:
            busy = {record.call.thread for record in report.run.records}
            parts.append(steps_table([step for step in report.run.steps if step.thread in busy]))
        if report.run.native:
            parts.append("native threads made these calls; it may take several runs to see it again")
    elif report.program is not None:
        calls = "\n".join(f"  {call}" for call in report.program.calls())
        parts.append(f"the calls, all by one thread:\n{calls}")
    parts.append(_coverage(report))
    if report.answer == "invalid":
        name = report.test.partition(":")[2]
        parts.append(f"again: {report.command}\n   or: {name}.run(seed={report.seed}, schedules=1)")
    return "\n\n".join(parts)


def headline(report: Report) -> str:
    """Return what was found, in one line."""
    native = f", {report.native:,} of them by native threads" if report.native else ""
    plural = "" if report.schedules == 1 else "s"
    done = f"{report.schedules:,} schedule{plural}{native}, {report.calls:,} calls, {report.seconds:.1f} s"
    reason = f": {report.reason}" if report.reason else ""
    return f"{report.test}: {report.answer}{reason} ({done})"


def calls_table(run: Run) -> str:
    """Return the calls of a run as a table: a column a thread, the time runs downwards."""
    threads = sorted({record.call.thread for record in run.records}, key=_place)
    rows = [tuple(_NAMES.get(thread, f"thread {thread}") for thread in threads)]
    for thread, text in _events(run.records):
        rows.append(tuple(text if each == thread else "" for each in threads))
    if run.state is not None and run.state.value[1] is not None:
        rows.append((f"final state: {run.state}", *[""] * (len(threads) - 1)))
    return _indented(text_table(rows, left=len(threads)))


def _place(thread: int) -> float:
    return float("inf") if thread == AFTER else thread


def _events(records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    """Return what happened, by time; a call within which nothing else did is one event."""
    times: list[tuple[float, int, Record]] = []
    for record in records:
        times.append((record.begin, 0, record))
        times.append((float("inf") if record.end is None else record.end, 1, record))
    times.sort(key=lambda each: each[:2])
    place = 0
    while place < len(times):
        _, ended, record = times[place]
        place += 1
        if not ended and place < len(times) and times[place][2] is record:
            place += 1
            yield record.call.thread, str(record)
        elif ended:
            yield record.call.thread, f"{record.call.name} -> {record.answer}"
        else:
            yield record.call.thread, f"{record.call} begins"


def _explanation(broken: Break, run: Run) -> str:
    """Return the order that explains most, and where it breaks."""
    lines = ["why: the order of the calls that explains most is"]
    answers = {id(record.call): record.answer for record in run.records}
    lines += [f"  {_by(call)} -> {answers[id(call)]}" for call in broken.order] or ["  (none)"]
    what = "the final state" if broken.call is None else _by(broken.call)
    lines.append(f"after which {what} {_would(str(broken.expected))}, but it {_did(str(broken.got))}")
    return "\n".join(lines)


def _by(call: Call) -> str:
    return f"{_NAMES.get(call.thread, f'thread {call.thread}')}: {call}"


def _would(answer: str) -> str:
    if answer == "waits":
        return "would wait"
    if answer.startswith("raises "):
        return f"would raise {answer.removeprefix('raises ')}"
    return f"would give {answer}"


def _did(answer: str) -> str:
    if answer == "waits":
        return "waits for ever"
    if answer.startswith("raises "):
        return f"raised {answer.removeprefix('raises ')}"
    return f"gave {answer}"


def _coverage(report: Report) -> str:
    """Return what was called, and which operations ran at one time."""
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
            notes.append(f"note: every call of {name} raised something; is the test as it should be?")
    within = ", ".join(report.modules)
    where = (
        "the operations were tasks of one event loop, which were switched at each await"
        if report.is_async
        else f"threads were switched within: {within}"
        if report.switched
        else f"native threads alone, as {within} has no Python code to switch threads within"
    )
    table = "calls, and how many ran at the time of another one:\n" + _indented(text_table(rows))
    return "\n".join([*([table] if names else []), *notes, where])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
