"""Files that others have locked, and locks of this process that stay."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latchstore import StoreFormatError
from tests.files.paths import (
    READING,
    TIMEOUT,
    WRITING,
    descriptors,
    from_file,
    in_child,
    load,
    process,
    store_of,
)

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

needs_linux = pytest.mark.skipif(
    not hasattr(fcntl, "F_OFD_GETLK"), reason="needs locks that can be asked for"
)

EXCLUSIVE = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
file.execute("COMMIT")
"""


@needs_linux
def test_a_file_that_is_locked_is_waited_for_and_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with process(EXCLUSIVE, path) as running:
        with pytest.raises(OSError, match="is being changed by another program") as caught:
            load(path)
        assert not isinstance(caught.value, StoreFormatError)
        assert caught.value.filename == str(path)
        assert 0 < sum(pauses) < 5

        def end(seconds: float) -> None:
            monkeypatch.undo()
            if running.stdin is not None:
                running.stdin.close()
            running.wait(TIMEOUT)

        monkeypatch.setattr(time, "sleep", end)
        assert load(path) == b"old"


@needs_linux
def test_a_file_that_this_process_is_changing_is_busy_as_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match="is being changed"):
        load(path)
    file.execute("COMMIT")
    assert load(path) == b"old"
    file.close()


def test_a_file_that_changes_while_it_is_read_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.fstat
    calls = 0

    def change(descriptor: int) -> os.stat_result:
        nonlocal calls
        calls += 1
        if calls in (1, 3, 5):
            os.utime(path, ns=(calls, calls))
        return status(descriptor)

    monkeypatch.setattr(os, "fstat", change)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert load(path) == b"old"
    assert calls > 5


@contextmanager
def sqlite_lock(path: Path) -> Iterator[None]:
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN IMMEDIATE")
    yield
    file.close()


@contextmanager
def sqlite_shared_lock(path: Path) -> Iterator[None]:
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN")
    file.execute("SELECT * FROM about").fetchone()
    yield
    file.close()


@contextmanager
def record_lock(path: Path) -> Iterator[None]:
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Return whether another process finds a lock on the file."""

    def lock() -> None:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return in_child(lock) == "BlockingIOError"


@needs_linux
@pytest.mark.parametrize("lock", [sqlite_lock, sqlite_shared_lock, record_lock])
@pytest.mark.parametrize("operation", [*READING, "save", "to_file"])
def test_the_locks_of_this_process_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, lock: Any
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    before = descriptors()
    # What is written to is another file: the old one stays locked under its other name.
    other = path.with_name("other")
    os.link(path, other)
    with lock(path):
        assert is_locked(other)
        for _ in range(3):
            try:
                {**READING, **WRITING}[operation](path)
            except OSError:
                # A lock of one's own on all of the file is one on what SQLite locks.
                assert (operation, lock) == ("load", record_lock)
            assert is_locked(other)
        assert descriptors() <= before + 3
    assert not is_locked(other)
    from_file(other)
    assert descriptors() == before


@needs_linux
def test_the_locks_that_are_taken_when_a_new_file_has_its_name_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = store_of(path.read_bytes())
    replaced = os.replace
    held: list[sqlite3.Connection] = []

    def lock_at_once(source: str, target: str) -> None:
        replaced(source, target)
        file = sqlite3.connect(target, isolation_level=None)
        file.execute("BEGIN IMMEDIATE")
        held.append(file)

    monkeypatch.setattr(os, "replace", lock_at_once)
    saved.to_file("k0", path)
    assert is_locked(path)
    held[0].close()
    assert not is_locked(path)
