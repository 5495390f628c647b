"""What tests of snapshots in memory end with."""

from __future__ import annotations

from latchstore import DictMemoryStore
from latchstore.engine.inspection import check


def assert_nothing_pinned(store: DictMemoryStore) -> None:
    facts = store.info()
    assert (facts["snapshots"], facts["oldest_snapshot"]) == (0, 0.0)
    assert (facts["pinned_entries"], facts["pinned_bytes"]) == (0, 0)
    check(store)
