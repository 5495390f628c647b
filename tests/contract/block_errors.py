"""Errors of blocks, each with the facts, and blocks that end out of turn."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from latchstore import (
    LockTimeoutError,
    StoreClosedError,
    Transaction,
    TransactionClosedError,
    TransactionError,
    WrongThreadError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.blocks import (
    BlockContract,
    both_kinds,
    write_at_once,
)
from tests.contract.stores import one_process
from tests.schedules import Actor, in_another_thread

#: An engine that other processes use names the process as well.
HELD = r"no write lock in 0 s, held for \d+\.\d{3} s by thread 'holder_0'.* \(transaction 'nightly import'\)"


USES: dict[str, Callable[[Transaction], object]] = {
    "get": lambda tx: tx.get("a"),
    "to_bytes": lambda tx: tx.to_bytes("a"),
    "exists": lambda tx: tx.exists("a"),
    "in": lambda tx: "a" in tx,
    "multiget": lambda tx: list(tx.multiget(["a"])),
    "query": lambda tx: list(tx.query()),
    "query_keys": lambda tx: list(tx.query_keys()),
    "glob": lambda tx: list(tx.glob("*")),
    "len": len,
    "info": lambda tx: tx.info(),
    "set": lambda tx: tx.set("a", (b"", {})),
    "set_data": lambda tx: tx.set_data("a", b""),
    "set_metadata": lambda tx: tx.set_metadata("a", {}),
    "update_metadata": lambda tx: tx.update_metadata("a", {}),
    "delete": lambda tx: tx.delete("a"),
    "multiset": lambda tx: tx.multiset(["a"], [(b"", {})]),
    "from_bytes": lambda tx: tx.from_bytes("a", b""),
    "on_commit": lambda tx: tx.on_commit(print),
    "on_rollback": lambda tx: tx.on_rollback(print),
    "commit": lambda tx: tx.commit(),
    "rollback": lambda tx: tx.rollback(),
    "doom": lambda tx: tx.doom(),
}


class BlockErrorContract(BlockContract):
    """What is refused, and what the errors tell."""

    @one_process
    def test_lock_timeout_names_the_holder(self, store: TransactionalStore) -> None:
        with Actor(store, "holder") as holder:
            holder.begin("nightly import")
            with pytest.raises(LockTimeoutError, match=f"^transaction 'report': {HELD}$"):
                store.transaction("report", timeout=0).__enter__()
            late = store.transaction("late", optimistic=True, timeout=0)
            with pytest.raises(LockTimeoutError, match=HELD), late:
                store.from_bytes("a", b"")
            assert not store.exists("a")
        self.assert_free(store)

    @one_process
    def test_lock_timeout_tells_for_how_long(
        self, store: TransactionalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 1_000.0
        monkeypatch.setattr(time, "time", lambda: now)
        with Actor(store, "holder") as holder:
            for held in (12.5, 90.25):
                now = 1_000.0
                holder.begin("nightly import")
                now += held
                with pytest.raises(LockTimeoutError, match=f"held for {held:.3f} s by thread 'holder_0'"):
                    write_at_once(store)
                holder.commit()
        self.assert_free(store)

    def test_a_block_that_was_not_let_in_can_be_entered_later(self, store: TransactionalStore) -> None:
        late = store.transaction("late", timeout=0)
        with Actor(store) as holder:
            holder.begin("first")
            with pytest.raises(LockTimeoutError):
                late.__enter__()
        with late:
            store.from_bytes("a", b"")
        assert store.exists("a")

    @both_kinds
    def test_a_closed_store_lets_no_block_in(self, store: TransactionalStore, optimistic: bool) -> None:
        store.close()
        with pytest.raises(StoreClosedError, match="transaction 'late': the store is closed"):
            store.transaction("late", optimistic=optimistic).__enter__()
        store.connect()
        self.assert_free(store)

    @both_kinds
    @pytest.mark.parametrize("use", USES)
    def test_use_outside_the_block(self, store: TransactionalStore, optimistic: bool, use: str) -> None:
        store.set("a", (b"before", {}))
        tx = store.transaction("notes", optimistic=optimistic)
        with pytest.raises(
            TransactionClosedError,
            match="<new transaction 'notes'> is used outside its block: it was never entered",
        ):
            USES[use](tx)
        with tx:
            pass
        with pytest.raises(TransactionClosedError, match="<ended transaction 'notes'> is used after its end"):
            USES[use](tx)
        assert store.to_bytes("a") == b"before"
        self.assert_free(store)

    @both_kinds
    @pytest.mark.parametrize("use", USES)
    def test_use_by_another_thread(self, store: TransactionalStore, optimistic: bool, use: str) -> None:
        store.set("a", (b"before", {}))
        with Actor(store, "other") as other, store.transaction("notes", optimistic=optimistic) as tx:
            message = (
                "<open transaction 'notes'> belongs to thread 'MainThread', but was used by thread 'other_0'"
            )
            with pytest.raises(WrongThreadError, match=message):
                other.do(lambda: USES[use](tx))
            assert tx.to_bytes("a") == b"before"
            tx.from_bytes("a", b"after")
        assert store.to_bytes("a") == b"after"
        self.assert_free(store)

    @both_kinds
    def test_a_block_that_was_never_entered_holds_nothing(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        tx = store.transaction("forgotten", optimistic=optimistic)
        self.assert_free(store)
        with pytest.raises(TransactionClosedError, match="never entered"):
            tx.__exit__(None, None, None)
        del tx
        self.assert_free(store)

    @both_kinds
    def test_a_block_cannot_be_entered_twice(self, store: TransactionalStore, optimistic: bool) -> None:
        tx = store.transaction("once", optimistic=optimistic)
        with tx:
            with pytest.raises(TransactionClosedError, match="<open transaction 'once'> was entered before"):
                tx.__enter__()
            store.from_bytes("a", b"")
        assert store.exists("a"), "the first time goes on as if nothing had happened"
        with pytest.raises(TransactionClosedError, match="<ended transaction 'once'> was entered before"):
            tx.__enter__()
        with pytest.raises(TransactionClosedError, match="after its end"):
            tx.__exit__(None, None, None)
        self.assert_free(store)

    @pytest.mark.parametrize("operation", ["flush", "close"])
    def test_flush_and_close_are_refused_inside_a_block(
        self, store: TransactionalStore, operation: str
    ) -> None:
        with store.transaction("notes"):
            with pytest.raises(TransactionError, match=rf"{operation}\(\) cannot be called inside .*'notes'"):
                getattr(store, operation)()
            store.from_bytes("a", b"")
        assert store.exists("a")

    @both_kinds
    def test_an_outer_block_that_ends_first_is_rolled_back_with_all_inside(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        outer, inner = store.transaction("outer", optimistic=optimistic), store.transaction("inner")
        outer.__enter__()
        store.from_bytes("a", b"")
        inner.__enter__()
        store.from_bytes("b", b"")
        with pytest.raises(TransactionClosedError, match=r"'outer'> cannot end before the nested .*'inner'>"):
            outer.__exit__(None, None, None)
        in_another_thread(lambda: write_at_once(store))
        with pytest.raises(TransactionClosedError):
            inner.__exit__(None, None, None)
        assert list(store.glob("*")) == ["after"]
        self.assert_free(store)

    @both_kinds
    def test_of_three_blocks_the_middle_one_ends_first(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        outer = store.transaction("outer", optimistic=optimistic)
        middle, inner = store.transaction("middle"), store.transaction("inner")
        for block in (outer, middle, inner):
            block.__enter__()
            store.from_bytes(block.notes, b"")
        for block in (middle, inner):
            with pytest.raises(TransactionClosedError):
                block.__exit__(None, None, None)
        assert list(store.glob("*")) == ["outer"]
        outer.__exit__(None, None, None)
        assert list(store.glob("*")) == ["outer"]
        self.assert_free(store)

    @both_kinds
    def test_the_late_end_of_an_inner_block_leaves_a_new_block_alone(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        outer, orphan = store.transaction("outer", optimistic=optimistic), store.transaction("orphan")
        outer.__enter__()
        orphan.__enter__()
        with pytest.raises(TransactionClosedError):
            outer.__exit__(None, None, None)
        with store.transaction("new", optimistic=optimistic):
            store.from_bytes("a", b"")
            with pytest.raises(TransactionClosedError):
                orphan.__exit__(None, None, None)
            store.from_bytes("b", b"")
        assert sorted(store.glob("*")) == ["a", "b"]
        self.assert_free(store)

    def test_an_inner_block_is_of_no_use_when_the_outer_one_has_ended(
        self, store: TransactionalStore
    ) -> None:
        outer, inner = store.transaction("outer"), store.transaction("inner")
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(TransactionClosedError):
            outer.__exit__(None, None, None)
        try:
            with pytest.raises(TransactionClosedError):
                inner.from_bytes("a", b"")
        finally:
            with pytest.raises(TransactionClosedError):
                inner.__exit__(None, None, None)
