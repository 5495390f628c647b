"""Every kind of commit, and what a store shows of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from readerwriterlock import rwlock

from latchstore import (
    AbstractReadOnlyStore,
    DictMemoryStore,
    EventManager,
    StoreModificationEvent,
    StoreTransactionEndEvent,
)
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.engine.inspection import check, replace_entries
from latchstore.engine.locks import ReadWriteLock
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.preimages import Preimages
from latchstore.engine.publishing import Publisher
from latchstore.engine.routes import Routes
from tests.tables import Entries


def make_store(**options: Any) -> DictMemoryStore:
    """Return a store at revision 1, with two indexes."""
    store = DictMemoryStore(EventManager(), indexes=["a", "b"], **options)
    replace_entries(store, Entries())
    store.multiset(["stays", "goes", "moves"], [(b"s", {"a": 1, "b": 1}), (b"g", {"a": 1}), (b"m", {"b": 2})])
    return store


State = dict[str, tuple[bytes, dict[str, Any]]]

BEFORE: State = {"stays": (b"s", {"a": 1, "b": 1}), "goes": (b"g", {"a": 1}), "moves": (b"m", {"b": 2})}

#: What each commit does, and what there is afterwards.
COMMITS: dict[str, tuple[Callable[[DictMemoryStore], object], State]] = {
    "transaction": (
        lambda store: everything(store),
        {
            "stays": BEFORE["stays"],
            "moves": (b"M", {"a": 3, "b": [1]}),
            "new": (b"n", {"a": 1}),
            "new too": (b"N", {"b": 1}),
        },
    ),
    "multiset": (
        lambda store: store.multiset(["moves", "new"], [(b"M", {"a": (1,)}), (b"n", {"a": 1})]),
        BEFORE | {"moves": (b"M", {"a": (1,)}), "new": (b"n", {"a": 1})},
    ),
    "set": (lambda store: store.set("moves", (b"M", {"a": 3})), BEFORE | {"moves": (b"M", {"a": 3})}),
    "create": (lambda store: store.set("new", (b"n", {"a": 1})), BEFORE | {"new": (b"n", {"a": 1})}),
    "delete": (
        lambda store: store.delete("goes"),
        {key: held for key, held in BEFORE.items() if key != "goes"},
    ),
}


def everything(store: DictMemoryStore) -> None:
    """Make a commit that changes, deletes and creates, with and without indexed items."""
    with store.transaction():
        store.set("moves", (b"M", {"a": 3, "b": [1]}))
        store.delete("goes")
        store.set("new", (b"n", {"a": 1}))
        store.set("new too", (b"N", {"b": 1}))


def one_by_one(store: AbstractReadOnlyStore) -> State:
    """Read a store by methods that read a single key, all of which agree."""
    found: State = {}
    for key in ("stays", "goes", "moves", "new", "new too"):
        if store.exists(key):
            value = store.get(key)
            found[key] = (value.data.read(), value.metadata)
            assert found[key] == (store.to_bytes(key), store.get_metadata(key))
        else:
            with pytest.raises(KeyError):
                store.to_bytes(key)
            with pytest.raises(KeyError):
                store.get(key)
    return found


def all_at_once(store: AbstractReadOnlyStore) -> State:
    """Read a store by methods that read several keys, all of which agree."""
    keys = list(store.query_keys())
    values = store.multiget(keys)
    found = {key: (value.data.read(), value.metadata) for key, value in zip(keys, values, strict=True)}
    assert {key: metadata for key, (_, metadata) in found.items()} == dict(store.query())
    for name, wanted in (("a", 1), ("b", 1), ("b", 2)):
        matching = {key for key, (_, metadata) in found.items() if metadata.get(name) == wanted}
        assert set(store.query_keys(where={name: wanted})) == matching
    return found


class Followers:
    """All that follows a store: a listener, a watch and a snapshot."""

    def __init__(self, store: DictMemoryStore) -> None:
        self.store = store
        self._thread = threading.current_thread().name
        self.heard: list[tuple[str, int | None]] = []
        self.ends: list[str] = []
        store.event_manager.connect(StoreModificationEvent, self._hear)
        store.event_manager.connect(StoreTransactionEndEvent, self._hear_end)
        self.watch = store.watch()
        self.view = store.snapshot()

    def _hear(self, event: StoreModificationEvent) -> None:
        self.heard.append((event.key, event.revision))

    def _hear_end(self, event: Any) -> None:
        if event.transaction.thread == self._thread:
            self.ends.append(event.state)

    def close(self) -> tuple[set[str], list[str]]:
        """Return the keys of revision 2 and how transactions have ended, of which each was told once."""
        self.store.flush()
        told: list[Any] = [self.watch.get(0) for _ in range(len(self.watch))]
        changes = [(each.key, 2) for each in told if each.revision == 2]
        heard = [change for change in self.heard if change[1] == 2]
        assert heard == changes
        assert len(set(heard)) == len(heard)
        assert all_at_once(self.view) == one_by_one(self.view) == BEFORE
        self.view.close()
        self.watch.close()
        check(self.store)
        assert self.store.info()["pinned_entries"] == 0
        self.store.close()
        return {key for key, _ in heard}, self.ends


def fail(*arguments: object, **options: object) -> NoReturn:
    raise MemoryError("on purpose")


#: The steps of `finish`, each by what it calls.
STEPS: dict[str, tuple[type, str]] = {
    "the pre-images": (Preimages, "record"),
    "an index": (MetadataIndex, "replace_all"),
    "a key in an index": (MetadataIndex, "replace"),
    "an entry": (Entries, "__setitem__"),
    "a deletion": (Entries, "pop"),
    "the transaction's end": (Routes, "forget"),
    "publishing": (Publisher, "publish"),
    "the queue": (EventDispatcher, "submit"),
    "the feed": (ChangeFeed, "publish"),
}

with_both_locks = pytest.mark.parametrize("lock_class", [ReadWriteLock, rwlock.RWLockFair])
