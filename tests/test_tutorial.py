"""Each page of the tutorial can be followed: its files, its commands, and what they print."""

from __future__ import annotations

import re
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tutorial_pages import FOLDER, Block, Reader, blocks, fits

#: Each page, and the module without which it cannot be followed.
PAGES = {
    "cache-in-a-service.md": "flask",
    "worker-pool.md": "tqdm",
    "watching-changes.md": "latchstore",
    "proving-your-class.md": "pytest",
}
ROOT = FOLDER.parents[1]


@pytest.mark.skipif(sys.platform == "win32", reason="stops programs by Ctrl-C")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("page", PAGES)
def test_it_can_be_followed(page: str, tmp_path: Path) -> None:
    pytest.importorskip(PAGES[page])
    if page == "proving-your-class.md" and sys.version_info[:2] != (3, 11):
        pytest.skip("threads are switched at bytecodes, so the same seed shows the race by other calls")
    with ExitStack() as ends:
        reader = Reader(tmp_path, ends)
        for block in blocks(page):
            reader.follow(block)


def test_all_pages_are_followed() -> None:
    assert {path.name for path in FOLDER.glob("*.md")} == {"index.md", *PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_a_file_a_command_or_what_is_printed(page: str) -> None:
    for block in blocks(page):
        if block.language == "python":
            assert block.caption.endswith(".py")
        elif block.language == "console":
            assert block.text.startswith("$ ")
        elif block.language == "sh":
            assert block.text.startswith("python -m pip install ./") or "'./latchstore" in block.text
        else:
            assert block.language in ("text", "{toctree}")


@pytest.mark.parametrize("page", PAGES)
def test_what_is_new_in_a_file_is_emphasized(page: str) -> None:
    before: dict[str, Block] = {}
    for block in blocks(page):
        if block.language == "python" and block.caption in before:
            old = before[block.caption].text.splitlines()
            lines = block.text.splitlines()
            new = [number for number, line in enumerate(lines, 1) if line.strip() and line not in old]
            assert numbers(block.emphasized) == new
        before[block.caption] = block


def numbers(ranges: str) -> list[int]:
    found: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", ranges):
        found += range(int(first), int(last or first) + 1)
    return found


@pytest.mark.parametrize("page", ["index.md", *PAGES])
def test_the_wheel_and_its_extras_are_those_of_the_project(page: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (version,) = re.findall(r'__version__ = "(.*)"', (ROOT / "src/latchstore/__init__.py").read_text())
    wheels = re.findall(r"latchstore-(\S+?)-py3-none-any\.whl(?:\[(\w+)\])?", (FOLDER / page).read_text())
    assert {number for number, _ in wheels} <= {version}
    assert {extra for _, extra in wheels if extra} <= project["optional-dependencies"].keys()


@pytest.mark.parametrize(
    ("printed", "expected", "is_so"),
    [
        ("a\n", "a\n", True),
        ("a\nb\n", "a\n", False),
        ("a1b\n", "a...b\n", True),
        ("x\ny\nb\n", "...\nb\n", True),
        ("b\n", "...\nb\n", True),
        ("b\nz\n", "b\n...\n", True),
        ("b\n", "b\n...\n", True),
        ("", "", True),
        ("b\n", "", False),
        ("a.b\n", "aXb\n", False),
    ],
)
def test_dots_stand_for_anything(printed: str, expected: str, is_so: bool) -> None:
    assert fits(printed, expected) is is_so
