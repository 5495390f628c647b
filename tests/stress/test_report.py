"""The report has all that a run has found, escaped, in one file that loads nothing and has no script."""

from __future__ import annotations

import asyncio
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from latchstore.stress import REFUSED, Test, operation
from latchstore.stress.escaping import visible
from latchstore.stress.history import History, Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.list_append import Append, ListTransaction, Read, check_list_append
from latchstore.stress.models import KeyModel
from latchstore.stress.report import report_html, timeline, write_report
from latchstore.stress.result import Access, LockEdge, Mark, Problem, Result, Step
from latchstore.stress.testing.result import result_of
from latchstore.stress.verdict import VALID, CycleEdge, Explanation, Verdict
from tests.stress.any_class.subjects import CounterTest, QueueTest

#: Tags that have no end.
_SINGLE = {"meta", "br"}


class Balance(HTMLParser):
    """Notes what a page would load, and whether its tags are in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _SINGLE:
            self.open.append(tag)
        self.loads += [str(value) for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(page: str) -> str:
    """Return what people read of a page that is in order."""
    balance = Balance(page)
    assert not balance.open
    assert not balance.wrong
    assert not balance.loads
    assert "script" not in balance.tags
    return balance.text


def operation_of(thread: int, begin: int, end: int | None, result: object = None, **more: Any) -> Operation:
    return Operation(thread, "set", "key/<b>", "</script>", result, begin, end, **more)


FIRST, SECOND = operation_of(0, 1_000, 2_000), operation_of(1, 1_500, None, outcome="info")


def result(**more: Any) -> Result:
    values: dict[str, Any] = {
        "command": "python -m latchstore stress --seed 1",
        "history": History([FIRST, SECOND], {"seed": 1, "python": "3.11.7", "facts": {"secret": 1}}),
        "verdicts": {"registers": {"linearizable": VALID}},
    }
    return Result(**(values | more))


def test_a_page_is_whole_and_loads_nothing() -> None:
    text = text_of(report_html(result()))
    assert "valid: no problem was found" in text
    assert "python -m latchstore stress --seed 1" in text
    assert "3.11.7" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    "text",
    ["{{data}}", "{% raw %}", "</script>", "</style><b>", "a & b &amp;", "\x00", "\x1b[1m", "\ud800", "'\""],
)
def test_texts_are_shown_as_they_are(text: str, tmp_path: Path) -> None:
    told = Operation(0, "get", text, text, text, 1, 2)
    explanation = Explanation((told,), (text, text), told, text, text)
    path = tmp_path / "report.html"
    write_report(
        result(
            command=text,
            history=History([told], {"name": text}),
            verdicts={text: {text: Verdict("invalid", text, (told,), explanation=explanation)}},
            problems=(Problem("crash", text),),
            steps=(Step(0, text, text, 2, (Access(1, text, "writes", text),)),),
            lock_edges=(LockEdge(text, text, text, text),),
            final_state=text,
        ),
        path,
    )
    shown = text_of(path.read_text(encoding="utf-8"))
    assert shown.count(visible(text)) >= 10


def test_the_timeline_shows_calls_and_answers_and_which_overlapped() -> None:
    cas = Operation(0, "cas", None, (1, 4), "ok", 10, 20)
    reads = [Operation(1, "read", None, None, 4, 5, 15), Operation(1, "read", None, None, 1, 30, 40)]
    drawn = timeline([reads[0], cas, reads[1]], result(history=History([cas, *reads])))
    read, bar, later = drawn["calls"]
    assert drawn["lanes"] == ["thread 0", "thread 1"]
    assert (read.lane, bar.lane, later.lane) == (2, 1, 2)
    assert read.begin < bar.begin < read.end < bar.end <= later.begin
    page = report_html(result(history=History([cas, *reads])))
    assert "cas((1, 4)) -> 'ok'" in text_of(page)


def test_what_an_order_explains_is_marked_and_what_it_does_not() -> None:
    write = Operation(0, "set", "k", 1, None, 10, 20)
    stale = Operation(1, "get", "k", None, None, 30, 40)
    verdict = check_linearizable([write, stale], KeyModel())
    found = result(history=History([write, stale]), verdicts={"registers": {"linearizable": verdict}})
    assert found.explanation is not None
    assert (found.explanation.order, found.explanation.states) == ((write,), ("None", "1"))
    first, second = timeline([write, stale], found)["calls"]
    assert (first.number, first.state, first.told) == (1, "1", False)
    assert first.begin <= first.point < first.end
    assert (second.number, second.told) == (0, True)
    text = text_of(report_html(found))
    assert "thread 1: get('k') would give 1, but it gave None" in text
    assert "state after it" in text


def test_instants_are_in_the_order_and_within_their_calls() -> None:
    calls = [
        Operation(number, "op", None, None, None, begin, 100 + begin)
        for number, begin in enumerate((1, 2, 3))
    ]
    order = (calls[2], calls[0], calls[1])
    verdict = Verdict("invalid", "", explanation=Explanation(order, (), None, "1", "2"))
    found = result(history=History(calls), verdicts={"a": {"b": verdict}})
    bars = {bar.operation.thread: bar for bar in timeline(calls, found)["calls"]}
    assert bars[2].point < bars[0].point < bars[1].point
    assert all(bar.begin <= bar.point < bar.end for bar in bars.values())
    assert "the final state would give 1, but it gave 2" in text_of(report_html(found))


def test_a_long_run_is_drawn_around_its_error() -> None:
    operations = [operation_of(0, 10 * number, 10 * number + 5, number) for number in range(5_000)]
    bad = Verdict("invalid", "wrong", (operations[4_000],))
    page = report_html(result(history=History(operations), verdicts={"registers": {"check": bad}}))
    assert page.count('<div class="call') == 60
    assert page.count('class="call told"') == 1
    text = text_of(page)
    assert "-> 4000" in text
    assert "4,940 other calls are omitted" in text
    assert "operations in each fiftieth of the run, at most 100" in text


def test_faults_are_marked() -> None:
    page = report_html(result(marks=(Mark(1_700, "forks"), Mark(900, "too early"))))
    assert re.search(r'<div class="mark" [^>]*>forks</div>', page)
    assert "too early" not in page


def test_problems_and_locks_are_shown() -> None:
    page = report_html(
        result(
            problems=(Problem("deadlock", "thread 0 waits for thread 1"),),
            lock_edges=(LockEdge("the one", "the other", "thread 0", "store.py:2 in set"),),
        )
    )
    text = text_of(page)
    assert "invalid: deadlock" in text
    assert "thread 0 waits for thread 1" in text
    assert "the other" in text


def steps(ours: bool) -> tuple[Step, ...]:
    look = Access(1_100, "mine.py:1 in set", "reads", "self.x")
    inside = Access(1_150, "table.py:7 in commit", "writes", "self.journal", ours=True)
    change = Access(1_600, "mine.py:2 in set", "writes", "self.x")
    late = Access(1_800, "mine.py:2 in set", "writes", "self.x")
    return (
        Step(0, "mine.py:2 in set", "self.x = x + 1", 1_200, (look, inside) if ours else (look,)),
        Step(1, "", "ends", 1_700, (change,)),
        Step(0, "", "ends", 1_900, (late,)),
    )


def test_the_accesses_between_switches_are_shown_and_our_own_are_folded() -> None:
    bad = {"registers": {"linearizable": Verdict("invalid", "wrong", (FIRST,))}}
    page = report_html(result(steps=steps(ours=True), verdicts=bad))
    text = " ".join(text_of(page).split())
    assert "Thread 0 reads self.x (mine.py:1 in set), then stops at mine.py:2 in set: self.x = x + 1." in text
    assert "thread 1 writes self.x (mine.py:2 in set)" in text
    folded = re.findall(r"<details><summary>.*?</details>", page, re.DOTALL)
    assert len(folded) == 2  # that, and what is of no interest of a failure
    assert "1 more inside latchstore" in folded[0]
    assert "table.py:7 in commit" in folded[0]
    assert "inside latchstore" not in report_html(result(steps=steps(ours=False), verdicts=bad))


def test_the_cycle_is_told() -> None:
    edges = (CycleEdge("T1", "T2", "ww", "wrote <first>"), CycleEdge("T2", "T1", "rw", "read too early"))
    page = report_html(result(verdicts={"list-append": {"check": Verdict("invalid", "G2", (), edges)}}))
    assert "T1 wrote <first>, so it is before T2 (ww)" in text_of(page)


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
    assert "<h2>The calls" not in report_html(result(history=History(())))


@pytest.mark.parametrize("answer", ["invalid", "unknown"])
def test_the_headline_names_the_check(answer: Any) -> None:
    verdicts = {"bank": {"sum": VALID}, "scans": {"linearizable": Verdict(answer, "why")}}
    assert f"<title>latchstore stress: {answer}: scans, linearizable</title>" in report_html(
        result(verdicts=verdicts)
    )


def test_without_jinja2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'latchstore\[report\]'"):
        write_report(result(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


class TestOfAnyClass:
    def test_a_lost_update(self) -> None:
        report = CounterTest.run(seconds=100)
        page = report_html(result_of(report))
        text = " ".join(text_of(page).split())
        assert "increment() would give 2, but it gave 1" in text
        assert text.count("increment() -> 1") == 2
        assert "state after it" in text
        assert "value=1" in text
        assert "reads self.value" in text
        assert "writes self.value" in text

    def test_a_check_outside_of_the_lock(self) -> None:
        report = QueueTest.run(seconds=100)
        text = text_of(report_html(result_of(report)))
        assert "would raise Full, but it gave None" in text
        assert "Where to look" in text
        assert str(report).count("where to look:") == 1

    def test_a_model_of_the_users_has_states(self) -> None:
        class Counts:
            initial = 0

            def step(self, state: int, call: Any, answer: Any) -> Any:
                return state + 1 if answer == state + 1 else REFUSED

        class Modelled(CounterTest):
            __test__ = False
            model = Counts()

        found = result_of(Modelled.run(seconds=100)).explanation
        assert found is not None
        assert found.states == tuple(str(number) for number in range(len(found.order) + 1))

    def test_tasks_of_a_loop(self) -> None:
        class Tokens:
            def __init__(self) -> None:
                self.left = 1

        class TokensTest(Test):
            __test__ = False
            seconds = 100.0

            def make(self) -> Any:
                return Tokens()

            @operation()
            async def take(self, tokens: Any) -> bool:
                if tokens.left:
                    await asyncio.sleep(0)
                    tokens.left -= 1
                    return True
                return False

        found = result_of(TokensTest.run())
        assert found.explanation is not None
        assert found.explanation.states[:2] == ("left=1", "left=0")
        assert "take() would give False, but it gave True" in text_of(report_html(found))
