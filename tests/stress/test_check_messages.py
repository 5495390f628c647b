"""What ``check`` prints of invalid histories, of the models that are there, and of long searches."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from latchstore.__main__ import main
from latchstore.stress import check_command
from latchstore.stress.linearizability import Progress

#: After two writes that replaced what came before, a read gets what the first of all had written.
STALE = """
0 :invoke :write 1
0 :ok :write 1
1 :invoke :read nil
1 :ok :read 1
0 :invoke :write 2
0 :ok :write 2
2 :invoke :write 3
1 :invoke :read nil
1 :ok :read 1
2 :ok :write 3
0 :invoke :write 4
0 :ok :write 4
"""


def written(folder: Path, text: str) -> str:
    (folder / "history").write_text(text, encoding="utf-8")
    return str(folder / "history")


def test_an_invalid_history_is_shown_by_its_smallest_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", written(tmp_path, STALE), "--model", "cas"]) == 1
    first, _, *rest = capsys.readouterr().out.splitlines()
    assert "no order of these operations explains thread 1: read() -> 1; at the same time: thread 2" in first
    assert "(6 operations, " in first
    assert rest == [
        "3 operations that no order explains, in time order:",
        "  thread 0          thread 1     thread 2",
        "  write(2) -> None",
        "                                 write(3) begins",
        "                    read() -> 1",
        "                                 write -> None",
        "",
        "why: the longest order of calls with these answers is",
        "  thread 0: write(2) -> None",
        "  thread 2: write(3) -> None",
        "with this state at its end: 3",
        "after which thread 1: read() would give 3, but it gave 1",
        "",
    ]


def test_json_has_the_smallest_part_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", written(tmp_path, STALE), "--model", "cas", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["smallest"] == [
        "thread 0: write(2) -> None",
        "thread 2: write(3) -> None",
        "thread 1: read() -> 1",
    ]
    assert (told["order"], told["state"]) == (
        ["thread 0: write(2) -> None", "thread 2: write(3) -> None"],
        "3",
    )


def test_a_report(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    report = tmp_path / "report.html"
    assert main(["check", written(tmp_path, STALE), "--model", "cas", "--report", str(report)]) == 1
    assert "thread 1: read() would give 3, but it gave 1" in report.read_text(encoding="utf-8")


def test_an_anomaly_of_lists_has_its_name_and_its_transactions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [[["append", 1, 0]], [["r", 1, [0]], ["append", 1, 1]], [["r", 1, [0]], ["append", 1, 2]]]
    lines = [{"process": 0, "type": kind, "value": each} for each in steps for kind in ("invoke", "ok")]
    assert main(["check", written(tmp_path, json.dumps(lines)), "--model", "list-append"]) == 1
    out = capsys.readouterr().out
    assert "invalid: lost update: transactions 2 and 3 both read [0] of 1 and appended to it" in out
    assert "  2: thread 0: txn(" in out


@pytest.mark.parametrize(
    ("model", "lines", "code"),
    [
        ("mutex", ["0 :acquire", "0 :release", "1 :acquire"], 0),
        ("mutex", ["0 :acquire", "1 :acquire"], 1),
        ("queue", ["0 :enqueue 1", "0 :enqueue 2", "1 :dequeue 1", "1 :dequeue 2", "1 :dequeue nil"], 0),
        ("queue", ["0 :enqueue 1", "0 :enqueue 2", "1 :dequeue 2"], 1),
        ("set", ["0 :add 1", "0 :add 2", "1 :read #{2 1}", "1 :read [1 2]"], 0),
        ("set", ["0 :add 1", "0 :add 2", "1 :read #{2}"], 1),
        ("txn", ["0 :txn [[:w x 1][:w y 2]]", "1 :txn [[:r x 1][:r y 2][:r z nil][:w x 3]]"], 0),
        ("txn", ["0 :txn [[:w x 1][:w y 2]]", "1 :txn [[:r x 1][:r y nil]]"], 1),
        ("list-append", ["0 :txn [[:append x 1]]", "1 :txn [[:r x [1]][:append x 2][:r x [1 2]]]"], 0),
        ("list-append", ["0 :txn [[:append x 1]]", "1 :txn [[:r x nil]]"], 1),
    ],
)
def test_models_that_are_there(tmp_path: Path, model: str, lines: list[str], code: int) -> None:
    records = []
    for line in lines:
        process, _, rest = line.partition(" ")
        records += [f"{process} :invoke {rest}", f"{process} :ok {rest}"]
    assert main(["check", written(tmp_path, "\n".join(records)), "--model", model]) == code


@pytest.mark.parametrize(("initial", "code"), [([], 1), (["--initial", "0"], 0), (["--initial", "[0]"], 1)])
def test_the_value_at_the_beginning(tmp_path: Path, initial: list[str], code: int) -> None:
    assert (
        main(["check", written(tmp_path, "0 :invoke :read nil\n0 :ok :read 0"), "--model", "cas", *initial])
        == code
    )


@pytest.mark.parametrize(
    ("model", "lines", "message"),
    [
        ("cas", ["0 :invoke :cas 5", "0 :ok :cas 5"], "cas takes a pair, [expected new], got 5"),
        (
            "kv",
            ["0 :invoke :append 5", "0 :ok :append 5"],
            "append takes a text, and a text to add it to, got 5",
        ),
        (
            "txn",
            ["0 :invoke :txn [1]", "0 :ok :txn [1]"],
            "--model txn expects lists of steps such as [:r 1 nil], got",
        ),
        ("txn", ["0 :invoke :txn [[:x 1 2]]", "0 :ok :txn [[:x 1 2]]"], "has steps 'r' and 'w', got 'x'"),
        (
            "list-append",
            ["0 :invoke :txn [[:w 1 2]]", "0 :ok :txn [[:w 1 2]]"],
            "expects the steps append and r, got",
        ),
    ],
)
def test_operations_that_a_model_does_not_have(
    tmp_path: Path, model: str, lines: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", written(tmp_path, "\n".join(lines)), "--model", model]) == 2
    assert message in capsys.readouterr().err


def test_initial_is_for_the_models_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", written(tmp_path, STALE), "--model", "some:Model", "--initial", "0"]) == 2
    assert "a model of yours has its own 'initial'" in capsys.readouterr().err


def test_an_interrupted_search_tells_how_far_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    class Check:
        def verdict(self, history: Any, seconds: Any, progress: Any) -> Any:
            progress(Progress(1_000, 3, 6, 2))
            raise KeyboardInterrupt

    monkeypatch.setattr(check_command, "check_of", lambda name, initial: Check())
    assert main(["check", written(tmp_path, STALE), "--model", "cas"]) == 130
    error = capsys.readouterr().err
    assert "1,000 steps; the longest order has 3 of 6 operations; other keys without an answer: 1" in error
    assert "history: unknown: interrupted after " in error
