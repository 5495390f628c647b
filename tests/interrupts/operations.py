"""The operations that are struck, and a store with everything in it that they may harm."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from latchstore.engine.locking import Latch, Waiters

from latchstore import (
    BaseEvent,
    Cache,
    DictMemoryStore,
    EntryTooLargeError,
    EventManager,
    RevisionMismatchError,
    StoreDeleteEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    TransactionConflictError,
    Watch,
)

#: Seconds after which a wait has failed.
TIMEOUT = 20.0

#: Files that are read and written; in memory where that can be, as each is flushed to the disk.
FILES = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


class State(NamedTuple):
    """What can be seen of a store."""

    contents: dict[str, tuple[bytes, dict[str, Any]]]
    revision: int
    indexes: list[str]


class Ping(BaseEvent):
    """An event of no store."""


class Subject:
    """A store in which something is there and everything is listened to."""

    def __init__(self, heard: bool = True) -> None:
        self.store = self.make_store()
        self.manager: Any = self.store.event_manager
        self.fill()
        self.heard: list[tuple[str, str, int]] = []
        self.ended: list[str] = []
        self.emitted: list[object] = []
        self.called_back: list[str] = []
        self.timed: list[str] = []
        # What a listener waits for, and what is to be done if the operation does not do it.
        self.undo: list[Callable[[], object]] = []
        if heard:
            self.manager.connect(StoreModificationEvent, self._hear)
            self.manager.connect(StoreTransactionEndEvent, self._hear_end)
            self.manager.connect(Ping, self.emitted.append)
        self.watch: Watch = self.store.watch()

    def make_store(self) -> DictMemoryStore:
        """Return an empty store."""
        return DictMemoryStore(EventManager(), indexes=["kind"], lock_timeout=1.0, history=100)

    def fill(self) -> None:
        """Put something there."""
        self.store.multiset(
            ["goes", "moves", "stays"],
            [(b"1", {"kind": "a"}), (b"2", {"kind": "a", "n": 1}), (b"3", {"kind": "b"})],
        )

    def _hear(self, event: Any) -> None:
        self.heard.append((type(event).__name__, event.key, event.revision))

    def _hear_end(self, event: Any) -> None:
        self.ended.append(event.state)

    def state(self) -> State:
        """Return what can be seen."""
        store = self.store
        info = store.info()
        contents = {key: (store.to_bytes(key), metadata) for key, metadata in store.query()}
        return State(contents, info["revision"], sorted(info["indexes"]))

    def told(self) -> list[tuple[str, str, int]]:
        """Return what the watch was told."""
        events: list[Any] = [self.watch.get(0) for _ in range(len(self.watch))]
        return [(type(event).__name__, event.key, event.revision) for event in events]

    def check(self) -> None:
        """Look whether anything was left over."""
        store = self.store
        store._table.check()
        for kind in ("a", "b", "c"):
            scanned = sorted(key for key, metadata in store.query() if metadata.get("kind") == kind)
            assert sorted(store.query_keys(kind=kind)) == scanned
        assert store._latches.writer.claim is None
        assert store._table.detour is None
        assert store.engine.routes == {}
        assert store._feed.watches == (not self.watch._buffer.ended)
        info = store.info()
        assert (info["snapshots"], info["pinned_entries"]) == (0, 0)

    def check_use(self) -> None:
        """Write in every way, and hear of it."""
        store = self.store
        revision = store.info()["revision"]
        store.from_bytes("after", b"1")
        with store.transaction():
            store.set("after", (b"2", {"kind": "c"}))
        with store.snapshot() as view:
            store.delete("after")
            assert view.to_bytes("after") == b"2"
        store.flush(TIMEOUT)
        assert store.info()["revision"] == revision + 3
        assert store.info()["pending_events"] == 0


class CacheSubject(Subject):
    """A store that a full cache is on.

    Parameters
    ----------
    shared : bool
        Whether the store is the subject's, so that the cache hears of what is written; else it is the
        cache's own.
    entries : int
        How many there are, which is as many as there may be.
    options
        For the cache.
    """

    def __init__(self, shared: bool = True, entries: int = 4, **options: Any) -> None:
        self.now = 1_000.0
        self._shared = shared
        self._entries = entries
        self._options = options
        super().__init__()

    def make_store(self) -> DictMemoryStore:
        store = super().make_store() if self._shared else None
        options = {"codec": "json", "idle": 900.0, "max_entries": self._entries, **self._options}
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
        cache.set_many({f"more{number}": number for number in range(self._entries - 3)})
        self.store.flush(TIMEOUT)
        self.check_books()

    def later(self, seconds: float) -> None:
        """Let time go by, until what is left is looked at."""
        self.now += seconds
        self.undo.append(functools.partial(self._earlier, seconds))

    def _earlier(self, seconds: float) -> None:
        self.now -= seconds
        self.store.flush(TIMEOUT)  # the store's thread may be sweeping

    def check_books(self) -> None:
        """Look whether the cache's books are what the store has, its bound is kept and its latch free."""
        keeper = self.cache._keeper
        self.store.flush(TIMEOUT)
        keeper.check(self.store.query_keys())
        assert len(self.store) <= self._entries
        assert not keeper._latch.locked()
        assert not self.cache._loads
        assert not keeper._stale

    def check_use(self) -> None:
        """Write by way of the cache; the books are right after the first operation, and stay so."""
        cache = self.cache
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


Operation = Callable[[Any], object]


def exclusive(subject: Subject) -> None:
    store = subject.store
    with store.transaction("t") as tx:
        tx.set("new", (b"n", {"kind": "a"}))
        store.delete("goes")
        store.update_metadata("moves", {"kind": "b"})


def optimistic(subject: Subject) -> None:
    store = subject.store
    with store.transaction("t", optimistic=True) as tx:
        tx.set("new", (tx.to_bytes("moves"), {"kind": "a"}))
        store.delete("goes")


def nested(subject: Subject) -> None:
    store = subject.store
    with store.transaction("outer"):
        store.from_bytes("new", b"outer")
        with store.transaction("kept"):
            store.delete("goes")
        with store.transaction("taken back") as tx:
            store.delete("stays")
            tx.doom()


def committed_early(subject: Subject) -> None:
    with subject.store.transaction() as tx:
        tx.from_bytes("new", b"")
        tx.commit()


def rolled_back(subject: Subject) -> None:
    with subject.store.transaction() as tx:
        tx.delete("goes")
        tx.rollback()


def attempted(subject: Subject) -> None:
    for attempt in subject.store.attempts("a"):
        with attempt as tx:
            tx.from_bytes("new", tx.to_bytes("moves"))


def transactional(subject: Subject) -> None:
    @subject.store.transactional("decorated")
    def run() -> None:
        subject.store.from_bytes("new", b"")

    run()


def snapshot(subject: Subject) -> None:
    with subject.store.snapshot() as view:
        assert view.to_bytes("goes") == b"1"
        assert sorted(view.query_keys(kind="a")) == ["goes", "moves"]


def watched(subject: Subject) -> None:
    with subject.store.watch("g*", since=0) as changes:
        assert changes.get(0).key == "goes"  # type: ignore[union-attr]


def listening(subject: Subject) -> None:
    def listener(event: object) -> None:
        pass

    subject.manager.connect(StoreSetEvent, listener, {"key": "new"})
    subject.manager.disconnect(StoreSetEvent, listener)


def read(subject: Subject) -> None:
    store = subject.store
    store.get("goes")
    store.get_metadata("goes")
    store.exists("missing")
    list(store.multiget(["goes", "stays"]))
    list(store.query(kind="a"))
    list(store.query(n=1))
    list(store.glob("*s"))
    len(store)
    store.info()
    store.stats()


def opened_and_closed(subject: Subject) -> None:
    subject.store.close(TIMEOUT)
    subject.store.connect()


def failing(call: Callable[[DictMemoryStore], object], *errors: type[Exception]) -> Operation:
    """Return an operation that fails by itself, so that an exception may strike while it is handled."""

    def run(subject: Subject) -> None:
        with contextlib.suppress(*errors):
            call(subject.store)

    return run


def failing_block(store: DictMemoryStore) -> None:
    with store.transaction():
        store.from_bytes("new", b"")
        store.delete("missing")


def failing_inner_block(store: DictMemoryStore) -> None:
    with store.transaction():
        store.from_bytes("new", b"")
        with contextlib.suppress(KeyError), store.transaction():
            store.delete("goes")
            store.delete("missing")


def conflict(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True) as tx:
        tx.from_bytes("new", tx.to_bytes("goes"))
        # As another thread would: nothing is committed, but something was changed.
        store._table.preimages.layers[-1].entries["goes"] = None


def set_in_blocks(subject: Subject) -> None:
    store = subject.store
    with store.transaction("outer"):
        store.set_data("goes", b"outer")
        with store.transaction("inner"):
            store.delete("goes")
            store.delete("moves")
        store.set_metadata("moves", {"kind": "b"})


def called_back(subject: Subject) -> None:
    with subject.store.transaction() as tx:
        tx.delete("goes")
        tx.on_commit(lambda: subject.called_back.append("commit"))
        tx.on_rollback(lambda: subject.called_back.append("rollback"))


def dropped_by_its_generator(subject: Subject) -> None:
    def generate() -> Iterator[None]:
        with subject.store.transaction():
            subject.store.delete("goes")
            yield

    generator = generate()
    next(generator)
    del generator


def snapshot_closed_twice(subject: Subject) -> None:
    view = subject.store.snapshot()
    view.close()
    view.close()


def snapshot_dropped(subject: Subject) -> None:
    subject.store.snapshot().exists("goes")


def watch_iterated(subject: Subject) -> None:
    changes = subject.store.watch(since=0)
    for change in changes:
        assert change.revision == 1
        if len(changes) == 0:
            changes.close()
    changes.close()


def watch_dropped(subject: Subject) -> None:
    assert subject.store.watch(filter={"kind": "a"}, on_overflow="coalesce") is not None


def listeners_and_classes(subject: Subject) -> None:
    manager = subject.manager
    subject.undo.append(lambda: manager.enable(StoreDeleteEvent))
    manager.disable(StoreDeleteEvent)
    manager.enable(StoreDeleteEvent)


def many_read(subject: Subject) -> None:
    store = subject.store
    keys = ["goes", "moves"]
    list(store.multiget_data(keys))
    list(store.multiget_metadata(keys, ["kind"]))
    store.get_data("goes").read()
    store.get_data_range("goes", 0, 1).read()
    store.to_bytes("goes")
    list(store.query_keys(kind="a"))
    store.to_file("goes", Path(FILES.name) / "written")


def from_file(subject: Subject) -> None:
    path = Path(FILES.name) / "read"
    path.write_bytes(b"from a file")
    subject.store.from_file("moves", path)


def saved(subject: Subject) -> None:
    subject.store.save(Path(FILES.name) / "saved")


def loaded(subject: Subject) -> None:
    path = Path(FILES.name) / "loaded"
    if not path.exists():
        subject.store.save(path)
    store = DictMemoryStore.load(path, subject.manager, indexes=["kind"])
    assert store.to_bytes("goes") == b"1"
    store.close(TIMEOUT)


def closed_while_events_pend(subject: Subject) -> None:
    store = subject.store
    go_on = threading.Event()
    subject.undo.append(go_on.set)

    def listen(event: object) -> None:
        while not store._closed and not go_on.wait(0.001):
            pass

    subject.manager.connect(StoreSetEvent, listen, priority=1)
    store.multiset(["new", "newer"], [(b"", {}), (b"", {})])
    store.close(TIMEOUT)
    store.connect()


class Held:
    """Something that a thread of its own holds, until somebody waits for it; a context manager.

    Parameters
    ----------
    take, give_back : callable
    waiters : Waiters
        Where those sleep who wait for it.
    """

    def __init__(self, take: Callable[[], object], give_back: Callable[[], object], waiters: Waiters) -> None:
        self._take, self._give_back = take, give_back
        self._waiters = waiters
        self._taken = threading.Event()
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        self._take()
        self._taken.set()
        while not self._waiters.bells and not self._over.wait(0.0001):
            pass
        self._give_back()

    def __enter__(self) -> Held:
        self.thread.start()
        assert self._taken.wait(TIMEOUT)
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()


def held_latch(latch: Latch) -> Held:
    claim = (threading.get_ident(), "held")
    return Held(lambda: latch.acquire(claim), lambda: latch.release(claim), latch._waiters)


def held_lock(subject: Subject, writing: bool) -> Held:
    lock = subject.store._latches.table._lock
    handle = lock.gen_wlock() if writing else lock.gen_rlock()
    return Held(handle.acquire, handle.release, lock._waiters)  # type: ignore[attr-defined]


def held_mutex(subject: Subject) -> Held:
    writer = subject.store._latches.writer
    claims: list[tuple[threading.Thread, str]] = []
    held = Held(
        lambda: writer.acquire(claims[0]),
        lambda: writer.release(claims[0]),
        subject.store._latches.writer._waiters,
    )
    claims.append((held.thread, "held"))
    return held


def waiting_to_write(subject: Subject) -> None:
    with held_mutex(subject):
        subject.store.from_bytes("moves", b"waited")


def waiting_to_begin(subject: Subject) -> None:
    with held_mutex(subject), subject.store.transaction() as tx:
        tx.delete("goes")


def waiting_for_readers(subject: Subject) -> None:
    with held_lock(subject, writing=False):
        subject.store.multiset(["goes", "new"], [(b"", {}), (b"", {"kind": "a"})])


def waiting_to_read(subject: Subject) -> None:
    with held_lock(subject, writing=True):
        list(subject.store.query(kind="a"))


def waiting_for_a_latch(subject: Subject) -> None:
    with held_latch(subject.store._gate_latch):
        subject.store.delete("goes")


def waiting_for_the_feed(subject: Subject) -> None:
    with held_latch(subject.store._feed._feed_latch):
        subject.store.from_bytes("new", b"")


def waiting_for_a_change(subject: Subject) -> None:
    # A watch of its own, so that what is read is not missed afterwards.
    with subject.store.watch("new") as changes:
        buffer = changes._buffer
        writer = lambda: subject.store.from_bytes("new", b"by another thread")  # noqa: E731
        with Held(lambda: None, writer, buffer._waiters):
            changes.get(TIMEOUT)


def waiting_for_a_key(subject: Subject) -> None:
    store = subject.store
    go_on = threading.Event()

    def write() -> None:
        assert go_on.wait(TIMEOUT)
        store.from_bytes("new", b"by another thread")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        store.wait_for(lambda: go_on.set() or store.exists("new"), TIMEOUT)  # type: ignore[func-returns-value]
    finally:
        go_on.set()
        thread.join(TIMEOUT)


def evicted_in_a_transaction(subject: Subject) -> None:
    with subject.store.transaction() as tx:
        tx.evict("goes", "idle")
        subject.store.evict("moves")


def called_later(subject: Subject) -> None:
    subject.store.call_later(0.0, lambda: subject.timed.append("called"))


def not_called_later(subject: Subject) -> None:
    timer = subject.store.call_later(1_000.0, lambda: subject.timed.append("called"))
    timer.cancel()
    assert not timer.active


def cached_in_a_transaction(subject: CacheSubject) -> None:
    with subject.store.transaction():
        subject.cache.set("new", 5)
        subject.cache["moves"] = 6
        assert subject.cache.get("new") == 5
        subject.cache.delete("goes")


def cached_in_an_optimistic_transaction(subject: CacheSubject) -> None:
    with subject.store.transaction(optimistic=True):
        subject.cache.set("new", 5)
        subject.cache.set("newer", 6)


def cached_in_blocks(subject: CacheSubject) -> None:
    cache = subject.cache
    with subject.store.transaction("outer"):
        cache.set("new", 5)
        with subject.store.transaction("kept"):
            cache.set("moves", 6)
        with subject.store.transaction("taken back") as tx:
            cache.set("newer", 7)
            tx.doom()


def cached_and_rolled_back(subject: CacheSubject) -> None:
    with subject.store.transaction() as tx:
        subject.cache.set("new", 5)
        subject.cache.delete("moves")
        tx.doom()


def missed(subject: CacheSubject) -> None:
    subject.cache.get("missing")


def read_by_way_of_the_cache(subject: CacheSubject) -> None:
    cache = subject.cache
    assert "goes" in cache
    assert "missing" not in cache
    assert len(cache) == len(list(cache)) == 4
    assert cache.get_many(["goes", "missing"]) == {"goes": 1}
    assert dict(cache.items())["moves"] == 2
    assert cache.remaining("goes") == 100.0
    cache.stats()


def read_what_others_wrote(subject: CacheSubject) -> None:
    subject.store.set_data("moves", b"7")
    assert subject.cache.get("moves") == 7


def refreshed(subject: CacheSubject) -> None:
    subject.later(250.0)
    subject.cache.get_or_load("stays", lambda key: 7, ttl=100.0)


def swept(subject: CacheSubject) -> None:
    subject.later(150.0)
    subject.cache.sweep()


def load_that_fails(subject: CacheSubject) -> None:
    def fail(key: str) -> object:
        raise LookupError(key)

    for _ in range(2):
        with contextlib.suppress(LookupError):
            subject.cache.get_or_load("new", fail, negative_ttl=10.0)


def double(number: int) -> int:
    return 2 * number


def remembered(subject: CacheSubject) -> None:
    remembering = subject.cache.memoize(tags=["tag"])(double)
    assert remembering(1) == remembering(1) == 2
    remembering.invalidate(1)


def another_cache(subject: CacheSubject) -> None:
    # By the same clock: one that is made in part, and kept by a traceback, may yet sweep what is over.
    Cache(subject.store, max_entries=100, clock=lambda: subject.now).close()


def failing_set(subject: CacheSubject) -> None:
    with contextlib.suppress(EntryTooLargeError):
        subject.cache.set("new", 5, weight=1_001)


def waiting_for_the_books(subject: CacheSubject) -> None:
    with held_latch(subject.cache._keeper._latch):
        subject.cache.set("moves", 7)


OPERATIONS: dict[str, Operation] = {
    "from_bytes": lambda subject: subject.store.from_bytes("moves", b"new"),
    "from_bytes, new": lambda subject: subject.store.from_bytes("new", b"new"),
    "set": lambda subject: subject.store.set("moves", (b"new", {"kind": "b"})),
    "set a stream, if_revision": lambda subject: subject.store.set(
        "new", (io.BytesIO(b"new"), {"kind": ["c"]}), 1, if_revision=0
    ),
    "set_metadata": lambda subject: subject.store.set_metadata("moves", {"kind": "b"}),
    "update_metadata": lambda subject: subject.store.update_metadata("moves", {"n": 2}),
    "delete": lambda subject: subject.store.delete("goes"),
    "multiset": lambda subject: subject.store.multiset(
        ["moves", "new", "newer"], [(b"", {"kind": "b"}), (b"", {"kind": "a"}), (b"", {})]
    ),
    "multiupdate_metadata": lambda subject: subject.store.multiupdate_metadata(
        ["moves", "goes"], [{"kind": "b"}, {"kind": "c"}]
    ),
    "transaction": exclusive,
    "transaction, optimistic": optimistic,
    "transaction, nested": nested,
    "transaction, commit()": committed_early,
    "transaction, rollback()": rolled_back,
    "attempts": attempted,
    "transactional": transactional,
    "add_index": lambda subject: subject.store.add_index("n"),
    "remove_index": lambda subject: subject.store.remove_index("kind"),
    "snapshot": snapshot,
    "watch": watched,
    "listening": listening,
    "reads": read,
    "flush": lambda subject: subject.store.flush(TIMEOUT),
    "close and connect": opened_and_closed,
    "delete, missing": failing(lambda store: store.delete("missing"), KeyError),
    "set, other revision": failing(
        lambda store: store.set("goes", (b"", {}), if_revision=7), RevisionMismatchError
    ),
    "multiupdate_metadata, missing": failing(
        lambda store: store.multiupdate_metadata(["moves", "missing"], [{"n": 2}, {}]), KeyError
    ),
    "transaction, failing": failing(failing_block, KeyError),
    "transaction, failing inside": failing(failing_inner_block),
    "transaction, in conflict": failing(conflict, TransactionConflictError),
    "remove_index, missing": failing(lambda store: store.remove_index("none"), KeyError),
    "wait_for_key": lambda subject: subject.store.wait_for_key("goes", TIMEOUT),
    "set_data": lambda subject: subject.store.set_data("moves", io.BytesIO(b"new")),
    "multiset_data": lambda subject: subject.store.multiset_data(
        ["goes", "new"], [io.BytesIO(b"data"), b"bytes"]
    ),
    "multiset_metadata": lambda subject: subject.store.multiset_metadata(
        ["goes", "new"], [{"kind": "b"}, {"kind": "a"}]
    ),
    "from_file": from_file,
    "reads of several, to_file": many_read,
    "save": saved,
    "load": loaded,
    "transaction, delete inside": set_in_blocks,
    "on_commit, on_rollback": called_back,
    "transaction, dropped by a generator": dropped_by_its_generator,
    "snapshot closed twice": snapshot_closed_twice,
    "snapshot dropped": snapshot_dropped,
    "watch iterated and closed": watch_iterated,
    "watch dropped": watch_dropped,
    "wait_for": lambda subject: subject.store.wait_for(lambda: subject.store.exists("goes"), TIMEOUT),
    "emit": lambda subject: subject.manager.emit(Ping()),
    "disable and enable": listeners_and_classes,
    "disconnect": lambda subject: subject.store.disconnect(),
    "close while events pend": closed_while_events_pend,
    "waiting for the writer mutex": waiting_to_write,
    "waiting for the writer mutex, transaction": waiting_to_begin,
    "waiting for readers to leave": waiting_for_readers,
    "waiting to read": waiting_to_read,
    "waiting for the gate latch": waiting_for_a_latch,
    "waiting for the feed latch": waiting_for_the_feed,
    "waiting for a change": waiting_for_a_change,
    "wait_for, by another thread": waiting_for_a_key,
    "evict": lambda subject: subject.store.evict("goes"),
    "evict, if_revision": lambda subject: subject.store.evict("goes", "idle", if_revision=1),
    "evict, other revision": failing(lambda store: store.evict("goes", if_revision=7), RevisionMismatchError),
    "transaction, evict inside": evicted_in_a_transaction,
    "call_later": called_later,
    "call_later, cancelled": not_called_later,
    "mapping, set": lambda subject: subject.store.mapping("raw").__setitem__("moves", b"new"),
    "mapping, pop": lambda subject: subject.store.mapping("raw").pop("goes"),
    "mapping, update": lambda subject: subject.store.mapping("json").update({"moves": [1], "new": None}),
    "mapping, setdefault": lambda subject: subject.store.mapping("raw").setdefault("new", b"new"),
    "mapping, popitem": lambda subject: subject.store.mapping("raw").popitem(),
    "mapping, clear": lambda subject: subject.store.mapping("raw").clear(),
    "cache: set": lambda subject: subject.cache.set("new", 5, ttl=50.0),
    "cache: set, by LRU": lambda subject: subject.cache.set("new", 5),
    "cache: set, by S3-FIFO": lambda subject: subject.cache.set("new", 5),
    "cache: set, evicting several": lambda subject: subject.cache.set("new", 5),
    "cache: set, in place of another": lambda subject: subject.cache.set("moves", 5, tags=["new"]),
    "cache: set, too heavy": failing_set,
    "cache: set_many": lambda subject: subject.cache.set_many({"moves": 5, "new": 6, "newer": 7}),
    "cache: add": lambda subject: subject.cache.add("new", 5),
    "cache: modify": lambda subject: subject.cache.modify("moves", lambda value: value + 1),
    "cache: touch": lambda subject: subject.cache.touch("goes", 300.0),
    "cache: get": lambda subject: subject.cache.get("goes"),
    "cache: get, missing": missed,
    "cache: get, what others wrote": read_what_others_wrote,
    "cache: reads": read_by_way_of_the_cache,
    "cache: delete": lambda subject: subject.cache.delete("goes"),
    "cache: pop": lambda subject: subject.cache.pop("goes"),
    "cache: popitem": lambda subject: subject.cache.popitem(),
    "cache: setdefault": lambda subject: subject.cache.setdefault("new", 5),
    "cache: clear": lambda subject: subject.cache.clear(),
    "cache: invalidate_tag": lambda subject: subject.cache.invalidate_tag("tag"),
    "cache: sweep": swept,
    "cache: get_or_load": lambda subject: subject.cache.get_or_load("new", lambda key: 5),
    "cache: get_or_load, refreshing": refreshed,
    "cache: get_or_load, failing": load_that_fails,
    "cache: get_many_or_load": lambda subject: subject.cache.get_many_or_load(
        ["moves", "new", "newer"], lambda keys: {"new": 5}
    ),
    "cache: memoize": remembered,
    "cache: transaction": cached_in_a_transaction,
    "cache: transaction, optimistic": cached_in_an_optimistic_transaction,
    "cache: transaction, nested": cached_in_blocks,
    "cache: transaction, doomed": cached_and_rolled_back,
    "cache: another one on the store": another_cache,
    "cache: waiting for the latch": waiting_for_the_books,
    "own cache: set": lambda subject: subject.cache.set("new", 5, ttl=50.0),
    "own cache: delete": lambda subject: subject.cache.delete("goes"),
    "own cache: sweep": swept,
    "own cache: transaction": cached_in_a_transaction,
    "own cache: get_or_load": lambda subject: subject.cache.get_or_load("new", lambda key: 5),
}

#: What the caches of some operations are made with.
CACHE_OPTIONS: dict[str, dict[str, Any]] = {
    "cache: set, by LRU": {"policy": "lru"},
    "cache: set, by S3-FIFO": {"policy": "s3-fifo"},
    "cache: set, evicting several": {"entries": 200},
    "cache: set, too heavy": {"max_bytes": 1_000},
}


def subject_for(name: str) -> Subject:
    """Return what an operation works on."""
    if "cache:" not in name:
        return Subject()
    return CacheSubject(shared=name.startswith("cache"), **CACHE_OPTIONS.get(name, {}))


#: What leaves the store closed if it is struck in the middle; nothing else is changed by it.
LEAVES_CLOSED = ("close and connect", "close while events pend")
