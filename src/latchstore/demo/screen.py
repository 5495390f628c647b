"""What the user sees: plain text, with a progress bar in a terminal, or in colour if ``rich`` is there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from latchstore.demo.report import Report, notes
from latchstore.printable import printable


class Screen:
    """Plain text without progress, for files and pipes."""

    def say(self, line: str) -> None:
        """Print a line."""
        print(printable(line), flush=True)

    @contextmanager
    def progress(self, name: str, total: int, note: Callable[[], str]) -> Iterator[Callable[[], None]]:
        """Show how far a loop has come, with a note beside; give what to call each time it goes round."""
        done = 0
        percent = -1

        def advance() -> None:
            nonlocal done, percent
            done += 1
            if done * 100 // total != percent:
                percent = done * 100 // total
                self._draw(name, done, total, note())

        self._begin(name, total)
        try:
            yield advance
        finally:
            self._end()

    def show(self, report: Report) -> None:
        """Print the table."""
        self.say("")
        for name, figure in report.figures.items():
            self.say(f"  {name:<9} {figure}")
        self.say("")
        for check in report.checks.values():
            self.say(f"  {check.name:<9} {check.result:<7} {check.explanation}")
        for line in ["", *notes(report)]:
            self.say(line)

    def _begin(self, name: str, total: int) -> None:
        """Show the start of a loop."""

    def _draw(self, name: str, done: int, total: int, note: str) -> None:
        """Show where a loop is; called when the percentage changes."""

    def _end(self) -> None:
        """Take away what showed the loop."""


class PlainTerminal(Screen):
    """Plain text with a progress bar made of it, for terminals without the ``rich`` library."""

    def __init__(self) -> None:
        self._drawn = 0

    def _draw(self, name: str, done: int, total: int, note: str) -> None:
        bar = ("#" * (24 * done // total)).ljust(24, ".")
        line = printable(f"{name} [{bar}] {done * 100 // total:3}% {done:,}/{total:,}  {note}")
        self._write(line[: shutil.get_terminal_size().columns - 1])

    def _end(self) -> None:
        self._write("")
        print(end="\r", flush=True)

    def _write(self, line: str) -> None:
        print("\r" + line.ljust(self._drawn), end="", flush=True)
        self._drawn = len(line)


class RichTerminal(Screen):
    """Colours, boxes and a smooth progress bar. Raises ImportError if ``rich`` is not installed."""

    def __init__(self) -> None:
        self._rich: Any = import_module("rich")  # first: parts of it may have been imported already
        for part in ("box", "console", "progress", "table", "text"):
            import_module(f"rich.{part}")
        self._console = self._rich.console.Console(file=sys.stdout, highlight=False)
        self._bar: Any = None

    def _begin(self, name: str, total: int) -> None:
        module = self._rich.progress
        self._bar = module.Progress(
            module.TextColumn("{task.description}"),
            module.BarColumn(),
            module.TaskProgressColumn(),
            module.MofNCompleteColumn(),
            module.TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._bar.add_task(name, total=total, note="")
        self._bar.start()

    def _draw(self, name: str, done: int, total: int, note: str) -> None:
        self._bar.update(self._bar.task_ids[0], completed=done, note=printable(note))

    def _end(self) -> None:
        self._bar.stop()

    def show(self, report: Report) -> None:
        text = self._rich.text.Text
        table = self._rich.table.Table(box=self._rich.box.SIMPLE, show_header=False)
        for name, figure in report.figures.items():
            table.add_row(name, "", text(printable(figure)))
        table.add_section()
        for check in report.checks.values():
            style = "green" if check.passed else "bold red"
            table.add_row(check.name, text(check.result, style=style), text(printable(check.explanation)))
        self._console.print(table)
        for line in notes(report):
            style = "bold red" if line.startswith("FAILED") else ""
            self._console.print(text(printable(line), style=style), soft_wrap=True)


def make_screen() -> Screen:
    """Return what fits standard output: a file or pipe, a terminal, a terminal and ``rich``."""
    if not sys.stdout.isatty():
        return Screen()
    try:
        return RichTerminal()
    except ImportError:
        return PlainTerminal()
