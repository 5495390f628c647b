"""The picture: a chart for each trace, a line for each policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latchstore.cache_simulation import plot
from latchstore.cache_simulation.contestants import NAMES
from latchstore.cache_simulation.simulation import SizeResult, TraceResult

pytest.importorskip("matplotlib")

# Importing it is slow on a busy machine.
pytestmark = pytest.mark.timeout(300)


def results(traces: int, sizes: int) -> list[TraceResult]:
    return [
        TraceResult(
            f"folder/trace-{number}",
            1_000,
            100,
            0,
            [
                SizeResult(size, size / 10, {name: size + place for place, name in enumerate(NAMES)})
                for size in range(1, sizes + 1)
            ],
        )
        for number in range(traces)
    ]


@pytest.mark.parametrize(("traces", "sizes"), [(1, 1), (2, 5), (4, 5), (7, 20)])
def test_all_is_drawn(traces: int, sizes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    figures: list[Any] = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    path = tmp_path / "ratios.png"
    plot.draw(results(traces, sizes), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    charts = [axes for axes in figures[0].axes if axes.get_visible()]
    assert [axes.get_title() for axes in charts] == [f"trace-{number}" for number in range(traces)]
    for axes in charts:
        for place, (line, name) in enumerate(zip(axes.lines, NAMES, strict=True)):
            assert line.get_label() == name
            assert list(line.get_xdata()) == [size / 10 for size in range(1, sizes + 1)]
            assert list(line.get_ydata()) == pytest.approx([size + place for size in range(1, sizes + 1)])
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == list(NAMES)
    monkeypatch.undo()
    pyplot.close(figures[0])


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        plot.draw(results(2, 3), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
