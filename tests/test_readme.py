"""The examples of the README and of docstrings run as written and print what is said there."""

from __future__ import annotations

import doctest
import importlib
import re
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
    printed = capsys.readouterr().out
    assert "if_revision expects" in printed
    assert "set user/anna 1\nupdate user/anna 3\n" in printed


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
