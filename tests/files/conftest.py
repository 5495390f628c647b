"""Paths of files that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.files.paths import store_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A saved file, alone in its directory."""
    path = tmp_path / "file"
    store_of(b"old").save(path)
    return path
