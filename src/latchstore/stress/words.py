"""The outcome of a run as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from latchstore.stress.campaign import Outcome
from latchstore.stress.figures import OperationFigures
from latchstore.stress.result import Result, Step

#: Characters of a cell that tells where a thread was.
_WIDEST = 70

#: Pairs of operations that are listed as having met.
_PAIRS = 8


def outcome_text(outcome: Outcome) -> str:
    """Return the table of operations, the verdicts, what went wrong, and the command that shows it again."""
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
    if result.answer == "invalid" and result.steps:
        parts.append(_history_table(result))
        parts.append(steps_table(result.steps))
    if result.answer == "invalid" and result.switched_within and "PYTHONHASHSEED=" not in result.command:
        parts.append(
            "sets of strings have another order in each process: if the code under test depends on it, set "
            "PYTHONHASHSEED to a number for this run, and to the same for the next"
        )
    parts.append("\n".join(_how(result)))
    parts.append(f"{_summary(outcome)}\nagain: {result.command}")
    return "\n\n".join(part for part in parts if part)


def first_fault(result: Result) -> str:
    """Return one line that says what was wrong first, or what nobody can tell."""
    for problem in result.problems:
        lines = problem.text.strip().splitlines()
        # The last line of a traceback says what was raised.
        return f"{problem.kind}: {lines[-1 if problem.kind == 'crash' else 0]}"
    for workload, checks in result.verdicts.items():
        for check, verdict in checks.items():
            if verdict.answer == result.answer:
                return f"{workload}: {check}: {verdict}".splitlines()[0]
    return result.answer


def _summary(outcome: Outcome) -> str:
    result = outcome.result
    kind = "schedule" if "schedule" in result.history.header else "round"
    plural = "" if result.schedules == 1 else "s"
    whole = ", all there are within the bounds" if outcome.complete else ""
    done = f"{outcome.operations:,} operations in {result.schedules:,} {kind}{plural}{whole}"
    return f"{result.answer}: {done}, {result.seconds:.1f} s"


def _how(result: Result) -> list[str]:
    """Return where threads changed, and which operations met."""
    lines = []
    if result.switched_within:
        packages = Counter(name.partition(".")[0] for name in result.switched_within)
        told = ", ".join(
            f"{name} ({count} modules)" if count > 1 else name for name, count in packages.items()
        )
        lines.append(f"switched within: {told}")
    if result.never_met and result.answer == "unknown":
        lines.append(
            "no two operations overlapped, so nothing is known of what threads do to each other: "
            "more threads or operations may help"
        )
    elif result.met:
        pairs = sorted(result.met.items(), key=lambda pair: -pair[1])
        told = ", ".join(f"{one}/{other} {count:,}" for (one, other), count in pairs[:_PAIRS])
        more = f", and {len(pairs) - _PAIRS} other pairs" if len(pairs) > _PAIRS else ""
        lines.append(f"operations that met: {told}{more}")
    return lines


def _history_table(result: Result) -> str:
    """Return the operations of a short history, in the order of their beginning."""
    return "what the threads did, in the order of the beginnings:\n" + "\n".join(
        f"  {operation}" for operation in result.history.operations
    )


def _operation_table(figures: Sequence[OperationFigures]) -> str:
    rows: list[tuple[str, ...]] = [("operation", "count", "per s", "p50", "p99", "p99.9", "max", "errors")]
    for row in figures:
        times = (_duration(each) for each in (row.p50, row.p99, row.p999, row.slowest))
        rows.append((row.name, f"{row.count:,}", f"{row.per_second:,.0f}", *times, f"{row.errors:,}"))
    return text_table(rows)


def steps_table(steps: Sequence[Step]) -> str:
    """Return where each thread was when another got its turn, one column a thread."""
    threads = sorted({step.thread for step in steps})
    rows = [tuple(f"thread {thread}" for thread in threads)]
    for step in steps:
        cell = f"{step.where}: {step.text}" if step.where else step.text
        rows.append(tuple(cell[:_WIDEST] if thread == step.thread else "" for thread in threads))
    return "where each was when another thread got its turn:\n" + text_table(rows, left=len(threads))


def text_table(rows: Sequence[tuple[str, ...]], left: int = 1) -> str:
    """Return rows as lines, the first columns flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"
