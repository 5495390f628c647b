"""What tests of blocks in memory end with."""

from __future__ import annotations

from latchstore import DictMemoryStore
from tests.contract.blocks import write_at_once
from tests.memory_stores import MemoryStores
from tests.schedules import in_another_thread


def assert_free(store: DictMemoryStore) -> None:
    """Nothing is left of any block: every thread can write at once, and reads the table itself."""
    in_another_thread(lambda: write_at_once(store, "by another thread"))
    write_at_once(store, "by this thread")
    assert in_another_thread(lambda: store.exists("by this thread"))
    assert store.exists("by another thread")
    MemoryStores().check(store)
