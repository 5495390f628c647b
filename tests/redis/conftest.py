"""Tests of what needs redis-py are skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import event_loops

run = event_loops.run

MISSING = [name for name in ("redis", "hiredis", "msgpack") if find_spec(name) is None]


class SkippedModule(pytest.Module):
    """A module that is not imported."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        pytest.skip(f"needs latchstore[redis]: {', '.join(MISSING)}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip each module as a whole."""
    if not MISSING:
        return None
    skipped: pytest.Module = SkippedModule.from_parent(parent, path=module_path)
    return skipped
