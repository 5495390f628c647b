"""Several processes on one store: valid histories, faults, and processes that die, hang or raise."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latchstore.__main__ import main
from latchstore.stress.history import History
from tests.stress.processes.stores import ATTACHED

SHORT = ("--processes", "2", "--workload", "registers", "--ops", "400")
FILES = "tests.stress.processes.file_store:Files"
STORES = "tests.stress.processes.stores"


def stress(*words: str) -> int:
    return main(["stress", *words])


def ended(pid: int) -> bool:
    """Tell whether a process ends in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 60)[0])
    finally:
        os.close(handle)


def test_processes_share_a_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    history, report = tmp_path / "history", tmp_path / "report.html"
    words = ["--store", FILES, "--processes", "2", "--workload", "registers,list-append", "--ops", "400"]
    pytest.importorskip("jinja2")
    assert stress(*words, "--history", str(history), "--report", str(report)) == 0
    out = capsys.readouterr().out
    assert "registers: linearizable: valid" in out
    assert "list-append: strictly serializable: valid" in out
    assert "--schedule native --processes 2 --threads 2 --length 50 " in out
    assert "overlapping operations: append and read/append and read" in out
    found = History.read(history)
    assert found.header["processes"] == 2
    assert {each.thread for each in found.operations} == {0, 1, 2, 3}
    assert len(found.operations) == 200
    assert main(["recheck", str(history)]) == 0
    assert report.stat().st_size > 1_000


def test_a_broken_store_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    history = tmp_path / "history"
    words = ["--store", f"{STORES}:NoIsolationFiles", "--processes", "2", "--workload", "list-append"]
    assert stress(*words, "--ops", "400", "--history", str(history)) == 1
    assert "list-append: strictly serializable: invalid: " in capsys.readouterr().out
    assert main(["recheck", str(history)]) == 1


def test_a_process_that_dies_is_told_with_its_stack(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--store", f"{STORES}:DyingFiles", *SHORT]
    assert stress(*words) == 1
    out = capsys.readouterr().out
    assert "crash: process " in out
    assert "has ended with SIGSEGV" in out
    assert "in misbehave" in out


def test_a_process_that_hangs_is_told_with_its_stack(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--store", f"{STORES}:StuckFiles", *SHORT]
    assert stress(*words, "--timeout", "3") == 1
    out = capsys.readouterr().out
    assert "hang: after 3 s these have not ended:\nprocess " in out
    assert "in wait_for_nothing" in out


def test_an_error_in_a_process_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    history = tmp_path / "history"
    words = [
        "--store",
        f"{STORES}:RaisingFiles",
        "--processes",
        "2",
        "--workload",
        "registers",
        "--ops",
        "400",
    ]
    assert stress(*words, "--history", str(history)) == 1
    out = capsys.readouterr().out
    assert "ZeroDivisionError: nobody divides here" in out
    assert "in misbehave" in out
    # What was under way is of unknown outcome.
    assert {each.outcome for each in History.read(history).operations} <= {"ok", "fail", "info"}
    assert any(each.outcome == "info" for each in History.read(history).operations)


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    told = tmp_path / "attached"
    os.mkfifo(told)
    words = ["--store", f"{STORES}:TellingFiles", *SHORT]
    parent = subprocess.Popen(
        [sys.executable, "-m", "latchstore", "stress", *words],
        env={**os.environ, ATTACHED: str(told), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
    )
    try:
        pids: set[int] = set()
        # For both, so that the pipe has no end between two of those who write to it.
        with open(told, "r+b", buffering=0) as pipe:
            # A store for the workloads to be asked about, that of the parent, and one of each process.
            while len(pids) < 3:
                pids.add(int(pipe.readline()))
            parent.send_signal(signal.SIGKILL)
            parent.wait(60)
            assert all(map(ended, pids))
    finally:
        parent.kill()
        parent.wait(60)


def test_killed_processes_are_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    history = tmp_path / "history"
    words = ["--store", FILES, "--processes", "2", "--workload", "list-append", "--faults", "kill"]
    assert stress(*words, "--ops", "1200", "--history", str(history), "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["verdicts"]["list-append"]["strictly serializable"]["answer"] == "valid"
    operations = History.read(history).operations
    # Those in the place of others have other numbers, and what was struck is of unknown outcome.
    assert max(each.thread for each in operations) > 3
    assert any(each.outcome == "info" for each in operations)
    assert len(operations) == 1_200
    assert all(each["replaces"] for each in found["header"]["facts of processes"] if each["threads"][0] > 3)


def test_a_full_disk_is_borne(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    history = tmp_path / "history"
    words = ["--store", FILES, "--processes", "2", "--workload", "list-append", "--faults", "disk-full"]
    assert stress(*words, "--ops", "1200", "--history", str(history)) == 0, capsys.readouterr().out
    assert any(each.outcome == "info" for each in History.read(history).operations)


def test_what_says_how_to_attach_is_used_by_threads_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--store", FILES, "--workload", "registers", "--schedule", "native", "--ops", "200"]
    assert stress(*words) == 0
    assert "registers: linearizable: valid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "2"], "'latchstore:DictMemoryStore' cannot be used by several processes"),
        (
            ["--processes", "2", "--schedule", "pct", "--store", FILES],
            "requires --schedule native, got pct",
        ),
        (["--faults", "kill"], "fault 'kill' does not work with --schedule mixed"),
        (["--faults", "disk-full", "--schedule", "pct"], "'disk-full' does not work with --schedule pct"),
        (
            ["--processes", "2", "--store", FILES, "--faults", "exceptions"],
            "does not work with --processes 2",
        ),
        (["--processes", "2", "--store", FILES, "--workload", "queue"], "does not support"),
        (["--processes", "2", "--store", f"{STORES}:not_pickled"], "cannot be sent to other processes"),
        (["--timeout", "0"], "--timeout must be above 0, got 0"),
    ],
)
def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert stress(*words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.splitlines()[-1].startswith("latchstore stress: error: ")
