"""Transactions: all changes of a block or none, blocks in blocks, and what other threads see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    LockTimeoutError,
    StoreClosedError,
    TransactionClosedError,
    TransactionError,
    WrongThreadError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import TIMEOUT, StoreContract, contents, facts, fill, one_process, stream
from tests.contract.streams import YieldingStream
from tests.contract.writing import CHANGES


class BlockError(Exception):
    """What ends a block that is to be rolled back."""


@contextmanager
def failing_block(store: AbstractStore, notes: str = "") -> Iterator[None]:
    """Run the body of a ``with`` statement in a transaction that is rolled back at its end."""
    with pytest.raises(BlockError), store.transaction(notes):  # noqa: PT012 (the block is the body)
        yield
        raise BlockError


class TransactionContract(StoreContract):
    """Transactions of one thread."""

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        fill(store, a=b"1", b=b"2", c=b"3")

    def change_all(self, store: AbstractStore) -> None:
        """Make changes of every kind."""
        store.set("new", (stream(b"x"), {"name": "new"}))
        store.set("a", (stream(b"x"), {"name": "changed"}))
        store.update_metadata("b", {"more": [1]})
        store.delete("c")

    def test_a_block_is_committed_at_its_end(self, store: AbstractStore) -> None:
        with store.transaction("some notes"):
            self.change_all(store)
        assert contents(store) == {
            "a": (b"x", {"name": "changed"}),
            "b": (b"2", {"name": "b", "more": [1]}),
            "new": (b"x", {"name": "new"}),
        }

    @pytest.mark.parametrize("error", [BlockError, KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_an_exception_rolls_all_back_and_goes_on(
        self, store: AbstractStore, error: type[BaseException]
    ) -> None:
        before = facts(store)
        raised = error("the very one")

        def block() -> None:
            with store.transaction("some notes"):
                self.change_all(store)
                raise raised

        with pytest.raises(error) as caught:
            block()
        assert caught.value is raised
        assert facts(store) == before
        assert sorted(store.query_keys(name="a")) == ["a"]
        assert list(store.query_keys(name="changed")) == []
        assert list(store.glob("new")) == []
        assert len(store) == 3

    def test_a_block_sees_its_own_changes(self, store: AbstractStore) -> None:
        with store.transaction():
            self.change_all(store)
            assert store.to_bytes("new") == b"x"
            assert store.get("a").data.read() == b"x"
            assert store.get_data("new").read() == b"x"
            assert store.get_data_range("a", 0, 1).read() == b"x"
            assert store.get_metadata("b") == {"name": "b", "more": [1]}
            assert store.exists("new")
            assert not store.exists("c")
            assert "c" not in store
            assert len(store) == 3
            assert sorted(store.query_keys()) == ["a", "b", "new"]
            assert sorted(store.glob("*")) == ["a", "b", "new"]
            assert list(store.query_keys(name="changed")) == ["a"]
            assert list(store.query_keys(name="a")) == []
            assert list(store.query_keys(name="c")) == []
            assert dict(store.query(["more"], name="b")) == {"b": {"more": [1]}}
            assert [data.read() for data in store.multiget_data(["new", "b"])] == [b"x", b"2"]
            assert list(store.multiget_metadata(["a"])) == [{"name": "changed"}]
            for read in (store.get, store.get_metadata, store.to_bytes, store.delete):
                with pytest.raises(KeyError) as caught:
                    read("c")
                assert caught.value.args == ("c",)
            with pytest.raises(KeyError):
                store.multiget(["a", "c"])

    def test_what_a_block_hands_out_is_isolated(self, store: AbstractStore) -> None:
        with store.transaction():
            metadata = {"list": [1]}
            store.set_metadata("a", metadata)
            metadata["list"].append(2)
            store.get_metadata("a")["list"].append(3)
            store.get("a").metadata["list"].append(4)
            next(store.query(list=[1]))[1]["list"].append(5)
            assert store.get_metadata("a") == {"list": [1]}
        assert store.get_metadata("a") == {"list": [1]}

    def test_a_key_may_be_changed_again_and_again(self, store: AbstractStore) -> None:
        with store.transaction():
            store.delete("a")
            store.set_data("a", stream(b"again"))
            assert store.get_metadata("a") == {}
            store.update_metadata("a", {"n": 1})
            store.set_data("new", stream(b"x"))
            store.delete("new")
        assert contents(store)["a"] == (b"again", {"n": 1})
        assert "new" not in store

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_every_change_can_be_rolled_back(
        self, store: AbstractStore, change: Callable[[AbstractStore, str], object]
    ) -> None:
        before = facts(store)

        with failing_block(store):
            change(store, "a")
            assert facts(store) != before
        assert facts(store) == before

    def test_an_empty_block_changes_nothing(self, store: AbstractStore) -> None:
        before = facts(store)
        with store.transaction():
            pass
        with store.transaction():
            store.get("a")
        assert facts(store) == before

    def test_an_error_that_is_caught_in_the_block_does_no_harm(self, store: AbstractStore) -> None:
        with store.transaction():
            store.set_data("a", stream(b"x"))
            with pytest.raises(KeyError):
                store.delete("nowhere")
            with pytest.raises(OSError, match="disk"):
                store.set_data("b", YieldingStream([b"some", OSError("disk")]))
            with pytest.raises(TypeError):
                store.set_metadata("b", 5)  # type: ignore[arg-type]
        assert contents(store) == {
            "a": (b"x", {"name": "a"}),
            "b": (b"2", {"name": "b"}),
            "c": (b"3", {"name": "c"}),
        }

    def test_the_store_can_be_used_after_a_rollback(self, store: AbstractStore) -> None:
        for _ in range(3):
            with failing_block(store):
                self.change_all(store)
        with store.transaction():
            self.change_all(store)
        assert sorted(store.query_keys()) == ["a", "b", "new"]

    # -- blocks in blocks -------------------------------------------------------------------------

    def test_an_inner_block_joins_the_outer_one(self, store: AbstractStore) -> None:
        with store.transaction("outer"):
            store.set_data("a", stream(b"outer"))
            with store.transaction("inner"):
                assert store.to_bytes("a") == b"outer"
                store.set_data("b", stream(b"inner"))
            assert store.to_bytes("b") == b"inner"
        assert (store.to_bytes("a"), store.to_bytes("b")) == (b"outer", b"inner")

    def test_an_inner_block_that_fails_takes_back_its_own_changes(self, store: AbstractStore) -> None:
        with store.transaction("outer"):
            store.set_data("a", stream(b"outer"))
            store.set_data("new", stream(b"outer"))
            store.delete("c")
            between = facts(store)
            with failing_block(store, "inner"):
                store.set_data("a", stream(b"inner"))
                store.delete("new")
                store.set_data("c", stream(b"inner"))
                store.set_data("b", stream(b"inner"))
                store.set_data("other", stream(b"inner"))
            assert facts(store) == between
            store.set_data("d", stream(b"outer"))
        assert {key: data for key, (data, _) in contents(store).items()} == {
            "a": b"outer",
            "b": b"2",
            "new": b"outer",
            "d": b"outer",
        }

    def test_an_outer_block_that_fails_takes_back_the_inner_one(self, store: AbstractStore) -> None:
        before = facts(store)
        with failing_block(store, "outer"), store.transaction("inner"):
            self.change_all(store)
        assert facts(store) == before

    def test_three_deep(self, store: AbstractStore) -> None:
        with store.transaction():
            store.set_data("a", stream(b"first"))
            with failing_block(store):
                store.set_data("a", stream(b"second"))
                with store.transaction():
                    store.set_data("a", stream(b"third"))
                assert store.to_bytes("a") == b"third"
            assert store.to_bytes("a") == b"first"
        assert store.to_bytes("a") == b"first"

    # -- the facts --------------------------------------------------------------------------------

    def test_created_and_modified_in_a_block(
        self, store: AbstractStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = store.get("a")
        monkeypatch.setattr("time.time", lambda: before.modified - 10)
        with store.transaction():
            store.set_data("a", stream(b"x"))
            first = store.get("a").modified
            store.set_data("a", stream(b"y"))
            second = store.get("a").modified
        assert before.modified < first < second == store.get("a").modified
        assert store.get("a").created == before.created

    def test_revisions_grow_by_a_block(self, store: AbstractStore) -> None:
        before = max(value.revision or 0 for value in store.multiget("abc"[i] for i in range(3)))
        with store.transaction():
            self.change_all(store)
        after = [value.revision or 0 for value in store.multiget(["a", "b", "new"])]
        assert min(after) > before


class SharedTransactionContract(StoreContract):
    """Transactions of stores that threads share."""

    @pytest.fixture(autouse=True)
    def filled(self, store: TransactionalStore) -> None:
        fill(store, a=b"1", b=b"2", c=b"3")

    def elsewhere(self, function: Callable[[], Any]) -> Any:
        """Run a function in another thread and return what it returns."""
        with ThreadPoolExecutor(1, thread_name_prefix="elsewhere") as pool:
            return pool.submit(function).result(TIMEOUT)

    def test_no_other_thread_sees_a_change_before_the_commit(self, store: TransactionalStore) -> None:
        def look() -> tuple[object, ...]:
            return (
                facts(store),
                len(store),
                sorted(store.glob("*")),
                [data.read() for data in store.multiget_data(["a", "b", "c"])],
                dict(store.query(name="a")),
                "new" in store,
                store.get("c").data.read(),
            )

        before = look()
        with store.transaction():
            store.set("new", (stream(b"x"), {"name": "a"}))
            store.update_metadata("a", {"name": "changed"})
            store.set_data("b", stream(b"x"))
            store.delete("c")
            assert self.elsewhere(look) == before
            assert facts(store) != before[0]
        assert self.elsewhere(lambda: facts(store)) == facts(store)
        assert "c" not in store

    def test_a_commit_is_one_revision(self, store: TransactionalStore) -> None:
        revision = store.info()["revision"]
        with store.transaction() as transaction:
            store.set_data("a", stream(b"x"))
            store.delete("b")
            with store.transaction() as inner:
                store.set_data("new", stream(b"x"))
        assert store.info()["revision"] == revision + 1
        assert store.get("a").revision == store.get("new").revision == revision + 1
        assert transaction.revision == revision + 1
        assert inner.revision is None

    def test_what_changes_nothing_is_no_commit(self, store: TransactionalStore) -> None:
        revision = store.info()["revision"]
        with store.transaction():
            store.get("a")
        with store.transaction():
            store.set_data("new", stream(b"x"))
            store.delete("new")
        with failing_block(store):
            store.delete("a")
        with pytest.raises(KeyError):
            store.delete("nowhere")
        store.multiset([], [])
        assert store.info()["revision"] == revision

    @pytest.mark.parametrize(
        ("method", "items"),
        [
            ("multiset", [(b"x", {}), (b"y", {})]),
            ("multiset_data", [b"x", b"y"]),
            ("multiset_metadata", [{}, {}]),
            ("multiupdate_metadata", [{}, {}]),
        ],
    )
    def test_many_keys_are_one_transaction(self, store: TransactionalStore, method: str, items: Any) -> None:
        revision = store.info()["revision"]
        getattr(store, method)(["a", "b"], items)
        assert store.info()["revision"] == revision + 1
        assert store.get("a").revision == store.get("b").revision == revision + 1

    @one_process
    def test_writers_wait_for_a_block_and_are_told_who_holds_them_up(self, store: TransactionalStore) -> None:
        def write() -> None:
            with store.transaction("the waiting one", timeout=0):
                raise AssertionError("the block has begun")

        with (
            store.transaction("the long one"),
            pytest.raises(LockTimeoutError, match="the long one") as caught,
        ):
            self.elsewhere(write)
        assert threading.current_thread().name in str(caught.value)
        assert "the waiting one" in str(caught.value)
        self.elsewhere(lambda: store.set_data("a", stream(b"x")))
        assert store.to_bytes("a") == b"x"

    @one_process
    def test_a_writer_goes_on_when_the_block_has_ended(self, store: TransactionalStore) -> None:
        begun = threading.Event()

        def write() -> bytes:
            begun.set()
            store.update_metadata("a", {"after": store.to_bytes("a")})
            return store.to_bytes("a")

        with ThreadPoolExecutor(1) as pool:
            with store.transaction():
                store.set_data("a", stream(b"x"))
                future = pool.submit(write)
                assert begun.wait(TIMEOUT)
                assert store.get_metadata("a") == {"name": "a"}
            assert future.result(TIMEOUT) == b"x"

    def test_a_transaction_is_a_store(self, store: TransactionalStore) -> None:
        with store.transaction("some notes") as transaction:
            transaction.set("new", (stream(b"x"), {"n": 1}))
            transaction.delete("a")
            assert store.to_bytes("new") == b"x"
            assert sorted(transaction.query_keys()) == ["b", "c", "new"]
            assert transaction.info() == {"readonly": False, "notes": "some notes", "keys": 3}
            assert transaction.is_connected()
            with transaction.transaction("inner"):
                transaction.set_data("b", stream(b"x"))
                store.set_data("c", stream(b"x"))
        assert not transaction.is_connected()
        assert contents(store) == {
            "b": (b"x", {"name": "b"}),
            "c": (b"x", {"name": "c"}),
            "new": (b"x", {"n": 1}),
        }

    def test_a_transaction_belongs_to_its_thread(self, store: TransactionalStore) -> None:
        with store.transaction("mine") as transaction:
            for use in (
                lambda: transaction.get("a"),
                lambda: transaction.query_keys(),
                lambda: transaction.set_data("a", stream(b"x")),
            ):
                with pytest.raises(WrongThreadError, match="mine"):
                    self.elsewhere(use)
        assert store.to_bytes("a") == b"1"

    def test_a_transaction_cannot_be_used_after_its_end(self, store: TransactionalStore) -> None:
        with store.transaction("ended") as transaction:
            store.set_data("a", stream(b"x"))
        for use in (
            lambda: transaction.get("a"),
            lambda: transaction.set_data("a", stream(b"y")),
            lambda: transaction.__enter__(),
            lambda: list(transaction.query()),
        ):
            with pytest.raises(TransactionClosedError, match="ended"):
                use()
        assert store.to_bytes("a") == b"x"

    def test_a_transaction_cannot_be_used_before_it_begins(self, store: TransactionalStore) -> None:
        transaction = store.transaction("not yet")
        with pytest.raises(TransactionClosedError, match="not yet"):
            transaction.set_data("a", stream(b"x"))
        assert store.to_bytes("a") == b"1"
        store.set_data("a", stream(b"free"))

    @pytest.mark.parametrize("method", ["flush", "close"])
    def test_waiting_for_events_in_a_block_is_refused(self, store: TransactionalStore, method: str) -> None:
        with store.transaction("some notes"):
            store.set_data("a", stream(b"x"))
            with pytest.raises(TransactionError, match="some notes"):
                getattr(store, method)()
            store.set_data("b", stream(b"x"))
        assert (store.to_bytes("a"), store.to_bytes("b")) == (b"x", b"x")
        assert store.is_connected()

    def test_a_closed_store_begins_no_transaction(self, store: TransactionalStore) -> None:
        store.close()
        with pytest.raises(StoreClosedError, match="closed"), store.transaction("late"):
            raise AssertionError("the block has begun")
        store.connect()
        with store.transaction():
            store.set_data("a", stream(b"x"))
        assert store.to_bytes("a") == b"x"
