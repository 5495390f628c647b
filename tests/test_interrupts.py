"""An exception before any bytecode of any operation leaves the store as before it or as after it.

Every bytecode that the package executes in the calling thread is tried, one after the other, each with a new
store: KeyboardInterrupt, what PyThreadState_SetAsyncExc raises, and MemoryError come at some of them only,
and which these are depends on the version of Python.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    RevisionMismatchError,
    StoreModificationEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
    TransactionConflictError,
    Watch,
)
from latchstore.change_feed import ChangeBuffer, Commit, Interest
from latchstore.values import Entry
from tests.interrupts import Striker

#: Seconds after which a wait has failed.
TIMEOUT = 20.0

#: Of how many bytecodes one is struck; 1 for each of them.
STRIDE = int(os.environ.get("LATCHSTORE_STRIKE_EVERY", "1"))


class State(NamedTuple):
    """What can be seen of a store."""

    contents: dict[str, tuple[bytes, dict[str, Any]]]
    revision: int
    indexes: list[str]


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
        if heard:
            self.manager.connect(StoreModificationEvent, self._hear)
            self.manager.connect(StoreTransactionEndEvent, self._hear_end)
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
}

#: What leaves the store closed if it is struck in the middle; nothing else is changed by it.
_LEAVES_CLOSED = ("close and connect",)


def test_a_watch_reads_each_change_once_though_its_writer_is_struck() -> None:
    """Even if it reads between the writer's first attempt and the second."""
    number = struck = 0
    for options in ((10, False), (2, False), (1, True)):
        while True:
            number += 1
            buffer = ChangeBuffer(Interest("*", {}), *options)
            changes = [(f"k{each}", None, Entry()) for each in range(3)]
            expected = offered(options, changes)
            commit = Commit(1, changes, None)
            striker = Striker(number)
            with contextlib.suppress(KeyboardInterrupt), striker:
                buffer.offer(commit)
            read = taken_from(buffer)
            buffer.offer(commit)
            read += taken_from(buffer)
            if striker.place is None:
                number = 0
                break
            struck += 1
            assert read == expected, striker.place
    assert struck > 300


def offered(options: tuple[int, bool], changes: list[Any]) -> list[Any]:
    buffer = ChangeBuffer(Interest("*", {}), *options)
    buffer.offer(Commit(1, changes, None))
    return taken_from(buffer)


def taken_from(buffer: ChangeBuffer) -> list[Any]:
    found = []
    while (taken := buffer.take(0.0)) is not None:
        found.append(taken)
    return found


@pytest.fixture(scope="module")
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def damage_of(
    name: str, number: int, kind: type[BaseException], other: ThreadPoolExecutor, outcomes: dict[str, Any]
) -> tuple[str | None, str | None]:
    """Strike an operation once; return where, and what is wrong then."""
    subject = Subject()
    striker = Striker(number, kind)
    try:
        with striker:
            OPERATIONS[name](subject)
    except kind:
        pass
    if striker.place is None:
        return None, None
    if name in _LEAVES_CLOSED:
        subject.store.connect()
    else:
        assert not subject.watch._buffer.ended
    try:
        state = other.submit(subject.state).result(TIMEOUT)
        other.submit(subject.check).result(TIMEOUT)
        other.submit(subject.store.flush, TIMEOUT).result(TIMEOUT)
        assert state in outcomes["states"], f"neither before nor after: {state}"
        told = outcomes["told"] if state.revision > outcomes["states"][0].revision else []
        assert subject.heard == told, f"heard {subject.heard}, not {told}"
        assert subject.told() == told, "the watch was told something else"
        assert len(subject.ended) <= 1
        if "done" in subject.ended or "failed" in subject.ended:
            assert subject.ended == (["done"] if told or name == "flush" else ["failed"])
        other.submit(subject.check_use).result(TIMEOUT)
        subject.check_use()  # this thread is not in a block any more
        subject.store.close(TIMEOUT)
    except Exception as error:
        return striker.place, f"{type(error).__name__}: {error}"
    return striker.place, None


def outcomes_of(name: str) -> dict[str, Any]:
    """Return what an operation that nothing strikes comes from and leads to."""
    subject = Subject()
    before = subject.state()
    OPERATIONS[name](subject)
    subject.store.flush(TIMEOUT)
    after = subject.state()
    told = subject.told()
    assert subject.heard == told
    assert bool(told) == (before.revision != after.revision)
    # A block that ends early, or fails, is neither.
    states = [before, after]
    if name == "remove_index":
        assert before.indexes != after.indexes
    subject.store.close(TIMEOUT)
    return {"states": states, "told": told}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_before_any_bytecode(
    name: str, other: ThreadPoolExecutor, record_property: Callable[[str, object], None]
) -> None:
    outcomes = outcomes_of(name)
    kinds = (KeyboardInterrupt, MemoryError, SystemExit)
    damage: list[str] = []
    number = struck = 0
    while True:
        number += STRIDE
        place, wrong = damage_of(name, number, kinds[struck % len(kinds)], other, outcomes)
        if place is None:
            break
        struck += 1
        if wrong is not None:
            damage.append(f"{number}: {place}: {wrong}")
    record_property("injected", struck)
    assert struck * STRIDE > 50
    assert damage == []
