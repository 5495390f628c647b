"""Optimistic transactions: which blocks are in conflict, phantoms included, and what they write."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    DictMemoryStore,
    EventManager,
    RevisionMismatchError,
    StoreKeyEvent,
    TransactionConflictError,
)
from latchstore.engine.transactional_store import TransactionalStore
from tests.contract.stores import StoreContract
from tests.schedules import Actor, in_another_thread

Reading = Callable[[AbstractStore], object]
Writing = Callable[[AbstractStore], object]


def delete_and_set(store: AbstractStore) -> None:
    store.delete("doc/1")
    store.from_bytes("doc/1", b"one")


def set_data_and_look(tx: AbstractStore) -> object:
    tx.set_data("doc/1", b"new")
    return tx.get_metadata("doc/1")


def set_metadata_and_look(tx: AbstractStore) -> object:
    tx.set_metadata("doc/1", {})
    return tx.to_bytes("doc/1")


def set_delete_and_set_data(tx: AbstractStore) -> None:
    tx.set("doc/1", (b"", {}))
    tx.delete("doc/1")
    tx.set_data("doc/1", b"mine")


def set_and_update_metadata(tx: AbstractStore) -> None:
    tx.set("doc/1", (b"mine", {}))
    tx.update_metadata("doc/1", {"by": "me"})


CHANGES: dict[str, Writing] = {
    "set": lambda store: store.set("doc/1", (b"other", {"kind": "document"})),
    "same data": lambda store: store.from_bytes("doc/1", b"one"),
    "update_metadata": lambda store: store.update_metadata("doc/1", {"n": 3}),
    "delete": lambda store: store.delete("doc/1"),
    "delete and set": delete_and_set,
}

READS: dict[str, Reading] = {
    "get": lambda tx: tx.get("doc/1"),
    "get_data": lambda tx: tx.get_data("doc/1"),
    "get_data_range": lambda tx: tx.get_data_range("doc/1", 0, 1),
    "get_metadata": lambda tx: tx.get_metadata("doc/1"),
    "get_metadata, selected": lambda tx: tx.get_metadata("doc/1", ["n"]),
    "exists": lambda tx: tx.exists("doc/1"),
    "in": lambda tx: "doc/1" in tx,
    "to_bytes": lambda tx: tx.to_bytes("doc/1"),
    "multiget": lambda tx: list(tx.multiget(["doc/2", "doc/1"])),
    "multiget_data": lambda tx: list(tx.multiget_data(["doc/1"])),
    "multiget_metadata": lambda tx: list(tx.multiget_metadata(["doc/1"])),
    "update_metadata": lambda tx: tx.update_metadata("doc/1", {"seen": True}),
    "multiupdate_metadata": lambda tx: tx.multiupdate_metadata(["doc/1"], [{"seen": True}]),
    "delete": lambda tx: tx.delete("doc/1"),
    "set, if_revision": lambda tx: tx.set("doc/1", (b"", {}), if_revision=1),
    "delete, if_revision": lambda tx: tx.delete("doc/1", if_revision=1),
    "set_data and get_metadata": set_data_and_look,
    "set_metadata and to_bytes": set_metadata_and_look,
}


def refused(kind: type[Exception], call: Callable[..., object], *arguments: Any, **options: Any) -> None:
    with pytest.raises(kind):
        call(*arguments, **options)


MISSES: dict[str, Reading] = {
    "exists": lambda tx: tx.exists("new"),
    "in": lambda tx: "new" in tx,
    "get": lambda tx: refused(KeyError, tx.get, "new"),
    "to_bytes": lambda tx: refused(KeyError, tx.to_bytes, "new"),
    "multiget": lambda tx: refused(KeyError, tx.multiget, ["doc/1", "new"]),
    "delete": lambda tx: refused(KeyError, tx.delete, "new"),
    "update_metadata": lambda tx: refused(KeyError, tx.update_metadata, "new", {}),
    "if_revision": lambda tx: tx.set("new", (b"", {}), if_revision=0),
    "if_revision, refused": lambda tx: refused(
        RevisionMismatchError, tx.set, "new", (b"", {}), if_revision=1
    ),
}

#: How a block reads many keys, and the changes that it minds.
SCANS: dict[str, tuple[Reading, set[str]]] = {
    "query": (
        lambda tx: list(tx.query(kind="document")),
        {"new document", "gone", "other data", "other kind"},
    ),
    "query, selected": (
        lambda tx: list(tx.query(["n"], kind="document")),
        {"new document", "gone", "other data", "other kind"},
    ),
    "query, two terms": (
        lambda tx: list(tx.query(kind="document", n=1)),
        {"gone", "other data", "other kind"},
    ),
    "query, all": (
        lambda tx: list(tx.query()),
        {"new document", "new image", "gone", "other data", "other kind", "other image"},
    ),
    "query_keys": (
        lambda tx: list(tx.query_keys(kind="document")),
        {"new document", "gone", "other data", "other kind"},
    ),
    "query, none": (lambda tx: list(tx.query(kind="film")), set()),
    "query_keys, all": (lambda tx: list(tx.query_keys()), {"new document", "new image", "gone"}),
    "glob": (lambda tx: list(tx.glob("doc/*")), {"new document", "gone"}),
    "glob, a class": (lambda tx: list(tx.glob("[de]oc/?")), {"new document", "gone"}),
    "glob, none": (lambda tx: list(tx.glob("x*")), set()),
    "len": (len, {"new document", "new image", "gone"}),
    "info": (lambda tx: tx.info(), {"new document", "new image", "gone"}),
}

DISTURBANCES: dict[str, tuple[Writing, str]] = {
    "new document": (lambda store: store.set("doc/3", (b"", {"kind": "document", "n": 3})), "doc/3"),
    "new image": (lambda store: store.set("image/2", (b"", {"kind": "image"})), "image/2"),
    "gone": (lambda store: store.delete("doc/1"), "doc/1"),
    "other data": (lambda store: store.from_bytes("doc/1", b"other"), "doc/1"),
    "other kind": (lambda store: store.update_metadata("doc/1", {"kind": "draft"}), "doc/1"),
    "other image": (lambda store: store.from_bytes("image", b"other"), "image"),
}

BLIND: dict[str, Writing] = {
    "set": lambda tx: tx.set("doc/1", (b"mine", {"by": "me"})),
    "set_data": lambda tx: tx.set_data("doc/1", b"mine"),
    "set_metadata": lambda tx: tx.set_metadata("doc/1", {"by": "me"}),
    "from_bytes": lambda tx: tx.from_bytes("doc/1", b"mine"),
    "multiset": lambda tx: tx.multiset(["doc/1"], [(b"mine", {"by": "me"})]),
    "multiset_data": lambda tx: tx.multiset_data(["doc/1"], [b"mine"]),
    "multiset_metadata": lambda tx: tx.multiset_metadata(["doc/1"], [{"by": "me"}]),
    "set and get": lambda tx: (tx.set("doc/1", (b"mine", {"by": "me"})), tx.get("doc/1")),
    "set, delete, set_data": set_delete_and_set_data,
    "set and update_metadata": set_and_update_metadata,
}

#: Data and metadata of the key when the others have changed it first.
WHOLE, DATA, METADATA = (b"mine", {"by": "me"}), (b"mine", None), (None, {"by": "me"})
RESULTS: dict[str, tuple[bytes | None, dict[str, Any] | None]] = {
    "set": WHOLE,
    "set_data": DATA,
    "set_metadata": METADATA,
    "from_bytes": DATA,
    "multiset": WHOLE,
    "multiset_data": DATA,
    "multiset_metadata": METADATA,
    "set and get": WHOLE,
    "set, delete, set_data": (b"mine", {}),
    "set and update_metadata": WHOLE,
}


def conflict(store: TransactionalStore, body: Reading, meanwhile: Writing) -> tuple[str, ...]:
    """Run a block, let another thread write before it ends; return the keys of the conflict, if any."""
    revision = store.info()["revision"]
    error: TransactionConflictError | None = None
    try:
        with store.transaction("body", optimistic=True) as tx:
            body(tx)
            in_another_thread(lambda: meanwhile(store))
    except TransactionConflictError as raised:
        error = raised
    if error is None:
        assert tx.revision is not None
        assert tx.revision > revision
    else:
        assert tx.revision is None
        assert error.tries == 1
        assert str(error).startswith("transaction 'body': changed by others since it was read: ")
        assert all(repr(key) in str(error) for key in error.keys)
        assert not store.exists("mark"), "nothing of the block is committed"
    return () if error is None else error.keys


class OptimisticContract(StoreContract):
    """What both classes below begin with."""

    @pytest.fixture(autouse=True)
    def filled(self, store: TransactionalStore) -> None:
        """Two documents and an image."""
        store.multiset(
            ["doc/1", "doc/2", "image"],
            [
                (b"one", {"kind": "document", "n": 1}),
                (b"two", {"kind": "document", "n": 2}),
                (b"image", {"kind": "image", "tags": ["x"]}),
            ],
        )

    def conflict(self, store: TransactionalStore, body: Reading, meanwhile: Writing) -> tuple[str, ...]:
        """Do as `conflict` does, and look what is left of it."""
        keys = conflict(store, body, meanwhile)
        self.check(store)
        return keys


class ConflictContract(OptimisticContract):
    """A block that has read what has changed since is in conflict, and no other."""

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("read", READS)
    def test_conflict_on_a_key_that_was_read(self, store: TransactionalStore, read: str, change: str) -> None:
        def body(tx: AbstractStore) -> None:
            READS[read](tx)
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, CHANGES[change]) == ("doc/1",)

    @pytest.mark.parametrize("read", READS)
    def test_no_conflict_on_another_key(self, store: TransactionalStore, read: str) -> None:
        def body(tx: AbstractStore) -> None:
            READS[read](tx)
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, lambda other: other.from_bytes("image", b"new")) == ()
        assert store.exists("mark")

    def test_a_read_of_many_keys_some_of_which_the_block_has_written(self, store: TransactionalStore) -> None:
        """What it has set is no read of what others have; data alone leaves the metadata to be read."""

        def body(tx: AbstractStore) -> None:
            tx.set("doc/1", (b"mine", {}))
            tx.set_data("image", b"mine")
            assert [value.data.read() for value in tx.multiget(["doc/2", "doc/1"])] == [b"two", b"mine"]

        def partly(tx: AbstractStore) -> None:
            body(tx)
            tx.multiget_metadata(["doc/1", "image"])

        assert self.conflict(store, body, CHANGES["set"]) == ()
        assert self.conflict(store, body, lambda other: other.from_bytes("image", b"theirs")) == ()
        assert self.conflict(store, partly, lambda other: other.from_bytes("image", b"other")) == ("image",)

    @pytest.mark.parametrize("miss", MISSES)
    def test_conflict_on_a_miss(self, store: TransactionalStore, miss: str) -> None:
        def body(tx: AbstractStore) -> None:
            MISSES[miss](tx)
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, lambda other: other.from_bytes("new", b"")) == ("new",)

    def test_a_read_in_an_inner_block_that_was_rolled_back_counts(self, store: TransactionalStore) -> None:
        """What it has learned may have made the outer block what it is."""

        def body(tx: AbstractStore) -> None:
            with store.transaction() as inner:
                inner.to_bytes("doc/1")
                inner.doom()
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, CHANGES["set"]) == ("doc/1",)

    def test_a_block_that_only_reads_is_in_conflict_too(self, store: TransactionalStore) -> None:
        assert self.conflict(store, lambda tx: tx.to_bytes("doc/1"), CHANGES["set"]) == ("doc/1",)

    def test_a_key_that_came_and_went_is_no_conflict(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            assert not tx.exists("new")
            assert len(tx) == 3
            tx.from_bytes("mark", b"")

        def meanwhile(other: AbstractStore) -> None:
            other.from_bytes("new", b"")
            other.delete("new")

        assert self.conflict(store, body, meanwhile) == ()

    @pytest.mark.parametrize("disturbance", DISTURBANCES)
    @pytest.mark.parametrize("scan", SCANS)
    def test_conflict_on_a_phantom(self, store: TransactionalStore, scan: str, disturbance: str) -> None:
        """A scan minds the changes that could have changed what it has found, and no others."""
        read, minds = SCANS[scan]
        meanwhile, key = DISTURBANCES[disturbance]

        def body(tx: AbstractStore) -> None:
            read(tx)
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, meanwhile) == ((key,) if disturbance in minds else ())

    def test_a_query_that_was_only_begun_counts(self, store: TransactionalStore) -> None:
        assert self.conflict(
            store, lambda tx: next(iter(tx.query(kind="document"))), DISTURBANCES["new document"][0]
        ) == ("doc/3",)

    def test_a_pattern_that_is_refused_does_not_count(self, store: TransactionalStore) -> None:
        def body(tx: AbstractStore) -> None:
            with pytest.raises(TypeError):
                tx.glob(None)  # type: ignore[arg-type]
            tx.from_bytes("mark", b"")

        assert self.conflict(store, body, DISTURBANCES["new document"][0]) == ()

    def test_the_error_names_all_keys_and_shows_five(self, store: TransactionalStore) -> None:
        keys = [f"k{number}" for number in range(8)]
        with (
            pytest.raises(TransactionConflictError) as caught,
            store.transaction("many", optimistic=True) as tx,
        ):
            for key in keys:
                tx.exists(key)
            in_another_thread(lambda: store.multiset_data(reversed(keys), [b""] * 8))
        assert sorted(caught.value.keys) == keys
        assert caught.value.tries == 1
        assert str(caught.value) == (
            "transaction 'many': changed by others since it was read: 'k0', 'k1', 'k2', 'k3', 'k4' and 3 more"
        )

    def test_commit_inside_the_block_raises_the_conflict(self, store: TransactionalStore) -> None:
        with store.transaction(optimistic=True) as tx:
            tx.to_bytes("doc/1")
            tx.from_bytes("mark", b"")
            in_another_thread(lambda: CHANGES["set"](store))
            with pytest.raises(TransactionConflictError):
                tx.commit()
            assert not store.exists("mark")
            in_another_thread(lambda: store.from_bytes("free", b""))
        assert tx.revision is None
        self.check(store)


class OptimisticWritingContract(OptimisticContract):
    """What an optimistic block writes, merged with the commits of others; it holds up nobody."""

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("blind", BLIND)
    def test_blind_writes_never_conflict_and_merge(
        self, store: TransactionalStore, blind: str, change: str
    ) -> None:
        """What the block has set is as it has set it; what it has not, as the others have left it."""
        with DictMemoryStore(EventManager()) as alone:
            alone.set("doc/1", store.get("doc/1"))
            CHANGES[change](alone)
            theirs = (
                (alone.to_bytes("doc/1"), alone.get_metadata("doc/1")) if alone.exists("doc/1") else (b"", {})
            )
        assert self.conflict(store, BLIND[blind], CHANGES[change]) == ()
        data, metadata = RESULTS[blind]
        assert store.to_bytes("doc/1") == (theirs[0] if data is None else data)
        assert store.get_metadata("doc/1") == (theirs[1] if metadata is None else metadata)

    def test_data_by_one_and_metadata_by_the_other(self, store: TransactionalStore) -> None:
        with Actor(store) as a, Actor(store) as b:
            a.begin(optimistic=True)
            b.begin(optimistic=True)
            a.do(lambda: store.set_data("doc/1", b"by a"))
            b.do(lambda: store.set_metadata("doc/1", {"by": "b"}))
            a.commit()
            b.commit()
        assert (store.to_bytes("doc/1"), store.get_metadata("doc/1")) == (b"by a", {"by": "b"})

    def test_times_and_revision_are_those_of_the_commit(self, store: TransactionalStore) -> None:
        heard: list[Any] = []
        store.event_manager.connect(StoreKeyEvent, heard.append)
        with store.transaction(optimistic=True) as tx:
            tx.set("doc/1", (b"mine", {}))
            in_another_thread(lambda: store.set("doc/1", (b"theirs", {})))
            theirs = in_another_thread(lambda: store.get("doc/1"))
        store.flush()
        mine = store.get("doc/1")
        assert (mine.created, mine.revision) == (theirs.created, tx.revision)
        assert mine.modified > theirs.modified
        assert (theirs.revision, tx.revision) == (2, 3)
        previous = heard[-1].previous
        assert previous.data.read() == b"theirs", "the event tells what was replaced, not what the block saw"

    def test_values_handed_out_inside_stay_as_they_were(self, store: TransactionalStore) -> None:
        with store.transaction(optimistic=True) as tx:
            tx.set("doc/1", (b"mine", {"n": 1}))
            inside = tx.get("doc/1")
            facts = (inside.created, inside.modified, inside.revision)
            in_another_thread(lambda: store.from_bytes("image", b"theirs"))
        assert (inside.created, inside.modified, inside.revision) == facts
        assert store.get("doc/1").revision == tx.revision

    def test_own_writes_are_seen_in_every_way(self, store: TransactionalStore) -> None:
        with store.transaction(optimistic=True) as tx:
            in_another_thread(lambda: store.set("theirs", (b"", {"kind": "document"})))
            tx.set("doc/3", (b"three", {"kind": "document", "n": 3}))
            tx.delete("doc/1")
            tx.update_metadata("doc/2", {"kind": "draft"})
            tx.set_data("image", b"new")
            for view in (tx, store):
                assert sorted(view.query_keys()) == ["doc/2", "doc/3", "image"]
                assert sorted(view.glob("doc/*")) == ["doc/2", "doc/3"]
                assert dict(view.query(["n"], kind="document")) == {"doc/3": {"n": 3}}
                assert list(view.query_keys(kind="draft")) == ["doc/2"]
                assert len(view) == 3
                assert ("doc/1" in view, "doc/3" in view, "theirs" in view) == (False, True, False)
                assert [value.read() for value in view.multiget_data(["doc/3", "image"])] == [
                    b"three",
                    b"new",
                ]
                assert view.get_metadata("doc/2") == {"kind": "draft", "n": 2}
                with pytest.raises(KeyError):
                    view.get("doc/1")
            # Both views were scanned, and somebody has come in between: let it go.
            tx.rollback()
        assert sorted(store.query_keys()) == ["doc/1", "doc/2", "image", "theirs"]

    def test_savepoints(self, store: TransactionalStore) -> None:
        with store.transaction(optimistic=True):
            store.set_data("doc/1", b"outer")
            with store.transaction() as inner:
                store.set_data("doc/1", b"inner")
                store.set_data("doc/2", b"inner")
                store.from_bytes("new", b"inner")
                inner.doom()
            assert store.to_bytes("doc/2") == b"two"
            with store.transaction():
                store.set_data("image", b"inner")
        assert {key: store.to_bytes(key) for key in store.glob("*")} == {
            "doc/1": b"outer",
            "doc/2": b"two",
            "image": b"inner",
        }

    def test_a_multiset_that_fails_halfway_leaves_the_block_as_it_was(
        self, store: TransactionalStore
    ) -> None:
        with store.transaction(optimistic=True):
            store.from_bytes("a", b"")
            with pytest.raises(KeyError):
                store.multiupdate_metadata(["doc/1", "none"], [{"n": 5}, {"n": 5}])
            assert store.get_metadata("doc/1")["n"] == 1
        assert store.exists("a")
        assert store.get_metadata("doc/1")["n"] == 1

    def test_writers_and_readers_go_on_while_the_body_runs(self, store: TransactionalStore) -> None:
        with Actor(store) as a, Actor(store) as b, Actor(store) as c:
            for actor in (a, b):
                actor.begin(optimistic=True)
                actor.do(lambda: store.from_bytes("image", b"optimistic"))
            c.begin(timeout=0)
            c.do(lambda: store.from_bytes("doc/1", b"exclusive"))
            c.commit()
            assert store.to_bytes("doc/1") == b"exclusive"
            assert len(list(store.query())) == 3
            a.commit()
            b.commit()
        assert store.to_bytes("image") == b"optimistic"
