"""Every read of a snapshot, and what it must show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latchstore import AbstractReadOnlyStore, AbstractStore, DictMemoryStore
from latchstore.engine.inspection import check


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


def assert_nothing_pinned(store: DictMemoryStore) -> None:
    facts = store.info()
    assert (facts["snapshots"], facts["oldest_snapshot"]) == (0, 0.0)
    assert (facts["pinned_entries"], facts["pinned_bytes"]) == (0, 0)
    check(store)
