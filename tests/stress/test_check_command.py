"""The command ``check``: formats, models, verdicts and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latchstore.__main__ import main
from latchstore.stress.edn import EdnError, read_edn
from latchstore.stress.files import read_history
from latchstore.stress.history import History, HistoryError, Operation

LOG = """
INFO  jepsen.util - 0	:invoke	:write	1
INFO  jepsen.util - 1	:invoke	:read	nil
INFO  jepsen.util - 0	:ok	:write	1
INFO  jepsen.util - 1	:ok	:read	1
INFO  jepsen.util - 1	:invoke	:cas	[1 2]
INFO  jepsen.util - :nemesis	:info	:start	nil
INFO  jepsen.util - 1	:ok	:cas	[1 2]
INFO  jepsen.util - 2	:invoke	:cas	[1 3]
INFO  jepsen.util - 2	:fail	:cas	[1 3]
INFO  jepsen.util - 3	:invoke	:write	7
INFO  jepsen.util - 3	:info	:write	:timed-out
INFO  jepsen.util - 0	:invoke	:read	nil
INFO  jepsen.util - 0	:fail	:read	:timed-out
INFO  jepsen.util - 0	:invoke	:read	nil
"""

EDN = """; two keys
{:process 0, :type :invoke, :f :put, :key "a", :value "x \\"1\\""}
{:process 1, :type :invoke, :f :append, :key "a", :value "y"}
{:process 0, :type :ok, :f :put, :key "a", :value "x \\"1\\""}
{:process 2, :type :invoke, :f :get, :key "b", :value nil}
{:process 1, :type :ok, :f :append, :key "a", :value "y"}
{:process 2, :type :ok, :f :get, :key "b", :value ""}
{:process 2, :type :invoke, :f :get, :key "a", :value nil}
{:process 2, :type :ok, :f :get, :key "a", :value "%s"}
"""


def written(folder: Path, text: str, name: str = "history") -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


# -- formats ------------------------------------------------------------------------------------------------


def test_the_operations_of_a_log(tmp_path: Path) -> None:
    operations = read_history(written(tmp_path, LOG)).operations
    told = [(each.thread, each.name, each.argument, each.result, each.outcome) for each in operations]
    assert told == [
        (0, "write", 1, None, "ok"),
        (1, "read", None, 1, "ok"),
        (1, "cas", [1, 2], True, "ok"),
        (2, "cas", [1, 3], False, "ok"),
        (3, "write", 7, None, "info"),
        (0, "read", None, "timed-out", "fail"),
        (0, "read", None, None, "info"),
    ]
    assert [(each.begin, each.end) for each in operations[:3]] == [(0, 2), (1, 3), (4, 6)]
    assert operations[4].end is None


def test_the_operations_of_edn(tmp_path: Path) -> None:
    operations = read_history(written(tmp_path, EDN % "y")).operations
    assert [(each.name, each.key, each.argument, each.result) for each in operations] == [
        ("put", "a", 'x "1"', None),
        ("append", "a", "y", None),
        ("get", "b", None, ""),
        ("get", "a", None, "y"),
    ]


@pytest.mark.parametrize("opened", ["[]", "()"])
def test_edn_in_a_vector_or_a_list_is_the_same(tmp_path: Path, opened: str) -> None:
    lines = EDN % "y"
    plain = read_history(written(tmp_path, lines)).operations
    assert read_history(written(tmp_path, f"{opened[0]}{lines}{opened[1]}", "other")).operations == plain


def test_a_cas_that_fails_in_edn_had_no_effect_and_proves_nothing(tmp_path: Path) -> None:
    record = "{:process 0, :type :%s, :f :cas, :value [nil 1]}\n"
    lines = record % "invoke" + record % "fail"
    assert read_history(written(tmp_path, lines)).operations[0].outcome == "fail"
    assert main(["check", written(tmp_path, lines), "--model", "cas"]) == 0


def test_our_own_files_are_read_as_they_are(tmp_path: Path) -> None:
    history = History([Operation(0, "get", "a", None, "x", 5, 9)], {"seed": 1})
    history.write(tmp_path / "file")
    assert read_history(tmp_path / "file") == history
    assert main(["check", str(tmp_path / "file"), "--model", "kv"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("some prose\n", "line 1: expected process, type and function, such as .*, got 'some prose'"),
        (LOG + "more\n", "line 16: expected process, type and function, such as .*, got 'more'"),
        (LOG + "9 :ok :read 1\n", "line 16: process 9 has not begun an operation"),
        (LOG + "0 :invoke :read nil\n", "line 16: process 0 has begun an operation already"),
        (
            LOG + "0 :ok :write 1\n",
            "line 16: 'write' ends an operation of process 0 that began as 'read' in line 15",
        ),
        ("{:process 0, :type :ok", "line 1: '{' is never closed"),
        ("{:process 0}\n", "line 1: expected :process, :type and :f"),
        ("{:process 0, :type :start, :f :get}\n", "line 1: expected :process, :type and :f"),
        ("[1 2]\n", "expected a map, got 1"),
        ("{:process 0 1}", "line 1: a key of a map has no value"),
        ("{[] 0}", "line 1: expected :process, :type and :f"),
        ("{0 0)", "line 1: '\\)' closes nothing"),
        ('{"type": "header", "format": 99}\n', "must be a header of format 1"),
    ],
)
def test_what_is_no_history_is_refused_with_the_line(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(HistoryError, match=message):
        read_history(file)
    assert main(["check", file, "--model", "cas"]) == 2
    assert capsys.readouterr().err.startswith(f"latchstore check: error: {file}")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    with pytest.raises(HistoryError, match="is not a text in UTF-8"):
        read_history(tmp_path / "file")


def test_values_of_edn() -> None:
    text = '{:a #{1 2}, :b (true false nil), :c -1.5, :d 10N} #inst "2020" ; end\nsymbol "new\nline"'
    values = list(read_edn(text))
    assert values == [
        {"a": {1, 2}, "b": [True, False, None], "c": -1.5, "d": 10},
        "2020",
        "symbol",
        "new\nline",
    ]
    with pytest.raises(EdnError, match=r'line 2: \'"open\' is not EDN'):
        list(read_edn('1\n"open'))


# -- verdicts -----------------------------------------------------------------------------------------------


def test_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, LOG)
    assert main(["check", file, "--model", "cas"]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: valid (7 operations, ")


def test_an_invalid_file_says_what_cannot_be_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, LOG + "4 :invoke :read nil\n4 :ok :read 1\n")
    assert main(["check", file, "--model", "cas"]) == 1
    out = capsys.readouterr().out
    assert "invalid: no order of these operations explains thread 4: read() -> 1" in out


@pytest.mark.parametrize(
    ("text", "code"),
    [('x \\"1\\"y', 0), ('x \\"1\\"', 0), ("y", 1), ('yx \\"1\\"', 1), ("", 1)],
)
def test_texts_that_a_store_may_have(tmp_path: Path, text: str, code: int) -> None:
    assert main(["check", written(tmp_path, EDN % text), "--model", "kv"]) == code


def test_json_has_one_object_for_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        written(tmp_path, LOG, "good"),
        written(tmp_path, LOG + "4 :invoke :read nil\n4 :ok :read 1\n", "bad"),
    ]
    assert main(["check", *files, "--model", "cas", "--json"]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["file"], each["answer"], each["operations"]) for each in told] == [
        (files[0], "valid", 7),
        (files[1], "invalid", 8),
    ]


def test_a_search_that_takes_too_long_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begins = [f"{process} :invoke :enqueue {process}" for process in range(20)]
    ends = [f"{process} :ok :enqueue {process}" for process in range(20)]
    # All orders have to be tried before it is certain that none has 99 at the front.
    file = written(tmp_path, "\n".join(["90 :invoke :dequeue nil", *begins, "90 :ok :dequeue 99", *ends]))
    assert main(["check", file, "--model", "queue", "--seconds", "0.000001"]) == 3
    assert "unknown: no answer after " in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_seconds_must_be_a_time(tmp_path: Path, seconds: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["check", written(tmp_path, LOG), "--model", "cas", "--seconds", seconds])


# -- models -------------------------------------------------------------------------------------------------

MODELS = """
from latchstore.stress.models import REFUSED, UNKNOWN

class Counter:
    initial = 0

    def step(self, state, operation, answer):
        if operation.name == "add":
            return state + operation.argument
        return state if answer is UNKNOWN or answer == state else REFUSED

counter = Counter()
nothing = 1

class Broken(Counter):
    def step(self, state, operation, answer):
        raise RuntimeError("no idea")
"""

ADDS = "0 :invoke :add 2\n1 :invoke :add 3\n0 :ok :add 2\n1 :ok :add 3\n0 :invoke :read nil\n0 :ok :read %d\n"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "some_models_of_mine.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("model", ["Counter", "counter"])
@pytest.mark.parametrize(("value", "code"), [(5, 0), (2, 1)])
def test_a_model_of_ones_own(models: Path, model: str, value: int, code: int) -> None:
    file = written(models, ADDS % value)
    assert main(["check", file, "--model", f"some_models_of_mine:{model}"]) == code


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "some_models_of_mine:Broken",
            "cannot be applied: RuntimeError: no idea, at some_models_of_mine.py:17 in step",
        ),
        ("some_models_of_mine:Broken", "(state 0, Invocation(name='add', key=None, argument=2), answer 2)"),
        ("some_models_of_mine:nothing", "must have an attribute 'initial' and a method 'step'"),
        ("some_models_of_mine:missing", "cannot be imported: AttributeError"),
        ("no_such_module_of_mine:Model", "cannot be imported: ModuleNotFoundError"),
        ("counter", "must be one of register, cas, kv, mutex, queue, set, txn, list-append, or module"),
        (
            "register",
            "--model register expects the operations read, write, got thread 0: add(2) -> 2 (operation 1",
        ),
        (
            "cas",
            "--model cas expects the operations read, write, cas, got thread 0: add(2) -> 2 (op",
        ),
        (
            "kv",
            "--model kv expects the operations get, put, append, got thread 0: add(2) -> 2 (op",
        ),
        ("list-append", "--model list-append expects the operations txn, got thread 0: add(2)"),
    ],
)
def test_a_model_that_does_not_fit(
    models: Path, model: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", written(models, ADDS % 5), "--model", model]) == 2
    assert message in capsys.readouterr().err
