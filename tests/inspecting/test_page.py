"""docs/how-to/inspect-and-watch.md: its commands print what the page shows."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from latchstore.__main__ import main

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "inspect-and-watch.md"


def test_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    first, *_ = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(first, str(PAGE), "exec"), names)
    checker, options = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    commands = 0
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE):
            words = shlex.split(command)
            assert words[:3] == ["python", "-m", "latchstore"]
            assert main(words[3:]) == 0
            printed = capsys.readouterr().out
            assert checker.check_output(expected, printed, options), f"{command}\n{printed}"
            commands += 1
    assert commands == 4


def test_the_picture() -> None:
    picture = PAGE.parent / "../images/top.png"
    assert "(../images/top.png)" in PAGE.read_text(encoding="utf-8")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 150_000
