"""The README's example runs as written and prints what the README says it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


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
    assert "if_revision expects" in capsys.readouterr().out


def run(example: str) -> None:
    exec(compile(example, str(README), "exec"), {"__name__": "readme"})


def test_the_first_example_is_short() -> None:
    example = blocks("python")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15


def test_the_two_commands_are_there() -> None:
    commands = "\n".join(blocks("sh"))
    assert "python -m pip install tox && python -m tox -e demo" in commands
    assert "python -m pip install tox && python -m tox -e py" in commands
