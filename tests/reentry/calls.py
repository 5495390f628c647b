"""The calls that a signal handler or a finalizer makes: every public method, by groups.

Each works on keys of its own, so that the operation in the middle of which it comes does what it does alone.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

from latchstore import (
    Above,
    DictMemoryStore,
    EventManager,
    StoreDeleteEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    WaitTimeoutError,
)
from tests.interrupts.reads import FILES
from tests.interrupts.subjects import TIMEOUT, Ping
from tests.reentry.cache_calls import CACHES, MAPPINGS, OWN, Call, mapped
from tests.reentry.queue_calls import QUEUES

if TYPE_CHECKING:
    from tests.reentry.caller import Caller


class Other(Ping):
    """An event that only calls have to do with."""


#: What an ordered index answers.
IN_ORDER: dict[str, Any] = {"kind": Above("a", inclusive=True), "order_by": "kind", "limit": 2}


def listener(event: object) -> None:
    """Listen, to nothing."""


def writing(write: Callable[[Any, str, bytes], object], key: str = OWN) -> Call:
    """Return a call that writes a key; what it has reported done is looked for afterwards."""

    def call(caller: Caller) -> None:
        caller.write(lambda data: write(caller.subject.store, key, data))

    return call


def items(data: bytes) -> dict[str, Any]:
    """Return metadata by which a write is found that has no data."""
    return {OWN: data.decode(), "kind": "c"}


# -- the store --------------------------------------------------------------------------------------


def deleted(caller: Caller) -> None:
    store = caller.subject.store
    caller.write(lambda data: store.from_bytes(f"{OWN} deleted", data), stays=False)
    with contextlib.suppress(KeyError):
        store.delete(f"{OWN} deleted")


def evicted(caller: Caller) -> None:
    store = caller.subject.store
    caller.write(lambda data: store.from_bytes(f"{OWN} evicted", data), stays=False)
    with contextlib.suppress(KeyError):
        store.evict(f"{OWN} evicted")


def written_from_file(caller: Caller) -> None:
    path = Path(FILES.name) / "nested"

    def write(data: bytes) -> None:
        path.write_bytes(data)
        caller.subject.store.from_file(OWN, path)

    caller.write(write)


def updated(write: Callable[[Any, dict[str, Any]], object]) -> Call:
    """Return a call that adds metadata to a key of its own, which is written if it is not there."""

    def call(caller: Caller) -> None:
        store = caller.subject.store
        if not store.exists(OWN):
            store.from_bytes(OWN, b"")
        caller.write(lambda data: write(store, items(data)))

    return call


STORE_WRITES: dict[str, Call] = {
    "set": writing(lambda store, key, data: store.set(key, (data, {"kind": "c"}))),
    "set, a stream": writing(lambda store, key, data: store.set(key, (io.BytesIO(data), {"kind": ["c"]}))),
    "set_data": writing(lambda store, key, data: store.set_data(key, io.BytesIO(data))),
    "from_bytes": writing(lambda store, key, data: store.from_bytes(key, data)),
    "from_file": written_from_file,
    "set_metadata": writing(lambda store, key, data: store.set_metadata(key, items(data))),
    "update_metadata": updated(lambda store, new: store.update_metadata(OWN, new)),
    "multiset": writing(
        lambda store, key, data: store.multiset([key, f"{OWN} 2"], [(data, {"kind": "c"}), (data, {})])
    ),
    "multiset_data": writing(lambda store, key, data: store.multiset_data([key, f"{OWN} 2"], [data, data])),
    "multiset_metadata": writing(
        lambda store, key, data: store.multiset_metadata([key, f"{OWN} 2"], [items(data), {}])
    ),
    "multiupdate_metadata": updated(lambda store, new: store.multiupdate_metadata([OWN, OWN], [new, new])),
    "delete": deleted,
    "evict": evicted,
}

STORE_READS: dict[str, Call] = {
    "get": lambda caller: caller.subject.store.get("goes").content,
    "get_data": lambda caller: caller.subject.store.get_data("goes").read(),
    "get_data_range": lambda caller: caller.subject.store.get_data_range("goes", 0, 1).read(),
    "get_metadata": lambda caller: caller.subject.store.get_metadata("goes"),
    "exists": lambda caller: caller.subject.store.exists("goes"),
    "in": lambda caller: "missing" in caller.subject.store,
    "to_bytes": lambda caller: caller.subject.store.to_bytes("goes"),
    "to_file": lambda caller: caller.subject.store.to_file("stays", Path(FILES.name) / "nested out"),
    "multiget": lambda caller: list(caller.subject.store.multiget(["goes", "stays"])),
    "multiget_data": lambda caller: list(caller.subject.store.multiget_data(["goes", "stays"])),
    "multiget_metadata": lambda caller: list(caller.subject.store.multiget_metadata(["goes", "stays"])),
    "query": lambda caller: list(caller.subject.store.query(kind="a")),
    "query, all": lambda caller: list(caller.subject.store.query()),
    "query_keys": lambda caller: list(caller.subject.store.query_keys(kind="a")),
    "query_keys, in order": lambda caller: list(caller.subject.store.query_keys(**IN_ORDER)),
    "glob": lambda caller: list(caller.subject.store.glob("*s")),
    "len": lambda caller: len(caller.subject.store),
    "info": lambda caller: caller.subject.store.info(),
    "stats": lambda caller: caller.subject.store.stats(),
    "activity": lambda caller: caller.subject.store.activity(),
    "repr": lambda caller: repr(caller.subject.store),
    "is_connected": lambda caller: caller.subject.store.is_connected(),
    "current_transaction": lambda caller: caller.subject.store.current_transaction(),
    "default_codec": lambda caller: caller.subject.store.default_codec,
}

# -- transactions -----------------------------------------------------------------------------------


def exclusive(caller: Caller) -> None:
    def write(data: bytes) -> None:
        with caller.subject.store.transaction("nested") as tx:
            tx.from_bytes(OWN, data)
            tx.set(f"{OWN} 2", (b"", {"kind": "c"}))

    caller.write(write)


def optimistic(caller: Caller) -> None:
    def write(data: bytes) -> None:
        with caller.subject.store.transaction("nested", optimistic=True) as tx:
            tx.exists(OWN)
            tx.from_bytes(OWN, data)

    caller.write(write)


def attempted(caller: Caller) -> None:
    def write(data: bytes) -> None:
        for attempt in caller.subject.store.attempts("nested"):
            with attempt as tx:
                tx.from_bytes(OWN, data)

    caller.write(write)


def transactional(caller: Caller) -> None:
    store = caller.subject.store
    caller.write(lambda data: store.transactional("nested")(store.from_bytes)(OWN, data))


def rolled_back(caller: Caller) -> None:
    with caller.subject.store.transaction("nested") as tx:
        tx.from_bytes(f"{OWN} never", b"")
        tx.rollback()


def doomed(caller: Caller) -> None:
    with caller.subject.store.transaction("nested") as tx:
        tx.from_bytes(f"{OWN} never", b"")
        tx.doom()


def committed(caller: Caller) -> None:
    def write(data: bytes) -> None:
        with caller.subject.store.transaction("nested") as tx:
            tx.from_bytes(OWN, data)
            tx.on_commit(list)
            tx.on_rollback(list)
            tx.commit()

    caller.write(write)


def dropped(caller: Caller) -> None:
    def generate() -> Iterator[None]:
        with caller.subject.store.transaction():
            caller.subject.store.from_bytes(f"{OWN} never", b"")
            yield

    generator = generate()
    next(generator)
    del generator


def in_block(method: Callable[[Any], object]) -> Call:
    """Return a call of a method of the transaction that is open, if one is."""

    def call(caller: Caller) -> None:
        transaction = caller.subject.store.current_transaction()
        if transaction is not None:
            method(transaction)

    return call


def set_in_block(caller: Caller) -> None:
    transaction = caller.subject.store.current_transaction()
    if transaction is not None:
        caller.write(lambda data: transaction.from_bytes(OWN, data))


TRANSACTIONS: dict[str, Call] = {
    "transaction": exclusive,
    "transaction, optimistic": optimistic,
    "attempts": attempted,
    "transactional": transactional,
    "transaction, rollback()": rolled_back,
    "transaction, doom()": doomed,
    "transaction, commit()": committed,
    "transaction, dropped": dropped,
    "of the open one: set": set_in_block,
    "of the open one: get": in_block(lambda tx: tx.get("stays")),
    "of the open one: exists, in": in_block(lambda tx: (tx.exists("stays"), "new" in tx)),
    "of the open one: query, glob": in_block(lambda tx: (list(tx.query(kind="b")), list(tx.glob("new*")))),
    "of the open one: query_keys, in order": in_block(lambda tx: list(tx.query_keys(**IN_ORDER))),
    "of the open one: len, info": in_block(lambda tx: (len(tx), tx.info(), repr(tx), tx.is_connected())),
    "of the open one: connect, close": in_block(lambda tx: (tx.connect(), tx.disconnect(), tx.close())),
    "of the open one: revision": in_block(
        lambda tx: (tx.revision, tx.optimistic, tx.notes, tx.default_codec)
    ),
    "of the open one: on_commit": in_block(lambda tx: (tx.on_commit(list), tx.on_rollback(list))),
    "of the open one: transaction": in_block(lambda tx: tx.transaction().__enter__().rollback()),
    "of the open one: flush": in_block(lambda tx: tx.flush()),
}

#: What ends the transaction that the call comes in the middle of.
ENDING: dict[str, Call] = {
    "of the open one: commit": in_block(lambda tx: tx.commit()),
    "of the open one: rollback": in_block(lambda tx: tx.rollback()),
    "of the open one: doom": in_block(lambda tx: tx.doom()),
}

# -- snapshots and watches --------------------------------------------------------------------------


def looked_back(caller: Caller) -> None:
    with caller.subject.store.snapshot() as view:
        assert len(list(view.query())) == len(view)


def looked_back_and_dropped(caller: Caller) -> None:
    caller.subject.store.snapshot().exists("goes")


def watched(caller: Caller) -> None:
    with caller.subject.store.watch("goes") as changes, contextlib.suppress(WaitTimeoutError):
        changes.get(0)


def watched_and_dropped(caller: Caller) -> None:
    assert caller.subject.store.watch(filter={"kind": "a"}) is not None


def watch_read(caller: Caller) -> None:
    """Read the watch by which everything is checked; what it gives is kept for that."""
    with contextlib.suppress(WaitTimeoutError):
        caller.events.append(caller.subject.watch.get(0))


def watch_iterated(caller: Caller) -> None:
    with caller.subject.store.watch("goes") as changes:
        changes.close()
        assert changes.closed
        assert changes
        assert list(changes) == []


def waited_for_a_change(caller: Caller) -> None:
    with caller.subject.store.watch(f"{OWN} no key") as changes, contextlib.suppress(WaitTimeoutError):
        changes.get(0.001)


def waited_for_a_key(caller: Caller) -> None:
    with contextlib.suppress(WaitTimeoutError):
        caller.subject.store.wait_for_key("stays", 0.001)


def connected(caller: Caller) -> None:
    caller.view.connect()
    caller.view.disconnect()
    assert caller.view.is_connected()


SNAPSHOTS: dict[str, Call] = {
    "snapshot": looked_back,
    "snapshot, dropped": looked_back_and_dropped,
    "of a snapshot: get": lambda caller: caller.view.get("goes").content,
    "of a snapshot: query, glob": lambda caller: (
        list(caller.view.query(kind="a")),
        list(caller.view.glob("*")),
    ),
    "of a snapshot: query_keys, in order": lambda caller: list(caller.view.query_keys(**IN_ORDER)),
    "of a snapshot: len, info": lambda caller: (len(caller.view), caller.view.info(), repr(caller.view)),
    "of a snapshot: connect, disconnect": connected,
    "of a snapshot: multiget": lambda caller: list(caller.view.multiget(["goes", "stays"])),
    "of a snapshot: mapping": lambda caller: dict(caller.view.mapping("raw")),
    "of a snapshot: to_bytes": lambda caller: (caller.view.to_bytes("goes"), "new" in caller.view),
    "watch": watched,
    "watch, dropped": watched_and_dropped,
    "of a watch: get": watch_read,
    "of a watch: len": lambda caller: (len(caller.subject.watch), repr(caller.subject.watch)),
    "of a watch: iter, close": watch_iterated,
    "of a watch: get, waiting": waited_for_a_change,
    "wait_for": lambda caller: caller.subject.store.wait_for(lambda: True, TIMEOUT),
    "wait_for_key": waited_for_a_key,
}

# -- events -----------------------------------------------------------------------------------------


def listening(caller: Caller) -> None:
    manager = caller.subject.manager
    manager.connect(StoreSetEvent, listener, {"key": "none"})
    manager.disconnect(StoreSetEvent, listener)


def switched(caller: Caller) -> None:
    manager = caller.subject.manager
    manager.disable(Other)
    manager.enable(Other)


def registered(caller: Caller) -> None:
    with contextlib.suppress(ValueError):  # it was before
        caller.subject.manager.register(Other)


def traced(caller: Caller) -> None:
    caller.subject.manager.set_trace(None)


def called_later(caller: Caller) -> None:
    caller.subject.store.call_later(0.0, list)


def called_never(caller: Caller) -> None:
    timer = caller.subject.store.call_later(1_000.0, list)
    assert timer.active
    timer.cancel()
    assert not timer.active


def emit_replaced(caller: Caller) -> None:
    """Put another `emit` in the place of the method, and take it back."""
    manager = caller.subject.manager
    setattr(manager, "emit", MethodType(EventManager.emit, manager))  # noqa: B010 (mypy: a method)
    with contextlib.suppress(AttributeError):  # a call inside this one has taken it back
        del manager.emit


EVENTS: dict[str, Call] = {
    "connect, disconnect": listening,
    "disable, enable": switched,
    "emit": lambda caller: caller.subject.manager.emit(Other()),
    "emit, replaced": emit_replaced,
    "emit, in a thread": lambda caller: caller.subject.manager.emit(Other(), False).join(TIMEOUT),
    "register": registered,
    "get_event": lambda caller: caller.subject.manager.get_event(Ping),
    "get_event, all": lambda caller: caller.subject.manager.get_event(),
    "get_event_hierarchy": lambda caller: caller.subject.manager.get_event_hierarchy(Other),
    "get_listeners": lambda caller: caller.subject.manager.get_listeners(StoreSetEvent),
    "has_listeners": lambda caller: caller.subject.manager.has_listeners(StoreTransactionEndEvent),
    "is_enabled": lambda caller: caller.subject.manager.is_enabled(StoreDeleteEvent),
    "set_trace": traced,
    "event_manager": lambda caller: caller.subject.store.event_manager,
    "call_later": called_later,
    "call_later, cancel": called_never,
    "flush": lambda caller: caller.subject.store.flush(TIMEOUT),
    "flush, up to a revision": lambda caller: caller.subject.store.flush(TIMEOUT, revision=1),
}

# -- what opens, closes and empties -------------------------------------------------------------------


def closed(caller: Caller) -> None:
    store = caller.subject.store
    try:
        store.close(TIMEOUT)
    finally:
        store.connect()


def entered(caller: Caller) -> None:
    store = caller.subject.store
    try:
        with store:
            pass
    finally:
        store.connect()


def reconnected(caller: Caller) -> None:
    caller.subject.store.disconnect()
    caller.subject.store.connect()


def loaded(caller: Caller) -> None:
    path = Path(FILES.name) / "nested saved"
    caller.subject.store.save(path)
    DictMemoryStore.load(path, EventManager(), indexes=["kind"]).close(TIMEOUT)


def indexed(caller: Caller) -> None:
    store = caller.subject.store
    store.add_index(OWN)
    store.remove_index(OWN)


def own_store(caller: Caller) -> None:
    store = DictMemoryStore(EventManager())
    store.from_bytes("key", b"")
    store.close(TIMEOUT)


LIFECYCLE: dict[str, Call] = {
    "add_index, remove_index": indexed,
    "disconnect, connect": reconnected,
    "save": lambda caller: caller.subject.store.save(Path(FILES.name) / "nested saved"),
    "load": loaded,
    "a store of its own": own_store,
}

#: What closes the store or empties it; the operation in the middle of which it comes may fail.
CLOSING: dict[str, Call] = {
    "close, connect": closed,
    "with store": entered,
    "mapping: clear": mapped(lambda mapping: mapping.clear()),
    "mapping: popitem": mapped(lambda mapping: mapping.popitem()),
}

#: The same of caches.
EMPTYING: dict[str, Call] = {
    "cache: clear": lambda caller: caller.cache.clear(),
    "cache: close": lambda caller: caller.cache.close(),
}

#: All of them; the table of counts has a column for each of these.
GROUPS: dict[str, dict[str, Call]] = {
    "writes": STORE_WRITES,
    "reads": STORE_READS,
    "transactions": TRANSACTIONS,
    "snapshots, watches": SNAPSHOTS,
    "events": EVENTS,
    "mappings": MAPPINGS,
    "queues": QUEUES,
    "lifecycle": LIFECYCLE,
    "caches": CACHES,
    "ending, closing": {**ENDING, **CLOSING, **EMPTYING},
}

CALLS: dict[str, Call] = {name: call for group in GROUPS.values() for name, call in group.items()}

#: After these the operation may have failed, or have changed something else.
DISTURBING = frozenset(GROUPS["ending, closing"])

#: What needs a cache.
OF_CACHES = frozenset({*CACHES, *EMPTYING})

#: What needs a queue.
OF_QUEUES = frozenset(QUEUES)

#: After these other threads may fail as well.
FOR_ALL_THREADS = frozenset({*CLOSING, "cache: close"})

#: What waits until all listeners have returned.
FLUSHING = frozenset({"flush", "flush, up to a revision"})

#: What takes milliseconds, as it writes a file, starts a thread or makes several commits.
SLOW = OF_QUEUES | {"save", "load", "a store of its own", "emit, in a thread"}

assert len(CALLS) == sum(map(len, GROUPS.values()))
