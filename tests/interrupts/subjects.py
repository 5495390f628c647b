"""A store with everything in it that an exception may harm, and what must be true of it afterwards.

Only what a user can see is looked at: contents, indexes, revisions, events, watches, `info()`, and whether
every way of reading and writing still works within a short time: a lock that is left taken shows by that.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from latchstore import (
    Above,
    BaseEvent,
    Cache,
    DictMemoryStore,
    EventManager,
    Ordered,
    StoreDeleteEvent,
    StoreModificationEvent,
    StoreTransactionEndEvent,
    Watch,
)
from latchstore.engine.inspection import check

#: Seconds after which a wait has failed.
TIMEOUT = 20.0

#: Seconds that an operation may wait for a lock: one that takes longer is left taken.
LOCK_TIMEOUT = 2.0

#: What is there at the beginning.
FILL: dict[str, tuple[bytes, dict[str, Any]]] = {
    "goes": (b"1", {"kind": "a"}),
    "moves": (b"2", {"kind": "a", "n": 1}),
    "stays": (b"3", {"kind": "b"}),
}

#: What operations add to it.
ADDED = ("new", "newer")

#: What large commits add.
MANY = [f"many {number}" for number in range(200)]

#: How the keys begin that the checks and other threads write: they are no part of what an operation does.
BESIDE = "beside"
PROBE = f"{BESIDE} probe"

Contents = dict[str, tuple[Any, dict[str, Any]]]


class State(NamedTuple):
    """What can be seen of a store."""

    contents: Contents
    revision: int
    indexes: list[str]


class Change(NamedTuple):
    """What an event tells of."""

    event: str
    key: str
    revision: int


class Ping(BaseEvent):
    """An event of no store."""


class Subject:
    """A store in which something is there and everything is listened to.

    Parameters
    ----------
    options
        For the store.

    Attributes
    ----------
    heard, ended, emitted : list
        What listeners were called with: changes, states of transactions that ended, events of no store.
    called_back, timed : list of str
        What callbacks of transactions and of timers have noted.
    undo : list of callable
        What is to be done if the operation does not come to it.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.store = self.make_store()
        self.manager: Any = self.store.event_manager
        self.heard: list[Change] = []
        self.ended: list[str] = []
        self.emitted: list[object] = []
        self.called_back: list[str] = []
        self.timed: list[str] = []
        self.undo: list[Callable[[], object]] = []
        self.manager.connect(StoreModificationEvent, self._hear)
        self.manager.connect(StoreTransactionEndEvent, self._hear_end)
        self.manager.connect(Ping, self.emitted.append)
        self.fill()
        # The thread that calls listeners runs from here on.
        self.store.flush(TIMEOUT)
        self.heard.clear()
        self.ended.clear()
        self.watch: Watch = self.new_watch()

    def make_store(self) -> DictMemoryStore:
        """Return an empty store."""
        indexes = ["kind", Ordered("kind"), Ordered("key")]
        options = {"indexes": indexes, "lock_timeout": LOCK_TIMEOUT, "history": 1_000, **self._options}
        return DictMemoryStore(EventManager(), **options)

    def new_watch(self) -> Watch:
        """Return one that is told of everything."""
        return self.store.watch(max_buffer=1_000_000)

    def fill(self) -> None:
        """Put something there, in one commit."""
        self.store.multiset(list(FILL), list(FILL.values()))
        self.in_order()  # from now on the places are there that commits change

    def in_order(self) -> list[str]:
        """Return the keys that have a kind, as the ordered index has them."""
        found = list(self.store.query_keys(kind=Above(""), order_by="kind", limit=100_000))
        assert list(self.store.glob("?*", order_by="key", limit=100_000)) == sorted(self.store.query_keys())
        return found

    def restore(self) -> None:
        """Bring back what there was at the beginning, in one commit; other threads may be writing."""
        store = self.store
        with store.transaction("restore"):
            for key in (*ADDED, *(MANY if store.exists(MANY[0]) else ())):
                if store.exists(key):
                    store.delete(key)
            store.multiset(list(FILL), list(FILL.values()))

    def probe(self) -> None:
        """Write something that no operation writes."""
        self.store.set_data(PROBE, b"")

    def _hear(self, event: Any) -> None:
        while True:
            try:
                self.heard.append(Change(type(event).__name__, event.key, event.revision))
                return
            except MemoryError:
                continue  # what a listener asks for itself is not the store's to give

    def _hear_end(self, event: Any) -> None:
        self.ended.append(event.state)

    def state(self) -> State:
        """Return what can be seen."""
        info = self.store.info()
        return State(self.contents(), info["revision"], sorted(map(str, info["indexes"])))

    def contents(self) -> Contents:
        """Return keys, contents and metadata, as they were at one instant."""
        with self.store.snapshot() as view:
            return {key: (view.get(key).content, metadata) for key, metadata in view.query()}

    def events(self) -> list[Any]:
        """Return what the watch was told since this was called."""
        return [self.watch.get(0) for _ in range(len(self.watch))]

    def told(self) -> list[Change]:
        """Return the same as changes."""
        return [Change(type(event).__name__, event.key, event.revision) for event in self.events()]

    def check(self) -> None:
        """Look whether indexes agree with scans, and nothing was left over."""
        store = self.store
        check(store)
        for kind in ("a", "b", "c"):
            scanned = sorted(key for key, metadata in store.query() if metadata.get("kind") == kind)
            assert sorted(store.query_keys(kind=kind)) == scanned, "index and scan differ"
        kinds = sorted((metadata["kind"], key) for key, metadata in store.query(kind=Above("")))
        assert self.in_order() == [key for _, key in kinds], "ordered index and scan differ"
        check(store)
        assert store.current_transaction() is None, "a transaction is open"
        assert store.stats()["watches"] == (not self.watch.closed and not self._has_ended()), "watches"
        info = store.info()
        if (info["snapshots"], info["pinned_entries"]) != (0, 0):
            gc.collect()  # what only a cycle of references holds is freed then
            info = store.info()
        assert (info["snapshots"], info["pinned_entries"]) == (0, 0), "a snapshot is pinned"

    def _has_ended(self) -> bool:
        return bool(self.store.info()["closed"])

    def check_use(self) -> None:
        """Write in every way, and have it heard."""
        store = self.store
        assert store.current_transaction() is None, "a transaction is open"
        revision = store.info()["revision"]
        store.from_bytes("after", b"1")
        with store.transaction():
            store.set("after", (b"2", {"kind": "c"}))
        with store.snapshot() as view:
            store.delete("after")
            assert view.to_bytes("after") == b"2"
        store.flush(TIMEOUT)
        info = store.info()
        assert info["revision"] == revision + 3
        assert info["pending_events"] == 0


class CacheSubject(Subject):
    """A store that a full cache is on.

    Parameters
    ----------
    shared : bool
        Whether the store is the subject's, so that the cache is told of what is written; else it is the
        cache's own, which keeps the values by reference.
    entries : int
        How many there are, which is as many as there may be.
    store_options : mapping
        For the store, if it is the subject's.
    options
        For the cache.
    """

    def __init__(
        self,
        shared: bool = True,
        entries: int = 4,
        store_options: Mapping[str, Any] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        self.now = 1_000.0
        self.is_shared = shared
        self.entries = entries
        self._cache_options = options
        super().__init__(**store_options)

    def make_store(self) -> DictMemoryStore:
        store = super().make_store() if self.is_shared else None
        codec = "json" if self.is_shared else "reference"
        options = {"codec": codec, "idle": 900.0, "max_entries": self.entries, **self._cache_options}
        self.cache = Cache(store, clock=lambda: self.now, **options)
        if store is None:
            self.cache.store.connect()
        assert isinstance(self.cache.store, DictMemoryStore)
        return self.cache.store

    def fill(self) -> None:
        cache = self.cache
        cache.set("goes", 1, ttl=100.0, tags=["tag"])
        cache.set("moves", 2, tags=["tag", "other"])
        cache.set("stays", 3, ttl=500.0, refresh_after=200.0)
        cache.set_many({f"more{number}": number for number in range(self.entries - 3)})
        self.store.flush(TIMEOUT)
        self.check_books()

    def restore(self) -> None:
        self.undo_all()
        cache = self.cache
        for key in (*ADDED, PROBE):
            cache.delete(key)
        cache.set("stays", 3, ttl=500.0, refresh_after=200.0)
        cache.set("goes", 1, ttl=100.0, tags=["tag"])
        cache.set("moves", 2, tags=["tag", "other"])

    def probe(self) -> None:
        self.cache.set(PROBE, 0)

    def undo_all(self) -> None:
        """Set the clock back."""
        self.now = 1_000.0
        self.undo.clear()

    def later(self, seconds: float) -> None:
        """Let time go by, until what is left is looked at."""
        self.now += seconds
        self.undo.append(functools.partial(self._earlier, seconds))

    def _earlier(self, seconds: float) -> None:
        self.now -= seconds
        self.store.flush(TIMEOUT)  # the store's thread may be sweeping

    def check_books(self) -> None:
        """Look whether the cache counts what the store has, and its bound is kept."""
        self.store.flush(TIMEOUT)
        keys = sorted(self.store.query_keys())
        assert len(keys) <= self.entries, "the bound is exceeded"
        assert sorted(self.cache) == keys, "cache and store differ"
        assert self.cache.stats()["entries"] == len(keys), "the cache's count is wrong"

    def check_use(self) -> None:
        """Write by way of the cache; the books are right after the first operation, and stay so."""
        cache = self.cache
        assert self.store.current_transaction() is None, "a transaction is open"
        cache.set("after", 1)
        self.check_books()
        with self.store.transaction():
            cache.set("after", 2)
            cache.set("more", 3)
        self.check_books()
        assert cache.get_many(["after", "more"]) == {"after": 2, "more": 3}
        assert cache.delete("after")
        self.check_books()
        assert cache.get_or_load("after", lambda key: 4, timeout=TIMEOUT) == 4
        assert cache.pop("after") == 4
        self.check_books()
        assert self.store.info()["pending_events"] == 0


def replayed(contents: Contents, events: list[Any]) -> Contents:
    """Return what contents become by the changes that events tell of."""
    contents = dict(contents)
    for event in events:
        if isinstance(event, StoreDeleteEvent):
            contents.pop(event.key)
        else:
            contents[event.key] = (event.value.content, dict(event.metadata))
    return contents
