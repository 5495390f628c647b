"""The bench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latchstore import AbstractStore
from latchstore.stress.workloads import Workload
from tests.stress.workloads.benches import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Callable[[AbstractStore, Workload], Bench]:
    return lambda store, workload: Bench(store, workload, tmp_path / "history.jsonl")
