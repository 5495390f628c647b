"""Revisions: one for each commit, the same in all that tells of it; and which transaction a thread is in."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore import StoreModificationEvent
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.listeners import listen
from tests.contract.stores import TIMEOUT, StoreContract
from tests.schedules import in_another_thread, run_threads


def revision_of(store: TransactionalStore) -> int:
    revision: int = store.info()["revision"]
    return revision


class RevisionContract(StoreContract):
    """Numbers of commits, from 1 on."""

    def test_each_commit_has_the_next_one(self, store: TransactionalStore) -> None:
        assert revision_of(store) == 0
        store.from_bytes("a", b"1")
        assert revision_of(store) == store.get("a").revision == 1
        store.multiset_data(["a", "b"], [b"2", b"2"])
        assert [value.revision for value in store.multiget(["a", "b"])] == [2, 2]
        store.update_metadata("a", {"n": 1})
        store.delete("b")
        assert revision_of(store) == 4
        assert store.get("a").revision == 3
        store.from_bytes("b", b"again")
        assert store.get("b").revision == 5
        assert store.stats()["commits"] == store.stats()["revision"] == 5

    def test_events_watches_and_snapshots_have_the_same(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        views = []
        with store.watch() as changes:
            for number in range(5):
                with store.transaction() as tx:
                    store.from_bytes("a", b"%d" % number)
                    store.from_bytes(f"k{number}", b"")
                views.append(store.snapshot())
                assert tx.revision == views[-1].revision == number + 1
            store.flush()
            given: list[Any] = [changes.get(TIMEOUT) for _ in range(10)]
        for number, view in enumerate(views):
            assert view.to_bytes("a") == b"%d" % number
            assert view.get("a").revision == number + 1
            view.close()
        expected = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        assert [event.revision for event in heard] == [each.revision for each in given] == expected

    def test_threads_never_get_the_same(self, store: TransactionalStore) -> None:
        def write(name: str) -> None:
            for number in range(25):
                with store.transaction(optimistic=bool(number % 2)) as tx:
                    store.from_bytes(name, b"%d" % number)
                given.append(tx.revision or 0)

        given: list[int] = []
        run_threads([lambda name=name: write(name) for name in "abcd"])  # type: ignore[misc]
        assert sorted(given) == list(range(1, 101))
        assert revision_of(store) == 100

    def test_flushing_up_to_one(self, store: TransactionalStore) -> None:
        heard = listen(store, StoreModificationEvent)
        for number in range(3):
            store.from_bytes(f"k{number}", b"")
        store.flush(revision=2)
        assert [event.revision for event in heard][:2] == [1, 2]
        store.flush(revision=3)
        assert [event.revision for event in heard] == [1, 2, 3]
        with pytest.raises(ValueError, match=r"revision must not be above the last commit's, 3, got 4"):
            store.flush(revision=4)


class CurrentTransactionContract(StoreContract):
    """`current_transaction`."""

    @pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
    def test_it_is_the_innermost_open_block_of_the_thread(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        assert store.current_transaction() is None
        with store.transaction("outer", optimistic=optimistic) as outer:
            assert store.current_transaction() is outer
            assert in_another_thread(store.current_transaction) is None
            with outer.transaction("inner") as inner:
                assert store.current_transaction() is inner
                inner.rollback()
                assert store.current_transaction() is outer
            assert store.current_transaction() is outer
            outer.commit()
            assert store.current_transaction() is None
        assert store.current_transaction() is None

    def test_each_thread_has_its_own(self, store: TransactionalStore) -> None:
        with store.transaction("mine", optimistic=True) as mine:

            def other() -> None:
                assert store.current_transaction() is None
                with store.transaction("other's", optimistic=True) as theirs:
                    assert store.current_transaction() is theirs
                assert store.current_transaction() is None

            in_another_thread(other)
            assert store.current_transaction() is mine

    def test_none_is_left_when_a_block_cannot_begin_or_end(self, store: TransactionalStore) -> None:
        store.from_bytes("a", b"")
        block = store.transaction("in conflict", optimistic=True)
        block.__enter__()
        store.to_bytes("a")
        in_another_thread(lambda: store.from_bytes("a", b"changed"))
        with pytest.raises(Exception, match="in conflict"):
            block.__exit__(None, None, None)
        assert store.current_transaction() is None
        store.close()
        with pytest.raises(Exception, match="late"):
            store.transaction("late").__enter__()
        assert store.current_transaction() is None
