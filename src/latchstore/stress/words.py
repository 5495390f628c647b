"""Formats the outcome of a run as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from latchstore.stress.campaign import Outcome
from latchstore.stress.figures import OperationFigures
from latchstore.stress.history import AFTER, Operation
from latchstore.stress.interleaving import interruptions
from latchstore.stress.result import Result, Step
from latchstore.stress.verdict import Explanation

#: Maximum characters of a cell with the place of a thread.
_WIDEST = 90

#: Maximum operations of a history or an order that are printed.
READABLE = 40

#: Maximum interruptions that are listed.
_PLACES = 3

#: Maximum characters of a cell with a call.
_LONGEST = 100

#: Printed for a failure that needs no second thread.
SEQUENTIAL = "sequential defect: no two of the calls overlapped, so a single thread gets this as well"

#: Maximum pairs of overlapping operations that are listed.
_PAIRS = 8


def outcome_text(outcome: Outcome) -> str:
    """Return the table of operations, the verdicts, the problems, and the command that repeats the run."""
    result = outcome.result
    parts = [_operation_table(outcome.figures)]
    parts.append(
        "\n".join(
            f"{workload}: {check}: {verdict}"
            for workload, checks in result.verdicts.items()
            for check, verdict in checks.items()
        )
    )
    parts.extend(f"{problem.kind}: {problem.text.rstrip()}" for problem in result.problems)
    if result.is_sequential:
        parts.append(SEQUENTIAL)
    if result.answer == "invalid":
        parts += failure_parts(result)
    parts.append("\n".join([*_how(result), *_not_run(outcome)]))
    ending = [_summary(outcome)]
    if result.answer == "invalid" and result.switched_within and "PYTHONHASHSEED=" not in result.command:
        ending.append(
            "code that depends on the order of sets of strings repeats only with the same value of "
            "PYTHONHASHSEED"
        )
    parts.append("\n".join([*ending, f"again: {result.command}"]))
    return "\n\n".join(part for part in parts if part)


def first_fault(result: Result) -> str:
    """Return one line with the first problem, or why the result is unknown."""
    sequential = "sequential defect: " if result.is_sequential else ""
    for problem in result.problems:
        return f"{sequential}{problem.kind}: {problem.text.strip().splitlines()[0]}"
    for workload, checks in result.verdicts.items():
        for check, verdict in checks.items():
            if verdict.answer == result.answer:
                return f"{sequential}{workload}: {check}: {verdict}".splitlines()[0]
    if result.never_met:
        return f"{result.answer}: no two operations overlapped"
    return result.answer if result.verdicts else f"{result.answer}: no checker was given a history"


def _summary(outcome: Outcome) -> str:
    result = outcome.result
    kind = "schedule" if "schedule" in result.history.header else "round"
    plural = "" if result.schedules == 1 else "s"
    whole = ", all there are within the bounds" if outcome.complete else ""
    done = f"{outcome.operations:,} operations in {result.schedules:,} {kind}{plural}{whole}"
    return f"{result.answer}: {done}, {result.seconds:.1f} s"


def _not_run(outcome: Outcome) -> list[str]:
    if not outcome.not_run or outcome.result.answer == "invalid":
        return []
    return [f"no time for: {', '.join(outcome.not_run)}; give more --seconds, or --workload"]


def _how(result: Result) -> list[str]:
    """Return where threads switched, and which operations overlapped."""
    lines = []
    if result.switched_within:
        packages = Counter(name.partition(".")[0] for name in result.switched_within)
        told = ", ".join(
            f"{name} ({count} modules)" if count > 1 else name for name, count in packages.items()
        )
        lines.append(f"switched within: {told}")
    if result.never_met and result.answer == "unknown":
        lines.append(
            "no two operations overlapped, so nothing is proved about concurrent use: use more threads or "
            "operations"
        )
    elif result.met:
        pairs = sorted(result.met.items(), key=lambda pair: -pair[1])
        told = ", ".join(f"{one}/{other} {count:,}" for (one, other), count in pairs[:_PAIRS])
        more = f", and {len(pairs) - _PAIRS} other pairs" if len(pairs) > _PAIRS else ""
        lines.append(f"overlapping operations: {told}{more}")
    return lines


def failure_parts(result: Result) -> Iterator[str]:
    """Yield the steps of the threads if they are short, why no order explains them, and where to look."""
    operations = result.history.operations
    if len(operations) <= READABLE:
        yield "the calls, in time order:\n" + calls_table(operations, result.final_state)
    explanation = result.explanation
    if explanation is not None and len(explanation.order) <= READABLE:
        yield why(explanation)
    if result.steps:
        busy = {operation.thread for operation in operations}
        steps = [step for step in result.steps if step.thread in busy or step.accesses]
        if len({step.thread for step in steps}) > 1:
            yield steps_table(steps)
        if look := _where_to_look(steps):
            yield "where to look:\n" + look


def calls_table(operations: Iterable[Operation], final_state: str = "") -> str:
    """Return calls as a table with a column for each thread; time runs downwards."""
    operations = list(operations)
    who = {each.thread: each.who for each in operations}
    threads = sorted(who, key=lambda thread: inf if thread == AFTER else thread)
    table = [tuple(who[thread] for thread in threads)]
    for thread, text in _events(operations):
        shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
        table.append(tuple(shown if each == thread else "" for each in threads))
    lines = [f"  {line}" for line in text_table(table, left=len(threads)).splitlines()] if threads else []
    return "\n".join([*lines, *([f"  final state: {final_state}"] if final_state else [])])


def _events(operations: Iterable[Operation]) -> Iterator[tuple[int, str]]:
    """Return the events in order of time; a call without others during it is one event."""
    times: list[tuple[float, int, Operation]] = []
    for each in operations:
        times.append((each.begin, 0, each))
        times.append((inf if each.end is None else each.end, 1, each))
    times.sort(key=lambda each: each[:2])
    place = 0
    while place < len(times):
        _, ended, operation = times[place]
        place += 1
        if not ended and place < len(times) and times[place][2] is operation:
            place += 1
            yield operation.thread, f"{operation.call} -> {operation.answer}"
        elif ended:
            yield operation.thread, f"{operation.name} -> {operation.answer}"
        else:
            yield operation.thread, f"{operation.call} begins"


def why(explanation: Explanation) -> str:
    """Return the longest order, or its end, and the call at which it breaks."""
    lines = ["why: the longest order of calls with these answers is"]
    left_out = max(0, len(explanation.order) - READABLE)
    if left_out:
        lines.append(f"  ... {left_out:,} calls, then")
    lines += [f"  {operation}" for operation in explanation.order[left_out:]] or ["  (none)"]
    if explanation.states:
        lines.append(f"with this state at its end: {explanation.states[-1]}")
    lines.append(f"after which {breaks(explanation)}")
    return "\n".join(lines)


def breaks(explanation: Explanation) -> str:
    """Return the required and the actual result."""
    stuck = explanation.stuck
    what = "the final state" if stuck is None else f"{stuck.who}: {stuck.call}"
    expected = _WOULD.get(explanation.expected) or _verb(explanation.expected, "would give", "would raise")
    got = _DID.get(explanation.got) or _verb(explanation.got, "gave", "raised")
    return f"{what} {expected}, but it {got}"


_WOULD = {"waits": "would wait", "": "would give something else"}
_DID = {"waits": "waits forever"}


def _verb(answer: str, gives: str, raises: str) -> str:
    error = answer.removeprefix("raises ")
    return f"{gives} {answer}" if error == answer else f"{raises} {error}"


def _where_to_look(steps: Sequence[Step]) -> str:
    """Return where threads were interrupted, their last access, and the accesses of others meanwhile."""
    lines = []
    for each in interruptions(steps)[:_PLACES]:
        before = "" if each.before is None else f"{each.before} ({each.before.where}), then "
        lines.append(f"  thread {each.step.thread} {before}stops at {each.step.where}: {each.step.text}")
        lines += [f"    meanwhile thread {thread} {does} ({does.where})" for thread, does in each.meanwhile]
    return "\n".join(lines)


def _operation_table(figures: Sequence[OperationFigures]) -> str:
    rows: list[tuple[str, ...]] = [("operation", "count", "per s", "p50", "p99", "p99.9", "max", "errors")]
    for row in figures:
        times = (duration(each) for each in (row.p50, row.p99, row.p999, row.slowest))
        rows.append((row.name, f"{row.count:,}", f"{row.per_second:,.0f}", *times, f"{row.errors:,}"))
    return text_table(rows)


def steps_table(steps: Sequence[Step]) -> str:
    """Return where each thread was when it lost its turn, with a column for each thread."""
    threads = sorted({step.thread for step in steps})
    rows = [tuple(f"thread {thread}" for thread in threads)]
    for step in steps:
        cell = f"{step.where}: {step.text}" if step.where else step.text
        cell = cell if len(cell) <= _WIDEST else f"{cell[: _WIDEST - 3]}..."
        rows.append(tuple(cell if thread == step.thread else "" for thread in threads))
    return "where each was when another thread got its turn:\n" + text_table(rows, left=len(threads))


def text_table(rows: Sequence[tuple[str, ...]], left: int = 1) -> str:
    """Return rows as lines, with the first columns left-aligned and the others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def duration(seconds: float) -> str:
    """Return a time in a suitable unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"
