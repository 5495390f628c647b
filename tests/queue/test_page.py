"""The examples of docs/how-to/work-queues.md run, in order, and so does that of the docstring."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "work-queues.md"


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) >= 8
    names: dict[str, Any] = {"__name__": "page"}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    assert "broken.png not a picture 1" in capsys.readouterr().out
    for store in ("store", "tasks"):
        names[store].close()


def test_the_docstring() -> None:
    results = doctest.testmod(importlib.import_module("latchstore.queue.work_queue"))
    assert results.attempted > 0
    assert results.failed == 0
