"""The examples of the backends' README run as written, and print what is said there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import latchstore.backends

README = Path(latchstore.backends.__file__).with_name("README.md")

#: The examples, each with what it prints.
EXAMPLES: list[tuple[str, str]] = re.findall(
    r"```python\n(.*?)```\n+(?:[^`]*?)```text\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL
)


def test_all_examples_are_found() -> None:
    assert len(EXAMPLES) == README.read_text(encoding="utf-8").count("```python") == 5


@pytest.mark.parametrize(
    ("needed", "number"),
    [("django", 0), ("dogpile.cache", 1), ("flask_caching", 2), ("cachelib", 3), ("prometheus_client", 4)],
)
def test_example(needed: str, number: int) -> None:
    pytest.importorskip(needed, reason=f"{needed} is not installed")
    example, printed = EXAMPLES[number]
    assert needed.split(".")[0] in example
    # In a process of its own, as settings and registries are one for each process.
    result = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=50)
    assert result.stderr == ""
    assert result.stdout == printed
