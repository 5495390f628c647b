"""The examples of the pages run: those of one page in order, in one namespace, in an empty folder.

Pages that need a server, a file per example or an expected output have tests of their own, named here.
"""

from __future__ import annotations

import doctest
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, Cache

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: Pages, or folders, whose examples other tests run.
ELSEWHERE = {
    "explanation/reading-the-source.md": "tests/test_reading_the_source.py",
    "how-to/asyncio.md": "tests/aio/test_page.py",
    "how-to/between-machines.md": "tests/redis/test_page.py",
    "how-to/checking-histories.md": "tests/stress/test_checking_histories.py",
    "how-to/stress-over-processes.md": "tests/stress/processes/test_page.py",
    "how-to/testing-a-class.md": "tests/stress/any_class/test_page.py",
    "how-to/writing-a-store.md": "tests/test_writing_a_store.py",
    "how-to/writing-an-engine.md": "tests/test_writing_an_engine.py",
    "tutorial": "tests/test_tutorial.py",
}

#: What the examples of a page import, beside what all tests need.
LIBRARIES = {
    "how-to/frozen-clock.md": ["freezegun", "time_machine"],
    "how-to/gunicorn-workers.md": ["flask"],
    "how-to/migrating.md": ["cachetools", "diskcache", "dogpile.cache"],
    "how-to/monitoring.md": ["prometheus_client", "opentelemetry.sdk"],
}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def pages(language: str) -> Iterator[str]:
    for path in sorted(DOCS.rglob("*.md")):
        page = path.relative_to(DOCS).as_posix()
        elsewhere = page in ELSEWHERE or page.partition("/")[0] in ELSEWHERE
        if not elsewhere and blocks(page, language):
            yield page


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The processes that examples start are to find the package where this one does.
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, path))))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", list(pages("python")))
def test_the_examples_run(page: str) -> None:
    for library in LIBRARIES.get(page, ()):
        pytest.importorskip(library)
    names: dict[str, Any] = {"__name__": "page"}
    for example in blocks(page, "python"):
        exec(compile(example, str(DOCS / page), "exec"), names)
    for thing in list(names.values()):
        if isinstance(thing, (AbstractStore, Cache)):
            thing.close()


@pytest.mark.parametrize("page", list(pages("pycon")))
def test_the_sessions_print_what_they_show(page: str) -> None:
    results = doctest.testfile(str(DOCS / page), module_relative=False)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("page", ELSEWHERE)
def test_other_tests_run_the_other_pages(page: str) -> None:
    assert (ROOT / ELSEWHERE[page]).exists() or not (DOCS / page).exists()
