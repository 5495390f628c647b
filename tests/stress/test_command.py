"""The commands: exit codes, one-line errors, tables, JSON, JUnit, and commands that show a failure again."""

from __future__ import annotations

import json
import random
import re
import shlex
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from latchstore import DictMemoryStore, EventManager
from latchstore.__main__ import main
from latchstore.stress.faults import FAULTS
from latchstore.stress.history import History
from latchstore.stress.strategies import seed_of
from latchstore.stress.workloads import WORKLOADS

THIS = "tests.stress.test_command"


class Forgetful(DictMemoryStore):
    """Answers every other read of a key by what it had before."""

    def __init__(self, event_manager: EventManager) -> None:
        super().__init__(event_manager)
        self._reads: dict[str, list[bytes]] = {}

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        reads = self._reads.setdefault(key, [])
        reads.append(super().to_bytes(key))
        return reads[-2] if len(reads) % 2 == 0 else reads[-1]


class Uncheckable(DictMemoryStore):
    """For the checks: histories of it are replaced by ones that no check can judge."""


class NeedsArguments(DictMemoryStore):
    def __init__(self, something: object) -> None:
        super().__init__(EventManager())


NOT_CALLABLE = 3


def no_store() -> object:
    return {}


def stress(*words: str) -> int:
    return main(["stress", *words])


SHORT = ("--schedule", "native", "--workload", "registers", "--ops", "2000", "--length", "500")


@pytest.mark.parametrize("schedule", ["mixed", "native", "random", "pct", "exhaustive"])
def test_a_right_store_is_valid(capsys: pytest.CaptureFixture[str], schedule: str) -> None:
    length, ops = ("2000", "4000") if schedule == "native" else ("2", "40")
    assert (
        stress("--workload", "compare-and-set", "--ops", ops, "--length", length, "--schedule", schedule) == 0
    )
    out = capsys.readouterr().out
    head, *_ = out.splitlines()
    assert head.split() == ["operation", "count", "per", "s", "p50", "p99", "p99.9", "max", "errors"]
    assert "\ncompare-and-set: " in out
    assert ": valid\n" in out
    assert "\nvalid: " in out
    assert f"--schedule {'native' if schedule == 'mixed' else schedule}" in out
    assert "\noverlapping operations: " in out


def test_all_workloads_have_rounds_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert stress("--schedule", "native", "--ops", "1500", "--length", "100", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    names = [name for name in WORKLOADS if name != "near"]  # for stores that processes share
    assert list(found["verdicts"]) == names
    shares = {WORKLOADS[name]().share for name in names}
    assert len(shares) == len(names) - 5, "those of YCSB have one together"
    assert found["operations"] == 400 * len(shares), "each share has a store, and a round, of its own"


@pytest.mark.parametrize("schedule", ["native", "pct"])
def test_a_wrong_store_is_invalid_and_shown_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, schedule: str
) -> None:
    words = ["--store", f"{THIS}:Forgetful", "--workload", "ycsb-a", "--schedule", schedule]
    words += ["--ops", "2000", "--history", str(tmp_path / "history")]
    assert stress(*words) == 1
    out = capsys.readouterr().out
    assert "ycsb-a: linearizable: invalid: " in out
    again = shlex.split(out.splitlines()[-1].removeprefix("again: "))
    assert again[:4] == ["python", "-m", "latchstore", "stress"]
    assert main(again[3:]) == 1
    assert "invalid: " in capsys.readouterr().out
    if schedule == "pct":
        assert "the calls, in time order" in out
        assert re.search(r"^  thread \d", out, re.MULTILINE)
    # The history is checked again from its file.
    assert main(["recheck", str(tmp_path / "history")]) == 1
    assert "ycsb-a: linearizable: invalid: " in capsys.readouterr().out


def test_what_cannot_be_judged_does_not_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("latchstore.stress.linearizability.BUDGET", 0)
    header = {"type": "header", "format": 1, "workloads": ["ycsb-a"]}
    begin = {
        "type": "invoke",
        "id": 0,
        "thread": 0,
        "name": "set",
        "key": "ycsb-a/0",
        "argument": "x",
        "time": 1,
    }
    end = {"type": "ok", "id": 0, "result": None, "time": 2}
    again = {**begin, "id": 1, "time": 3}
    lines = [header, begin, end, again, {**end, "id": 1, "time": 4}]
    (tmp_path / "twice").write_text("\n".join(map(json.dumps, lines)))
    # A value that was written twice: nobody can tell which of the two was read.
    assert main(["recheck", str(tmp_path / "twice")]) == 3
    assert "unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--store", "nothing"], "store must be named as module:Class, got 'nothing'"),
        (["--store", "no.such:Store"], "cannot import 'no.such'"),
        (["--store", "latchstore:Nix"], "has no 'Nix'"),
        (["--store", f"{THIS}:NOT_CALLABLE"], "is not callable, got int"),
        (["--store", f"{THIS}:no_store"], "must return an AbstractStore, got builtins.dict"),
        (["--store", f"{THIS}:NeedsArguments"], "no store can be made"),
        (["--workload", "nix"], "--workload must be one or more of registers, "),
        (["--faults", "nix"], "--faults must be one or more of exceptions, "),
        (
            ["--faults", "exceptions", "--schedule", "native"],
            "fault 'exceptions' does not work with --schedule native",
        ),
        (["--faults", "forks", "--schedule", "pct"], "fault 'forks' does not work with --schedule pct"),
        (
            ["--faults", "exceptions,async"],
            "no schedule supports all of these faults at once: exceptions, async",
        ),
        (["--within", "no.such"], "--within: No module named 'no'"),
        (["--seconds", "0"], "--seconds must be above 0, got 0"),
        (["--seconds", "1", "--ops", "1"], "either --seconds or --ops"),
        (["--switch-interval", "-1"], "--switch-interval must be above 0, got -1"),
    ],
)
def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert stress(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("latchstore stress: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    "words", [["--threads", "0"], ["--ops", "x"], ["--schedule", "nix"], ["--preemptions", "-1"]]
)
def test_options_are_checked(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        stress(*words)
    assert raised.value.code == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"type": "header", "format": 1}', '{"type": "header", "format": 1, "workloads": ["nix"]}'],
)
def test_a_file_that_is_no_history_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    (tmp_path / "file").write_text(content)
    assert main(["recheck", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("latchstore recheck: error: ")
    assert main(["recheck", str(tmp_path / "none")]) == 2


def test_what_a_store_cannot_do_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(WORKLOADS["snapshots"]()), "supports", lambda self, store: False)
    assert stress("--schedule", "native", "--ops", "300", "--length", "75") == 0
    captured = capsys.readouterr()
    assert captured.err == "skipped, as the store does not support them: snapshots, near\n"
    assert "snapshots:" not in captured.out
    assert stress("--workload", "snapshots") == 2
    assert "does not support these workloads: snapshots" in capsys.readouterr().err


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert stress(*SHORT, "--json", "--seed", "5") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    assert found["answer"] == "valid"
    assert found["operations"] == 2_000
    assert sum(row["count"] for row in found["figures"]) == 2_000
    assert found["header"]["seed"] == 5
    assert set(found["header"]) >= {"python", "gil", "switch_interval", "latchstore", "platform"}


def test_junit(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    assert stress(*SHORT, "--junit", str(path)) == 0
    suite = ElementTree.parse(path).getroot()
    assert suite.get("failures") == "0"
    wrong = ["--store", f"{THIS}:Forgetful", "--workload", "ycsb-a", "--schedule", "pct", "--ops", "2000"]
    assert stress(*wrong, "--junit", str(path)) == 1
    suite = ElementTree.parse(path).getroot()
    assert suite.get("failures") == "1"
    (failure,) = suite.iter("failure")
    assert "again: python -m latchstore stress" in str(failure.text)


# What another thread raises in a finalizer goes no further: Python tells of it and drops it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "fault", [*(name for name, each in FAULTS.items() if each.native), "streams,listeners,gc,close,forks"]
)
def test_ours_bears_faults_on_native_threads(capsys: pytest.CaptureFixture[str], fault: str) -> None:
    # Of a bank each transfer that was broken off may have come, which is too much to search. In short rounds:
    # without the GIL so many operations overlap that the search of a longer one may not end.
    workloads = "registers,list-append" if fault == "async" else "registers,list-append,bank"
    words = ["--schedule", "native", "--workload", workloads, "--ops", "1200", "--length", "50"]
    assert stress(*words, "--faults", fault) == 0, capsys.readouterr().out


# -- what a run says of itself ------------------------------------------------------------------------


class Clock:
    """Each look at it takes a twentieth of a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.05
        return self.now


def test_a_limit_of_time_holds_for_a_slow_store(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock of the run, of which each operation takes a twentieth of a second.
    clock = Clock()
    monkeypatch.setattr(
        "latchstore.stress.native.time",
        SimpleNamespace(monotonic=clock, monotonic_ns=time.monotonic_ns, sleep=time.sleep),
    )
    # Of other runs there may be threads that end.
    monkeypatch.setattr(
        "latchstore.stress.campaign.time", SimpleNamespace(monotonic=clock, monotonic_ns=time.monotonic_ns)
    )
    words = ["--schedule", "native", "--workload", "ycsb-a", "--seconds", "30", "--json"]
    stress(*words)
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["operations"] < 1_000
    assert found["seconds"] < 60


def test_workloads_for_which_there_was_no_time_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "latchstore.stress.campaign.time", SimpleNamespace(monotonic=Clock(), monotonic_ns=time.monotonic_ns)
    )
    words = ["--schedule", "native", "--threads", "2", "--length", "5"]
    assert stress(*words, "--seconds", "1") == 0
    out = capsys.readouterr().out
    told = re.search("^no time for: (.+); give more --seconds", out, re.MULTILINE)
    assert told
    left_out = told[1].split(", ")
    assert not [name for name in left_out if f"{name}: linearizable" in out]
    assert "registers" not in left_out
    stress(*words, "--ops", "1")
    assert "no time for" not in capsys.readouterr().out


def test_operations_that_never_met_prove_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--schedule", "native", "--workload", "registers", "--ops", "100", "--threads", "1"]
    assert stress(*words) == 3
    out = capsys.readouterr().out
    assert "no two operations overlapped, so nothing is proved" in out
    assert "\nunknown: 100 operations" in out


def test_the_modules_switched_within_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--schedule", "random", "--workload", "registers", "--ops", "30", "--json"]
    assert stress(*words, "--within", "latchstore.engine.table") == 0
    assert json.loads(capsys.readouterr().out)["switched_within"] == ["latchstore.engine.table"]
    assert stress(*words, "--store", f"{THIS}:Forgetful", "--no-shrink") in (0, 1)
    assert "latchstore.engine.table" in json.loads(capsys.readouterr().out)["switched_within"]


class Draws(DictMemoryStore):
    """Answers wrongly at random."""

    def __init__(self, event_manager: EventManager) -> None:
        super().__init__(event_manager)
        self._wrong = random.random() < 0.05

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        found = super().to_bytes(key)
        return b"?" if self._wrong else found


def test_what_a_store_draws_at_random_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--store", f"{THIS}:Draws", "--workload", "registers", "--ops", "9000", "--schedule", "random"]
    assert stress(*words, "--no-shrink") == 1
    again = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("again: "))
    for _ in range(2):
        assert main([*again[3:], "--no-shrink"]) == 1


def test_neighbouring_seeds_have_no_schedule_in_common() -> None:
    seeds = [{seed_of(first, number) for number in range(100)} for first in range(5)]
    assert len(set().union(*seeds)) == 500
    assert seed_of(7, 0) == 7


def test_a_native_failure_is_cut_to_the_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "history"
    words = ["--store", f"{THIS}:Forgetful", "--workload", "ycsb-a", "--schedule", "native"]
    assert stress(*words, "--ops", "4000", "--history", str(file)) == 1
    capsys.readouterr()
    operations = History.read(file).operations
    assert len({operation.key for operation in operations}) == 1
    assert len(operations) < 100
    assert main(["recheck", str(file)]) == 1


class Crashing(DictMemoryStore):
    """Raises what no store may raise, after a while."""

    calls = 0

    def exists(self, key: str) -> bool:
        Crashing.calls += 1
        if Crashing.calls > 20:
            raise ZeroDivisionError("too many")
        return super().exists(key)


def test_a_crash_keeps_its_history(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "history"
    words = ["--store", f"{THIS}:Crashing", "--workload", "registers", "--schedule", "native"]
    assert stress(*words, "--ops", "4000", "--history", str(file)) == 1
    assert "too many" in capsys.readouterr().out
    operations = History.read(file).operations
    # Another thread may have been in the middle of the same call.
    assert {each.name for each in operations if each.outcome == "info"} == {"exists"}
    assert sum(each.name == "exists" for each in operations) >= 20


LOCK_OF_ANOTHER_MODULE = SimpleNamespace(lock=threading.Lock())


class Borrows(DictMemoryStore):
    """Is correct, by a lock that nobody finds before the run: it is in an object of the standard library."""

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        with LOCK_OF_ANOTHER_MODULE.lock:
            return super().to_bytes(key)


def test_a_lock_that_cannot_be_controlled_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--store", f"{THIS}:Borrows", "--workload", "ycsb-c", "--schedule", "random"]
    assert stress(*words, "--ops", "2000") == 3
    out = capsys.readouterr().out
    assert "waits for a real lock, LOCK_OF_ANOTHER_MODULE.lock, at test_command.py:" in out
    assert "in the 'with' of test_command.py:" in out
    assert "\nunknown: " in out
