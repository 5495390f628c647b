"""Workloads in tasks: the same seed gives the same schedule, cancellations leave outcomes open."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from latchstore.__main__ import main
from latchstore.stress.history import History

pytest.importorskip("greenlet")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    main(["stress", "--json", "--tasks", "3", *words])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def operations(path: Path) -> list[tuple[Any, ...]]:
    """Return what a history has but for the times."""
    return [
        (each.thread, each.name, each.key, each.argument, each.result, each.outcome)
        for each in History.read(path).operations
    ]


def test_the_same_seed_gives_the_same_schedule(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--schedule", "random", "--workload", "transactions", "--faults", "cancel", "--ops", "1"]
    for name in ("one", "two"):
        found = run(capsys, *words, "--length", "40", "--seed", "7", "--history", str(tmp_path / name))
        assert found["answer"] == "valid"
    assert operations(tmp_path / "one") == operations(tmp_path / "two")
    run(capsys, *words, "--length", "40", "--seed", "8", "--history", str(tmp_path / "other"))
    assert operations(tmp_path / "one") != operations(tmp_path / "other")


# A loop of asyncio that is slow, on a busy machine, cancels few tasks.
@pytest.mark.parametrize(("schedule", "length"), [("random", "150"), ("native", "1500")])
def test_what_was_cancelled_has_an_open_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, schedule: str, length: str
) -> None:
    words = ["--schedule", schedule, "--workload", "transactions", "--faults", "cancel", "--threads", "1"]
    found = run(capsys, *words, "--length", length, "--ops", "1", "--history", str(tmp_path / "history"))
    assert found["answer"] == "valid"
    history = History.read(tmp_path / "history")
    open_ends = [each for each in history.operations if each.outcome == "info"]
    assert open_ends
    assert all(each.end is None for each in open_ends)
    assert len({each.thread for each in history.operations}) == 3


def test_tasks_of_several_loops(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--schedule", "native", "--workload", "bank", "--threads", "2", "--length", "10", "--ops", "1"]
    found = run(capsys, *words, "--history", str(tmp_path / "history"))
    assert found["answer"] == "valid"
    assert len({each.thread for each in History.read(tmp_path / "history").operations}) == 6
    assert "--tasks 3" in found["command"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "exhaustive"], "--tasks requires --schedule mixed"),
        (["--processes", "2", "--store", "sqlite"], "not both"),
        (["--workload", "waiting"], "tasks cannot run these workloads: waiting"),
        (["--faults", "async"], "fault 'async' does not work with --tasks 3"),
        (["--store", "tests.stress.dict_stores:LockedDict"], "tasks need a store that"),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["stress", "--tasks", "3", *words]) == 2
    assert message in capsys.readouterr().err


def test_cancellations_without_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stress", "--faults", "cancel"]) == 2
    assert "fault 'cancel' does not work with" in capsys.readouterr().err


def test_without_greenlet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "latchstore.aio.greenlets", raising=False)
    monkeypatch.delitem(sys.modules, "latchstore.stress.task_crew", raising=False)
    monkeypatch.setitem(sys.modules, "greenlet", None)
    assert main(["stress", "--tasks", "3", "--ops", "1"]) == 2
    assert "latchstore[tasks]" in capsys.readouterr().err
