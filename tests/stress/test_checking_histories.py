"""The examples of docs/how-to/checking-histories.md do what the page tells of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchstore.__main__ import main

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "checking-histories.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder, which is the current one, with the files that the page has."""
    (tmp_path / "history.log").write_text(blocks("text")[0], encoding="utf-8")
    (tmp_path / "stack.edn").write_text(blocks("clojure")[0], encoding="utf-8")
    (model,) = (block for block in blocks("python") if "class Stack" in block)
    (tmp_path / "my_models.py").write_text(model, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize("example", blocks("console"))
@pytest.mark.usefixtures("folder")
def test_commands_print_what_the_page_tells(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, expected = example.rstrip().split("\n", 1)
    words = command.removeprefix("$ python -m latchstore ").split()
    assert main(words) == (1 if "invalid" in expected else 0)
    without_time = r", \d+\.\d+ s\)"
    assert re.sub(without_time, "", capsys.readouterr().out.rstrip()) == re.sub(without_time, "", expected)


@pytest.mark.usefixtures("folder")
def test_calls_from_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = (block for block in blocks("python") if "linearize(" in block)
    exec(compile(program, "page", "exec"), {})
    assert capsys.readouterr().out == "valid ['a', 'b'] ()\n"


@pytest.mark.usefixtures("folder")
def test_a_stack_that_loses_a_value(folder: Path) -> None:
    text = (folder / "stack.edn").read_text(encoding="utf-8")
    (folder / "stack.edn").write_text(text.replace(":answer 2", ":answer nil"), encoding="utf-8")
    assert main(["check", "stack.edn", "--model", "my_models:Stack"]) == 1


@pytest.mark.usefixtures("folder")
def test_records_that_a_program_converts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = (block for block in blocks("python") if "import json" in block)
    exec(compile(program, "page", "exec"), {})
    (folder / "converted.json").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["check", "converted.json", "--model", "kv"]) == 0
    assert capsys.readouterr().out.startswith("converted.json: valid (2 operations, ")
