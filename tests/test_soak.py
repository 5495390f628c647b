"""Four seconds of the soak (``tox -e soak -- --minutes 10`` is more), and that it sees what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from latchstore import DictMemoryStore
from latchstore.engine.table import Table
from tests.builds import WITHOUT_GIL
from tests.soak.run import WORKERS, Soak
from tests.soak.workers import Transfers
from tests.tables import with_table

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork"),
    # Struck between its opening and the next bytecode, a file is closed by being dropped.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.mark.timeout(600)
def test_four_seconds() -> None:
    done = python_module("tests.soak", "--minutes", "0.0667", "--seed", "1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    figures = dict(re.findall(r"^(.+?)  +(.+)$", done.stdout, re.MULTILINE))
    assert figures["violations"] == "0"
    assert {f"steps of {kind.__name__}" for kind in WORKERS} <= figures.keys()
    names = ["rests", "commits", "events heard", "steps that were broken off"]
    for name in names if WITHOUT_GIL else [*names, "children forked"]:
        assert int(figures[name].replace(",", "")) > 0, name


def python_module(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a process of its own, which counts its threads and its memory."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("storm", "struck"),
    [
        ("signals", "signals that struck the main thread"),
        ("exceptions", "exceptions set in threads that call listeners"),
    ],
)
def test_a_few_seconds_of_a_storm(storm: str, struck: str) -> None:
    """With the same rests and invariants. Python writes to stderr if a hook of it was struck."""
    done = python_module("tests.soak", "--storm", storm, "--minutes", "0.05", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(re.findall(r"^(.+?)  +(.+)$", done.stdout, re.MULTILINE))
    assert figures["violations"] == "0"
    for name in (struck, "commits", "events heard", "rests"):
        assert int(figures[name].replace(",", "")) > 0, name


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["requests", "limit"])
def test_a_few_seconds_of_failing_memory(kind: str) -> None:
    """One process; CPython crashes at some requests, in programs without a store as well."""
    pytest.importorskip("_testcapi", reason="needs the interpreter's own tests")
    if sys.platform != "linux" or WITHOUT_GIL:
        pytest.skip("needs the limits of Linux, and a Python with the GIL")
    done = python_module("tests.soak.children", kind, "2", "1")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["violations"] for each in told if each["violations"]] == []
    if done.returncode < 0:
        assert "Fatal Python error: Segmentation fault" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert told[-1]["counts"]["times that memory failed"] > 0
        assert told[-1]["counts"]["rests"] > 0


class ForgettingTable(Table):
    """Does not tell of every hundredth commit."""

    __slots__ = ()

    def finish(self) -> None:
        assert self.journal is not None
        changes, revision, claim, deliveries, many = self.journal
        self.journal = changes, revision, claim, () if revision % 100 == 0 else deliveries, many
        super().finish()


class HalvingTable(Table):
    """Applies the entries of a commit one after the other, and lets others run meanwhile."""

    __slots__ = ()

    def finish(self) -> None:
        assert self.journal is not None
        many = self.journal[-1]
        if many is not None:
            for key, entry in list(many.after.items())[:-1]:
                self.entries[key] = entry
            threading.Event().wait(0.005)
        super().finish()


class LeakingTable(Table):
    """Keeps what nobody needs."""

    __slots__ = ()

    def finish(self) -> None:
        KEPT.append(bytes(100_000))
        super().finish()


class StartingTable(Table):
    """Has a thread started with each hundredth commit.

    By a thread that nothing strikes: see `Visitors` for what may become of one that is struck while it starts
    another.
    """

    __slots__ = ()

    def finish(self) -> None:
        super().finish()
        if self.revision % 100 == 0:
            WANTED.put(True)


KEPT: list[bytes] = []
WANTED: SimpleQueue[bool] = SimpleQueue()


class ForgetsEvents(DictMemoryStore):
    table_class: type[Table] = ForgettingTable

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        with_table(self, self.table_class)


class AppliesHalves(ForgetsEvents):
    table_class = HalvingTable


class Leaks(ForgetsEvents):
    table_class = LeakingTable


class LeavesThreads(ForgetsEvents):
    table_class = StartingTable


def start_threads() -> None:
    while WANTED.get():
        threading.Thread(target=OVER.wait, daemon=True).start()


OVER = threading.Event()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("store", "violation"),
    [
        (
            ForgetsEvents,
            "what was told and what is there differ|was not there|and not revision|was told after",
        ),
        (AppliesHalves, "the accounts have|half a commit|impossible values"),
        (Leaks, "memory has grown"),
        (LeavesThreads, "threads: "),
    ],
)
def test_it_sees_a_store_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: type[DictMemoryStore], violation: str
) -> None:
    for module in ("invariants", "run", "workers"):
        # What is wrong may be waited for in vain, several times.
        monkeypatch.setattr(f"tests.soak.{module}.TIMEOUT", 10.0)
    soak = Soak(1, tmp_path, store)
    starting = threading.Thread(target=start_threads, daemon=True)
    starting.start()
    # Or a reader that has opened a snapshot has read it before a writer gets in.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000_05)
    try:
        soak.run(100, length=0.5)
    finally:
        WANTED.put(False)
        starting.join(10.0)
        sys.setswitchinterval(interval)
        OVER.set()
        OVER.clear()
        KEPT.clear()
    assert soak.scene.violations
    assert any(re.search(violation, found) for found in soak.scene.violations), soak.scene.violations


@pytest.mark.timeout(300)
def test_it_sees_a_worker_that_fails_or_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(worker: Transfers) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Transfers, "step", fail)
    soak = Soak(1, tmp_path)
    soak.run(100, length=0.5)
    assert any("on purpose" in found for found in soak.scene.violations)
    monkeypatch.setattr(Transfers, "step", lambda worker: OVER.wait())
    monkeypatch.setattr("tests.soak.run.TIMEOUT", 0.5)
    soak = Soak(1, tmp_path)
    soak.run(100, length=0.5)
    OVER.set()
    OVER.clear()
    assert any("Transfers 0 does not end" in found for found in soak.scene.violations)
