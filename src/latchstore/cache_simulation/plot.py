"""Draws hit ratios as a chart with matplotlib, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latchstore.cache.policies import POLICIES
from latchstore.cache_simulation.contestants import NAMES, OPTIMUM
from latchstore.cache_simulation.report import percent_text
from latchstore.cache_simulation.simulation import TraceResult
from latchstore.printable import printable

#: Number of charts in a row.
_ABREAST = 3

#: Maximum number of sizes that are all labelled.
_MOST_TICKS = 8

_MARKERS = "osv^D<>p"


def draw(results: Sequence[TraceResult], path: Path) -> None:
    """Write a PNG file with a chart for each trace.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib import use

    use("agg")
    from matplotlib import pyplot

    columns = min(_ABREAST, len(results))
    rows = -(-len(results) // columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(3.7 * columns + 0.4, 3 * rows + 0.7), layout="constrained", squeeze=False
    )
    places = list(grid.flat)
    for result, axes in zip(results, places, strict=False):
        _draw_trace(axes, result)
    for axes in places[len(results) :]:
        axes.set_visible(False)
    figure.supxlabel("entries, in % of the keys", fontsize=10)
    figure.supylabel("hit ratio in %", fontsize=10)
    figure.legend(
        *places[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2 * columns + 1,
        frameon=False,
    )
    # The version of matplotlib is omitted, so that the same figures give the same bytes.
    figure.savefig(path, format="png", dpi=90, metadata={"Software": None})
    pyplot.close(figure)


def _draw_trace(axes: Any, result: TraceResult) -> None:
    percents = [size.percent for size in result.sizes]
    for policy in result.sizes[0].hits:
        axes.plot(
            percents,
            [100 * result.ratio(size, policy) for size in result.sizes],
            label=policy,
            **_look(policy),
        )
    axes.set_title(printable(Path(result.name).name), fontsize=10)
    axes.set_xscale("log")
    if len(percents) <= _MOST_TICKS:
        axes.set_xticks(percents, [percent_text(percent).removesuffix(" %") for percent in percents])
        axes.set_xticks([], minor=True)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.3)


def _look(policy: str) -> dict[str, Any]:
    """Return the style of a line: solid for policies of latchstore, thick for the default; others dashed."""
    if policy == OPTIMUM:
        return {"color": "grey", "linestyle": ":", "linewidth": 1.5}
    number = NAMES.index(policy)
    is_default = policy == next(iter(POLICIES))
    return {
        "color": "black" if is_default else f"C{number}",
        "linestyle": "-" if policy in POLICIES else "--",
        "linewidth": 2.2 if is_default else 1.2,
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4,
        "zorder": 3 if is_default else 2,
    }
