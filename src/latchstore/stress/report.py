"""The report of a run: one self-contained HTML file, rendered by Jinja2, which is an extra.

Calls are drawn as Porcupine draws histories: a lane for each thread, a bar for each call with its answer, and
the instants at which they took effect in the longest order found. The steps of the threads are a table with a
column for each thread, as in Lincheck.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from latchstore.contract.extras import missing_extra
from latchstore.stress.escaping import visible
from latchstore.stress.figures import operation_figures
from latchstore.stress.history import AFTER, Operation
from latchstore.stress.interleaving import folds, interruptions, rows
from latchstore.stress.result import Mark, Result
from latchstore.stress.verdict import Explanation, Verdict
from latchstore.stress.words import SEQUENTIAL, breaks, duration

#: Maximum number of calls that are drawn: if there are more, those around the problem.
_MOST = 60

#: Maximum number of faults that are drawn among the calls.
_MARKS = 20

#: Number of intervals for throughput and latency.
_BINS = 50


def write_report(result: Result, path: str | os.PathLike[str]) -> None:
    """Write the report of a run to a file.

    Raises
    ------
    ModuleNotFoundError
        If Jinja2 is not installed; the message has the extra to install.
    """
    text = report_html(result)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def check_installed() -> None:
    """Raise `ModuleNotFoundError` if no report can be written; the message has the extra to install."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise missing_extra("a report", "Jinja2", "report", error) from error


def report_html(result: Result) -> str:
    """Return the report of a run as HTML."""
    check_installed()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latchstore.stress", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # Texts of the code under test may have characters that HTML excludes.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    explanation = result.explanation
    operations = _around(result)
    found = rows(operations, result.steps) if result.steps else []
    order = () if explanation is None else explanation.order[-_MOST:]
    return environment.get_template("report.html").render(
        result=result,
        headline=_headline(result),
        sequential=SEQUENTIAL if result.is_sequential else "",
        reason=next((each.reason for each in _bad_verdicts(result) if each.answer == result.answer), ""),
        explanation=explanation,
        breaks=breaks,
        duration=duration,
        shown_order=order,
        order_from=0 if explanation is None else len(explanation.order) - len(order),
        cycles=[verdict for verdict in _bad_verdicts(result) if verdict.cycle],
        look=interruptions(result.steps)[:_BINS] if result.answer == "invalid" else [],
        timeline=timeline(operations, result),
        groups=folds(found),
        threads=_lanes([*operations], [row.thread for row in found]),
        rates=_rates(result) if not result.steps else None,
        figures=operation_figures(result.history),
    )


def _headline(result: Result) -> str:
    if result.problems:
        return f"{result.answer}: {result.problems[0].kind}"
    for workload, checks in result.verdicts.items():
        for check, verdict in checks.items():
            if verdict.answer == result.answer != "valid":
                return f"{verdict.answer}: {workload}, {check}"
    return f"{result.answer}: no problem was found"


def _bad_verdicts(result: Result) -> list[Verdict]:
    every = [verdict for checks in result.verdicts.values() for verdict in checks.values()]
    return [verdict for verdict in every if verdict.answer != "valid"]


# -- the calls ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """A call of the timeline.

    Attributes
    ----------
    operation : Operation
    lane : int
        From 1.
    begin, end : int
        Columns of the grid.
    told : bool
        Whether a verdict is about it.
    point, number : int
        The column of the instant at which it took effect, and its position in the order; 0 if it has none.
    state : str
        The state after it.
    """

    operation: Operation
    lane: int
    begin: int
    end: int
    told: bool
    point: int
    number: int
    state: str


def timeline(operations: Sequence[Operation], result: Result) -> Mapping[str, Any]:
    """Return calls, instants and faults as positions in a grid with one column per event.

    So bars are as wide as their texts, and overlap if and only if the calls did.
    """
    shown = {id(each) for each in operations}
    told = {id(each) for each in _told(result)}
    points = _points(operations, result.explanation)
    events: list[tuple[float, int, int, str]] = []
    for each in operations:
        events.append((each.begin, 0, id(each), "begin"))
        if each.end is not None:
            events.append((each.end, 3, id(each), "end"))
    events += [(time, 1, number, "point") for number, (time, _) in enumerate(points)]
    marks = _near(result.marks, operations)
    events += [(mark.time, 2, number, "mark") for number, mark in enumerate(marks)]
    # The first column has the names of the lanes.
    columns = {(what, each): place for place, (_, _, each, what) in enumerate(sorted(events), 2)}
    last = len(events) + 2
    lanes = _lanes(operations)
    numbers = {id(call): number for number, (_, call) in enumerate(points)}
    states = () if result.explanation is None else result.explanation.states
    bars = []
    for each in operations:
        number = numbers.get(id(each))
        bars.append(
            Bar(
                each,
                list(lanes).index(each.thread) + 1,
                columns["begin", id(each)],
                last if each.end is None else columns["end", id(each)] + 1,
                id(each) in told,
                0 if number is None else columns["point", number],
                0 if number is None else number + 1,
                states[number + 1] if states and number is not None else "",
            )
        )
    return {
        "calls": bars,
        "lanes": list(lanes.values()),
        "columns": len(events),
        "marks": [{"name": mark.name, "column": columns["mark", n]} for n, mark in enumerate(marks)],
        "told": bool(told & shown),
        "left_out": len(result.history.operations) - len(operations),
    }


def _points(
    operations: Sequence[Operation], explanation: Explanation | None
) -> list[tuple[float, Operation]]:
    """Return an instant for each call of the longest order, within its call."""
    if explanation is None or len(explanation.order) > len(operations):
        return []
    found: list[tuple[float, Operation]] = []
    now = float("-inf")
    for operation in explanation.order:
        now = max(now, operation.begin)
        found.append((now, operation))
    return found


def _told(result: Result) -> list[Operation]:
    """Return the unexplained calls: one if an order explains the others, else all that verdicts name."""
    explanation = result.explanation
    if explanation is not None:
        return [] if explanation.stuck is None else [explanation.stuck]
    return [each for verdict in _bad_verdicts(result) for each in verdict.operations]


def _around(result: Result) -> tuple[Operation, ...]:
    """Return as many operations as can be drawn, around the first that a verdict names."""
    operations = result.history.operations
    if len(operations) <= _MOST:
        return operations
    told = {id(each) for each in _told(result)}
    first = next((place for place, each in enumerate(operations) if id(each) in told), 0)
    begin = max(0, min(first - _MOST // 2, len(operations) - _MOST))
    return operations[begin : begin + _MOST]


def _near(marks: Sequence[Mark], operations: Sequence[Operation]) -> list[Mark]:
    if not operations:
        return []
    first = operations[0].begin
    last = max(each.begin if each.end is None else each.end for each in operations)
    return [mark for mark in marks if first <= mark.time <= last][:_MARKS]


def _lanes(operations: Sequence[Operation], others: Sequence[int] = ()) -> dict[int, str]:
    """Return the names of threads by number, in the order of the lanes."""
    who = {number: f"thread {number}" for number in others} | {each.thread: each.who for each in operations}
    return {number: who[number] for number in sorted(who, key=lambda n: (n == AFTER, n))}


# -- throughput and latency ---------------------------------------------------------------------------


def _rates(result: Result) -> Mapping[str, Any] | None:
    """Return the number of operations that ended in each interval, and their latencies."""
    done = [each for each in result.history.operations if each.end is not None]
    if len(done) <= _MOST:
        return None
    start = min(each.begin for each in done)
    whole = max(each.end or 0 for each in done) - start or 1
    bins: list[list[int]] = [[] for _ in range(_BINS)]
    for each in done:
        assert each.end is not None
        bins[min(_BINS - 1, (each.end - start) * _BINS // whole)].append(each.end - each.begin)
    most = max(map(len, bins))
    slowest = max(10, *(duration for each in bins for duration in each))

    def height(nanoseconds: int) -> float:
        return round(145 - 60 * log(max(nanoseconds, 1)) / log(slowest), 1)

    return {
        "most": most,
        "slowest": slowest / 1e9,
        "bins": [
            {
                "count": len(each),
                "height": round(50 * len(each) / most, 1),
                "latencies": [height(sorted(each)[len(each) // 2]), height(max(each))] if each else [],
            }
            for each in bins
        ],
        "marks": [
            {"x": round(800 * (mark.time - start) / whole, 1), "name": mark.name} for mark in result.marks
        ],
    }
