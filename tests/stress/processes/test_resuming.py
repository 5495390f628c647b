"""The workload whose followers stop and go on, where others make the commits."""

from __future__ import annotations

from pathlib import Path

from latchstore import EventManager, SqliteStore
from latchstore.stress.workloads import WORKLOADS


def test_a_watch_that_is_open_has_the_last_commits_of_others(tmp_path: Path) -> None:
    path = tmp_path / "store"
    workload = WORKLOADS["resuming"]()
    # It does not look by itself while the test lasts.
    with SqliteStore(path, EventManager(), poll_interval=600) as store, SqliteStore(path) as other:
        workload.prepare(store)
        other.from_bytes("resuming/0", b"last")
        facts = workload.finish(store)
    assert facts["history"] == [[2, "resuming/0", "last"]]
    assert facts["followers"] == {"-1": [1, facts["history"]]}
