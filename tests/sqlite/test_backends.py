"""Backends of the frameworks on a store in a file; the tests are in tests/shared_caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared_caches.backends import DjangoContract, LibrariesContract
from tests.shared_caches.cache_process import processes

__all__ = ["processes"]


@pytest.fixture
def location(path: Path) -> str:
    return str(path)


class TestLibraries(LibrariesContract): ...


class TestDjango(DjangoContract): ...
