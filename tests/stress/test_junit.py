"""JUnit's XML can be read by any parser, whatever the code under test has answered."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from latchstore.stress.escaping import visible
from latchstore.stress.history import History
from latchstore.stress.junit import write_junit
from latchstore.stress.result import Problem, Result
from latchstore.stress.verdict import Verdict


@pytest.mark.parametrize(
    "text", ["\x00", "\x1b[31mred", "\ud800", "\x0b", "\ufffe", "]]></failure>", "a & b", "{{x}}"]
)
def test_what_is_no_character_of_xml_is_shown(text: str, tmp_path: Path) -> None:
    result = Result(
        "python -m latchstore stress",
        History(()),
        {f"registers {text}": {"check": Verdict("invalid", f"got {text}")}},
        (Problem("crash", f"raised {text}"),),
    )
    path = tmp_path / "result.xml"
    write_junit(result, path)
    root = ElementTree.parse(path).getroot()
    first, second = (each.text or "" for each in root.iter("failure"))
    assert f"got {visible(text)}\n" in first
    assert f"raised {visible(text)}\n" in second
    assert root.get("failures") == "2"


def test_the_escapes_are_those_of_python() -> None:
    assert visible("a\tb\r\n\x00\x7f\ud800é€😀") == "a\tb\r\n\\x00\x7f\\ud800é€😀"
