"""Formats hit ratios as a table: for a terminal, for Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from latchstore.cache_simulation.contestants import OPTIMUM
from latchstore.cache_simulation.simulation import SizeResult, TraceResult
from latchstore.printable import printable

#: Longer names are wrapped on a terminal.
_WIDE = 8


def plain_text(results: Sequence[TraceResult]) -> str:
    """Return a table for each trace."""
    return "\n\n".join(f"{title(result)}\n{_aligned(_rows(result))}" for result in results)


def print_with_rich(results: Sequence[TraceResult]) -> None:
    """Print a table for each trace, the best of each row in bold.

    Raises
    ------
    ImportError
        If ``rich`` is not installed.
    """
    rich: Any = import_module("rich")
    for part in ("box", "console", "table", "text"):
        import_module(f"rich.{part}")
    console = rich.console.Console(highlight=False)
    for result in results:
        console.print(rich.text.Text(printable(title(result))), soft_wrap=True)
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        head, *rows = _rows(result)
        for name in head:
            # A long name is wrapped, so that the table fits a terminal of 80 columns.
            table.add_column(name.replace("-", "-\n") if len(name) > _WIDE else name, justify="right")
        for size, row in zip(result.sizes, rows, strict=True):
            best = result.best(size)
            table.add_row(
                *(
                    rich.text.Text(cell, style=_style(policy, best))
                    for policy, cell in zip(head, row, strict=True)
                )
            )
        console.print(table)


def _style(policy: str, best: set[str]) -> str:
    if policy == OPTIMUM:
        return "dim"
    return "bold green" if policy in best else ""


def markdown(results: Sequence[TraceResult]) -> str:
    """Return one table of all traces, the best of each row in bold."""
    policies = list(results[0].sizes[0].hits)
    lines = [
        "| trace | keys | entries | " + " | ".join(policies) + " |",
        "|---|--:|--:|" + "--:|" * len(policies),
    ]
    for result in results:
        for size in result.sizes:
            best = result.best(size)
            cells = (
                f"**{cell}**" if policy in best else cell
                for policy, cell in zip(policies, _ratios(result, size), strict=True)
            )
            name = printable(result.name).replace("|", "\\|")
            lines.append(f"| `{name}` | {result.keys:,} | {_entries(size)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(results: Sequence[TraceResult]) -> list[dict[str, Any]]:
    """Return all figures, for `json.dumps`."""
    return [
        {
            "trace": result.name,
            "keys": result.keys,
            "requests": result.counted + result.warm_up,
            "warm_up": result.warm_up,
            "sizes": [
                {
                    "entries": size.entries,
                    "percent_of_keys": size.percent,
                    "hits": size.hits,
                    "hit_ratios": {policy: result.ratio(size, policy) for policy in size.hits},
                }
                for size in result.sizes
            ],
        }
        for result in results
    ]


def title(result: TraceResult) -> str:
    """Return a description of a trace, in one line."""
    before = f" after {result.warm_up:,} warm-up requests" if result.warm_up else ""
    return f"{result.name}: hit ratios in % of {result.counted:,} requests{before}, {result.keys:,} keys"


def percent_text(percent: float) -> str:
    """Return a percentage with two significant digits."""
    return f"{float(f'{percent:.2g}'):g} %"


def _entries(size: SizeResult) -> str:
    return f"{size.entries:,} ({percent_text(size.percent)})"


def _ratios(result: TraceResult, size: SizeResult) -> list[str]:
    return [f"{100 * result.ratio(size, policy):.2f}" for policy in size.hits]


def _rows(result: TraceResult) -> list[list[str]]:
    head = ["entries", *result.sizes[0].hits]
    return [head, *([_entries(size), *_ratios(result, size)] for size in result.sizes)]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
