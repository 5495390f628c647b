"""Blocks that are broken off in the middle of what the store itself does, and what errors have in common."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    StoreError,
    StoreEvent,
    TransactionClosedError,
    TransactionConflictError,
    TransactionError,
    WrongThreadError,
)
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.publishing import Publisher
from tests.contract.block_errors import HELD
from tests.contract.blocks import BrokenBlockError, both_kinds
from tests.schedules import Actor
from tests.transaction_blocks.blocks import assert_free


@both_kinds
@pytest.mark.parametrize("kind", [BrokenBlockError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("at", ["begin", "roll_back", "deliveries_of"])
def test_an_error_in_between_leaves_the_store_free(
    optimistic: bool, kind: type[BaseException], at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails as a block begins or ends: the locks are given back, and the thread is let go."""

    def fail(*arguments: object) -> None:
        raise kind("on purpose")

    manager = EventManager()
    manager.connect(StoreEvent, lambda event: None)
    with DictMemoryStore(manager) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Publisher, at, fail)
            with pytest.raises(kind), store.transaction(optimistic=optimistic) as tx:
                store.from_bytes("a", b"")
                if at == "roll_back":
                    tx.doom()
        assert not store.exists("a")
        assert_free(store)


@both_kinds
@pytest.mark.parametrize("kind", [BrokenBlockError, KeyboardInterrupt])
def test_a_manager_that_cannot_tell_who_listens_harms_no_block(
    optimistic: bool, kind: type[BaseException]
) -> None:
    """It is the user's, and is not asked while a block begins or ends."""
    failing = True

    class Failing(EventManager):
        def has_listeners(self, cls: Any) -> bool:
            if failing:
                raise kind("on purpose")
            return super().has_listeners(cls)

    store = DictMemoryStore(Failing())
    with store.transaction(optimistic=optimistic):
        store.set("a", (b"", {}))
    with store.transaction(optimistic=optimistic) as tx:
        store.set("b", (b"", {}))
        tx.doom()
    assert list(store.query_keys()) == ["a"]
    failing = False
    assert_free(store)
    store.close()


@both_kinds
@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_a_multiset_that_is_interrupted_leaves_the_block_as_it_was(
    store: DictMemoryStore, optimistic: bool, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = OptimisticBatch.put if optimistic else WriteBatch.put

    def interrupted(batch: Any, key: str, edit: Any) -> None:
        if key == "third":
            raise kind
        put(batch, key, edit)

    with store.transaction(optimistic=optimistic):
        store.from_bytes("first", b"outer")
        with monkeypatch.context() as patch:
            patch.setattr(OptimisticBatch if optimistic else WriteBatch, "put", interrupted)
            with pytest.raises(kind):
                store.multiset_data(["first", "second", "third"], [b"new"] * 3)
        assert store.to_bytes("first") == b"outer"
        assert not store.exists("second")
    assert {key: store.to_bytes(key) for key in store.glob("*")} == {"first": b"outer"}
    assert_free(store)


def test_all_errors_are_store_errors() -> None:
    assert issubclass(LockTimeoutError, StoreError)
    assert issubclass(LockTimeoutError, TimeoutError)
    assert issubclass(TransactionError, StoreError)
    for kind in (TransactionClosedError, WrongThreadError, TransactionConflictError):
        assert issubclass(kind, TransactionError)


def test_a_write_outside_a_block_waits_for_lock_timeout() -> None:
    with DictMemoryStore(EventManager(), lock_timeout=0) as store, Actor(store, "holder") as holder:
        holder.begin("nightly import")
        writes: dict[str, Callable[[], object]] = {
            "from_bytes": lambda: store.from_bytes("a", b""),
            "multiset_data": lambda: store.multiset_data(["a"], [b""]),
            "transaction ''": store.transaction().__enter__,
        }
        for purpose, write in writes.items():
            with pytest.raises(LockTimeoutError, match=f"^{purpose}: {HELD}$"):
                write()
        assert not store.exists("a")
