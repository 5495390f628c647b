"""Stores in files, and another process beside the test's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from latchstore import EventManager, SqliteStore
from tests.shared_caches.cache_process import Place
from tests.sqlite.other_process import OtherProcess
from tests.sqlite.sqlite_stores import open_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store of a test is."""
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """An empty store."""
    with SqliteStore(path, EventManager(), durability="off") as store:
        yield store


@pytest.fixture
def place(path: Path) -> Place:
    """What opens the store of a test in any process."""
    return partial(open_file, path)


@pytest.fixture(scope="module")
def process() -> Iterator[OtherProcess]:
    """Another process, for the tests of a module."""
    with OtherProcess() as process:
        yield process


@pytest.fixture
def other(process: OtherProcess, path: Path) -> Iterator[OtherProcess]:
    """The other process, in which the store of the test is open."""
    process.open(path)
    yield process
    process.close()
