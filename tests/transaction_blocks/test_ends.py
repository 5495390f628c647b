"""Commit, rollback and doom by hand, and blocks that fail."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from latchstore import (
    BaseEvent,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    StoreEvent,
    StoreKeyEvent,
    StoreTransactionEndEvent,
    StoreTransactionStartEvent,
    TransactionClosedError,
)
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.publishing import Publisher
from tests.schedules import Actor, in_another_thread
from tests.transaction_blocks.blocks import BrokenBlockError, assert_free, both_kinds, write_at_once

# -- commit(), rollback(), doom() ---------------------------------------------------------------------


@both_kinds
def test_commit_inside_the_block(store: DictMemoryStore, optimistic: bool) -> None:
    called: list[str] = []
    with store.transaction(optimistic=optimistic) as tx:
        store.from_bytes("a", b"")
        tx.on_commit(lambda: called.append("committed"))
        tx.commit()
        assert called == ["committed"]
        assert tx.revision == 1
        assert in_another_thread(lambda: store.exists("a"))
        for use in (tx.commit, tx.rollback, tx.doom, lambda: tx.get("a"), lambda: tx.from_bytes("b", b"")):
            with pytest.raises(TransactionClosedError, match="is used after its end"):
                use()
        assert_free(store)
        store.from_bytes("c", b"")
        assert store.info()["revision"] == 4, "the thread's own writes are commits of their own again"
    assert called == ["committed"]
    assert_free(store)


@both_kinds
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_exit_of_a_block_that_was_ended_by_hand_does_nothing_once(
    store: DictMemoryStore, optimistic: bool, end: str
) -> None:
    tx = store.transaction(optimistic=optimistic)
    tx.__enter__()
    store.from_bytes("a", b"")
    getattr(tx, end)()
    store.from_bytes("b", b"")
    with Actor(store) as holder:
        # Nothing of another's block is given back, and nothing is waited for.
        holder.begin("another's")
        tx.__exit__(None, None, None)
        with pytest.raises(LockTimeoutError):
            write_at_once(store)
    with pytest.raises(TransactionClosedError, match="is used after its end"):
        tx.__exit__(None, None, None)
    assert sorted(store.glob("*")) == (["a", "b"] if end == "commit" else ["b"])
    assert_free(store)


@both_kinds
def test_an_error_after_commit_takes_nothing_back(store: DictMemoryStore, optimistic: bool) -> None:
    with pytest.raises(BrokenBlockError), store.transaction(optimistic=optimistic) as tx:
        store.from_bytes("a", b"")
        tx.commit()
        raise BrokenBlockError
    assert store.exists("a")
    assert_free(store)


@both_kinds
def test_rollback_inside_the_block(store: DictMemoryStore, optimistic: bool) -> None:
    called: list[str] = []
    with store.transaction(optimistic=optimistic) as tx:
        store.from_bytes("a", b"")
        tx.on_rollback(lambda: called.append("rolled back"))
        tx.rollback()
        assert called == ["rolled back"]
        assert not store.exists("a")
        for use in (tx.commit, tx.rollback, tx.doom, lambda: len(tx)):
            with pytest.raises(TransactionClosedError, match="is used after its end"):
                use()
        assert_free(store)
    assert called == ["rolled back"]
    assert tx.revision is None
    assert_free(store)


@both_kinds
def test_commit_and_rollback_of_inner_blocks(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic) as outer:
        with store.transaction() as inner:
            store.from_bytes("a", b"")
            inner.commit()
            store.from_bytes("b", b"")  # of the outer block
            with pytest.raises(TransactionClosedError):
                inner.commit()
        with store.transaction() as inner:
            store.from_bytes("c", b"")
            inner.rollback()
            assert not store.exists("c")
            store.from_bytes("d", b"")
        assert not in_another_thread(lambda: store.exists("a"))
        assert sorted(outer.glob("*")) == ["a", "b", "d"]
    assert sorted(store.glob("*")) == ["a", "b", "d"]
    assert_free(store)


@both_kinds
def test_an_outer_block_cannot_end_before_an_inner_one(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction("outer", optimistic=optimistic) as outer:
        with store.transaction("inner"):
            store.from_bytes("a", b"")
            for end in (outer.commit, outer.rollback):
                with pytest.raises(
                    TransactionClosedError, match=r"'outer'> cannot end before .*'inner'> inside"
                ):
                    end()
        store.from_bytes("b", b"")
    assert sorted(store.glob("*")) == ["a", "b"]


@both_kinds
def test_doom(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction("doomed", optimistic=optimistic) as tx:
        store.from_bytes("a", b"")
        tx.doom()
        assert store.exists("a"), "the block goes on as before"
        store.from_bytes("b", b"")
        with pytest.raises(TransactionClosedError, match="'doomed'> is doomed and can only be rolled back"):
            tx.commit()
    assert len(store) == 0
    assert_free(store)


@both_kinds
def test_doom_of_an_inner_block_leaves_the_outer_one(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic):
        store.from_bytes("a", b"before")
        with store.transaction() as inner:
            store.from_bytes("a", b"inner")
            store.from_bytes("b", b"inner")
            inner.doom()
        assert store.to_bytes("a") == b"before"
    assert {key: store.to_bytes(key) for key in store.glob("*")} == {"a": b"before"}


@both_kinds
def test_doom_of_an_outer_block_takes_the_inner_ones_along(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic) as outer:
        with store.transaction():
            store.from_bytes("a", b"")
            outer.doom()
        store.from_bytes("b", b"")
    assert len(store) == 0


# -- failures -------------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize(
    "kind",
    [BrokenBlockError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, MemoryError],
)
def test_any_exception_in_the_body_rolls_back(
    store: DictMemoryStore, optimistic: bool, kind: type[BaseException]
) -> None:
    store.set("a", (b"before", {"n": 1}))
    error = kind()
    with pytest.raises(kind) as caught, store.transaction(optimistic=optimistic) as tx:
        store.set("a", (b"inside", {}))
        store.from_bytes("b", b"inside")
        with store.transaction():
            store.delete("a")
            raise error
    assert caught.value is error
    assert tx.revision is None
    assert (store.to_bytes("a"), store.get_metadata("a"), len(store)) == (b"before", {"n": 1}, 1)
    assert_free(store)


@both_kinds
@pytest.mark.parametrize("kind", [BrokenBlockError, KeyboardInterrupt])
def test_an_inner_block_that_fails_takes_back_its_own_writes_only(
    optimistic: bool, kind: type[BaseException]
) -> None:
    heard: list[tuple[str, str]] = []
    manager = EventManager()
    with DictMemoryStore(manager) as store:
        store.from_bytes("old", b"old")
        manager.connect(StoreKeyEvent, lambda event: heard.append((type(event).__name__, event.key)))
        with store.transaction(optimistic=optimistic):
            store.from_bytes("a", b"outer")
            with contextlib.suppress(kind), store.transaction():
                store.from_bytes("a", b"inner")
                store.from_bytes("b", b"inner")
                store.delete("old")
                with store.transaction():
                    store.from_bytes("c", b"innermost")
                raise kind
            assert sorted(store.glob("*")) == ["a", "old"]
            store.from_bytes("d", b"outer")
        store.flush()
        assert {key: store.to_bytes(key) for key in store.glob("*")} == {
            "a": b"outer",
            "d": b"outer",
            "old": b"old",
        }
        assert heard == [("StoreSetEvent", "a"), ("StoreSetEvent", "d")]


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


@both_kinds
def test_events_of_a_block_name_it_and_tell_its_end(optimistic: bool) -> None:
    heard: list[Any] = []
    manager = EventManager()
    with DictMemoryStore(manager) as store:
        for kind in (StoreTransactionStartEvent, StoreTransactionEndEvent, StoreKeyEvent):
            manager.connect(kind, heard.append)
        with store.transaction("good", optimistic=optimistic):
            store.from_bytes("a", b"")
        with store.transaction("bad", optimistic=optimistic) as tx:
            store.from_bytes("b", b"")
            tx.doom()
        store.flush()
    told = [
        (event.transaction.notes, getattr(event, "state", None), getattr(event, "key", None))
        for event in heard
    ]
    assert told[0] == ("good", None, None)
    assert sorted(told[1:3], key=str) == sorted([("good", "done", None), ("good", None, "a")], key=str)
    assert told[3:] == [("bad", None, None), ("bad", "failed", None)]
    assert all(isinstance(event, BaseEvent) for event in heard)
