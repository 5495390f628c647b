"""Schedules go on beside a thread of the store's that polls, whatever it waits by."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore import AbstractStore
from latchstore.stress.check import linearizable_store
from tests.stress.scheduler import polling_stores


@pytest.mark.parametrize("schedule", ["random", "pct"])
@pytest.mark.parametrize(
    "store",
    [
        polling_stores.Sleeping,
        polling_stores.Waiting,
        polling_stores.Busy,
        polling_stores.Selecting,
        polling_stores.Reading,
    ],
)
def test_a_thread_that_polls_holds_up_nobody(store: type[AbstractStore], schedule: Any) -> None:
    outcome = linearizable_store(
        store, workloads=["registers", "events"], schedule=schedule, operations=18, length=3
    )
    assert outcome.result.answer == "valid"
    assert outcome.operations >= 18
