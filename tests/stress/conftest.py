"""What the tests of the harness have in common."""

from __future__ import annotations

import pytest

from tests.interrupts.striker import take_back_pending


@pytest.fixture(autouse=True)
def _no_fixed_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable that tox sets, and that the commands which repeat a run would begin with."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


@pytest.fixture(autouse=True)
def _no_exception_pending() -> None:
    """Without what earlier tests have left pending, by which no schedule would get any further."""
    take_back_pending()
