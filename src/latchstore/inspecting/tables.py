"""Prints tables: by rich on a terminal, if it is installed, and as plain text otherwise.

Data of a store may be anything, so it is escaped, and markup in it is ignored.

Thread safety: the functions have no state; they print.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from latchstore.printable import printable

#: Maximum length of a cell's text.
_WIDEST = 60


class Table(NamedTuple):
    """A table: its title, the names of its columns, and its rows; numbers are right-aligned."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def show(tables: Sequence[Table]) -> None:
    """Print tables, except those without rows."""
    shown = [table for table in tables if table.rows]
    rich = _rich() if sys.stdout.isatty() else None
    for number, table in enumerate(shown):
        if number:
            print()
        if rich is None:
            print(_plain(table))
        else:
            _show_with_rich(table, rich)


def _rich() -> Any:
    try:
        rich: Any = import_module("rich")
        for part in ("box", "console", "table", "text"):
            import_module(f"rich.{part}")
    except ImportError:
        return None
    return rich


def _show_with_rich(table: Table, rich: Any) -> None:
    console = rich.console.Console(highlight=False)
    if table.title:
        console.print(rich.text.Text(printable(table.title), style="bold"))
    made = rich.table.Table(
        box=rich.box.SIMPLE_HEAD if any(table.columns) else None, show_header=any(table.columns)
    )
    for position, name in enumerate(table.columns):
        justify = "right" if _is_of_numbers(table, position) else "left"
        made.add_column(name, justify=justify, overflow="fold", no_wrap=justify == "right")
    for row in table.rows:
        made.add_row(*(rich.text.Text(_cell(each)) for each in row))
    console.print(made)


def _plain(table: Table) -> str:
    rows = [[_cell(each) for each in row] for row in table.rows]
    if any(table.columns):
        rows.insert(0, list(table.columns))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [] if not table.title else [printable(table.title)]
    for row in rows:
        cells = [
            text.rjust(width) if _is_of_numbers(table, position) else text.ljust(width)
            for position, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_of_numbers(table: Table, position: int) -> bool:
    if not any(table.columns):
        return False
    return all(row[position] is None or isinstance(row[position], (int, float)) for row in table.rows)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, (int, float)):
        return f"{value:,}"
    text = printable(str(value))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


# -- values -------------------------------------------------------------------------------------------


def size_text(size: int | None) -> str | None:
    """Return a number of bytes as readable text."""
    if size is None:
        return None
    if size < 1_000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1_000
        if value < 1_000 or unit == "TB":
            break
    return f"{value:.3g} {unit}" if value < 1_000 else f"{value:,.0f} {unit}"


def time_text(seconds: float) -> str:
    """Return a time as readable local time; the number if it is beyond the calendar."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def duration_text(seconds: float | None) -> str | None:
    """Return a number of seconds as readable text."""
    if seconds is None:
        return None
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.0f} h" if hours < 48 else f"{days:.0f} d"
