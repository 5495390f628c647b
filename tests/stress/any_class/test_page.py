"""The examples of docs/how-to/testing-a-class.md do what the page tells of them."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "testing-a-class.md"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[ModuleType]:
    """Return the page's Python as one module, which is a file, as a user's would be."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    path = tmp_path / "examples_of_the_page.py"
    path.write_text("\n\n".join(blocks), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.mark.parametrize("name", ["LRUTest", "FastLRUTest"])
def test_the_first_race(examples: ModuleType, name: str) -> None:
    report = getattr(examples, name).run(seconds=100, schedules=1_000)
    assert report.answer == "invalid"
    assert "but it raised KeyError" in str(report), str(report)
    assert "in LRU.get: " in str(report)
    assert report.modules == ("examples_of_the_page",)


def test_a_model(examples: ModuleType) -> None:
    report = examples.QueueTest.run(seconds=100, schedules=30)
    assert report.passed, str(report)


def test_an_invariant(examples: ModuleType) -> None:
    examples.LRU.put = lambda self, key, value: self.items.__setitem__(key, value)
    report = examples.BoundedLRUTest.run(seconds=100, schedules=100)
    assert report.reason.startswith("invariant: never_too_many does not hold")


def test_coroutines(examples: ModuleType) -> None:
    report = examples.TokensTest.run(seconds=100, schedules=100)
    assert "would give False, but it gave True" in str(report)
