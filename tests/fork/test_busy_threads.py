"""Children that are forked beside threads in the middle of anything have a store that is whole and free."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import logging
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest import mock

import pytest
from readerwriterlock.rwlock import RWLockFair, RWLockRead, RWLockWrite

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent, StoreSetEvent, get_event_manager
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.delivery.threads import DeliveryThread
from latchstore.engine.inspection import check, dispatcher_of, feed_of, renew_in_child, table_of
from latchstore.engine.locks import ReadWriteLock
from tests.builds import fork_beside_busy_threads
from tests.dispatcher.calls import submit
from tests.fork.children import TIMEOUT, in_child, needs_fork, new_store
from tests.interrupts import Striker

pytestmark = needs_fork

#: How many children are forked beside threads that write; LATCHSTORE_FORKS=1000 is a long run.
FORKS = int(os.environ.get("LATCHSTORE_FORKS", "30"))

#: Of how many bytecodes one is tried; 1 for each of them.
STRIDE = int(os.environ.get("LATCHSTORE_STRIKE_EVERY", "4"))


def check_use(store: DictMemoryStore, heard: list[str]) -> None:
    """Use everything in a child, which must not meet anything of the parent's."""
    check(store)
    info = store.info()
    assert info["pending_events"] == 0
    revision = info["revision"]
    heard.clear()
    store.from_bytes("child", b"1")
    with store.transaction("child"):
        store.set("child", (b"2", {"kind": "child"}))
    with store.transaction("child", optimistic=True) as tx:
        tx.from_bytes("child too", tx.to_bytes("child"))
    with store.snapshot() as view:
        store.delete("child too")
        assert view.to_bytes("child too") == b"2"
    assert list(store.query_keys(kind="child")) == ["child"]
    store.flush(TIMEOUT)
    assert store.info()["revision"] == revision + 4
    assert heard == ["child", "child", "child too", "child too"], heard
    store.close(TIMEOUT)


@contextlib.contextmanager
def busy(store: DictMemoryStore) -> Iterator[None]:
    """Have threads write, read, watch and open snapshots meanwhile; pairs of keys are always alike."""
    over = threading.Event()
    errors: list[BaseException] = []

    def run(step: Callable[[int], object]) -> None:
        number = 0
        try:
            while not over.is_set():
                number += 1
                step(number)
        except BaseException as error:
            errors.append(error)

    def pair(number: int) -> None:
        data = (b"%d" % number, {"kind": number % 3})
        if number % 3:
            store.multiset(["left", "right"], [data, data])
        else:
            with store.transaction("pair"):
                store.delete("left")
                store.delete("right")

    def single(number: int) -> None:
        store.set(f"single {number % 50}", (b"", {"kind": number % 3}))

    def look(number: int) -> None:
        with store.snapshot() as view:
            view.exists("left")
        list(store.query(kind=1))

    def wait(number: int) -> None:
        with store.watch("left") as changes, contextlib.suppress(TimeoutError):
            changes.get(0.01)

    threads = [threading.Thread(target=run, args=(step,)) for step in (pair, single, single, look, wait)]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(TIMEOUT)
        sys.setswitchinterval(switching)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


@fork_beside_busy_threads
@pytest.mark.timeout(300 + 3 * FORKS)
def test_children_that_are_forked_beside_busy_threads() -> None:
    store = new_store(indexes=["kind"], history=10, max_pending_events=None)
    heard: list[str] = []

    def hear(event: Any) -> None:
        heard.append(event.key)

    store.event_manager.connect(StoreModificationEvent, hear)

    def check() -> None:
        with store.snapshot() as view:
            sides = [view.to_bytes(key) for key in ("left", "right") if view.exists(key)]
        assert len(sides) != 1, "half a commit"
        assert len(set(sides)) < 2, sides
        check_use(store, heard)

    with busy(store):
        told = [told for told in (in_child(check) for _ in range(FORKS)) if told]
    assert told == []
    # The parent has not noticed anything.
    store.flush(TIMEOUT)
    revision = store.info()["revision"]
    heard.clear()
    store.from_bytes("parent", b"")
    store.close(TIMEOUT)
    assert heard == ["parent"]
    assert store.info()["revision"] == revision + 1
    table_of(store).check()


def in_transaction(store: DictMemoryStore, function: Callable[[], object]) -> None:
    """Call a function in a block."""
    with store.transaction("held"):
        function()


def starting(dispatcher: EventDispatcher, function: Callable[[], object]) -> None:
    """Call a function where the thread of a dispatcher is started; in a child it is."""
    parent, start = os.getpid(), DeliveryThread.start

    def call(thread: DeliveryThread) -> None:
        if os.getpid() == parent:
            function()
        else:
            start(thread)

    with mock.patch.object(DeliveryThread, "start", call):
        submit(dispatcher, lambda: None)
        dispatcher.ensure_running()


@pytest.mark.parametrize("lock_class", [ReadWriteLock, RWLockFair, RWLockRead, RWLockWrite])
def test_all_locks_are_free_in_a_child(lock_class: Any) -> None:
    """Whoever holds them at that moment, and whatever the class of the reader/writer lock."""
    store = new_store(lock_class=lock_class, history=5)
    store.from_bytes("k", b"")
    watch = store.watch()
    store.from_bytes("k", b"")
    table = table_of(store)
    sections: list[Callable[..., object]] = [
        functools.partial(in_transaction, store),
        table.read,
        functools.partial(table.exclusively, "held"),
        functools.partial(table.alone, "held", TIMEOUT),
        feed_of(store).buffers[0].latch.during,
        functools.partial(starting, dispatcher_of(store)),
    ]
    for section in sections:
        held, go_on = threading.Event(), threading.Event()

        def hold(held: threading.Event = held, go_on: threading.Event = go_on) -> None:
            held.set()
            assert go_on.wait(TIMEOUT)

        holder = threading.Thread(target=section, args=(hold,))
        holder.start()
        assert held.wait(TIMEOUT)

        def check() -> None:
            heard: list[str] = []
            store.event_manager.connect(StoreModificationEvent, lambda event: heard.append(event.key))
            check_use(store, heard)
            watch.close()

        told = in_child(check)
        go_on.set()
        holder.join(TIMEOUT)
        assert told == "", section
    store.close(TIMEOUT)


def test_a_store_that_cannot_be_renewed_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(str(unraisable.exc_value)))
    calls: list[int] = []

    def make_lock() -> ReadWriteLock:
        if calls and os.getpid() != calls[0]:
            raise RuntimeError("no lock in a child")
        calls.append(os.getpid())
        return ReadWriteLock()

    stores = [new_store(lock_class=make_lock) for _ in range(3)]
    others = [new_store() for _ in range(3)]
    blocks = [store.transaction("held") for store in others]
    for block in blocks:
        block.__enter__()

    def check() -> None:
        for store in others:
            store.from_bytes("k", b"")
        assert told == ["stores that are unusable in this forked child (3 sub-exceptions)"]

    assert in_child(check) == ""
    assert len(stores) == 3
    for block in reversed(blocks):
        block.rollback()


class Kept(logging.Handler):
    """Keeps what is logged. Not a file, whose own lock no child of Python's renews."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@fork_beside_busy_threads
def test_logging_and_the_event_manager_are_free_in_a_child() -> None:
    """A listener that fails is logged, and listeners come and go, while children are forked."""
    store = new_store(max_pending_events=50)
    manager = store.event_manager
    over = threading.Event()

    def fail(event: object) -> None:
        raise ValueError("on purpose")

    def keep_busy() -> None:
        def ignore(event: object) -> None:
            pass

        while not over.is_set():
            manager.connect(StoreSetEvent, ignore)
            store.from_bytes("k", b"")
            manager.disconnect(StoreSetEvent, ignore)
            get_event_manager()

    def check() -> None:
        heard: list[str] = []
        manager.connect(StoreModificationEvent, lambda event: heard.append(event.key))
        handler.records.clear()
        check_use(store, heard)
        assert len(handler.records) == len(heard)

    manager.connect(StoreModificationEvent, fail)
    logger = logging.getLogger("latchstore")
    handler = Kept()
    logger.addHandler(handler)
    logger.propagate = False
    threads = [threading.Thread(target=keep_busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        told = [told for told in (in_child(check) for _ in range(FORKS // 2)) if told]
    finally:
        over.set()
        for thread in threads:
            thread.join(TIMEOUT)
        store.close(TIMEOUT)
        logger.propagate = True
        logger.removeHandler(handler)
    assert told == []


@fork_beside_busy_threads
@pytest.mark.timeout(300)
def test_stores_that_come_and_go_while_children_are_forked() -> None:
    """What a child goes through to find its stores is whole, though other threads were changing it."""
    over = threading.Event()
    kept = new_store()
    #: By thread, those that are there now.
    made: dict[int, list[DictMemoryStore]] = {}

    def come_and_go() -> None:
        while not over.is_set():
            stores = made[threading.get_ident()] = [new_store() for _ in range(10)]
            watches = [store.watch() for store in stores]
            assert len(watches) == len(stores)

    def check() -> None:
        for store in itertools.chain.from_iterable(made.values()):
            store.from_bytes("k", b"")
            assert store.to_bytes("k") == b""
        with kept.watch() as changes:
            kept.from_bytes("k", b"")
            assert changes.get(TIMEOUT).key == "k"  # type: ignore[union-attr]

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    try:
        told = [told for told in (in_child(check) for _ in range(FORKS // 2)) if told]
    finally:
        over.set()
        for thread in threads:
            thread.join(TIMEOUT)
        sys.setswitchinterval(switching)
    assert told == []


@pytest.mark.timeout(300)
def test_a_commit_that_is_cut_in_two_is_finished_or_taken_back() -> None:
    """One of four bytecodes, or each, is where the thread that commits stands when the child is forked."""
    names = ["gone", "kept", "made"]

    def make() -> DictMemoryStore:
        store = new_store(indexes=["kind"])
        store.multiset(names[:2], [(b"old", {"kind": "old"})] * 2)
        return store

    def commit(store: DictMemoryStore) -> None:
        with store.transaction():
            store.delete("gone")
            store.multiset(names[1:], [(b"new", {"kind": "new"})] * 2)

    class Cut(BaseException):
        """Leaves everything as it is: no handler of the package runs."""

    before, after = {"gone": b"old", "kept": b"old"}, {"kept": b"new", "made": b"new"}
    seen = set()
    for name, write in (
        ("commit", commit),
        ("one", lambda store: store.set("kept", (b"new", {"kind": "new"}))),
    ):
        number = 1 - STRIDE
        while True:
            number += STRIDE
            store = make()
            renewed: list[dict[str, bytes]] = []

            def look(store: DictMemoryStore = store, renewed: list[Any] = renewed) -> None:
                # What a child would do, where the thread that commits is not there any more.
                renew_in_child(store)
                check(store)
                store.flush(0)
                renewed.append({key: store.to_bytes(key) for key in store.glob("*")})
                assert sorted(store.query_keys(kind="old")) == sorted(
                    key for key, data in renewed[0].items() if data == b"old"
                )
                raise Cut

            striker = Striker(number, instead=look)
            with contextlib.suppress(Cut, Exception), striker:
                write(store)
            if striker.place is None:
                break
            assert renewed, (striker.place, name)
            seen.add(tuple(sorted(renewed[0].items())))
            if name == "commit":
                assert renewed[0] in (before, after), striker.place
    assert tuple(sorted(before.items())) in seen
    assert tuple(sorted(after.items())) in seen


#: What a child of multiprocessing that is forked inherits.
STORE = DictMemoryStore(EventManager())


def count_in_child(number: int) -> tuple[int, bool]:
    """Return how many keys there are, and whether the child could write."""
    keys = len(STORE)
    with STORE.transaction("child"):
        STORE.from_bytes(f"child {number}", b"")
    return keys, STORE.exists(f"child {number}")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_process_pools(method: str) -> None:
    """A forked child has the parent's keys, one that is spawned the module's own, which has none."""
    STORE.from_bytes("parent", b"")
    context = multiprocessing.get_context(method)
    with busy(new_store()), ProcessPoolExecutor(2, mp_context=context) as executor:
        found = list(executor.map(count_in_child, range(8)))
    assert all(wrote for _, wrote in found)
    assert (min(keys for keys, _ in found) >= 1) == (method == "fork")
    assert list(STORE.glob("child *")) == []


@pytest.mark.parametrize(
    "duplicate",
    [pickle.dumps, copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_a_store_is_not_pickled(duplicate: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=r"a store cannot be pickled or copied: save\(path\) writes"):
        duplicate(new_store())
