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
    LockTimeoutError,
    StoreKeyEvent,
    StoreTransactionEndEvent,
    StoreTransactionStartEvent,
    TransactionClosedError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.blocks import (
    BlockContract,
    BrokenBlockError,
    both_kinds,
    write_at_once,
)
from tests.contract.stores import one_process
from tests.schedules import Actor, in_another_thread


class BlockEndContract(BlockContract):
    """How a block ends."""

    @both_kinds
    def test_commit_inside_the_block(self, store: TransactionalStore, optimistic: bool) -> None:
        called: list[str] = []
        with store.transaction(optimistic=optimistic) as tx:
            store.from_bytes("a", b"")
            tx.on_commit(lambda: called.append("committed"))
            tx.commit()
            assert called == ["committed"]
            assert tx.revision == 1
            assert in_another_thread(lambda: store.exists("a"))
            for use in (
                tx.commit,
                tx.rollback,
                tx.doom,
                lambda: tx.get("a"),
                lambda: tx.from_bytes("b", b""),
            ):
                with pytest.raises(TransactionClosedError, match="is used after its end"):
                    use()
            self.assert_free(store)
            store.from_bytes("c", b"")
            assert store.info()["revision"] == 4, "the thread's own writes are commits of their own again"
        assert called == ["committed"]
        self.assert_free(store)

    @both_kinds
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_the_exit_of_a_block_that_was_ended_by_hand_does_nothing_once(
        self, store: TransactionalStore, optimistic: bool, end: str
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
        self.assert_free(store)

    @both_kinds
    def test_an_error_after_commit_takes_nothing_back(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        with pytest.raises(BrokenBlockError), store.transaction(optimistic=optimistic) as tx:
            store.from_bytes("a", b"")
            tx.commit()
            raise BrokenBlockError
        assert store.exists("a")
        self.assert_free(store)

    @both_kinds
    def test_rollback_inside_the_block(self, store: TransactionalStore, optimistic: bool) -> None:
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
            self.assert_free(store)
        assert called == ["rolled back"]
        assert tx.revision is None
        self.assert_free(store)

    @both_kinds
    def test_commit_and_rollback_of_inner_blocks(self, store: TransactionalStore, optimistic: bool) -> None:
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
        self.assert_free(store)

    @both_kinds
    def test_an_outer_block_cannot_end_before_an_inner_one(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        with store.transaction("outer", optimistic=optimistic) as outer:
            with store.transaction("inner"):
                store.from_bytes("a", b"")
                for end in (outer.commit, outer.rollback):
                    with pytest.raises(
                        TransactionClosedError, match=r"'outer'> cannot end before the nested .*'inner'>"
                    ):
                        end()
            store.from_bytes("b", b"")
        assert sorted(store.glob("*")) == ["a", "b"]

    @both_kinds
    def test_doom(self, store: TransactionalStore, optimistic: bool) -> None:
        with store.transaction("doomed", optimistic=optimistic) as tx:
            store.from_bytes("a", b"")
            tx.doom()
            assert store.exists("a"), "the block goes on as before"
            store.from_bytes("b", b"")
            with pytest.raises(
                TransactionClosedError, match="'doomed'> is doomed and can only be rolled back"
            ):
                tx.commit()
        assert len(store) == 0
        self.assert_free(store)

    @both_kinds
    def test_doom_of_an_inner_block_leaves_the_outer_one(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        with store.transaction(optimistic=optimistic):
            store.from_bytes("a", b"before")
            with store.transaction() as inner:
                store.from_bytes("a", b"inner")
                store.from_bytes("b", b"inner")
                inner.doom()
            assert store.to_bytes("a") == b"before"
        assert {key: store.to_bytes(key) for key in store.glob("*")} == {"a": b"before"}

    @both_kinds
    def test_doom_of_an_outer_block_takes_the_inner_ones_along(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        with store.transaction(optimistic=optimistic) as outer:
            with store.transaction():
                store.from_bytes("a", b"")
                outer.doom()
            store.from_bytes("b", b"")
        assert len(store) == 0

    @both_kinds
    @pytest.mark.parametrize(
        "kind",
        [BrokenBlockError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, MemoryError],
    )
    def test_any_exception_in_the_body_rolls_back(
        self, store: TransactionalStore, optimistic: bool, kind: type[BaseException]
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
        self.assert_free(store)

    @both_kinds
    @pytest.mark.parametrize("kind", [BrokenBlockError, KeyboardInterrupt])
    def test_an_inner_block_that_fails_takes_back_its_own_writes_only(
        self, store: TransactionalStore, optimistic: bool, kind: type[BaseException]
    ) -> None:
        heard: list[tuple[str, str]] = []
        manager = store.event_manager
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

    @one_process
    @both_kinds
    def test_events_of_a_block_name_it_and_tell_its_end(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        heard: list[Any] = []
        manager = store.event_manager
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
