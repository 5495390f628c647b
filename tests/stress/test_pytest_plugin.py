"""The pytest plugin: a marker says how a store is put under stress; failures say how to see them again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

STORES = """
from contextlib import contextmanager
import pytest
from latchstore import DictMemoryStore

class NoIsolation(DictMemoryStore):
    @contextmanager
    def transaction(self, notes="", **options):
        yield
"""


#: What markers that are wrong are told.
MESSAGES = {
    "stress('bank')": "takes arguments by name only",
    "stress(workloads=['nix'])": "workloads must be one of registers, ",
    "stress(faults=['nix'])": "faults must be one of ",
    "stress(schedule='nix')": "schedule must be one of mixed, ",
}

TESTS = """
@pytest.mark.stress(workloads=["bank", "registers"], operations=90)
def test_ours(linearizable_store):
    outcome = linearizable_store(DictMemoryStore)
    assert outcome.operations >= 90
    assert set(outcome.result.verdicts) == {"bank", "registers"}
    native = linearizable_store(DictMemoryStore, schedule="native", operations=900, length=300)
    assert native.operations == 1_800

def test_loaders(linearizable_store):
    import latchstore.stress.search
    loaders = {type(module.__spec__.loader).__name__
               for name, module in __import__("sys").modules.items() if name.startswith("latchstore.")}
    assert loaders == {"SourceFileLoader"}

@pytest.mark.stress(workloads=["bank"], schedule="random")
def test_none(linearizable_store):
    linearizable_store(NoIsolation)
""" + "".join(
    f"""
@pytest.mark.{marker}
def test_bad_{number}(linearizable_store):
    linearizable_store(DictMemoryStore)
"""
    for number, marker in enumerate(MESSAGES)
)

Done = subprocess.CompletedProcess[str]


def run(directory: Path, *words: str, **variables: str) -> Done:
    return subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_pytest(directory: Path, *words: str) -> Done:
    return run(directory, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", *words)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stores")
    (directory / "test_stores.py").write_text(STORES + TESTS)
    return directory


@pytest.fixture(scope="module")
def done(directory: Path) -> Done:
    """One run of all of them: pytest and the harness take long to be imported."""
    return run_pytest(directory, "-rA", "test_stores.py")


def test_a_right_store_passes(done: Done) -> None:
    assert "PASSED test_stores.py::test_ours\n" in done.stdout


def test_assertions_of_latchstore_are_not_rewritten(done: Done) -> None:
    assert "PASSED test_stores.py::test_loaders\n" in done.stdout


def test_a_wrong_store_fails_with_the_command_that_shows_it_again(directory: Path, done: Done) -> None:
    assert done.returncode == 1
    assert "bank: sum: invalid: " in done.stdout
    assert "the calls, in time order" in done.stdout
    # That nothing is taken back shows in one thread as well.
    summary = r"FAILED test_stores\.py::test_none - Failed: (sequential defect: )?bank: sum: inva"
    assert re.search(summary, done.stdout)
    # A summary on a build server has the whole message, so it may stand there twice.
    (again,) = {line for line in done.stdout.splitlines() if line.startswith("again: ")}
    assert "--store test_stores:NoIsolation --workload bank --schedule random" in again
    assert "Traceback" not in done.stdout
    # With PYTHONHASHSEED before it where that is set.
    variables, _, words = again.removeprefix("again: ").partition("python ")
    shown = run(directory, *words.split(), **dict(each.split("=") for each in variables.split()))
    assert shown.returncode == 1, shown.stderr
    assert "bank: sum: invalid: " in shown.stdout


def test_bad_markers_are_told(done: Done) -> None:
    told = re.split(r"_+ (?:ERROR at setup of )?test_bad_\d _+", done.stdout)[1:]
    assert [message in text for message, text in zip(MESSAGES.values(), told, strict=True)] == [True] * 4


def test_the_marker_is_declared(tmp_path: Path) -> None:
    assert "@pytest.mark.stress(" in run_pytest(tmp_path, "--markers").stdout


def test_a_run_that_does_not_use_the_harness_loads_nothing_of_latchstore(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        """
import sys

def test_modules():
    assert [name for name in sys.modules if name.partition(".")[0] == "latchstore"] == []
"""
    )
    done = run_pytest(tmp_path, "test_other.py")
    assert done.returncode == 0, done.stdout
