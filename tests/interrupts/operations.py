"""The operations that are struck, and a store with everything in it that they may harm."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from latchstore import (
    BaseEvent,
    DictMemoryStore,
    EventManager,
    RevisionMismatchError,
    StoreDeleteEvent,
    StoreModificationEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    TransactionConflictError,
    Watch,
)
from latchstore.locking import Latch, Waiters

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
        self.manager = EventManager()
        self.store = DictMemoryStore(self.manager, indexes=["kind"], lock_timeout=1.0, history=100)
        self.store.multiset(
            ["goes", "moves", "stays"],
            [(b"1", {"kind": "a"}), (b"2", {"kind": "a", "n": 1}), (b"3", {"kind": "b"})],
        )
        self.heard: list[tuple[str, str, int]] = []
        self.ended: list[str] = []
        self.emitted: list[object] = []
        self.called_back: list[str] = []
        # What a listener waits for, and what is to be done if the operation does not do it.
        self.undo: list[Callable[[], object]] = []
        if heard:
            self.manager.connect(StoreModificationEvent, self._hear)
            self.manager.connect(StoreTransactionEndEvent, self._hear_end)
            self.manager.connect(Ping, self.emitted.append)
        self.watch: Watch = self.store.watch()

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
        assert store._latches.writer.holder is None
        assert store._gate is None
        assert store._open_transactions == {}
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


Operation = Callable[[Subject], object]


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
        while not self._waiters._bells and not self._over.wait(0.0001):
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
}

#: What leaves the store closed if it is struck in the middle; nothing else is changed by it.
LEAVES_CLOSED = ("close and connect", "close while events pend")
