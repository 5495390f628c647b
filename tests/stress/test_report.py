"""The report has all that a run has found, escaped, in one file that loads nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from latchstore.stress.history import History, Operation
from latchstore.stress.list_append import Append, ListTransaction, Read, check_list_append
from latchstore.stress.report import report_html, write_report
from latchstore.stress.result import LockEdge, Mark, Problem, Result, Step
from latchstore.stress.verdict import VALID, CycleEdge, Verdict

#: Tags that have no end.
_SINGLE = {"meta", "br", "input"}


class Balance(HTMLParser):
    """Notes what a page would load, and whether its tags are in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _SINGLE:
            self.open.append(tag)
        self.loads += [str(value) for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def operation(thread: int, begin: int, end: int | None, result: object = None, **more: Any) -> Operation:
    return Operation(thread, "set", "key/<b>", "</script>", result, begin, end, **more)


FIRST, SECOND = operation(0, 1_000, 2_000), operation(1, 1_500, None, outcome="info")


def result(**more: Any) -> Result:
    values: dict[str, Any] = {
        "command": "python -m latchstore stress --seed 1",
        "history": History([FIRST, SECOND], {"seed": 1, "python": "3.11.7", "facts": {"secret": 1}}),
        "verdicts": {"registers": {"linearizable": VALID}},
    }
    return Result(**(values | more))


def data_of(page: str) -> Any:
    found = re.search(r"^const data = (.*);$", page, re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def test_a_page_is_whole_and_loads_nothing() -> None:
    page = report_html(result())
    balance = Balance(page)
    assert not balance.open
    assert not balance.wrong
    assert all(each.startswith("#") for each in balance.loads)
    assert "{{" not in page
    assert "valid: nothing wrong was found" in balance.text
    assert "python -m latchstore stress --seed 1" in balance.text
    assert "3.11.7" in balance.text
    assert "secret" not in page


def test_what_is_told_is_escaped() -> None:
    verdict = Verdict("invalid", "<i>wrong</i>", (FIRST,))
    page = report_html(result(verdicts={"registers": {"linearizable": verdict}}))
    assert "<i>wrong" not in page
    assert page.count("</script>") == 1
    assert "<b>" not in page.partition("<script>")[0]
    first, second = data_of(page)["operations"]
    assert first[5] == str(FIRST)
    assert [first[-1], second[-1]] == [True, False]


def test_times_begin_with_the_first_operation() -> None:
    data = data_of(report_html(result(marks=(Mark(1_700, "forks"),))))
    assert [each[2:4] for each in data["operations"]] == [[0, 1_000], [500, None]]
    assert data["marks"] == [[700, "forks"]]


def test_a_long_run_is_drawn_around_its_error() -> None:
    operations = [operation(0, 10 * number, 10 * number + 5) for number in range(50_000)]
    bad = Verdict("invalid", "wrong", (operations[40_000],))
    page = report_html(result(history=History(operations), verdicts={"registers": {"check": bad}}))
    data = data_of(page)
    assert len(data["operations"]) == 20_000
    assert data["left_out"] == 30_000
    (told,) = [each for each in data["operations"] if each[-1]]
    assert told[5] == str(operations[40_000])


def test_problems_steps_and_locks_are_shown() -> None:
    page = report_html(
        result(
            problems=(Problem("deadlock", "thread 0 waits for thread 1"),),
            steps=(Step(0, "store.py:1 in set", "self.x = 1"), Step(1, "", "ends")),
            lock_edges=(LockEdge("the one", "the other", "thread 0", "store.py:2 in set"),),
        )
    )
    text = Balance(page).text
    assert "invalid: deadlock" in text
    assert "thread 0 waits for thread 1" in text
    assert "store.py:1 in set" in text
    assert "<td><code>ends</code></td>" in page
    assert "the other" in text
    assert 'class="graph small"' in page


def test_the_cycle_is_told_and_drawn() -> None:
    edges = (CycleEdge("T1", "T2", "ww", "wrote <first>"), CycleEdge("T2", "T1", "rw", "read too early"))
    page = report_html(result(verdicts={"list-append": {"check": Verdict("invalid", "G2", (), edges)}}))
    assert "wrote &lt;first&gt;, so it is before <b>T2</b> (ww)" in page
    assert page.count('class="edge"') == 2


def test_the_cycle_of_the_list_analysis_is_one() -> None:
    skew = [
        ListTransaction(1, (Read("x", ()), Append("y", 1)), 0, 9, operation=FIRST),
        ListTransaction(2, (Read("y", ()), Append("x", 2)), 0, 9, operation=SECOND),
    ]
    verdict = check_list_append(skew)
    assert [(edge.before, edge.after, edge.kind) for edge in verdict.cycle] == [
        ("T1", "T2", "rw"),
        ("T2", "T1", "rw"),
    ]
    assert verdict.operations == (FIRST, SECOND)


def test_a_run_without_operations() -> None:
    page = report_html(result(history=History(())))
    assert data_of(page)["operations"] == []
    assert not Balance(page).wrong


def test_it_is_written_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(result(), path)
    assert path.read_text(encoding="utf-8") == report_html(result())


@pytest.mark.parametrize("answer", ["invalid", "unknown"])
def test_the_headline_names_the_check(answer: Any) -> None:
    verdicts = {"bank": {"sum": VALID}, "scans": {"linearizable": Verdict(answer, "why")}}
    assert f"<title>latchstore stress: {answer}: scans, linearizable</title>" in report_html(
        result(verdicts=verdicts)
    )
