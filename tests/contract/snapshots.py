"""Snapshots: each shows one commit, whole, as long as it is open."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import (
    AbstractReadOnlyStore,
    AbstractStore,
    Snapshot,
    SnapshotClosedError,
    StoreError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import StoreContract


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


def fill(store: AbstractStore) -> None:
    store.multiset(
        ["doc/1", "doc/2", "image"],
        [
            (b"one", {"kind": "document", "n": 1}),
            (b"two", {"kind": "document", "n": 2}),
            (b"image", {"kind": "image", "tags": ["x"]}),
        ],
    )


def change_everything(store: AbstractStore) -> None:
    """Make a commit of each sort: a key set, created, deleted, and created again."""
    store.set("doc/1", (b"changed", {"kind": "draft"}))
    store.from_bytes("doc/3", b"three")
    store.delete("image")
    store.multiset(["image", "film"], [(b"new", {}), (b"film", {"kind": "document"})])
    store.update_metadata("doc/2", {"n": 20})


#: Each reading method, with what it gives on what `fill` has filled.
READS: dict[str, tuple[Callable[[AbstractReadOnlyStore], object], object]] = {
    "get": (lambda view: (view.get("doc/1").data.read(), view.get("doc/1").metadata.get("n")), (b"one", 1)),
    "get, revision": (lambda view: view.get("doc/1").revision, 1),
    "get_data": (lambda view: view.get_data("doc/1").read(), b"one"),
    "get_data_range": (lambda view: view.get_data_range("doc/1", 1, 3).read(), b"ne"),
    "get_metadata": (lambda view: view.get_metadata("doc/2"), {"kind": "document", "n": 2}),
    "get_metadata, selected": (lambda view: view.get_metadata("doc/2", ["n"]), {"n": 2}),
    "exists": (lambda view: [view.exists(key) for key in ("image", "doc/3")], [True, False]),
    "in": (lambda view: ["image" in view, "doc/3" in view], [True, False]),
    "to_bytes": (lambda view: view.to_bytes("image"), b"image"),
    "multiget": (lambda view: [v.data.read() for v in view.multiget(["image", "doc/1"])], [b"image", b"one"]),
    "multiget_data": (lambda view: [data.read() for data in view.multiget_data(["image"])], [b"image"]),
    "multiget_metadata": (
        lambda view: list(view.multiget_metadata(["doc/1", "doc/2"], ["n"])),
        [{"n": 1}, {"n": 2}],
    ),
    "query": (
        lambda view: dict(view.query(["n"], kind="document")),
        {"doc/1": {"n": 1}, "doc/2": {"n": 2}},
    ),
    "query, all": (lambda view: len(dict(view.query())), 3),
    "query_keys": (lambda view: sorted(view.query_keys(kind="document")), ["doc/1", "doc/2"]),
    "query_keys, all": (lambda view: sorted(view.query_keys()), ["doc/1", "doc/2", "image"]),
    "query_keys, mutable": (lambda view: list(view.query_keys(tags=["x"])), ["image"]),
    "glob": (lambda view: sorted(view.glob("doc/*")), ["doc/1", "doc/2"]),
    "len": (len, 3),
    "info": (lambda view: view.info(), {"readonly": True, "revision": 1, "keys": 3}),
}


every_read = pytest.mark.parametrize("read", READS)


def whole(view: AbstractReadOnlyStore) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Return all that a store holds, and check that all ways of reading it agree."""
    held = {key: (view.to_bytes(key), metadata) for key, metadata in view.query()}
    assert sorted(held) == sorted(view.glob("*")) == sorted(view.query_keys())
    assert len(view) == len(held)
    keys = list(held)
    assert list(view.multiget_metadata(keys)) == [held[key][1] for key in keys]
    assert [value.data.read() for value in view.multiget(keys)] == [held[key][0] for key in keys]
    return held


class SnapshotContract(StoreContract):
    """What a snapshot shows, and how it ends."""

    @pytest.fixture(autouse=True)
    def filled(self, store: TransactionalStore) -> None:
        fill(store)

    @every_read
    def test_reads_show_the_commit_it_was_opened_at(self, store: TransactionalStore, read: str) -> None:
        ask, answer = READS[read]
        with store.snapshot() as view:
            assert ask(view) == answer
            change_everything(store)
            assert ask(view) == answer
            assert ask(store) != answer, "the change is one that can be seen"
        self.check(store)

    def test_to_file(self, store: TransactionalStore, tmp_path: Path) -> None:
        with store.snapshot() as view:
            change_everything(store)
            view.to_file("doc/1", tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"one"

    def test_a_snapshot_is_read_only(self, store: TransactionalStore) -> None:
        with store.snapshot() as view:
            assert isinstance(view, AbstractReadOnlyStore)
            assert not isinstance(view, AbstractStore)
            assert not hasattr(view, "set")
            assert view.info()["readonly"] is True

    def test_what_is_handed_out_is_a_copy(self, store: TransactionalStore) -> None:
        with store.snapshot() as view:
            view.get_metadata("image")["tags"].append("y")
            next(iter(view.query(kind="image")))[1]["tags"].append("z")
            assert view.get_metadata("image")["tags"] == ["x"]
        assert store.get_metadata("image")["tags"] == ["x"]

    def test_keys_are_checked(self, store: TransactionalStore) -> None:
        with store.snapshot() as view:
            with pytest.raises(TypeError, match="key must be a str"):
                view.get(3)  # type: ignore[arg-type]
            with pytest.raises(KeyError, match="none"):
                view.get("none")

    @pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
    def test_opened_inside_a_transaction_it_shows_the_last_commit(
        self, store: TransactionalStore, optimistic: bool
    ) -> None:
        before = whole(store)
        with store.transaction(optimistic=optimistic):
            change_everything(store)
            with store.snapshot() as view:
                assert whole(view) == before
                assert view.revision == 1
                change_everything(store)
                assert whole(view) == before
            kept = store.snapshot()
        assert whole(kept) == before
        kept.close()
        self.check(store)

    def test_a_transaction_that_is_rolled_back_is_not_seen(self, store: TransactionalStore) -> None:
        before = whole(store)
        with store.snapshot() as view:
            with pytest.raises(BrokenBlockError), store.transaction():
                change_everything(store)
                raise BrokenBlockError
            assert whole(view) == before

    @every_read
    def test_a_closed_snapshot_cannot_be_read(self, store: TransactionalStore, read: str) -> None:
        with store.snapshot() as view:
            pass
        with pytest.raises(
            SnapshotClosedError, match=r"^<closed snapshot of revision 1> is used after it was closed$"
        ):
            READS[read][0](view)
        with pytest.raises(SnapshotClosedError):
            view.__enter__()
        assert issubclass(SnapshotClosedError, StoreError)
        self.check(store)

    def test_its_state_is_told(self, store: TransactionalStore) -> None:
        view = store.snapshot()
        assert (view.is_connected(), repr(view)) == (True, "<open snapshot of revision 1>")
        view.connect()
        view.disconnect()
        assert view.is_connected()
        view.close()
        assert (view.is_connected(), repr(view)) == (False, "<closed snapshot of revision 1>")
        assert view.revision == 1

    def test_an_error_in_its_block_closes_it(self, store: TransactionalStore) -> None:
        with pytest.raises(BrokenBlockError), store.snapshot() as view:
            raise BrokenBlockError
        assert not view.is_connected()
        self.check(store)

    def test_a_snapshot_of_a_closed_store_can_be_read(self, store: TransactionalStore) -> None:
        view = store.snapshot()
        store.close()
        assert len(view) == 3
        with store.snapshot() as another:
            assert len(another) == 3
        view.close()


class ManySnapshotsContract(StoreContract):
    """Snapshots of different moments, the first of them that of an empty store."""

    def test_a_snapshot_of_an_empty_store_stays_empty(self, store: TransactionalStore) -> None:
        with store.snapshot() as view:
            fill(store)
            assert whole(view) == {}
            assert view.revision == 0
            for key in store.glob("*"):
                with pytest.raises(KeyError, match=key):
                    view.get(key)
                with pytest.raises(KeyError, match=key):
                    view.multiget([key])

    @pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
    def test_snapshots_of_different_moments_closed_in_any_order(
        self, store: TransactionalStore, order: tuple[int, ...]
    ) -> None:
        views: dict[int, Snapshot] = {}
        copies: dict[int, dict[str, Any]] = {}
        for number in range(4):
            store.set("always", (b"%d" % number, {}))
            store.from_bytes(f"key {number}", b"")
            if number >= 2:
                store.delete(f"key {number - 2}")
            views[number], copies[number] = store.snapshot(), whole(store)
        store.multiset_data(["always", "key 1", "key 3"], [b"last"] * 3)
        store.delete("key 2")
        for closed in order:
            for number, view in views.items():
                assert whole(view) == copies[number], number
            views.pop(closed).close()
            store.set("always", (b"after %d" % closed, {}))
        self.check(store)

    def test_many_snapshots_at_random(self, store: TransactionalStore) -> None:
        chance = random.Random(7)
        keys = [f"k{number}" for number in range(12)]
        open_views: list[tuple[Snapshot, dict[str, Any]]] = []
        for _ in range(500):
            match chance.randrange(5):
                case 0 if len(open_views) < 20:
                    open_views.append((store.snapshot(), whole(store)))
                case 1 if open_views:
                    view, _ = open_views.pop(chance.randrange(len(open_views)))
                    view.close()
                case 2:
                    key = chance.choice(keys)
                    if store.exists(key):
                        store.delete(key)
                case _:
                    with store.transaction():
                        for key in chance.sample(keys, chance.randint(1, 4)):
                            store.set(key, (chance.randbytes(2), {"n": chance.randrange(3)}))
            if open_views:
                view, copy = chance.choice(open_views)
                assert whole(view) == copy
        for view, copy in open_views:
            assert whole(view) == copy
            view.close()
        self.check(store)
