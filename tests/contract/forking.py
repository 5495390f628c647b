"""Forked children: each has a store that is whole, with free locks, and nothing under way."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from latchstore import (
    LockTimeoutError,
    StoreModificationEvent,
    StoreSetEvent,
    TransactionClosedError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.listeners import listen
from tests.contract.stores import TIMEOUT, StoreContract
from tests.fork.children import in_child, needs_fork
from tests.schedules import Actor


@needs_fork
class ForkContract(StoreContract):
    """What a child may do, and that the parent goes on.

    Attributes
    ----------
    shares : bool
        Whether what one of them commits is the other's as well. If not, a child has a copy.
    """

    shares = False

    def test_a_child_reads_and_writes(self, store: TransactionalStore) -> None:
        store.set("k", (b"parent", {"n": 1}))

        def be_child() -> None:
            assert (store.to_bytes("k"), store.get_metadata("k")) == (b"parent", {"n": 1})
            assert list(store.query_keys(n=1)) == ["k"]
            store.from_bytes("child", b"1")
            with store.transaction("in a child") as tx:
                store.update_metadata("k", {"n": 2})
                store.delete("child")
            assert tx.revision == 3
            for attempt in store.attempts():
                with attempt:
                    store.from_bytes("k", store.to_bytes("k") + b" and child")
            with store.snapshot() as view:
                assert view.revision == 4
                assert view.to_bytes("k") == b"parent and child"
            store.flush(TIMEOUT)
            store.close(TIMEOUT)

        assert in_child(be_child) == ""
        assert store.info()["revision"] == (4 if self.shares else 1)
        assert store.to_bytes("k") == (b"parent and child" if self.shares else b"parent")
        store.from_bytes("k", b"parent again")
        assert store.to_bytes("k") == b"parent again"

    @pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
    def test_a_block_goes_on_in_the_parent_alone(self, store: TransactionalStore, optimistic: bool) -> None:
        with store.transaction("outer", optimistic=optimistic) as outer, store.transaction("inner") as inner:
            inner.from_bytes("k", b"parent")

            def be_child() -> None:
                for tx in (outer, inner):
                    with pytest.raises(
                        TransactionClosedError, match="forked, and continues in the parent only"
                    ):
                        tx.from_bytes("k", b"child")
                    with pytest.raises(TransactionClosedError, match="forked"):
                        tx.__exit__(None, None, None)
                assert store.current_transaction() is None
                assert not store.exists("k")
                if self.shares and not optimistic:
                    with pytest.raises(LockTimeoutError, match="outer"):
                        store.transaction(timeout=0).__enter__()
                else:
                    store.from_bytes("child", b"")
                    with store.transaction():
                        assert store.exists("child")

            assert in_child(be_child) == ""
        assert store.to_bytes("k") == b"parent"
        assert store.exists("child") is (self.shares and optimistic)
        store.from_bytes("k", b"free")

    def test_a_block_of_another_thread_is_not_there(self, store: TransactionalStore) -> None:
        store.from_bytes("k", b"before")

        def be_child() -> None:
            assert store.to_bytes("k") == b"before"
            assert store.current_transaction() is None
            if not self.shares:
                store.from_bytes("k", b"child")

        with Actor(store) as actor:
            actor.begin("held")
            actor.do(lambda: store.from_bytes("k", b"not committed"))
            assert in_child(be_child) == ""
            actor.commit()
        assert store.to_bytes("k") == b"not committed"

    def test_each_hears_its_own_events(self, store: TransactionalStore) -> None:
        """What waits in the parent is the parent's to deliver."""
        heard: list[str] = []
        begun, go_on = threading.Event(), threading.Event()

        def slow(event: Any) -> None:
            begun.set()
            assert go_on.wait(TIMEOUT)
            heard.append(event.key)

        store.event_manager.connect(StoreSetEvent, slow)
        watch = store.watch()
        for number in range(3):
            store.from_bytes(f"k{number}", b"")
        assert begun.wait(TIMEOUT)

        def be_child() -> None:
            go_on.set()
            assert len(watch) == 0
            store.flush(TIMEOUT)
            assert heard == []
            store.from_bytes("child", b"")
            store.flush(TIMEOUT)
            assert heard == ["child"]
            assert watch.get(TIMEOUT).key == "child"  # type: ignore[union-attr]

        told = in_child(be_child)
        go_on.set()
        store.flush(TIMEOUT)
        assert told == ""
        keys = ["k0", "k1", "k2"] + (["child"] if self.shares else [])
        assert heard == keys
        assert [watch.get(TIMEOUT).key for _ in keys] == keys  # type: ignore[union-attr]

    def test_a_child_of_a_child(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        store.from_bytes("parent", b"")
        store.flush(TIMEOUT)
        heard.clear()

        def write(name: str, keys: list[str]) -> None:
            store.from_bytes(name, b"")
            store.flush(TIMEOUT)
            assert [event.key for event in heard] == keys

        def be_child() -> None:
            write("child", ["child"])
            assert in_child(lambda: write("grandchild", ["child", "grandchild"])) == ""
            between = ["grandchild"] if self.shares else []
            write("child again", ["child", *between, "child again"])

        assert in_child(be_child) == ""
        store.flush(TIMEOUT)
        expected = ["child", "grandchild", "child again"] if self.shares else []
        assert [event.key for event in heard] == expected
