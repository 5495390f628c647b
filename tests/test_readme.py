"""The README: its examples run, its links and figures hold. Links of pages, examples of docstrings."""

from __future__ import annotations

import doctest
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (
    "README.md",
    "DESIGN.md",
    "CONTRIBUTING.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_first_example_prints_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    (expected,) = blocks("text")
    run(blocks("python")[0])
    assert capsys.readouterr().out == expected


def test_every_other_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    others = blocks("python")[1:]
    assert others
    for example in others:
        run(example)
    assert capsys.readouterr().out == "Worked(acked=40, retried=0, dead=0, lost=0)\n"


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_links_of_the_readme_hold_on_a_package_index() -> None:
    """Each is absolute, and those into the repository and the documentation lead to files that are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository, site = (re.escape(project["urls"][name]) for name in ("Repository", "Documentation"))
    links = re.findall(r"\]\(([^)]*)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("https://")] == []
    ours = [link for link in links if "latchstore" in link]
    assert [link for link in ours if not re.match(f"{repository}|{site}", link)] == []
    files = [re.match(rf"{repository}/(?:blob|tree|raw)/main/([^#]*)", link) for link in links]
    pages = [re.match(rf"{site}/en/latest/(.*)\.html", link) for link in links]
    paths = [each[1] for each in files if each] + [f"docs/{each[1]}.md" for each in pages if each]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_figures_of_the_readme_are_measured() -> None:
    measured = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| 90/10: thousands a second .*\n(?:\|.*\n)+", measured, re.MULTILINE)
    there = {cells[0]: cells[1:] for cells in cells_of(table)}
    ((_, *columns), _, *rows) = cells_of(README.read_text(encoding="utf-8"))
    (_, *measured_columns) = next(cells_of(table))
    chosen = [measured_columns.index("1 threads" if column == "1 thread" else column) for column in columns]
    assert rows
    for name, *figures in rows:
        assert figures == [there[name][number] for number in chosen]


def cells_of(text: str) -> Iterator[list[str]]:
    """Return the cells of each row of the tables of a text."""
    for line in re.findall(r"^\|(.*)\|$", text, re.MULTILINE):
        yield [cell.strip() for cell in line.split("|")]


def run(example: str) -> None:
    exec(compile(example, str(README), "exec"), {"__name__": "readme"})


@pytest.mark.parametrize(
    "module",
    [
        "latchstore.engine.memory",
        "latchstore.delivery.progress",
        "latchstore.queue.work_queue",
        "latchstore.contract.condition",
        "latchstore.contract.contains",
        "latchstore.contract.ordering",
        "latchstore.contract.ranges",
    ],
)
def test_examples_in_docstrings(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_first_example_is_short() -> None:
    example = blocks("python")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_files_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    there = "".join(
        path.as_posix() for folder in ("src", "tests", "docs") for path in (ROOT / folder).rglob("*.??")
    )
    files = re.findall(r"`([\w/]+\.(?:py|md))`", text)
    assert [file for file in files if not (ROOT / file).exists() and f"/{file}" not in there] == []


def test_the_two_commands_are_there() -> None:
    commands = "\n".join(blocks("sh"))
    assert "python -m pip install tox && python -m tox -e demo" in commands
    assert "python -m pip install tox && python -m tox -e py" in commands
