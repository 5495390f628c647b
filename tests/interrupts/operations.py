"""The operations that are struck, by groups."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from latchstore import (
    DictMemoryStore,
    Ordered,
    Prefix,
    RevisionMismatchError,
    StoreDeleteEvent,
    StoreSetEvent,
    TransactionConflictError,
)
from latchstore.engine.inspection import dispatcher_of
from tests.interrupts.cache_operations import CACHE, CACHE_OPTIONS
from tests.interrupts.helper import helper
from tests.interrupts.queue_operations import QUEUE, QueueSubject
from tests.interrupts.reads import (
    FILES,
    looked_at,
    many_read,
    mapping_read,
    read,
    read_in_blocks,
    snapshot_looked_at,
)
from tests.interrupts.subjects import MANY, TIMEOUT, CacheSubject, Ping, Subject
from tests.interrupts.waiting import LOCKED, WAITING, LockedSubject

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


def large(subject: Subject) -> None:
    store = subject.store
    with store.transaction("large"):
        store.delete("goes")
        store.multiset(MANY, [(b"", {"kind": "ab"[number % 2]}) for number in range(len(MANY))])


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
    store = subject.store
    before = store.stats()["revision"]
    store.set_data("goes", b"watched")
    with store.watch("g*", since=before) as changes:
        assert changes.get(0).key == "goes"  # type: ignore[union-attr]


def listening(subject: Subject) -> None:
    def listener(event: object) -> None:
        pass

    subject.manager.connect(StoreSetEvent, listener, {"key": "new"})
    subject.manager.disconnect(StoreSetEvent, listener)


def opened_and_closed(subject: Subject) -> None:
    subject.store.close(TIMEOUT)
    subject.store.connect()


def entered(subject: Subject) -> None:
    with subject.store:
        pass
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
        helper().ask(lambda: store.set_data("goes", b"by another thread"))


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
    store = subject.store
    changes = store.watch("[gm]o*")
    store.multiset_data(["goes", "moves"], [b"watched", b"watched"])
    for change in changes:
        if change.key == "moves":  # type: ignore[union-attr]
            changes.close()
    assert changes.closed
    assert changes
    changes.close()


def watch_dropped(subject: Subject) -> None:
    assert subject.store.watch(filter={"kind": "a"}, on_overflow="coalesce") is not None


def listeners_and_classes(subject: Subject) -> None:
    manager = subject.manager
    subject.undo.append(lambda: manager.enable(StoreDeleteEvent))
    manager.disable(StoreDeleteEvent)
    manager.enable(StoreDeleteEvent)


def queried_in_order(subject: Subject) -> None:
    """Ask for what index, own writes and snapshot have; what others write meanwhile is found as well."""
    store = subject.store
    store.multiset(["moves", "new"], [(b"", {"kind": "c"}), (b"", {"kind": "a"})])
    list(store.query_keys(order_by="kind", limit=2))
    with store.snapshot() as view, store.transaction() as tx:
        tx.delete("goes")
        assert list(view.query_keys(kind="a", order_by="kind"))[:2] == ["goes", "new"]
        assert "moves" in tx.query_keys(order_by="kind", descending=True, limit=50)
        assert "new" in tx.glob("n*")
    list(store.query_keys(kind=Prefix("b"), limit=2))


def read_after_many(subject: Subject) -> None:
    """Read in order when much has changed since the index was read."""
    store = subject.store
    store.multiset(MANY, [(b"", {"kind": "ab"[number % 2]}) for number in range(len(MANY))])
    assert MANY[1] in store.query_keys(kind="b", order_by="kind", limit=150)


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
        while not store.info()["closed"] and not go_on.wait(0.001):
            pass

    subject.manager.connect(StoreSetEvent, listen, priority=1)
    store.multiset(["new", "newer"], [(b"", {}), (b"", {})])
    store.close(TIMEOUT)
    go_on.set()
    store.connect()


def begun_again(subject: Subject) -> None:
    """Write when no thread runs that calls listeners."""
    dispatcher_of(subject.store).stop(TIMEOUT)
    subject.store.from_bytes("moves", b"new")


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


#: The operations by what they are about; the table of counts has a row for each of these.
GROUPS: dict[str, dict[str, Operation]] = {
    "single keys": {
        "from_bytes": lambda subject: subject.store.from_bytes("moves", b"new"),
        "from_bytes, new": lambda subject: subject.store.from_bytes("new", b"new"),
        "set": lambda subject: subject.store.set("moves", (b"new", {"kind": "b"})),
        "set a stream, if_revision": lambda subject: subject.store.set(
            "new", (io.BytesIO(b"new"), {"kind": ["c"]}), 1, if_revision=0
        ),
        "set_data": lambda subject: subject.store.set_data("moves", io.BytesIO(b"new")),
        "set_metadata": lambda subject: subject.store.set_metadata("moves", {"kind": "b"}),
        "update_metadata": lambda subject: subject.store.update_metadata("moves", {"n": 2}),
        "delete": lambda subject: subject.store.delete("goes"),
        "delete, missing": failing(lambda store: store.delete("missing"), KeyError),
        "set, other revision": failing(
            lambda store: store.set("goes", (b"", {}), if_revision=7), RevisionMismatchError
        ),
        "from_file": from_file,
        "evict": lambda subject: subject.store.evict("goes"),
        "evict, if_revision": lambda subject: subject.store.evict("goes", "idle", if_revision=1),
        "evict, other revision": failing(
            lambda store: store.evict("goes", if_revision=7), RevisionMismatchError
        ),
    },
    "many keys": {
        "multiset": lambda subject: subject.store.multiset(
            ["moves", "new", "newer"], [(b"", {"kind": "b"}), (b"", {"kind": "a"}), (b"", {})]
        ),
        "multiset_data": lambda subject: subject.store.multiset_data(
            ["goes", "new"], [io.BytesIO(b"data"), b"bytes"]
        ),
        "multiset_metadata": lambda subject: subject.store.multiset_metadata(
            ["goes", "new"], [{"kind": "b"}, {"kind": "a"}]
        ),
        "multiupdate_metadata": lambda subject: subject.store.multiupdate_metadata(
            ["moves", "goes"], [{"kind": "b"}, {"kind": "c"}]
        ),
        "multiupdate_metadata, missing": failing(
            lambda store: store.multiupdate_metadata(["moves", "missing"], [{"n": 2}, {}]), KeyError
        ),
    },
    "transactions": {
        "transaction": exclusive,
        "transaction, optimistic": optimistic,
        "transaction, nested": nested,
        "transaction, large": large,
        "transaction, commit()": committed_early,
        "transaction, rollback()": rolled_back,
        "transaction, failing": failing(failing_block, KeyError),
        "transaction, failing inside": failing(failing_inner_block),
        "transaction, in conflict": failing(conflict, TransactionConflictError),
        "transaction, reads": lambda subject: read_in_blocks(subject.store),
        "transaction, delete inside": set_in_blocks,
        "transaction, evict inside": evicted_in_a_transaction,
        "transaction, dropped by a generator": dropped_by_its_generator,
        "attempts": attempted,
        "transactional": transactional,
        "on_commit, on_rollback": called_back,
    },
    "indexes": {
        "add_index": lambda subject: subject.store.add_index("n"),
        "remove_index": lambda subject: subject.store.remove_index("kind"),
        "add_index, in order": lambda subject: subject.store.add_index(Ordered("n")),
        "queries in order": queried_in_order,
        "queries in order, after many": read_after_many,
        "remove_index, missing": failing(lambda store: store.remove_index("none"), KeyError),
    },
    "snapshots and watches": {
        "snapshot": snapshot,
        "snapshot looked at": snapshot_looked_at,
        "snapshot closed twice": snapshot_closed_twice,
        "snapshot dropped": snapshot_dropped,
        "watch": watched,
        "watch iterated and closed": watch_iterated,
        "watch dropped": watch_dropped,
        "wait_for": lambda subject: subject.store.wait_for(lambda: subject.store.exists("goes"), TIMEOUT),
        "wait_for_key": lambda subject: subject.store.wait_for_key("goes", TIMEOUT),
    },
    "events": {
        "listening": listening,
        "disable and enable": listeners_and_classes,
        "emit": lambda subject: subject.manager.emit(Ping()),
        "event manager looked at": looked_at,
        "flush": lambda subject: subject.store.flush(TIMEOUT),
        "thread of events begun again": begun_again,
        "call_later": called_later,
        "call_later, cancelled": not_called_later,
    },
    "reads": {
        "reads": read,
        "reads of several, to_file": many_read,
    },
    "lifecycle": {
        "disconnect": lambda subject: subject.store.disconnect(),
        "close and connect": opened_and_closed,
        "with store": entered,
        "close while events pend": closed_while_events_pend,
        "save": saved,
        "load": loaded,
    },
    "mappings": {
        "mapping, reads": mapping_read,
        "mapping, set": lambda subject: subject.store.mapping("raw").__setitem__("moves", b"new"),
        "mapping, pop": lambda subject: subject.store.mapping("raw").pop("goes"),
        "mapping, update": lambda subject: subject.store.mapping("json").update({"moves": [1], "new": None}),
        "mapping, setdefault": lambda subject: subject.store.mapping("raw").setdefault("new", b"new"),
        "mapping, popitem": lambda subject: subject.store.mapping("raw").popitem(),
        "mapping, clear": lambda subject: subject.store.mapping("raw").clear(),
    },
    "waiting": WAITING,
    "caches": CACHE,
    "queues": QUEUE,
}

OPERATIONS: dict[str, Operation] = {
    name: operation for group in GROUPS.values() for name, operation in group.items()
}

#: What leaves the store closed if it is struck in the middle; nothing else is changed by it.
LEAVES_CLOSED = ("close and connect", "with store", "close while events pend")


def group_of(name: str) -> str:
    """Return the group of an operation."""
    return next(group for group, operations in GROUPS.items() if name in operations)


def subject_for(name: str, **options: Any) -> Subject:
    """Return what an operation works on; the options are for the store."""
    if name in CACHE:
        return CacheSubject(name.startswith("cache"), store_options=options, **CACHE_OPTIONS.get(name, {}))
    if name in QUEUE:
        return QueueSubject(**options)
    return LockedSubject(**options) if name in LOCKED else Subject(**options)
