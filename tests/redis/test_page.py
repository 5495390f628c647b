"""The examples of docs/how-to/between-machines.md run, in order."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.redis.servers import Server

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "between-machines.md"


def test_the_page(emptied_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8").replace("redis://localhost", emptied_server.url)
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) == 4
    # The processes that it starts are to find the package where this one does.
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, path))))
    names: dict[str, Any] = {"__name__": "page"}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
