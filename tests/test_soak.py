"""Twenty seconds of the soak (``tox -e soak -- --minutes 10`` is more), and that it sees what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from latchstore import DictMemoryStore
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.batch import WriteBatch
from latchstore.engine.transaction import Transaction
from tests.builds import WITHOUT_GIL
from tests.soak.run import WORKERS, Soak
from tests.soak.workers import Transfers

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork"),
    # Struck between its opening and the next bytecode, a file is closed by being dropped.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.mark.timeout(600)
def test_twenty_seconds() -> None:
    """In a process of its own, which counts its threads and its memory."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "0.3333", "--seed", "1"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    figures = dict(re.findall(r"^(.+?)  +(.+)$", done.stdout, re.MULTILINE))
    assert figures["violations"] == "0"
    assert {f"steps of {kind.__name__}" for kind in WORKERS} <= figures.keys()
    names = ["rests", "commits", "events heard", "exceptions that struck"]
    for name in names if WITHOUT_GIL else [*names, "children forked"]:
        assert int(figures[name].replace(",", "")) > 0, name


class ForgetsEvents(DictMemoryStore):
    """Does not tell of every hundredth commit."""

    def _deliveries_of(self, committing: Any) -> list[Delivery]:
        return [] if committing.revision % 100 == 0 else super()._deliveries_of(committing)


class AppliesHalves(DictMemoryStore):
    """Commits each key by itself."""

    def _commit_batch(self, batch: WriteBatch, transaction: Transaction | None) -> None:
        changes = batch.net_changes()
        for change in changes[:-1]:
            self._table.entries[change[0]] = change[2]
        threading.Event().wait(0.001)
        super()._commit_batch(batch, transaction)


class Leaks(DictMemoryStore):
    """Keeps what nobody needs."""

    kept: list[bytes]

    def _apply(self, batch: WriteBatch, revision: int) -> None:
        self.__dict__.setdefault("kept", []).append(bytes(100_000))
        super()._apply(batch, revision)


class LeavesThreads(DictMemoryStore):
    """Has a thread started with each hundredth commit.

    By a thread that nothing strikes: see `Visitors` for what may become of one that is struck while it starts
    another.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        threading.Thread(target=self._start_threads, daemon=True).start()
        super().__init__(*arguments, **options)

    def _start_threads(self) -> None:
        while self._wanted.get():
            threading.Thread(target=OVER.wait, daemon=True).start()

    def _deliveries_of(self, committing: Any) -> list[Delivery]:
        if committing.revision % 100 == 0:
            self._wanted.put(True)
        return super()._deliveries_of(committing)

    def close(self, timeout: float | None = None) -> None:
        super().close(timeout)
        self._wanted.put(False)


OVER = threading.Event()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("store", "violation"),
    [
        (ForgetsEvents, "what was told and what is there differ|went and was not there"),
        (AppliesHalves, "the accounts have|half a commit"),
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
    try:
        soak.run(100, length=0.5)
    finally:
        OVER.set()
        OVER.clear()
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
