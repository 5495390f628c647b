"""A block that has read what has changed since is in conflict, and no other."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    DictMemoryStore,
    EventManager,
    RevisionMismatchError,
    TransactionConflictError,
)
from tests.optimistic.conflicts import CHANGES, Reading, Writing, conflict
from tests.schedules import in_another_thread

# -- one key --------------------------------------------------------------------------------------------


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
    "set_data and get_metadata": lambda tx: (tx.set_data("doc/1", b"new"), tx.get_metadata("doc/1")),
    "set_metadata and to_bytes": lambda tx: (tx.set_metadata("doc/1", {}), tx.to_bytes("doc/1")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", READS)
def test_conflict_on_a_key_that_was_read(store: DictMemoryStore, read: str, change: str) -> None:
    def body(tx: AbstractStore) -> None:
        READS[read](tx)
        tx.from_bytes("mark", b"")

    assert conflict(store, body, CHANGES[change]) == ("doc/1",)


@pytest.mark.parametrize("read", READS)
def test_no_conflict_on_another_key(store: DictMemoryStore, read: str) -> None:
    def body(tx: AbstractStore) -> None:
        READS[read](tx)
        tx.from_bytes("mark", b"")

    assert conflict(store, body, lambda other: other.from_bytes("image", b"new")) == ()
    assert store.exists("mark")


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


@pytest.mark.parametrize("miss", MISSES)
def test_conflict_on_a_miss(store: DictMemoryStore, miss: str) -> None:
    def body(tx: AbstractStore) -> None:
        MISSES[miss](tx)
        tx.from_bytes("mark", b"")

    assert conflict(store, body, lambda other: other.from_bytes("new", b"")) == ("new",)


def test_a_read_in_an_inner_block_that_was_rolled_back_counts(store: DictMemoryStore) -> None:
    """What it has learned may have made the outer block what it is."""

    def body(tx: AbstractStore) -> None:
        with store.transaction() as inner:
            inner.to_bytes("doc/1")
            inner.doom()
        tx.from_bytes("mark", b"")

    assert conflict(store, body, CHANGES["set"]) == ("doc/1",)


def test_a_block_that_only_reads_is_in_conflict_too(store: DictMemoryStore) -> None:
    assert conflict(store, lambda tx: tx.to_bytes("doc/1"), CHANGES["set"]) == ("doc/1",)


def test_a_key_that_came_and_went_is_no_conflict(store: DictMemoryStore) -> None:
    def body(tx: AbstractStore) -> None:
        assert not tx.exists("new")
        assert len(tx) == 3
        tx.from_bytes("mark", b"")

    def meanwhile(other: AbstractStore) -> None:
        other.from_bytes("new", b"")
        other.delete("new")

    assert conflict(store, body, meanwhile) == ()


# -- many keys ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("scan", SCANS)
def test_conflict_on_a_phantom(store: DictMemoryStore, scan: str, disturbance: str) -> None:
    """A scan minds the changes that could have changed what it has found, and no others."""
    read, minds = SCANS[scan]
    meanwhile, key = DISTURBANCES[disturbance]

    def body(tx: AbstractStore) -> None:
        read(tx)
        tx.from_bytes("mark", b"")

    assert conflict(store, body, meanwhile) == ((key,) if disturbance in minds else ())


def test_a_query_that_was_only_begun_counts(store: DictMemoryStore) -> None:
    assert conflict(
        store, lambda tx: next(iter(tx.query(kind="document"))), DISTURBANCES["new document"][0]
    ) == ("doc/3",)


def test_a_pattern_that_is_refused_does_not_count(store: DictMemoryStore) -> None:
    def body(tx: AbstractStore) -> None:
        with pytest.raises(TypeError):
            tx.glob(None)  # type: ignore[arg-type]
        tx.from_bytes("mark", b"")

    assert conflict(store, body, DISTURBANCES["new document"][0]) == ()


class Label:
    """A value whose own `==` is user code: it counts, and tells whether a lock was held."""

    calls = 0

    def __init__(self, name: str, store: DictMemoryStore) -> None:
        self.name = name
        self.store = store

    def __deepcopy__(self, memo: dict[int, Any]) -> Label:
        return Label(self.name, self.store)

    def __eq__(self, other: object) -> bool:
        Label.calls += 1
        # Any lock that were held now would keep the other thread from its write.
        in_another_thread(lambda: self.store.from_bytes("written meanwhile", b""))
        return isinstance(other, Label) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]


def test_the_equality_of_values_never_runs_under_a_lock() -> None:
    with DictMemoryStore(EventManager(), lock_timeout=5, indexes=["label"]) as store:
        store.set("a", (b"", {"label": Label("x", store)}))
        Label.calls = 0

        with store.transaction(optimistic=True) as tx:
            assert [key for key, _ in tx.query(label=Label("x", store))] == ["a"]
            assert Label.calls == 1
            tx.from_bytes("mark", b"")
        assert Label.calls == 1, "commit compares no such values"

        def change(other: AbstractStore) -> None:
            other.set("a", (b"", {"label": Label("y", store)}))

        def body(tx: AbstractStore) -> None:
            assert list(tx.query_keys(label=Label("z", store))) == []
            tx.from_bytes("b", b"")

        store.delete("mark")
        # It cannot be told without the value's own `==` whether it matches, so it counts as if it did.
        assert conflict(store, body, change) == ("a",)
        assert Label.calls == 2


# -- the error --------------------------------------------------------------------------------------------


def test_the_error_names_all_keys_and_shows_five(store: DictMemoryStore) -> None:
    keys = [f"k{number}" for number in range(8)]
    with pytest.raises(TransactionConflictError) as caught, store.transaction("many", optimistic=True) as tx:
        for key in keys:
            tx.exists(key)
        in_another_thread(lambda: store.multiset_data(reversed(keys), [b""] * 8))
    assert sorted(caught.value.keys) == keys
    assert caught.value.tries == 1
    assert str(caught.value) == (
        "transaction 'many': changed by others since it was read: 'k0', 'k1', 'k2', 'k3', 'k4' and 3 more"
    )


def test_the_error_survives_pickle() -> None:
    error = pickle.loads(pickle.dumps(TransactionConflictError("what", ("a", "b"), 3)))
    assert (str(error), error.keys, error.tries) == ("what", ("a", "b"), 3)


def test_commit_inside_the_block_raises_the_conflict(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True) as tx:
        tx.to_bytes("doc/1")
        tx.from_bytes("mark", b"")
        in_another_thread(lambda: CHANGES["set"](store))
        with pytest.raises(TransactionConflictError):
            tx.commit()
        assert not store.exists("mark")
        in_another_thread(lambda: store.from_bytes("free", b""))
    assert tx.revision is None
    assert store.info()["snapshots"] == 0
