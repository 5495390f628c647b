"""What a query in order shows of others' changes in snapshots and transactions: anomalies, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latchstore import Above, AbstractStore, Below
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract import optimistic
from tests.contract.stores import StoreContract
from tests.schedules import in_another_thread


def due(store: Any, **options: Any) -> list[str]:
    return list(store.query_keys(order_by="due", **options))


def set_due(key: str, value: Any) -> Callable[[AbstractStore], object]:
    return lambda store: store.update_metadata(key, {"due": value})


NEW: Callable[[AbstractStore], object] = lambda store: store.set("new", (b"", {"due": 15}))  # noqa: E731


#: What others do while a block has read the first two, and whether that is a conflict.
FIRST_TWO: dict[str, tuple[Callable[[AbstractStore], object], str | None]] = {
    "one of them": (lambda store: store.from_bytes("job:1", b"new"), "job:1"),
    "the last of them": (lambda store: store.from_bytes("job:2", b"new"), "job:2"),
    "the one after": (lambda store: store.from_bytes("job:3", b"new"), None),
    "the last one leaves": (set_due("job:2", 99), "job:2"),
    "one is deleted": (lambda store: store.delete("job:1"), "job:1"),
    "one comes before": (set_due("job:5", -1), "job:5"),
    "one comes between": (set_due("job:5", 5), "job:5"),
    "one comes level, by key before": (lambda store: store.set("job", (b"", {"due": 10})), "job"),
    "one comes level, by key after": (set_due("job:5", 10), None),
    "one comes after": (NEW, None),
    "one without a due": (lambda store: store.set("a", (b"", {})), None),
    "one loses its due, after": (lambda store: store.set_metadata("job:4", {}), None),
    "one loses its due": (lambda store: store.set_metadata("job:1", {}), "job:1"),
}


class OrderedIsolationContract(StoreContract):
    """Queries in order, with a limit and without."""

    @pytest.fixture(autouse=True)
    def filled(self, store: TransactionalStore) -> None:
        for number, key in enumerate(["job:1", "job:2", "job:3", "job:4", "job:5"]):
            store.set(key, (b"", {"due": 10 * number, "kind": "x"}))
        store.set("other", (b"", {"kind": "x"}))

    def conflict(
        self,
        store: TransactionalStore,
        body: Callable[[AbstractStore], object],
        meanwhile: Callable[[AbstractStore], object],
    ) -> tuple[str, ...]:
        """Return the keys of the conflict between a block and what others write before its end."""
        if store.exists("mark"):
            store.delete("mark")
        keys = optimistic.conflict(store, body, meanwhile)
        self.check(store)
        return keys

    def test_a_snapshot_keeps_its_order(self, store: TransactionalStore) -> None:
        with store.snapshot() as view:
            before = due(view)
            store.delete("job:1")
            store.update_metadata("job:5", {"due": -1})
            store.set("job:6", (b"", {"due": 5}))
            store.set_metadata("job:2", {})
            assert due(store, limit=3) == ["job:5", "job:6", "job:3"]
            for limit in range(8):
                assert due(view, limit=limit) == before[:limit]
                assert (
                    list(view.glob("job:*", order_by="key", limit=limit)) == sorted(before)[: min(limit, 5)]
                )
            assert due(view, due=Above(5)) == ["job:2", "job:3", "job:4", "job:5"]
            assert due(view, due=Below(15), descending=True) == ["job:2", "job:1"]
            assert len(list(view.query_keys(kind="x", limit=3))) == 3
            assert list(view.query_keys(order_by="revision", limit=1)) == ["job:1"]
        self.check(store)

    @pytest.mark.parametrize("optimistic", [False, True])
    def test_others_do_not_see_what_is_not_committed(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        with store.transaction("t", optimistic=optimistic) as tx:
            tx.delete("job:1")
            tx.update_metadata("job:3", {"due": -1})
            assert due(store, limit=2) == ["job:3", "job:2"]
            assert in_another_thread(lambda: due(store, limit=2)) == ["job:1", "job:2"]
            tx.doom()
        assert due(store, limit=2) == ["job:1", "job:2"]

    def test_own_changes_stand_before_those_of_others(self, store: TransactionalStore) -> None:
        with store.transaction("t", optimistic=True) as tx:
            tx.set("job:3", (b"", {"due": -1}))
            in_another_thread(lambda: store.update_metadata("job:3", {"due": -2}))
            in_another_thread(lambda: store.update_metadata("job:1", {"due": 99}))
            assert list(tx.query(["due"], order_by="due", limit=2)) == [
                ("job:3", {"due": -1}),
                ("job:1", {"due": 0}),
            ]
            tx.doom()

    @pytest.mark.parametrize("change", FIRST_TWO)
    def test_phantoms_up_to_the_edge_of_a_limit(self, store: TransactionalStore, change: str) -> None:
        def body(tx: AbstractStore) -> None:
            assert due(tx, limit=2) == ["job:1", "job:2"]
            tx.from_bytes("mark", b"")

        meanwhile, key = FIRST_TWO[change]
        assert self.conflict(store, body, meanwhile) == (() if key is None else (key,))

    def test_phantoms_at_the_edge_from_the_other_side(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            assert due(tx, limit=2, descending=True) == ["job:5", "job:4"]
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, lambda store: store.from_bytes("job:3", b"new")) == ()
        assert self.conflict(store, body, lambda store: store.from_bytes("job:4", b"new")) == ("job:4",)
        assert self.conflict(store, body, set_due("job:1", 30)) == ()  # level, and by key after it
        assert self.conflict(store, body, set_due("job:1", 29)) == ()
        assert self.conflict(store, body, set_due("job:1", 31)) == ("job:1",)
        assert due(store, limit=3, descending=True) == ["job:5", "job:1", "job:4"]

    def test_the_edge_of_terms(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            assert due(tx, due=Above(5), limit=1) == ["job:2"]
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, set_due("job:1", 4)) == ()
        assert self.conflict(store, body, set_due("job:1", 11)) == ()
        assert self.conflict(store, body, set_due("job:5", 6)) == ("job:5",)

    def test_an_open_end_if_there_were_fewer(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            assert len(due(tx, due=Above(5), limit=9)) == 4
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, set_due("other", 1_000)) == ("other",)

        def none(tx: AbstractStore) -> None:
            assert due(tx, due=Above(5_000), limit=1) == []
            tx.from_bytes("mark", b"")

        assert self.conflict(store, none, set_due("job:1", 4_000)) == ()
        assert self.conflict(store, none, set_due("job:1", 6_000)) == ("job:1",)

    def test_the_edge_among_those_that_lack_the_item(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            assert due(tx, limit=6)[-1] == "other"
            tx.from_bytes("zz", b"")

        assert self.conflict(store, body, lambda store: store.set("p", (b"", {}))) == ()
        assert self.conflict(store, body, lambda store: store.set("n", (b"", {}))) == ("n",)
        assert self.conflict(store, lambda tx: due(tx, limit=7), set_due("p", 10**9)) == ("p",)

    def test_no_entry_is_read_by_a_limit_of_none(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            assert due(tx, limit=0) == []
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, set_due("job:1", 9)) == ()

    def test_a_limit_without_order_reads_what_it_gives(self, store: TransactionalStore) -> None:
        given: list[str] = []

        def body(tx: AbstractStore) -> None:
            given[:] = tx.query_keys(kind="x", limit=2)
            tx.from_bytes("mark", b"")

        def change_another(store: AbstractStore) -> None:
            store.from_bytes(min(set(store.query_keys(kind="x")) - set(given)), b"new")

        assert self.conflict(store, body, change_another) == ()
        assert self.conflict(store, body, lambda store: store.from_bytes(given[1], b"new")) == (given[1],)

    def test_a_glob_reads_keys_alone(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            assert list(tx.glob("job:*", order_by="key", limit=2)) == ["job:1", "job:2"]
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, set_due("job:1", 5)) == ()
        assert self.conflict(store, body, lambda store: store.delete("job:3")) == ()
        assert self.conflict(store, body, lambda store: store.set("jo", (b"", {}))) == ()
        assert self.conflict(store, body, lambda store: store.set("job:15", (b"", {}))) == ("job:15",)

    def test_own_changes_are_no_conflict(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            tx.set("mine", (b"", {"due": 5}))
            tx.delete("job:1")
            assert due(tx, limit=2) == ["mine", "job:2"]

        assert self.conflict(store, body, set_due("job:3", 11)) == ()
        store.set("job:1", (b"", {"due": 0}))
        store.delete("mine")
        assert self.conflict(store, body, set_due("job:3", 7)) == ("job:3",)
