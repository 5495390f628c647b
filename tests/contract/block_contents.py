"""What a block has and sees while it is open, and the callbacks that it calls at its end."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import (
    AbstractReadOnlyStore,
    LockTimeoutError,
    TransactionConflictError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.blocks import (
    BlockContract,
    BrokenBlockError,
    Failing,
    both_kinds,
    write_at_once,
)
from tests.schedules import Actor, in_another_thread


class BlockContentContract(BlockContract):
    """What is in a block."""

    @both_kinds
    def test_notes_and_revision(self, store: TransactionalStore, optimistic: bool) -> None:
        store.from_bytes("a", b"")
        with store.transaction("what it is about", optimistic=optimistic) as tx:
            assert tx.notes == "what it is about"
            assert tx.optimistic is optimistic
            assert tx.revision is None
            with tx.transaction("inner") as inner:
                assert inner.notes == "inner"
                assert inner.optimistic is optimistic
                store.from_bytes("b", b"")
            assert inner.revision is None, "it is committed with the outermost block"
            assert tx.revision is None
        assert tx.revision == 2
        assert store.get("b").revision == 2
        assert store.info()["revision"] == 2

    @both_kinds
    def test_revision_of_a_block_without_changes_is_the_stores(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        store.from_bytes("a", b"")
        with store.transaction(optimistic=optimistic) as tx:
            store.from_bytes("b", b"")
            store.delete("b")
        assert tx.revision == 1
        assert store.info()["revision"] == 1

    @both_kinds
    def test_revision_is_none_after_a_rollback(self, store: TransactionalStore, optimistic: bool) -> None:
        with store.transaction(optimistic=optimistic) as tx:
            store.from_bytes("a", b"")
            tx.doom()
        assert tx.revision is None

    def test_revision_of_an_optimistic_block_is_that_of_its_commit(self, store: TransactionalStore) -> None:
        with store.transaction(optimistic=True) as tx:
            store.from_bytes("a", b"")
            in_another_thread(lambda: store.from_bytes("b", b""))
        assert tx.revision == 2
        assert (store.get("a").revision, store.get("b").revision) == (2, 1)

    def test_info_and_repr(self, store: TransactionalStore) -> None:
        tx = store.transaction("notes")
        assert repr(tx) == "<new transaction 'notes'>"
        assert not tx.is_connected()
        with tx:
            store.from_bytes("a", b"")
            assert repr(tx) == "<open transaction 'notes'>"
            assert tx.info() == {"readonly": False, "notes": "notes", "keys": 1}
            assert tx.is_connected()
        assert repr(tx) == "<ended transaction 'notes'>"
        assert not tx.is_connected()

    @pytest.mark.parametrize("notes", [None, b"notes", 3])
    def test_notes_must_be_a_string(self, store: TransactionalStore, notes: Any) -> None:
        with pytest.raises(TypeError, match="notes must be a str, got"):
            store.transaction(notes)
        with pytest.raises(TypeError, match="notes must be a str, got"):
            store.attempts(notes)

    @both_kinds
    @pytest.mark.parametrize("depth", [1, 3])
    def test_own_writes_are_seen_in_every_way_and_by_nobody_else(
        self, store: TransactionalStore, optimistic: bool, depth: int
    ) -> None:
        for number in (1, 2, 3):
            store.set(f"old/{number}", (b"old", {"kind": "old", "n": number}))

        def facts(view: AbstractReadOnlyStore) -> dict[str, object]:
            keys = sorted(view.query_keys())
            return {
                "query_keys": keys,
                "query_keys, indexed": sorted(view.query_keys(kind="old")),
                "query_keys, scanned": sorted(view.query_keys(n=2)),
                "query": dict(view.query()),
                "query, indexed": dict(view.query(["n"], kind="new")),
                "glob": sorted(view.glob("old/*")),
                "len": len(view),
                "exists": [view.exists(key) for key in ("old/1", "old/2", "old/3", "new")],
                "in": [key in view for key in ("old/1", "old/2", "old/3", "new")],
                "get": [view.get(key).data.read() for key in keys],
                "get_data": [view.get_data(key).read() for key in keys],
                "get_metadata": [view.get_metadata(key) for key in keys],
                "to_bytes": [view.to_bytes(key) for key in keys],
                "multiget": [value.data.read() for value in view.multiget(keys)],
                "multiget_data": [data.read() for data in view.multiget_data(keys)],
                "multiget_metadata": list(view.multiget_metadata(keys)),
            }

        before = facts(store)
        with contextlib.ExitStack() as stack:
            blocks = [stack.enter_context(store.transaction(optimistic=optimistic)) for _ in range(depth)]
            store.delete("old/1")
            store.set("old/2", (b"changed", {"kind": "new", "n": 20}))
            store.set_data("old/3", b"changed")
            store.set("new", (b"new", {"kind": "new", "n": 2}))
            inside = facts(store)
            assert inside == facts(blocks[-1])
            assert inside == {
                "query_keys": ["new", "old/2", "old/3"],
                "query_keys, indexed": ["old/3"],
                "query_keys, scanned": ["new"],
                "query": {
                    "new": {"kind": "new", "n": 2},
                    "old/2": {"kind": "new", "n": 20},
                    "old/3": {"kind": "old", "n": 3},
                },
                "query, indexed": {"new": {"n": 2}, "old/2": {"n": 20}},
                "glob": ["old/2", "old/3"],
                "len": 3,
                "exists": [False, True, True, True],
                "in": [False, True, True, True],
                "get": [b"new", b"changed", b"changed"],
                "get_data": [b"new", b"changed", b"changed"],
                "get_metadata": [
                    {"kind": "new", "n": 2},
                    {"kind": "new", "n": 20},
                    {"kind": "old", "n": 3},
                ],
                "to_bytes": [b"new", b"changed", b"changed"],
                "multiget": [b"new", b"changed", b"changed"],
                "multiget_data": [b"new", b"changed", b"changed"],
                "multiget_metadata": [
                    {"kind": "new", "n": 2},
                    {"kind": "new", "n": 20},
                    {"kind": "old", "n": 3},
                ],
            }
            assert in_another_thread(lambda: facts(store)) == before
        assert facts(store) == inside
        assert in_another_thread(lambda: facts(store)) == inside
        self.assert_free(store)

    @both_kinds
    def test_on_commit_and_on_rollback_run_in_order(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        called: list[str] = []

        def note(name: str) -> Callable[[], object]:
            return lambda: called.append(name)

        with store.transaction(optimistic=optimistic) as tx:
            tx.on_commit(note("first"))
            tx.on_rollback(note("never"))
            with store.transaction() as inner:
                inner.on_commit(note("second"))
                inner.on_rollback(note("never"))
            with store.transaction() as inner:
                inner.on_commit(note("never"))
                inner.on_rollback(note("inner rolled back"))
                inner.doom()
            assert called == ["inner rolled back"]
            tx.on_commit(note("third"))
        assert called == ["inner rolled back", "first", "second", "third"]

        called.clear()
        with contextlib.suppress(BrokenBlockError), store.transaction(optimistic=optimistic) as tx:
            tx.on_commit(note("never"))
            tx.on_rollback(note("first"))
            with store.transaction() as inner:
                inner.on_commit(note("never"))
                inner.on_rollback(note("second"))
            raise BrokenBlockError
        assert called == ["first", "second"]

    @both_kinds
    @pytest.mark.parametrize("committing", [True, False], ids=["on_commit", "on_rollback"])
    def test_callbacks_run_outside_the_locks(
        self, store: TransactionalStore, optimistic: bool, committing: bool
    ) -> None:
        seen: list[object] = []

        def look() -> None:
            seen.append(threading.current_thread())
            seen.append(store.exists("a"))
            in_another_thread(lambda: write_at_once(store, "by another thread"))
            write_at_once(store, "by the callback")
            seen.append(in_another_thread(lambda: store.exists("a")))

        with store.transaction(optimistic=optimistic) as tx:
            store.from_bytes("a", b"")
            (tx.on_commit if committing else tx.on_rollback)(look)
            if not committing:
                tx.doom()
        assert seen == [threading.current_thread(), committing, committing]
        assert store.exists("by another thread")
        assert store.exists("by the callback")
        self.assert_free(store)

    @both_kinds
    def test_a_callback_that_raises_is_logged_and_the_others_run(
        self, store: TransactionalStore, optimistic: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        called: list[str] = []

        def fail() -> None:
            raise BrokenBlockError("on purpose")

        with caplog.at_level(logging.ERROR, "latchstore"):
            for doomed in (False, True):
                with store.transaction(optimistic=optimistic) as tx:
                    store.from_bytes("a", b"")
                    for register in (tx.on_commit, tx.on_rollback):
                        register(fail)
                        register(lambda doomed=doomed: called.append(f"doomed: {doomed}"))  # type: ignore[misc]
                    if doomed:
                        tx.doom()
        assert called == ["doomed: False", "doomed: True"]
        assert [
            record.message.endswith("registered with a transaction, failed") for record in caplog.records
        ] == [
            True,
            True,
        ]
        assert "BrokenBlockError: on purpose" in caplog.text
        assert store.exists("a")
        self.assert_free(store)

    def test_a_log_that_keeps_what_a_callback_raises_keeps_alive_nothing_else(
        self, store: TransactionalStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR, "latchstore"):
            failing = Failing()
            with store.transaction() as tx:
                tx.on_rollback(lambda: None)
                tx.on_rollback(failing.fail)
                tx.doom()
            reference = weakref.ref(failing)
            del failing, tx
        assert [record.exc_info is not None for record in caplog.records] == [True]
        assert reference() is None

    @pytest.mark.parametrize("inner", [True, False])
    @pytest.mark.parametrize("committing", [True, False])
    def test_a_transaction_that_has_ended_keeps_no_callbacks(
        self, store: TransactionalStore, committing: bool, inner: bool
    ) -> None:
        """A traceback that somebody keeps has the frames that called it, and so the transaction."""
        callback = Failing()
        with (
            store.transaction() as outer,
            store.transaction() if inner else contextlib.nullcontext(outer) as tx,
        ):
            tx.on_rollback(functools.partial(id, callback))
            tx.on_commit(functools.partial(id, callback))
            if not committing:
                tx.doom()
        reference = weakref.ref(callback)
        del callback
        assert reference() is None

    @both_kinds
    def test_an_interrupt_in_a_callback_comes_through_and_the_commit_stands(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        def interrupted() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), store.transaction(optimistic=optimistic) as tx:
            store.from_bytes("a", b"")
            tx.on_commit(interrupted)
        assert tx.revision == 1
        assert store.exists("a")
        self.assert_free(store)

    def test_on_rollback_runs_after_a_lock_timeout(self, store: TransactionalStore) -> None:
        called: list[str] = []
        late = store.transaction("late", optimistic=True, timeout=0)
        with Actor(store, "holder") as holder:
            holder.begin("nightly import")
            with pytest.raises(LockTimeoutError), late:
                late.on_commit(lambda: called.append("committed"))
                late.on_rollback(lambda: called.append("rolled back"))
                store.from_bytes("a", b"")
        assert called == ["rolled back"]
        assert late.revision is None
        self.assert_free(store)

    def test_on_rollback_runs_after_a_conflict(self, store: TransactionalStore) -> None:
        called: list[str] = []
        store.from_bytes("a", b"")
        with pytest.raises(TransactionConflictError), store.transaction(optimistic=True) as tx:
            tx.on_commit(lambda: called.append("committed"))
            tx.on_rollback(lambda: called.append("rolled back"))
            store.to_bytes("a")
            in_another_thread(lambda: store.from_bytes("a", b"1"))
            store.from_bytes("b", b"")
        assert called == ["rolled back"]
        assert not store.exists("b")

    def test_a_callback_must_be_callable(self, store: TransactionalStore) -> None:
        with store.transaction() as tx:
            for register in (tx.on_commit, tx.on_rollback):
                with pytest.raises(TypeError, match="function must be callable, got"):
                    register("no function")  # type: ignore[arg-type]
