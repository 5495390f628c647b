"""What the contracts of blocks share: of exclusive and optimistic ones, and of blocks in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import StoreContract
from tests.schedules import in_another_thread

both_kinds = pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


def write_at_once(store: TransactionalStore, key: str = "after") -> None:
    """Write in this thread; LockTimeoutError if the store is stuck."""
    with store.transaction("after", timeout=0):
        store.from_bytes(key, b"after")


def left_open(store: TransactionalStore, optimistic: bool, depth: int = 1) -> Iterator[str]:
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


class BlockContract(StoreContract):
    """Blocks, after which the store is free."""

    def assert_free(self, store: TransactionalStore) -> None:
        """Nothing is left of any block: every thread can write at once, and reads what is committed."""
        in_another_thread(lambda: write_at_once(store, "by another thread"))
        write_at_once(store, "by this thread")
        assert in_another_thread(lambda: store.exists("by this thread"))
        assert store.exists("by another thread")
        self.check(store)
