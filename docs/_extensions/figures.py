"""The directive ``figures``: columns of tables of benchmarks/README.md, so that no figure is written twice.

Each line of its body has the first heading of a table there, a colon, and headings of columns. Rows are those
that all of the tables have.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

MEASUREMENTS = Path(__file__).parents[2] / "benchmarks" / "README.md"


def table(heading: str) -> dict[str, dict[str, str]]:
    """Return the cells of the table with a first heading, by row and column."""
    lines = iter(MEASUREMENTS.read_text(encoding="utf-8").splitlines())
    _, *columns = next(cells for line in lines if (cells := cells_of(line)) and cells[0] == heading)
    next(lines)
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        if not (cells := cells_of(line)):
            break
        rows[cells[0]] = dict(zip(columns, cells[1:], strict=True))
    return rows


def cells_of(line: str) -> list[str]:
    """Return the cells of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


class Figures(SphinxDirective):
    """A table of columns of other tables."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        self.env.note_dependency(str(MEASUREMENTS))
        headings, rows = [""], {}
        for line in self.content:
            heading, _, names = line.rpartition(": ")
            cells = table(heading)
            columns = names.split(", ")
            headings += [f"{heading}: {column}" for column in columns]
            rows = rows or {name: [name] for name in cells}
            rows = {
                name: [*row, *(cells[name][column] for column in columns)]
                for name, row in rows.items()
                if name in cells
            }
        lines = [headings, ["---"] + ["--:"] * (len(headings) - 1), *rows.values()]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Extend Sphinx."""
    app.add_directive("figures", Figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
