"""What is open when a child is forked (transactions, snapshots, watches, events) is the parent's alone."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
    StoreModificationEvent,
    StoreSetEvent,
    WatchClosedError,
)
from latchstore.engine.inspection import dispatcher_of, feed_of
from tests.fork.children import TIMEOUT, end_in_time, in_child, needs_fork, new_store, report_and_exit

pytestmark = needs_fork


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
                threading.Thread(target=report_and_exit, args=(lambda: be_child(listener), write)).start()

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
