"""Blocks that are dropped, closed or collected by others, and those of tasks."""

from __future__ import annotations

import subprocess
import sys

from latchstore import (
    DictMemoryStore,
    EventManager,
)
from latchstore.engine.inspection import table_of


def test_a_block_that_is_dropped_in_the_middle_of_another_section() -> None:
    # The collector may run anywhere, and so while the same thread holds the latch that ending a block needs.
    store = DictMemoryStore(EventManager(), lock_timeout=0.5)
    held = [store.transaction("left open")]
    held[0].__enter__()
    table_of(store).exclusively("another section", held.clear)
    assert table_of(store).detour is None
    store.from_bytes("key", b"1")
    assert store.to_bytes("key") == b"1"


_ASYNCIO_COMES_LATER = """
import sys
from latchstore import DictMemoryStore, WrongThreadError
store = DictMemoryStore()
assert "asyncio" not in sys.modules
with store.transaction("before there was a loop") as tx:
    store.from_bytes("own", b"")
    import asyncio

    async def task():
        for write in (store.from_bytes, tx.from_bytes):
            try:
                write("other", b"")
            except WrongThreadError as error:
                assert "belongs to no task" in str(error), error
            else:
                print("written by", write)

    asyncio.run(task())
    store.from_bytes("own too", b"")
print(*store.query_keys())
"""


def test_a_block_that_was_there_before_asyncio_is_no_tasks_block() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ASYNCIO_COMES_LATER], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("own own too\n", "")
