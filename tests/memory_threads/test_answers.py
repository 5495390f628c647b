"""Answers are fixed at the call, and share nothing with the store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from latchstore import (
    DictMemoryStore,
    EventManager,
)
from tests.memory_threads.stores import Background, LiveMetadata, LiveQuery, Make, guarded

# -- structural change under a reader --------------------------------------------------------------

ITERATIONS: dict[str, Callable[[DictMemoryStore], Iterator[object]]] = {
    "query": lambda store: store.query(),
    "query by a term": lambda store: store.query(state="old"),
    "query by an indexed term": lambda store: store.query(kind="old"),
    "query_keys": lambda store: store.query_keys(),
    "query_keys by a term": lambda store: store.query_keys(state="old"),
    "glob": lambda store: store.glob("*"),
    "multiget": lambda store: store.multiget(["a", "b", "c"]),
    "multiget_data": lambda store: store.multiget_data(["a", "b", "c"]),
    "multiget_metadata": lambda store: store.multiget_metadata(["a", "b", "c"]),
}


def moving_answers(make: Make) -> list[str]:
    """Begin to read an answer, have another thread change everything, and read on."""
    found = []
    for name, iterate in ITERATIONS.items():
        store = make(indexes=["kind"])
        store.multiset(["a", "b", "c"], [(b"old", {"state": "old", "kind": "old"})] * 3)

        def change(store: DictMemoryStore = store) -> None:
            store.delete("c")
            store.multiset_data([f"new {number}" for number in range(50)], itertools.repeat(b"new"))
            store.set("b", (b"new", {"state": "new", "kind": "new"}))

        answer = iterate(store)
        try:
            first = next(answer)
            Background(change).result()
            items = [first, *answer]
        except (RuntimeError, KeyError) as error:
            found.append(f"{name}: {error!r}")
            continue
        if len(items) != 3 or "new" in repr([shown(item) for item in items]):
            found.append(f"{name}: {items}")
    return found


def shown(item: Any) -> object:
    """Return what is behind a value or stream."""
    if hasattr(item, "metadata"):
        return item.data.read(), item.metadata
    return item.read() if hasattr(item, "read") else item


def test_answers_are_fixed_at_the_call() -> None:
    assert moving_answers(guarded) == []


def test_a_query_over_the_live_dict_is_noticed() -> None:
    found = moving_answers(lambda **options: LiveQuery(EventManager(), **options))
    assert "query: RuntimeError('dictionary changed size during iteration')" in found


# -- isolation ------------------------------------------------------------------------------------


HANDED_OUT: dict[str, Callable[[DictMemoryStore], dict[str, Any]]] = {
    "get": lambda store: store.get("k").metadata,
    "get_metadata": lambda store: store.get_metadata("k"),
    "get_metadata, selected": lambda store: store.get_metadata("k", ["list", "flat"]),
    "multiget": lambda store: next(store.multiget(["k"])).metadata,
    "multiget_metadata": lambda store: next(store.multiget_metadata(["k"])),
    "query": lambda store: next(store.query())[1],
    "query, selected": lambda store: next(store.query(["list", "flat"]))[1],
}


def shared_objects(make: Make) -> list[str]:
    """Change everything that was handed in or out, and return what other threads see of that."""
    store = make()
    given = {"list": [1], "flat": 1}
    data = bytearray(b"data")
    store.set("k", (data, given))
    data[:] = b"xxxx"
    given["list"].append(2)  # type: ignore[attr-defined]
    given["flat"] = 2
    found = []
    if Background(store.to_bytes, "k").result() != b"data":
        found.append("data")
    for name, hand_out in HANDED_OUT.items():
        metadata = hand_out(store)
        metadata["list"].append(3)
        metadata["flat"] = 3
        if Background(lambda: store.get("k").metadata).result() != {"list": [1], "flat": 1}:
            found.append(name)
            store.set_metadata("k", {"list": [1], "flat": 1})
    stream = store.get_data("k")
    stream.write(b"zzzz")
    if Background(store.to_bytes, "k").result() != b"data":
        found.append("stream")
    return found


def test_nothing_is_shared_with_callers() -> None:
    assert shared_objects(guarded) == []


def test_metadata_handed_out_live_is_noticed() -> None:
    found = shared_objects(lambda **options: LiveMetadata(EventManager(), **options))
    assert {"get_metadata", "query"} <= set(found)
