"""The report of a run: one HTML file that needs nothing else, drawn by the browser from data inside it.

The timeline is drawn as Porcupine draws histories: a lane for each thread, a bar for each operation, opened
at the first error. The interleaving of a schedule is a table with a column for each thread, as Lincheck
prints it.
"""

from __future__ import annotations

import json
import os
from html import escape
from importlib import resources
from math import cos, pi, sin

from latchstore.stress.figures import operation_figures
from latchstore.stress.history import Operation
from latchstore.stress.result import Result
from latchstore.stress.verdict import CycleEdge, Verdict

#: More bars than these are not drawn; those around the error stay.
_MOST = 20_000


def write_report(result: Result, path: str | os.PathLike[str]) -> None:
    """Write the report of a run to a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(report_html(result))


def report_html(result: Result) -> str:
    """Return the report of a run as HTML."""
    template = resources.files("latchstore.stress").joinpath("report.html").read_text(encoding="utf-8")
    parts = {
        "answer": result.answer,
        "headline": escape(_headline(result)),
        "command": escape(result.command),
        "verdicts": _verdict_rows(result),
        "problems": "".join(
            f"<h3>{escape(problem.kind)}</h3><pre>{escape(problem.text)}</pre>" for problem in result.problems
        ),
        "cycle": "".join(_cycle(verdict) for verdict in _bad_verdicts(result) if verdict.cycle),
        "interleaving": _interleaving(result),
        "figures": _figure_rows(result),
        "locks": _lock_rows(result),
        "environment": "".join(
            f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
            for name, value in result.history.header.items()
            if name != "facts"
        ),
        # Inside a script element only this can end it.
        "data": json.dumps(_data(result)).replace("</", "<\\/"),
    }
    for name, text in parts.items():
        template = template.replace("{{" + name + "}}", text)
    return template


def _headline(result: Result) -> str:
    if result.problems:
        return f"invalid: {result.problems[0].kind}"
    for workload, checks in result.verdicts.items():
        for check, verdict in checks.items():
            if verdict.answer == result.answer != "valid":
                return f"{verdict.answer}: {workload}, {check}"
    return f"{result.answer}: nothing wrong was found"


def _bad_verdicts(result: Result) -> list[Verdict]:
    every = [verdict for checks in result.verdicts.values() for verdict in checks.values()]
    return [verdict for verdict in every if verdict.answer != "valid"]


def _verdict_rows(result: Result) -> str:
    return "".join(
        f'<tr><td>{escape(workload)}</td><td>{escape(check)}</td><td class="{verdict.answer}">'
        f"{verdict.answer}</td><td>{escape(verdict.reason)}</td></tr>"
        for workload, checks in result.verdicts.items()
        for check, verdict in checks.items()
    )


# -- the timeline -------------------------------------------------------------------------------------


def _data(result: Result) -> dict[str, object]:
    """Return what the browser draws: operations and marks, times from the first on."""
    history = result.history
    told = {id(each) for verdict in _bad_verdicts(result) for each in verdict.operations}
    operations = _around(history.operations, told)
    start = min((each.begin for each in operations), default=0)
    return {
        "operations": [
            [
                each.thread,
                each.name,
                each.begin - start,
                None if each.end is None else each.end - start,
                each.outcome,
                str(each),
                each.key or "",
                id(each) in told,
            ]
            for each in operations
        ],
        "marks": [[mark.time - start, mark.name] for mark in result.marks],
        "left_out": len(history.operations) - len(operations),
    }


def _around(operations: tuple[Operation, ...], told: set[int]) -> tuple[Operation, ...]:
    """Return as many operations as can be drawn, those around the first that a verdict tells of."""
    if len(operations) <= _MOST:
        return operations
    first = next((place for place, each in enumerate(operations) if id(each) in told), 0)
    begin = max(0, min(first - _MOST // 2, len(operations) - _MOST))
    return operations[begin : begin + _MOST]


# -- tables -------------------------------------------------------------------------------------------


def _interleaving(result: Result) -> str:
    if not result.steps:
        return ""
    threads = sorted({step.thread for step in result.steps})
    head = "".join(f"<th>thread {thread}</th>" for thread in threads)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(step.where)}{'<br>' * bool(step.where)}<code>{escape(step.text)}</code></td>"
            if thread == step.thread
            else "<td></td>"
            for thread in threads
        )
        + "</tr>"
        for step in result.steps
    )
    return (
        "<h2>Interleaving</h2><p>Where each thread was when another one got its turn, from top to bottom.</p>"
        f'<div class="wide"><table class="steps"><tr>{head}</tr>{rows}</table></div>'
    )


def _figure_rows(result: Result) -> str:
    return "".join(
        f"<tr><td>{escape(row.name)}</td>"
        + "".join(
            f"<td>{cell}</td>"
            for cell in (
                f"{row.count:,}",
                f"{row.per_second:,.0f}",
                *(f"{seconds * 1e6:,.1f}" for seconds in (row.p50, row.p99, row.p999, row.slowest)),
                f"{row.errors:,}",
            )
        )
        + "</tr>"
        for row in operation_figures(result.history)
    )


def _lock_rows(result: Result) -> str:
    if not result.lock_edges:
        return "<p>No lock was taken while another was held.</p>"
    rows = "".join(
        f"<tr><td>{escape(edge.held)}</td><td>{escape(edge.taken)}</td><td>{escape(edge.where)}</td></tr>"
        for edge in result.lock_edges
    )
    labels = list(dict.fromkeys(name for edge in result.lock_edges for name in (edge.held, edge.taken)))
    edges = [CycleEdge(edge.held, edge.taken, "", edge.where) for edge in result.lock_edges]
    return (
        _graph(labels, edges)
        + '<div class="wide"><table class="edges"><tr><th>while held</th><th>was taken</th><th>at</th></tr>'
        f"{rows}</table></div>"
    )


# -- graphs -------------------------------------------------------------------------------------------


def _cycle(verdict: Verdict) -> str:
    labels = list(dict.fromkeys(name for edge in verdict.cycle for name in (edge.before, edge.after)))
    told = "".join(
        f"<li><b>{escape(edge.before)}</b> {escape(edge.why)}, so it is before <b>{escape(edge.after)}</b> "
        f"({escape(edge.kind)})</li>"
        for edge in verdict.cycle
    )
    return (
        f"<h2>The cycle</h2>{_graph(labels, list(verdict.cycle))}<ol>{told}</ol>"
        "<p>Each of these must be before the next, and the last before the first: a contradiction.</p>"
    )


def _graph(labels: list[str], edges: list[CycleEdge]) -> str:
    """Return a drawing: nodes on a circle, an arrow for each edge, numbers for names that are long."""
    middle, radius, node = 190.0, 130.0, 20.0
    places = {
        label: (
            middle + radius * sin(2 * pi * number / len(labels)),
            middle - radius * cos(2 * pi * number / len(labels)),
        )
        for number, label in enumerate(labels)
    }
    short = all(len(label) <= 6 for label in labels)
    drawn = [_arrow(places[edge.before], places[edge.after], node, edge) for edge in edges]
    for number, (label, (x, y)) in enumerate(places.items(), 1):
        drawn.append(
            f'<g><title>{escape(label)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{node}"/>'
            f'<text x="{x:.1f}" y="{y + 5:.1f}">{escape(label) if short else number}</text></g>'
        )
    legend = "" if short else f"<ol>{''.join(f'<li>{escape(label)}</li>' for label in labels)}</ol>"
    head = '<marker id="head" markerWidth="9" markerHeight="9" refX="8" refY="4" orient="auto">'
    return (
        f'<svg class="graph{" small" * (len(labels) < 4)}" viewBox="0 0 380 380" role="img"><defs>'
        f'{head}<path d="M0,0 L9,4 L0,8 z"/></marker></defs>{"".join(drawn)}</svg>{legend}'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], node: float, edge: CycleEdge) -> str:
    """Return an arrow that is bent to its left, so that there and back are two."""
    (x1, y1), (x2, y2) = start, end
    dx, dy = x2 - x1, y2 - y1
    length = max((dx * dx + dy * dy) ** 0.5, 1.0)
    bend = 28.0
    mx, my = (x1 + x2) / 2 + bend * dy / length, (y1 + y2) / 2 - bend * dx / length
    x1, y1 = _towards(x1, y1, mx, my, node)
    x2, y2 = _towards(x2, y2, mx, my, node + 2)
    return (
        f"<g><title>{escape(edge.why)}</title>"
        f'<path class="edge" d="M{x1:.1f},{y1:.1f} Q{mx:.1f},{my:.1f} {x2:.1f},{y2:.1f}" '
        f'marker-end="url(#head)"/><text class="kind" x="{mx:.1f}" y="{my + 4:.1f}">'
        f"{escape(edge.kind)}</text></g>"
    )


def _towards(x: float, y: float, to_x: float, to_y: float, distance: float) -> tuple[float, float]:
    length = max(((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5, 1.0)
    return x + (to_x - x) * distance / length, y + (to_y - y) * distance / length
