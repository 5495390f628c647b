"""A snapshot takes no lock, and shows nothing of a commit that is being made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager
from latchstore.engine.inspection import replace_entries, table_of
from tests.contract.snapshots import READS, change_everything, every_read, fill, whole
from tests.schedules import TIMEOUT, Actor, run_threads
from tests.snapshots.reads import assert_nothing_pinned
from tests.tables import Entries


class WatchedLock:
    """A table lock that tells who asks for it, and can stop a commit at its end."""

    def __init__(self) -> None:
        self._lock = rwlock.RWLockFair()
        self.asked: list[str] = []
        #: Set: the write side is given back at once.
        self.may_release = threading.Event()
        self.may_release.set()
        self.in_commit = threading.Event()

    def gen_rlock(self) -> Any:
        return self._watched(self._lock.gen_rlock(), "read")

    def gen_wlock(self) -> Any:
        return self._watched(self._lock.gen_wlock(), "write")

    def _watched(self, handle: Any, side: str) -> Any:
        acquire, release = handle.acquire, handle.release

        def watched_acquire(*arguments: Any, **options: Any) -> bool:
            self.asked.append(side)
            return bool(acquire(*arguments, **options))

        def watched_release() -> None:
            if side == "write" and not self.may_release.is_set():
                self.in_commit.set()
                assert self.may_release.wait(TIMEOUT)
            release()

        return SimpleNamespace(acquire=watched_acquire, release=watched_release, locked=handle.locked)


@every_read
def test_reading_takes_no_lock(read: str) -> None:
    lock = WatchedLock()
    with DictMemoryStore(EventManager(), lock_class=lambda: lock) as store:
        fill(store)
        with store.snapshot() as view:
            change_everything(store)
            # Somebody else is the owner all the while.
            with Actor(store) as writer:
                writer.begin()
                lock.asked.clear()
                assert READS[read][0](view) == READS[read][1]
                assert lock.asked == []
            lock.asked.clear()
            list(store.query())
            assert lock.asked == ["read"], "the lock tells when it is asked for"


class WatchedEntries(Entries):
    """The table's dict, that stops a commit when half of it is there."""

    def __init__(self, entries: dict[str, Any]) -> None:
        super().__init__(entries)
        self.halfway = threading.Event()
        self.go_on = threading.Event()
        self.begun = False

    def __setitem__(self, key: str, entry: Any, /) -> None:
        if self.begun and not self.halfway.is_set():
            self.halfway.set()
            assert self.go_on.wait(TIMEOUT)
        self.begun = True
        super().__setitem__(key, entry)

    def copy(self) -> Any:
        return dict(self)


def test_a_commit_in_progress_neither_holds_up_a_snapshot_nor_shows_through() -> None:
    lock = WatchedLock()
    with DictMemoryStore(EventManager(), lock_class=lambda: lock, lock_timeout=TIMEOUT) as store:
        fill(store)
        before = whole(store)
        entries = WatchedEntries(table_of(store).entries)
        replace_entries(store, entries)
        with store.snapshot() as view, Actor(store) as writer:

            def commit() -> None:
                with store.transaction():
                    store.multiset_data(["doc/1", "doc/2", "new"], [b"new"] * 3)
                    store.delete("image")

            commit_ended = writer.start(commit)
            assert entries.halfway.wait(TIMEOUT)
            assert entries["doc/1"].data == b"new", "half of the commit is in the table"
            assert entries["doc/2"].data == b"two"
            lock.asked.clear()
            assert whole(view) == before
            for name, (ask, answer) in READS.items():
                assert ask(view) == answer, name
            assert lock.asked == []
            entries.go_on.set()
            commit_ended.result(TIMEOUT)
            assert whole(view) == before
        assert {key: store.to_bytes(key) for key in store.glob("*")} == {
            "doc/1": b"new",
            "doc/2": b"new",
            "new": b"new",
        }
        assert_nothing_pinned(store)


class EntriesThatAreRead(Entries):
    """The table's dict, whose snapshot is read after each single change of it."""

    def __init__(self, entries: dict[str, Any]) -> None:
        super().__init__(entries)
        self.read: Callable[[], None] = lambda: None
        self.changes = 0

    def __setitem__(self, key: str, entry: Any, /) -> None:
        super().__setitem__(key, entry)
        self.changes += 1
        self.read()

    def pop(self, *arguments: Any) -> Any:
        entry = super().pop(*arguments)
        self.changes += 1
        self.read()
        return entry

    def copy(self) -> Any:
        return dict(self)


def test_a_snapshot_is_whole_after_each_single_change_of_the_table() -> None:
    with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
        fill(store)
        entries = EntriesThatAreRead(table_of(store).entries)
        replace_entries(store, entries)
        before = whole(store)
        with store.snapshot() as view:

            def read() -> None:
                assert whole(view) == before

            entries.read = read
            change_everything(store)
            assert entries.changes == 6
            assert whole(view) == before


def test_a_commit_that_holds_the_table_lock_does_not_hold_up_a_snapshot() -> None:
    lock = WatchedLock()
    with DictMemoryStore(EventManager(), lock_class=lambda: lock, lock_timeout=TIMEOUT) as store:
        fill(store)
        before = whole(store)
        with store.snapshot() as view, Actor(store) as writer:
            lock.may_release.clear()
            commit_ended = writer.start(lambda: store.multiset_data(["doc/1", "new"], [b"new"] * 2))
            try:
                assert lock.in_commit.wait(TIMEOUT)
                assert whole(view) == before
            finally:
                lock.may_release.set()
            commit_ended.result(TIMEOUT)
            assert whole(view) == before


def test_snapshots_while_threads_write(store: DictMemoryStore) -> None:
    """Two keys that are always changed together are never seen apart, nor a snapshot seen to change."""
    stop = threading.Event()
    store.multiset_data(["x", "y"], [b"0", b"0"])

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with store.transaction():
                store.multiset_data(["x", "y", f"extra {number % 5}"], [b"%d" % number] * 3)
                if store.exists("came and went"):
                    store.delete("came and went")
                else:
                    store.from_bytes("came and went", b"")

    def read() -> None:
        try:
            for number in range(400):
                with store.snapshot() as view:
                    first = whole(view)
                    assert first["x"] == first["y"]
                    with store.snapshot() as later:
                        assert later.to_bytes("y") == later.to_bytes("x")
                        assert later.revision >= view.revision
                        if number % 2:
                            view, later = later, view
                            first = whole(view)
                        later.close()
                        assert whole(view) == first
                    view.close()
        finally:
            stop.set()

    run_threads([write, read, read])
    assert_nothing_pinned(store)
