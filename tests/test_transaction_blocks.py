"""How a transaction's block begins and ends, in every way there is: and that the store is never stuck after.

What a block may do (notes, callbacks, commit, rollback, doom), what it may not (be used outside itself, by
another thread or task), and what is left of it when it is dropped halfway.
"""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from latchstore import (
    AbstractReadOnlyStore,
    BaseEvent,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    StoreClosedError,
    StoreError,
    StoreEvent,
    StoreKeyEvent,
    StoreTransactionEndEvent,
    StoreTransactionStartEvent,
    Transaction,
    TransactionClosedError,
    TransactionConflictError,
    TransactionError,
    WrongThreadError,
)
from latchstore.engine.batch import OptimisticBatch, WriteBatch
from latchstore.engine.inspection import check, table_of
from latchstore.engine.publishing import Publisher
from tests.schedules import TIMEOUT, Actor, in_another_thread

both_kinds = pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


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
    assert table_of(store).detour is None
    facts = store.info()
    assert (facts["snapshots"], facts["pinned_entries"]) == (0, 0)
    check(store)


# -- what a block has ---------------------------------------------------------------------------------


@both_kinds
def test_notes_and_revision(store: DictMemoryStore, optimistic: bool) -> None:
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
def test_revision_of_a_block_without_changes_is_the_stores(store: DictMemoryStore, optimistic: bool) -> None:
    store.from_bytes("a", b"")
    with store.transaction(optimistic=optimistic) as tx:
        store.from_bytes("b", b"")
        store.delete("b")
    assert tx.revision == 1
    assert store.info()["revision"] == 1


@both_kinds
def test_revision_is_none_after_a_rollback(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic) as tx:
        store.from_bytes("a", b"")
        tx.doom()
    assert tx.revision is None


def test_revision_of_an_optimistic_block_is_that_of_its_commit(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True) as tx:
        store.from_bytes("a", b"")
        in_another_thread(lambda: store.from_bytes("b", b""))
    assert tx.revision == 2
    assert (store.get("a").revision, store.get("b").revision) == (2, 1)


def test_info_and_repr(store: DictMemoryStore) -> None:
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
def test_notes_must_be_a_string(store: DictMemoryStore, notes: Any) -> None:
    with pytest.raises(TypeError, match="notes must be a str, got"):
        store.transaction(notes)
    with pytest.raises(TypeError, match="notes must be a str, got"):
        store.attempts(notes)


@both_kinds
@pytest.mark.parametrize("depth", [1, 3])
def test_own_writes_are_seen_in_every_way_and_by_nobody_else(optimistic: bool, depth: int) -> None:
    with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
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
        assert_free(store)


# -- callbacks ----------------------------------------------------------------------------------------


@both_kinds
def test_on_commit_and_on_rollback_run_in_order(store: DictMemoryStore, optimistic: bool) -> None:
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
def test_callbacks_run_outside_the_locks(store: DictMemoryStore, optimistic: bool, committing: bool) -> None:
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
    assert_free(store)


@both_kinds
def test_a_callback_that_raises_is_logged_and_the_others_run(
    store: DictMemoryStore, optimistic: bool, caplog: pytest.LogCaptureFixture
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
    assert_free(store)


class Failing:
    """Does so, with a frame that refers to it."""

    def fail(self) -> None:
        raise BrokenBlockError("on purpose")


def test_a_log_that_keeps_what_a_callback_raises_keeps_alive_nothing_else(
    store: DictMemoryStore, caplog: pytest.LogCaptureFixture
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
    store: DictMemoryStore, committing: bool, inner: bool
) -> None:
    """A traceback that somebody keeps has the frames that called it, and so the transaction."""
    callback = Failing()
    with store.transaction() as outer, store.transaction() if inner else contextlib.nullcontext(outer) as tx:
        tx.on_rollback(functools.partial(id, callback))
        tx.on_commit(functools.partial(id, callback))
        if not committing:
            tx.doom()
    reference = weakref.ref(callback)
    del callback
    assert reference() is None


@both_kinds
def test_an_interrupt_in_a_callback_comes_through_and_the_commit_stands(
    store: DictMemoryStore, optimistic: bool
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), store.transaction(optimistic=optimistic) as tx:
        store.from_bytes("a", b"")
        tx.on_commit(interrupted)
    assert tx.revision == 1
    assert store.exists("a")
    assert_free(store)


def test_on_rollback_runs_after_a_lock_timeout(store: DictMemoryStore) -> None:
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
    assert_free(store)


def test_on_rollback_runs_after_a_conflict(store: DictMemoryStore) -> None:
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


def test_a_callback_must_be_callable(store: DictMemoryStore) -> None:
    with store.transaction() as tx:
        for register in (tx.on_commit, tx.on_rollback):
            with pytest.raises(TypeError, match="function must be callable, got"):
                register("no function")  # type: ignore[arg-type]


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


# -- errors, each with the facts -----------------------------------------------------------------------


def test_all_errors_are_store_errors() -> None:
    assert issubclass(LockTimeoutError, StoreError)
    assert issubclass(LockTimeoutError, TimeoutError)
    assert issubclass(TransactionError, StoreError)
    for kind in (TransactionClosedError, WrongThreadError, TransactionConflictError):
        assert issubclass(kind, TransactionError)


HELD = r"no write lock in 0 s, held for \d+\.\d{3} s by thread 'holder_0' \(transaction 'nightly import'\)"


def test_lock_timeout_names_the_holder(store: DictMemoryStore) -> None:
    with Actor(store, "holder") as holder:
        holder.begin("nightly import")
        with pytest.raises(LockTimeoutError, match=f"^transaction 'report': {HELD}$"):
            store.transaction("report", timeout=0).__enter__()
        late = store.transaction("late", optimistic=True, timeout=0)
        with pytest.raises(LockTimeoutError, match=HELD), late:
            store.from_bytes("a", b"")
        assert not store.exists("a")
    assert_free(store)


def test_lock_timeout_tells_for_how_long(store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert_free(store)


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


def test_a_block_that_was_not_let_in_can_be_entered_later(store: DictMemoryStore) -> None:
    late = store.transaction("late", timeout=0)
    with Actor(store) as holder:
        holder.begin("first")
        with pytest.raises(LockTimeoutError):
            late.__enter__()
    with late:
        store.from_bytes("a", b"")
    assert store.exists("a")


@both_kinds
def test_a_closed_store_lets_no_block_in(store: DictMemoryStore, optimistic: bool) -> None:
    store.close()
    with pytest.raises(StoreClosedError, match="transaction 'late': the store is closed"):
        store.transaction("late", optimistic=optimistic).__enter__()
    store.connect()
    assert_free(store)


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


@both_kinds
@pytest.mark.parametrize("use", USES)
def test_use_outside_the_block(store: DictMemoryStore, optimistic: bool, use: str) -> None:
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
    assert_free(store)


@both_kinds
@pytest.mark.parametrize("use", USES)
def test_use_by_another_thread(store: DictMemoryStore, optimistic: bool, use: str) -> None:
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
    assert_free(store)


@both_kinds
def test_a_block_that_was_never_entered_holds_nothing(store: DictMemoryStore, optimistic: bool) -> None:
    tx = store.transaction("forgotten", optimistic=optimistic)
    assert_free(store)
    with pytest.raises(TransactionClosedError, match="never entered"):
        tx.__exit__(None, None, None)
    del tx
    assert_free(store)


@both_kinds
def test_a_block_cannot_be_entered_twice(store: DictMemoryStore, optimistic: bool) -> None:
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
    assert_free(store)


@pytest.mark.parametrize("operation", ["flush", "close"])
def test_flush_and_close_are_refused_inside_a_block(store: DictMemoryStore, operation: str) -> None:
    with store.transaction("notes"):
        with pytest.raises(TransactionError, match=rf"{operation}\(\) cannot be called inside .*'notes'"):
            getattr(store, operation)()
        store.from_bytes("a", b"")
    assert store.exists("a")


# -- blocks that end out of turn -------------------------------------------------------------------------


@both_kinds
def test_an_outer_block_that_ends_first_is_rolled_back_with_all_inside(
    store: DictMemoryStore, optimistic: bool
) -> None:
    outer, inner = store.transaction("outer", optimistic=optimistic), store.transaction("inner")
    outer.__enter__()
    store.from_bytes("a", b"")
    inner.__enter__()
    store.from_bytes("b", b"")
    with pytest.raises(TransactionClosedError, match=r"'outer'> cannot end before .*'inner'> inside it"):
        outer.__exit__(None, None, None)
    in_another_thread(lambda: write_at_once(store))
    with pytest.raises(TransactionClosedError):
        inner.__exit__(None, None, None)
    assert list(store.glob("*")) == ["after"]
    assert_free(store)


@both_kinds
def test_of_three_blocks_the_middle_one_ends_first(store: DictMemoryStore, optimistic: bool) -> None:
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
    assert_free(store)


@both_kinds
def test_the_late_end_of_an_inner_block_leaves_a_new_block_alone(
    store: DictMemoryStore, optimistic: bool
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
    assert_free(store)


def test_an_inner_block_is_of_no_use_when_the_outer_one_has_ended(store: DictMemoryStore) -> None:
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


# -- blocks that are left open ---------------------------------------------------------------------------


def left_open(store: DictMemoryStore, optimistic: bool, depth: int = 1) -> Iterator[str]:
    """A generator that stops inside its block."""
    with contextlib.ExitStack() as stack:
        for number in range(depth):
            stack.enter_context(store.transaction(f"left open {number}", optimistic=optimistic))
            store.from_bytes(f"inside {number}", b"")
        yield "inside"


def test_a_block_that_is_dropped_in_the_middle_of_another_section() -> None:
    # The collector may run anywhere, and so while the same thread holds the latch that ending a block needs.
    store = DictMemoryStore(EventManager(), lock_timeout=0.5)
    held = [store.transaction("left open")]
    held[0].__enter__()
    table_of(store).exclusively("another section", held.clear)
    assert table_of(store).detour is None
    store.from_bytes("key", b"1")
    assert store.to_bytes("key") == b"1"


@both_kinds
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("drop", ["close", "collect"])
def test_a_generator_that_is_dropped_in_its_thread(
    store: DictMemoryStore, optimistic: bool, depth: int, drop: str
) -> None:
    generator: Any = left_open(store, optimistic, depth)
    next(generator)
    assert len(store) == depth
    if drop == "close":
        generator.close()
    else:
        # In a cycle, so that it is the collector who finds it.
        cycle: list[Any] = [generator]
        cycle.append(cycle)
        del generator, cycle
        gc.collect()
    assert len(store) == 0
    assert_free(store)


@both_kinds
@pytest.mark.parametrize("depth", [1, 3])
def test_a_generator_that_is_closed_by_another_thread(
    store: DictMemoryStore, optimistic: bool, depth: int
) -> None:
    with Actor(store, "first") as first, Actor(store, "second") as second:
        generator: Any = left_open(store, optimistic, depth)
        first.do(lambda: next(generator))
        with pytest.raises(
            WrongThreadError, match=r"belongs to thread 'first_0', but was used by .*'second_0'"
        ):
            second.do(generator.close)
        second.do(lambda: write_at_once(store, "by the second"))
        first.do(lambda: write_at_once(store, "by the first"))
        assert sorted(store.glob("*")) == ["by the first", "by the second"]
    assert_free(store)


@both_kinds
def test_a_generator_that_is_collected_in_another_thread(
    store: DictMemoryStore, optimistic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    with Actor(store, "first") as first, Actor(store, "second") as second:
        holder: list[Any] = [left_open(store, optimistic)]
        first.do(lambda: next(holder[0]))
        second.do(holder.clear)
        assert told == [WrongThreadError], "nobody can catch it, but it is told"
        second.do(lambda: write_at_once(store, "by the second"))
        first.do(lambda: write_at_once(store, "by the first"))
        assert sorted(store.glob("*")) == ["by the first", "by the second"]
    assert_free(store)


@both_kinds
def test_a_generator_outlives_the_thread_that_began_it(store: DictMemoryStore, optimistic: bool) -> None:
    generator: Any = left_open(store, optimistic)
    in_another_thread(lambda: next(generator))
    if not optimistic:
        with pytest.raises(LockTimeoutError, match=r"\(transaction 'left open 0'\)"):
            store.transaction(timeout=0).__enter__()
    with pytest.raises(WrongThreadError):
        generator.close()
    assert len(store) == 0
    assert_free(store)


@contextlib.contextmanager
def thread_with_identity(store: DictMemoryStore, identity: int) -> Iterator[Actor]:
    """Start threads, and keep them, until one has the identifier of a thread that has ended."""
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            actor = stack.enter_context(Actor(store, "new"))
            if actor.do(threading.get_ident) == identity:
                yield actor
                return
        pytest.skip("this system does not give the identifiers of ended threads to new ones")


@both_kinds
def test_a_new_thread_is_not_taken_for_an_ended_one_that_left_a_block_open(
    store: DictMemoryStore, optimistic: bool
) -> None:
    """The system gives the identifier of an ended thread to a new one, which must not get its block."""
    generator: Any = left_open(store, optimistic)
    with Actor(store, "ended") as ended:
        identity = ended.do(threading.get_ident)
        ended.do(lambda: next(generator))
    try:
        with thread_with_identity(store, identity) as new:
            assert not new.do(lambda: store.exists("inside 0"))
            assert new.do(lambda: list(store.glob("*"))) == []
            if optimistic:
                new.do(lambda: store.from_bytes("mine", b""))
                new.do(lambda: write_at_once(store, "in a block"))
                assert new.do(lambda: sorted(store.glob("*"))) == ["in a block", "mine"]
            else:
                with pytest.raises(LockTimeoutError, match=r"\(transaction 'left open 0'\)"):
                    new.do(lambda: write_at_once(store))
    finally:
        with pytest.raises(WrongThreadError):
            generator.close()
    assert sorted(store.glob("*")) == (["in a block", "mine"] if optimistic else [])
    assert_free(store)


@both_kinds
def test_the_late_end_of_an_ended_threads_block_leaves_a_new_threads_block_alone(
    store: DictMemoryStore, optimistic: bool
) -> None:
    generator: Any = left_open(store, True)
    with Actor(store, "ended") as ended:
        identity = ended.do(threading.get_ident)
        ended.do(lambda: next(generator))
    with thread_with_identity(store, identity) as new:
        new.begin(optimistic=optimistic)
        new.do(lambda: store.from_bytes("before", b""))
        with pytest.raises(WrongThreadError):
            generator.close()
        new.do(lambda: store.from_bytes("after", b""))
        assert not store.exists("after")
        new.commit()
    assert sorted(store.glob("*")) == ["after", "before"]
    assert_free(store)


def test_lock_timeout_does_not_name_a_new_thread_for_the_ended_one(store: DictMemoryStore) -> None:
    generator: Any = left_open(store, False)
    with Actor(store, "ended") as ended:
        identity = ended.do(threading.get_ident)
        ended.do(lambda: next(generator))
    try:
        with thread_with_identity(store, identity):
            with pytest.raises(LockTimeoutError, match="left open 0") as by_another:
                store.transaction(timeout=0).__enter__()
            assert "by thread 'ended_0 (ended)'" in str(by_another.value)
    finally:
        with pytest.raises(WrongThreadError):
            generator.close()


# -- asyncio -----------------------------------------------------------------------------------------------


@both_kinds
def test_tasks_of_one_thread_do_not_share_a_block(store: DictMemoryStore, optimistic: bool) -> None:
    """Two tasks of one thread, interleaved: the second gets errors, never the first one's writes."""
    store.from_bytes("old", b"")
    refused: list[str] = []

    async def first(inside: asyncio.Event, go_on: asyncio.Event) -> None:
        with store.transaction("first", optimistic=optimistic) as tx:
            store.from_bytes("a", b"first")
            inside.set()
            await asyncio.wait_for(go_on.wait(), TIMEOUT)
            assert tx.to_bytes("a") == b"first"
            store.from_bytes("b", b"first")

    async def second(inside: asyncio.Event, go_on: asyncio.Event) -> None:
        await asyncio.wait_for(inside.wait(), TIMEOUT)
        uses: dict[str, Callable[[], object]] = {
            "transaction": lambda: store.transaction("second").__enter__(),
            "optimistic": lambda: store.transaction("second", optimistic=True).__enter__(),
            "write": lambda: store.from_bytes("c", b"second"),
            "multiset": lambda: store.multiset_data(["c"], [b"second"]),
            "read": lambda: store.exists("a"),
            "query": lambda: list(store.query()),
            "len": lambda: len(store),
        }
        for name, use in uses.items():
            with pytest.raises(WrongThreadError, match=r"belongs to <Task .*name='one'.*name='two'"):
                use()
            refused.append(name)
        assert in_another_thread(lambda: list(store.glob("*"))) == ["old"]
        go_on.set()

    async def main() -> None:
        inside, go_on = asyncio.Event(), asyncio.Event()
        tasks = [
            asyncio.create_task(first(inside, go_on), name="one"),
            asyncio.create_task(second(inside, go_on), name="two"),
        ]
        await asyncio.gather(*tasks)
        with store.transaction("third", timeout=0):
            store.from_bytes("d", b"main")

    asyncio.run(main())
    assert len(refused) == 7
    assert sorted(store.glob("*")) == ["a", "b", "d", "old"]
    assert_free(store)


@both_kinds
def test_a_task_that_is_cancelled_in_its_block(store: DictMemoryStore, optimistic: bool) -> None:
    async def body(inside: asyncio.Event) -> None:
        with store.transaction(optimistic=optimistic):
            store.from_bytes("a", b"")
            inside.set()
            await asyncio.Event().wait()

    async def main() -> None:
        inside = asyncio.Event()
        task = asyncio.create_task(body(inside))
        await asyncio.wait_for(inside.wait(), TIMEOUT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        write_at_once(store)

    asyncio.run(main())
    assert list(store.glob("*")) == ["after"]
    assert_free(store)


@both_kinds
def test_an_asynchronous_generator_that_is_closed_by_another_task(
    store: DictMemoryStore, optimistic: bool
) -> None:
    async def generate() -> AsyncIterator[str]:
        with store.transaction("left open", optimistic=optimistic):
            store.from_bytes("a", b"")
            yield "inside"

    async def main() -> None:
        generator: Any = generate()
        await asyncio.create_task(generator.__anext__())
        with pytest.raises(WrongThreadError, match="'left open'> belongs to <Task finished"):
            await generator.aclose()
        write_at_once(store)

    asyncio.run(main())
    assert list(store.glob("*")) == ["after"]
    assert_free(store)


@both_kinds
def test_a_coroutine_that_is_dropped_in_its_block(store: DictMemoryStore, optimistic: bool) -> None:
    """Its loop is gone, and its block ends in no task at all."""

    class Never:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def body() -> None:
        with store.transaction(optimistic=optimistic):
            store.from_bytes("a", b"")
            await Never()

    async def main() -> Any:
        coroutine = body()
        coroutine.send(None)
        return coroutine

    coroutine = asyncio.run(main())
    with pytest.raises(WrongThreadError, match="but was used by no asyncio task"):
        coroutine.close()
    assert len(store) == 0
    assert_free(store)


def test_blocks_of_two_stores_are_apart(store: DictMemoryStore) -> None:
    with DictMemoryStore(EventManager()) as other:
        with pytest.raises(BrokenBlockError), store.transaction():
            store.from_bytes("a", b"")
            with other.transaction():
                other.from_bytes("a", b"")
            raise BrokenBlockError
        assert (store.exists("a"), other.exists("a")) == (False, True)


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
                assert "belongs to no asyncio task" in str(error), error
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
