"""What the tests of both kinds of blocks use."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from latchstore import (
    DictMemoryStore,
)
from latchstore.engine.inspection import check_idle
from tests.schedules import in_another_thread

both_kinds = pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


def write_at_once(store: DictMemoryStore, key: str = "after") -> None:
    """Write in this thread; LockTimeoutError if the store is stuck."""
    with store.transaction("after", timeout=0):
        store.from_bytes(key, b"after")


def assert_free(store: DictMemoryStore) -> None:
    """Nothing is left of any block: every thread can write at once, and reads the table itself."""
    in_another_thread(lambda: write_at_once(store, "by another thread"))
    write_at_once(store, "by this thread")
    assert in_another_thread(lambda: store.exists("by this thread"))
    assert store.exists("by another thread")
    facts = store.info()
    assert (facts["snapshots"], facts["pinned_entries"]) == (0, 0)
    check_idle(store)


def left_open(store: DictMemoryStore, optimistic: bool, depth: int = 1) -> Iterator[str]:
    """A generator that stops inside its block."""
    with contextlib.ExitStack() as stack:
        for number in range(depth):
            stack.enter_context(store.transaction(f"left open {number}", optimistic=optimistic))
            store.from_bytes(f"inside {number}", b"")
        yield "inside"


class Failing:
    """Does so, with a frame that refers to it."""

    def fail(self) -> None:
        raise BrokenBlockError("on purpose")
