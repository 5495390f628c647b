"""How things are measured here: interleaved rounds, medians, and ratios within one run.

Machines are noisy and change their speed, so a figure on its own says little. All that is to be
compared is run in turn (A B C, A B C, ...), and what counts is the median of the rounds' ratios: the two of
one round have met the machine at much the same speed. Where it halves its speed from one second to
the next, the ratio of the medians may be that of one subject's slow rounds to the other's fast ones: for
`set, heard` 0.29 to 0.37 in four runs, and this 0.29 to 0.35.
"""

from __future__ import annotations

import gc
import importlib
import math
import platform
import re
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """The times of one subject, in nanoseconds per operation."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a part of the median."""
        if len(self.rounds) < 4:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / self.median


class Subject:
    """A statement to be timed.

    It is compiled on its own: the interpreter adapts code to what it meets there, and were one loop
    shared by a dict and a store, each would be timed as the other had left it.

    Parameters
    ----------
    code : str
        What to time.
    operations : int
        How many operations that is.
    setup : str
        Run before each time, and not timed: to bring the subject's own data into the processor's caches
        in place of what the subject before it has left there.
    **names
        What the code may use; but for `clock`, which returns seconds: ``time.process_time``, say, to count
        what the whole process has computed.
    """

    def __init__(
        self,
        code: str,
        operations: int,
        setup: str = "pass",
        clock: Callable[[], float] = time.perf_counter,
        **names: object,
    ) -> None:
        self._timer = timeit.Timer(code, setup, clock, names)
        self._operations = operations

    def run(self) -> float:
        """Return the nanoseconds that one operation has taken, without garbage collection."""
        return self._timer.timeit(1) * 1e9 / self._operations


def interleaved(subjects: Mapping[Name, Subject], rounds: int) -> dict[Name, Timing]:
    """Time each subject once per round, one after the other, after a round to warm up."""
    times: dict[Name, list[float]] = {name: [] for name in subjects}
    for subject in subjects.values():
        subject.run()
    for _ in range(rounds):
        gc.collect()
        for name, subject in subjects.items():
            times[name].append(subject.run())
    return {name: Timing(tuple(measured)) for name, measured in times.items()}


@dataclass(frozen=True)
class Figure:
    """Something measured, as it is kept for later comparison."""

    what: str
    median: float
    spread: float
    unit: str

    @classmethod
    def of(cls, what: str, rounds: Sequence[float], unit: str) -> Figure:
        """Return the median and the spread of what several rounds have given."""
        timing = Timing(tuple(rounds))
        return cls(what, timing.median, timing.spread, unit)


@dataclass(frozen=True)
class Ratio:
    """One line of a result: how something compares with something else, and what was asked for.

    Attributes
    ----------
    ours, other : float
        Medians.
    asked : float
        The most that the ratio may be; the least, if `at_least`.
    of_rounds : float or None
        The median of the rounds' ratios; None if there were no rounds.
    """

    what: str
    ours: float
    other: float
    unit: str
    asked: float
    at_least: bool = False
    of_rounds: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        ours: Sequence[float],
        other: Sequence[float],
        unit: str,
        asked: float,
        at_least: bool = False,
    ) -> Ratio:
        """Return the ratio of what the same rounds have given for two subjects."""
        of_rounds = statistics.median(mine / its for mine, its in zip(ours, other, strict=True))
        return cls(what, statistics.median(ours), statistics.median(other), unit, asked, at_least, of_rounds)

    @property
    def value(self) -> float:
        """Ours divided by the other."""
        return self.ours / self.other if self.of_rounds is None else self.of_rounds

    @property
    def met(self) -> bool:
        """Whether the ratio is what was asked for."""
        return self.value >= self.asked if self.at_least else self.value <= self.asked


@dataclass(frozen=True)
class Chart:
    """A plot of lines.

    Attributes
    ----------
    name : str
        Of its file, without an ending.
    title, x, y : str
        What stands above it and at its axes.
    lines : mapping
        The points of each line, by its name.
    logarithmic : str
        Which axes are: ``""``, ``"x"``, ``"y"`` or ``"xy"``.
    """

    name: str
    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    logarithmic: str = "xy"


@dataclass(frozen=True)
class Answer:
    """What a question has been answered with.

    Attributes
    ----------
    report : str
        Markdown.
    ratios : sequence of Ratio
        What has limits.
    figures : sequence of Figure
        All that was measured.
    charts : sequence of Chart
    """

    report: str
    ratios: Sequence[Ratio] = ()
    figures: Sequence[Figure] = ()
    charts: Sequence[Chart] = ()


def figures_of(timings: Mapping[str, Timing]) -> list[Figure]:
    """Return the figures of times in nanoseconds."""
    return [Figure.of(name, timing.rounds, "ns") for name, timing in timings.items()]


def figure_list(timings: Mapping[str, Timing]) -> str:
    """Return all times as a list in Markdown."""
    lines = [
        f"- {as_code(name)}: {timing.median:,.0f} ns (spread {timing.spread:.0%})"
        for name, timing in timings.items()
    ]
    return "\n".join(["All of them, medians:", "", *lines])


def ratio_of_times(timings: Mapping[str, Timing], ours: str, other: str, asked: float) -> Ratio:
    """Return the ratio of two of some times in nanoseconds, by their names."""
    return Ratio.of(f"{ours} / {other}", timings[ours].rounds, timings[other].rounds, "ns", asked)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return by which power of x the y of some points grow: least squares through their logarithms."""
    slope, _ = statistics.linear_regression(
        [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    )
    return slope


#: Code, and words with a star, of which Markdown makes emphasis unless they are code.
_CODE_OR_STARRED = re.compile(r"(`[^`]*`)|[^\s,`]*\*[^\s,`]*")


def as_code(text: str) -> str:
    """Return a text for Markdown, with the words that have a star as code."""
    return _CODE_OR_STARRED.sub(lambda match: match[1] or f"`{match[0]}`", text)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown that also reads well as text."""
    table = [[as_code(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in table
    ]
    return "\n".join(lines)


def lines_by_size(timings: Mapping[tuple[str, int], Timing]) -> dict[str, list[tuple[float, float]]]:
    """Return a line for each name in (name, size): points of a size and a median in microseconds."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for (name, size), timing in timings.items():
        lines.setdefault(name, []).append((size, timing.median / 1e3))
    return lines


def size_table(
    heading: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    last: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Return lines of points as a table: a row for each line and a column for each size.

    Parameters
    ----------
    heading : str
        What the points are and by what size.
    lines : mapping
        What `lines_by_size` returns.
    last : mapping, optional
        Columns that follow: by heading, the cell of each line.
    """
    columns = last or {}
    sizes = sorted({size for points in lines.values() for size, _ in points})
    rows = []
    for name, points in lines.items():
        by_size = dict(points)
        cells = [_microseconds(by_size[size]) if size in by_size else "" for size in sizes]
        rows.append([name, *cells, *(column[name] for column in columns.values())])
    return markdown([heading, *(f"{size:,}" for size in sizes), *columns], rows)


def _microseconds(microseconds: float) -> str:
    return f"{microseconds:,.0f}" if microseconds >= 100 else f"{microseconds:.3g}"


def ratio_table(ratios: Sequence[Ratio]) -> str:
    """Return the ratios as a table."""
    headings = ["what", "latchstore", "the other", "ratio", "asked for", "met"]
    rows = [
        [
            ratio.what,
            f"{ratio.ours:,.0f} {ratio.unit}",
            f"{ratio.other:,.0f} {ratio.unit}",
            f"{ratio.value:.4f}" if ratio.value < 0.01 else f"{ratio.value:.2f}",
            f"{'>=' if ratio.at_least else '<='} {ratio.asked:.3g}",
            "yes" if ratio.met else "NO",
        ]
        for ratio in ratios
    ]
    return markdown(headings, rows)


def machine() -> str:
    """Say in one line what the figures were measured on."""
    gil = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", without the GIL"
    return (
        f"{platform.python_implementation()} {platform.python_version()}{gil}, "
        f"{platform.system()} {platform.machine()}"
    )


def answer_to(question: str, quick: bool) -> Answer:
    """Answer the question of a module."""
    answer: Answer = importlib.import_module(f"benchmarks.{question}").run(quick)
    return answer
