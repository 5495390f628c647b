"""An exception at any place of a call on a file where CPython raises one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from latchstore import EventManager, SqliteStore
from tests.contract.struck_calls import StruckCallContract


class TestStruckCalls(StruckCallContract):
    @pytest.fixture
    def open_store(self, path: Path) -> Callable[[], SqliteStore]:
        return partial(_open, path)


def _open(path: Path) -> SqliteStore:
    return SqliteStore(path, EventManager(), indexes=["it"], durability="off", lock_timeout=5)
