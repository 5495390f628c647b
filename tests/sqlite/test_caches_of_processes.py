"""Caches of several processes on one file; the tests are in tests/shared_caches."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.cache.conftest import waits
from tests.shared_caches.cache_process import processes
from tests.shared_caches.processes import (
    BoundContract,
    CirclesContract,
    ExpiryContract,
    InvalidationContract,
    LoadsContract,
)

__all__ = ["processes", "waits"]


@pytest.fixture
def overdue(path: Path) -> Callable[[str], None]:
    def end(key: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute("UPDATE loads SET until = 0 WHERE key = ?", (key,)).rowcount == 1

    return end


class TestBound(BoundContract): ...


class TestExpiry(ExpiryContract): ...


class TestLoads(LoadsContract): ...


class TestCircles(CirclesContract): ...


class TestInvalidation(InvalidationContract): ...
