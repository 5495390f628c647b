"""What the tests of the harness have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_fixed_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable that tox sets, and that the commands which repeat a run would begin with."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
