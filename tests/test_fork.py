"""A forked child has a store of its own, whole and usable, whatever the parent's other threads were doing."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest import mock

import pytest
from readerwriterlock.rwlock import RWLockFair, RWLockRead, RWLockWrite

from latchstore import (
    DictMemoryStore,
    EventManager,
    StoreModificationEvent,
    StoreSetEvent,
    TransactionClosedError,
    WatchClosedError,
    get_event_manager,
)
from latchstore.delivery.dispatcher import EventDispatcher
from latchstore.delivery.threads import DeliveryThread
from latchstore.engine.inspection import check, dispatcher_of, feed_of, renew_in_child, table_of
from latchstore.engine.locks import ReadWriteLock
from tests.builds import fork_beside_busy_threads
from tests.interrupts import Striker

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

#: Seconds after which a wait has failed, and a child is ended.
TIMEOUT = 20

#: How many children are forked beside threads that write; 1,000 were, see README.md.
FORKS = int(os.environ.get("LATCHSTORE_FORKS", "100"))

#: Of how many bytecodes one is tried; 1 for each of them.
STRIDE = int(os.environ.get("LATCHSTORE_STRIKE_EVERY", "1"))


def in_child(function: Callable[[], object]) -> str:
    """Run a function in a forked child; return what went wrong there, or nothing."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # To fork beside other threads, of which newer versions of Python warn, is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _be_child(function, write)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return told or (f"wait status {status}" if status else "")


def _be_child(function: Callable[[], object], write: int) -> None:
    told, code = "", 0
    try:
        sys.settrace(None)
        end_in_time()
        function()
    except BaseException:
        told, code = traceback.format_exc(), 1
    finally:
        os.write(write, told.encode())
        os._exit(code)


def end_in_time() -> None:
    """Have this child ended if it hangs."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TIMEOUT)


def new_store(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), lock_timeout=5.0, **options)


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


def test_a_child_has_no_open_transaction_of_another_thread() -> None:
    store = new_store()
    store.from_bytes("k", b"before")
    opened, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction("held"):
            store.from_bytes("k", b"not committed")
            opened.set()
            assert go_on.wait(TIMEOUT)

    holder = threading.Thread(target=hold)
    holder.start()
    assert opened.wait(TIMEOUT)

    def check() -> None:
        assert store.to_bytes("k") == b"before"
        store.from_bytes("k", b"child")
        assert store.to_bytes("k") == b"child"

    told = in_child(check)
    go_on.set()
    holder.join(TIMEOUT)
    assert told == ""
    assert store.to_bytes("k") == b"not committed"


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_block_in_which_a_child_is_forked_goes_on_in_the_parent_alone(optimistic: bool) -> None:
    store = new_store()
    with store.transaction("outer", optimistic=optimistic) as outer, store.transaction("inner") as inner:
        inner.from_bytes("k", b"parent")

        def check() -> None:
            for tx in (outer, inner):
                with pytest.raises(TransactionClosedError, match="forked, and goes on in the parent alone"):
                    tx.from_bytes("k", b"child")
                with pytest.raises(TransactionClosedError, match="forked"):
                    tx.__exit__(None, None, None)
            assert not store.exists("k")
            store.from_bytes("k", b"child")
            with store.transaction():
                assert store.to_bytes("k") == b"child"

        assert in_child(check) == ""
    assert store.to_bytes("k") == b"parent"


def test_events_that_wait_in_the_parent_are_not_heard_in_a_child() -> None:
    store = new_store()
    heard: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def listen(event: Any) -> None:
        begun.set()
        assert go_on.wait(TIMEOUT)
        heard.append(event.key)

    store.event_manager.connect(StoreSetEvent, listen)
    watch = store.watch()
    for number in range(3):
        store.from_bytes(f"k{number}", b"")
    assert begun.wait(TIMEOUT)

    def check() -> None:
        go_on.set()
        assert len(watch) == 0
        store.flush(TIMEOUT)
        assert heard == []
        store.from_bytes("child", b"")
        store.flush(TIMEOUT)
        assert heard == ["child"]
        assert watch.get(0).key == "child"  # type: ignore[union-attr]

    told = in_child(check)
    go_on.set()
    store.flush(TIMEOUT)
    assert told == ""
    assert heard == ["k0", "k1", "k2"]
    assert len(watch) == 3


def test_a_listener_may_fork() -> None:
    store = new_store()
    told: list[str] = []

    def listen(event: Any) -> None:
        if event.key == "k":
            told.append(in_child(lambda: store.from_bytes("child", b"")))

    store.event_manager.connect(StoreSetEvent, listen)
    store.from_bytes("k", b"")
    store.flush(TIMEOUT)
    assert told == [""]
    assert not store.exists("child")


def test_a_child_may_have_a_child() -> None:
    store = new_store()
    heard: list[str] = []
    store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))

    def be_child() -> None:
        store.from_bytes("child", b"")
        store.flush(TIMEOUT)
        assert in_child(be_grandchild) == ""
        store.from_bytes("child again", b"")
        store.flush(TIMEOUT)
        assert heard == ["parent", "child", "child again"]

    def be_grandchild() -> None:
        store.from_bytes("grandchild", b"")
        store.flush(TIMEOUT)
        assert heard == ["parent", "child", "grandchild"]

    store.from_bytes("parent", b"")
    store.flush(TIMEOUT)
    assert in_child(be_child) == ""
    assert heard == ["parent"]


def test_a_child_that_returns_into_the_listener_that_forked_it() -> None:
    """It hears no more of what was under way, and has a thread of its own for what it writes itself."""
    store = new_store()
    store.set("k", (b"", {}))
    heard: list[str] = []
    children: list[int] = []
    read, write = os.pipe()
    of_thread, ended = threading.local(), threading.Event()

    def fork(event: Any) -> None:
        if event.key == "fork" and not children:
            children.append(os.fork())
            if not children[0]:
                end_in_time()
                store.from_bytes("in the listener", b"")
                store.flush(TIMEOUT)
                assert heard == ["before", "in the listener"], heard
                heard.clear()
                # What a thread has of its own is freed when it ends. To join this one hangs with glibc 2.43,
                # in plain C as well: pthread_join() of the thread that has forked never returns.
                of_thread.kept = set[int]()
                weakref.finalize(of_thread.kept, ended.set)
                listener = threading.current_thread()
                threading.Thread(target=_be_child, args=(lambda: be_child(listener), write)).start()

    def hear(event: Any) -> None:
        heard.append(event.key)

    def be_child(listener: threading.Thread) -> None:
        assert ended.wait(TIMEOUT)
        (own,) = (thread for thread in threading.enumerate() if thread.name == "latchstore-events")
        assert dispatcher_of(store).thread is own is not listener
        for number in range(100):
            store.multiset_data([f"a{number}", f"b{number}"], [b"", b""])
        store.flush(TIMEOUT)
        assert heard == [f"{letter}{number}" for number in range(100) for letter in "ab"], heard
        assert store.info()["pending_events"] == 0
        store.close(TIMEOUT)

    store.event_manager.connect(StoreModificationEvent, fork, priority=1)
    store.event_manager.connect(StoreModificationEvent, hear)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        store.multiset_data(["before", "fork", "after"], [b"", b"", b""])
        store.from_bytes("later", b"")
        store.flush(TIMEOUT)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        told = pipe.read()
    assert (told, os.waitpid(children[0], 0)[1]) == ("", 0)
    assert heard == ["before", "fork", "after", "later"]


def test_a_signal_handler_may_fork_in_the_middle_of_a_flush() -> None:
    """The child's flush has nothing to wait for; the parent's goes on."""
    store = new_store()
    parent, children = os.getpid(), []
    go_on = threading.Event()

    def listen(event: object) -> None:
        while not dispatcher_of(store).marks:
            time.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert go_on.wait(TIMEOUT)

    def fork(*arguments: object) -> None:
        children.append(os.fork())
        if os.getpid() == parent:
            go_on.set()
        else:
            end_in_time()

    store.event_manager.connect(StoreSetEvent, listen)
    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            store.from_bytes("k", b"")
            store.flush(10 * TIMEOUT)
            if os.getpid() != parent:
                os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)
        signal.signal(signal.SIGUSR1, before)
    assert [os.waitpid(child, 0)[1] for child in children] == [0]


def test_snapshots_and_watches_that_are_open_when_a_child_is_forked() -> None:
    store = new_store(history=10)
    store.from_bytes("k", b"old")
    view = store.snapshot()
    watch, since = store.watch(), store.watch(since=0)
    store.from_bytes("k", b"new")
    assert (len(watch), len(since)) == (1, 2)
    opened, go_on = threading.Event(), threading.Event()

    def read_slowly() -> None:
        with store.transaction("slow", optimistic=True):
            opened.set()
            assert go_on.wait(TIMEOUT)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    assert opened.wait(TIMEOUT)
    assert store.info()["snapshots"] == 2

    def check() -> None:
        # The optimistic block of the other thread is over here, and its snapshot with it.
        assert store.info()["snapshots"] == 1
        store.from_bytes("k", b"newest")
        assert view.to_bytes("k") == b"old"
        view.close()
        assert store.info()["snapshots"] == store.info()["pinned_entries"] == 0
        # What the parent had not read is not there.
        for changes in (watch, since):
            assert changes.get(0).revision == 3
            assert len(changes) == 0
        assert [change.revision for change in (store.watch(since=1).get(0),)] == [2]

    told = in_child(check)
    go_on.set()
    reader.join(TIMEOUT)
    assert told == ""
    assert (len(watch), len(since)) == (1, 2)
    assert view.to_bytes("k") == b"old"


def test_a_watch_of_a_closed_store_is_free_in_a_child() -> None:
    store = new_store()
    watch = store.watch()
    (buffer,) = feed_of(store).buffers
    store.from_bytes("k", b"")
    store.close()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go_on.wait(TIMEOUT)

    holder = threading.Thread(target=buffer.latch.during, args=(hold,))
    holder.start()
    assert held.wait(TIMEOUT)

    def check() -> None:
        with pytest.raises(WatchClosedError, match="all changes have been read"):
            watch.get(0)

    told = in_child(check)
    go_on.set()
    holder.join(TIMEOUT)
    assert told == ""
    assert watch.get(0).key == "k"  # type: ignore[union-attr]


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
        assert told == ["stores that cannot be used in this forked child (3 sub-exceptions)"]

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
        told = [told for told in (in_child(check) for _ in range(FORKS // 5)) if told]
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
    """Each bytecode is tried as the place where the thread that commits stands when the child is forked."""
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


# -- multiprocessing ----------------------------------------------------------------------------------

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
    with pytest.raises(TypeError, match=r"save\(path\) writes what it holds, load\(path\) reads it back"):
        duplicate(new_store())


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_child_keeps_nothing_that_other_threads_have_open(optimistic: bool) -> None:
    """Their snapshots, watches and transactions, and what these pin; those of the thread that forks stay."""
    store = DictMemoryStore(EventManager())
    store.from_bytes("k", b"old")
    ready, over = threading.Barrier(4), threading.Event()

    def hold(enter: Callable[[], Any]) -> None:
        with enter():
            ready.wait(TIMEOUT)
            over.wait(TIMEOUT)

    opened = (store.snapshot, store.watch, functools.partial(store.transaction, optimistic=optimistic))
    threads = [threading.Thread(target=hold, args=(enter,), daemon=True) for enter in opened]
    for thread in threads:
        thread.start()
    ready.wait(TIMEOUT)

    def check() -> None:
        store.from_bytes("k", b"new")
        assert store.info()["snapshots"] == store.info()["pinned_entries"] == 0
        assert store.stats()["watches"] == 0
        with store.snapshot() as view, store.watch() as watch:
            store.from_bytes("k", b"newer")
            assert view.to_bytes("k") == b"new"
            assert len(watch) == 1

    try:
        assert in_child(check) == ""
    finally:
        over.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert store.to_bytes("k") == b"old"
