"""The example of docs/how-to/stress-over-processes.md runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from latchstore.__main__ import main

DOCS = Path(__file__).parents[3] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_store_of_the_page_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = blocks("writing-a-store.md", "python")[0]
    (tmp_path / "small_store.py").write_text(small, encoding="utf-8")
    (code,) = blocks("stress-over-processes.md", "python")
    (tmp_path / "counted_files.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = blocks("stress-over-processes.md", "sh")[-1].strip()
    try:
        assert main(command.removeprefix("python -m latchstore ").split()) == 0
    finally:
        sys.modules.pop("counted_files", None)
        sys.modules.pop("small_store", None)
    assert "list-append: strictly serializable: valid" in capsys.readouterr().out
