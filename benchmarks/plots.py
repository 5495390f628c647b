"""Drawing the charts of the answers as PNG files, with matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.measure import Chart

#: Ours is drawn thick and dark; the others are told apart by colour and marker.
_OURS = "latchstore"
_MARKERS = "osv^D<>p*hXd"


def draw(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Write a file for each chart; return them.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib import use

    use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(chart, folder) for chart in charts]


def _draw(chart: Chart, folder: Path) -> Path:
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    figure, axes = pyplot.subplots(figsize=(9, 5.2), layout="constrained")
    for number, (name, points) in enumerate(chart.lines.items()):
        ours = name.startswith(_OURS)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            label=name,
            color="black" if ours else f"C{number % 10}",
            linewidth=2.6 if ours else 1.3,
            # Of ours there may be several: with an index, or on another interpreter.
            linestyle="-" if name == _OURS or not ours else "--",
            marker=_MARKERS[number % len(_MARKERS)] if len(points) < 20 else "",
            markersize=5,
            zorder=3 if ours else 2,
        )
    if "x" in chart.logarithmic:
        axes.set_xscale("log")
        distinct = sorted({x for points in chart.lines.values() for x, _ in points})
        if len(distinct) < 12:
            axes.set_xticks(distinct, [f"{x:,.10g}" for x in distinct], minor=False)
            axes.set_xticks([], minor=True)
        else:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    if "y" in chart.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
    axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    path = folder / f"{chart.name}.png"
    # Without the date and version in the file, the same figures give the same bytes.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return path
