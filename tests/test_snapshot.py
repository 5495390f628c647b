"""A snapshot shows one commit, whole, as long as it is open; it takes no lock and leaves nothing behind."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import gc
import itertools
import random
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import (
    AbstractReadOnlyStore,
    AbstractStore,
    DictMemoryStore,
    EventManager,
    Snapshot,
    SnapshotClosedError,
    StoreError,
)
from latchstore.engine import preimages
from latchstore.engine.inspection import check, replace_entries, table_of
from latchstore.engine.locks import ReadWriteLock
from tests.schedules import TIMEOUT, Actor, in_another_thread, run_threads
from tests.tables import Entries


class BrokenBlockError(Exception):
    """Leaves a block on purpose."""


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
        fill(store)
        yield store


def fill(store: AbstractStore) -> None:
    store.multiset(
        ["doc/1", "doc/2", "image"],
        [
            (b"one", {"kind": "document", "n": 1}),
            (b"two", {"kind": "document", "n": 2}),
            (b"image", {"kind": "image", "tags": ["x"]}),
        ],
    )


def change_everything(store: AbstractStore) -> None:
    """Make a commit of each sort: a key set, created, deleted, and created again."""
    store.set("doc/1", (b"changed", {"kind": "draft"}))
    store.from_bytes("doc/3", b"three")
    store.delete("image")
    store.multiset(["image", "film"], [(b"new", {}), (b"film", {"kind": "document"})])
    store.update_metadata("doc/2", {"n": 20})


#: Each reading method, with what it gives on what `fill` has filled.
READS: dict[str, tuple[Callable[[AbstractReadOnlyStore], object], object]] = {
    "get": (lambda view: (view.get("doc/1").data.read(), view.get("doc/1").metadata.get("n")), (b"one", 1)),
    "get, revision": (lambda view: view.get("doc/1").revision, 1),
    "get_data": (lambda view: view.get_data("doc/1").read(), b"one"),
    "get_data_range": (lambda view: view.get_data_range("doc/1", 1, 3).read(), b"ne"),
    "get_metadata": (lambda view: view.get_metadata("doc/2"), {"kind": "document", "n": 2}),
    "get_metadata, selected": (lambda view: view.get_metadata("doc/2", ["n"]), {"n": 2}),
    "exists": (lambda view: [view.exists(key) for key in ("image", "doc/3")], [True, False]),
    "in": (lambda view: ["image" in view, "doc/3" in view], [True, False]),
    "to_bytes": (lambda view: view.to_bytes("image"), b"image"),
    "multiget": (lambda view: [v.data.read() for v in view.multiget(["image", "doc/1"])], [b"image", b"one"]),
    "multiget_data": (lambda view: [data.read() for data in view.multiget_data(["image"])], [b"image"]),
    "multiget_metadata": (
        lambda view: list(view.multiget_metadata(["doc/1", "doc/2"], ["n"])),
        [{"n": 1}, {"n": 2}],
    ),
    "query": (
        lambda view: dict(view.query(["n"], kind="document")),
        {"doc/1": {"n": 1}, "doc/2": {"n": 2}},
    ),
    "query, all": (lambda view: len(dict(view.query())), 3),
    "query_keys": (lambda view: sorted(view.query_keys(kind="document")), ["doc/1", "doc/2"]),
    "query_keys, all": (lambda view: sorted(view.query_keys()), ["doc/1", "doc/2", "image"]),
    "query_keys, mutable": (lambda view: list(view.query_keys(tags=["x"])), ["image"]),
    "glob": (lambda view: sorted(view.glob("doc/*")), ["doc/1", "doc/2"]),
    "len": (len, 3),
    "info": (lambda view: view.info(), {"readonly": True, "revision": 1, "keys": 3}),
}

every_read = pytest.mark.parametrize("read", READS)


def whole(view: AbstractReadOnlyStore) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Return all that a store holds, and check that all ways of reading it agree."""
    held = {key: (view.to_bytes(key), metadata) for key, metadata in view.query()}
    assert sorted(held) == sorted(view.glob("*")) == sorted(view.query_keys())
    assert len(view) == len(held)
    keys = list(held)
    assert list(view.multiget_metadata(keys)) == [held[key][1] for key in keys]
    assert [value.data.read() for value in view.multiget(keys)] == [held[key][0] for key in keys]
    return held


def assert_nothing_pinned(store: DictMemoryStore) -> None:
    facts = store.info()
    assert (facts["snapshots"], facts["oldest_snapshot"]) == (0, 0.0)
    assert (facts["pinned_entries"], facts["pinned_bytes"]) == (0, 0)
    check(store)


# -- what it shows --------------------------------------------------------------------------------------


@every_read
def test_reads_show_the_commit_it_was_opened_at(store: DictMemoryStore, read: str) -> None:
    ask, answer = READS[read]
    with store.snapshot() as view:
        assert ask(view) == answer
        change_everything(store)
        assert ask(view) == answer
        assert ask(store) != answer, "the change is one that can be seen"
    assert_nothing_pinned(store)


def test_to_file(store: DictMemoryStore, tmp_path: Path) -> None:
    with store.snapshot() as view:
        change_everything(store)
        view.to_file("doc/1", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"one"


def test_a_snapshot_of_an_empty_store_stays_empty() -> None:
    with DictMemoryStore(EventManager()) as empty, empty.snapshot() as view:
        fill(empty)
        assert whole(view) == {}
        assert view.revision == 0
        for key in empty.glob("*"):
            with pytest.raises(KeyError, match=key):
                view.get(key)
            with pytest.raises(KeyError, match=key):
                view.multiget([key])


def test_a_snapshot_is_read_only(store: DictMemoryStore) -> None:
    with store.snapshot() as view:
        assert isinstance(view, AbstractReadOnlyStore)
        assert not isinstance(view, AbstractStore)
        assert not hasattr(view, "set")
        assert view.info()["readonly"] is True


def test_what_is_handed_out_is_a_copy(store: DictMemoryStore) -> None:
    with store.snapshot() as view:
        view.get_metadata("image")["tags"].append("y")
        next(iter(view.query(kind="image")))[1]["tags"].append("z")
        assert view.get_metadata("image")["tags"] == ["x"]
    assert store.get_metadata("image")["tags"] == ["x"]


def test_keys_are_checked(store: DictMemoryStore) -> None:
    with store.snapshot() as view:
        with pytest.raises(TypeError, match="key must be a str"):
            view.get(3)  # type: ignore[arg-type]
        with pytest.raises(KeyError, match="none"):
            view.get("none")


@pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
def test_opened_inside_a_transaction_it_shows_the_last_commit(
    store: DictMemoryStore, optimistic: bool
) -> None:
    before = whole(store)
    with store.transaction(optimistic=optimistic):
        change_everything(store)
        with store.snapshot() as view:
            assert whole(view) == before
            assert view.revision == 1
            change_everything(store)
            assert whole(view) == before
        kept = store.snapshot()
    assert whole(kept) == before
    kept.close()
    assert_nothing_pinned(store)


def test_a_transaction_that_is_rolled_back_pins_nothing(store: DictMemoryStore) -> None:
    before = whole(store)
    with store.snapshot() as view:
        with pytest.raises(BrokenBlockError), store.transaction():
            change_everything(store)
            raise BrokenBlockError
        assert store.info()["pinned_entries"] == 0
        assert whole(view) == before


class EntriesNotToBeGoneThrough(dict[str, Any]):
    """The table's dict, which refuses whatever takes the longer, the more it holds."""

    refusing = True

    def _refuse(self, *arguments: object) -> Any:
        if self.refusing:
            raise AssertionError("the entries are gone through")
        return None

    def __iter__(self) -> Iterator[str]:
        return self._refuse() or super().__iter__()

    def copy(self) -> dict[str, Any]:
        return self._refuse() or super().copy()

    def keys(self) -> Any:
        return self._refuse() or super().keys()

    def values(self) -> Any:
        return self._refuse() or super().values()

    def items(self) -> Any:
        return self._refuse() or super().items()


def lines_run(step: Callable[[], object]) -> int:
    """Count the lines of Python that a step runs, and not those of finalizers of others."""
    count = 0
    gc.collect()
    gc.disable()

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(previous)
        gc.enable()
    return count


def bytes_allocated(step: Callable[[], object]) -> int:
    """Return how many bytes a step has held at the most."""
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_opening_and_closing_cost_the_same_whatever_the_size() -> None:
    """Neither goes through the entries, by Python or by C: same lines, few bytes, no iteration."""
    lines: dict[int, int] = {}
    for size in (10, 20_000):
        with DictMemoryStore(EventManager()) as store:
            keys = [f"key {number}" for number in range(size)]
            store.multiset_data(keys, [b""] * size)
            entries = EntriesNotToBeGoneThrough(table_of(store).entries)
            replace_entries(store, entries)

            def open_and_close(store: DictMemoryStore = store) -> None:
                view = store.snapshot()
                assert view.to_bytes("key 1") == b""
                store.from_bytes("key 1", b"")  # so that something is pinned
                view.close()
                store.from_bytes("key 1", b"")  # and given up

            open_and_close()  # whatever is made once is made
            lines[size] = lines_run(open_and_close)
            assert bytes_allocated(open_and_close) < 20_000, "a copy of the dict takes 600,000"
            with pytest.raises(AssertionError, match="gone through"):
                list(store.glob("*"))
            entries.refusing = False
            assert bytes_allocated(entries.copy) > 20_000 or size == 10
            assert_nothing_pinned(store)
    assert lines[10] == lines[20_000]


@pytest.mark.parametrize("read", ["get", "to_bytes", "multiget", "query", "glob", "len"])
def test_a_read_that_meets_the_close_is_refused(
    store: DictMemoryStore, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed while it is read, a snapshot may have missed a commit: what was found is not given out."""
    view = store.snapshot()

    def closing(find: Callable[..., Any]) -> Callable[..., Any]:
        def found(*arguments: Any) -> Any:
            view.close()
            change_everything(store)
            return find(*arguments)

        return found

    for name in ("entry_at", "entries_at"):
        monkeypatch.setattr(preimages, name, closing(getattr(preimages, name)))
    with pytest.raises(SnapshotClosedError):
        READS[read][0](view)
    monkeypatch.undo()
    assert_nothing_pinned(store)


# -- its end ----------------------------------------------------------------------------------------------


@every_read
def test_a_closed_snapshot_cannot_be_read(store: DictMemoryStore, read: str) -> None:
    with store.snapshot() as view:
        pass
    with pytest.raises(
        SnapshotClosedError, match=r"^<closed snapshot of revision 1> is used after it was closed$"
    ):
        READS[read][0](view)
    with pytest.raises(SnapshotClosedError):
        view.__enter__()
    assert issubclass(SnapshotClosedError, StoreError)
    assert_nothing_pinned(store)


def test_closing_twice_is_harmless(store: DictMemoryStore) -> None:
    first, second = store.snapshot(), store.snapshot()
    for _ in range(3):
        first.close()
    change_everything(store)
    assert store.info()["snapshots"] == 1, "the second shares the first one's moment, and is open"
    assert len(second) == 3
    second.close()
    assert_nothing_pinned(store)


def test_its_state_is_told(store: DictMemoryStore) -> None:
    view = store.snapshot()
    assert (view.is_connected(), repr(view)) == (True, "<open snapshot of revision 1>")
    view.connect()
    view.disconnect()
    assert view.is_connected()
    view.close()
    assert (view.is_connected(), repr(view)) == (False, "<closed snapshot of revision 1>")
    assert view.revision == 1


def test_an_error_in_its_block_closes_it(store: DictMemoryStore) -> None:
    with pytest.raises(BrokenBlockError), store.snapshot() as view:
        raise BrokenBlockError
    assert not view.is_connected()
    assert_nothing_pinned(store)


def test_a_dropped_snapshot_frees_what_it_pinned(store: DictMemoryStore) -> None:
    view: Snapshot | None = store.snapshot()
    change_everything(store)
    assert store.info()["pinned_entries"] == 3
    view = None
    assert_nothing_pinned(store)
    # And in a cycle, which the collector finds.
    cycle: list[Any] = [store.snapshot()]
    cycle.append(cycle)
    change_everything(store)
    assert store.info()["snapshots"] == 1
    del cycle
    gc.collect()
    assert_nothing_pinned(store)
    assert view is None


def test_the_old_entries_themselves_are_freed(store: DictMemoryStore) -> None:
    class Marked(dict[str, Any]):
        """Metadata can hold anything that can be copied; this can be watched."""

        def __deepcopy__(self, memo: dict[int, Any]) -> Marked:
            copied = Marked(self)
            copies.append(weakref.ref(copied))
            return copied

    copies: list[weakref.ref[Marked]] = []
    store.set("marked", (b"", {"mark": Marked()}))
    assert copies[-1]() is not None
    view = store.snapshot()
    store.delete("marked")
    gc.collect()
    assert copies[0]() is not None, "the snapshot needs it"
    view.close()
    gc.collect()
    assert [copy() for copy in copies] == [None] * len(copies)


def test_closing_while_the_table_is_in_use_does_not_wait(store: DictMemoryStore) -> None:
    view = store.snapshot()
    change_everything(store)
    table_of(store).exclusively("test", in_another_thread, view.close)
    assert table_of(store).preimages.layers, "somebody else has to free it"
    store.from_bytes("another", b"commit")
    assert table_of(store).preimages.layers == []
    assert_nothing_pinned(store)


@pytest.mark.parametrize("lock_class", [ReadWriteLock, rwlock.RWLockFair])
def test_closing_in_the_middle_of_a_read_does_not_wait(lock_class: Any) -> None:
    """As a finalizer or a signal handler may."""
    store = DictMemoryStore(EventManager(), lock_class=lock_class)
    fill(store)
    views = [store.snapshot(), store.snapshot()]
    change_everything(store)
    table_of(store).read(in_another_thread, views[0].close)
    table_of(store).read(views[1].close)
    assert_nothing_pinned(store)


def test_of_threads_that_close_a_snapshot_one_does(store: DictMemoryStore) -> None:
    for _ in range(100):
        kept, view = store.snapshot(), store.snapshot()
        run_threads([view.close] * 4)
        assert store.info()["snapshots"] == 1
        kept.close()
    assert_nothing_pinned(store)


def test_a_snapshot_of_a_closed_store_can_be_read(store: DictMemoryStore) -> None:
    view = store.snapshot()
    store.close()
    assert len(view) == 3
    with store.snapshot() as another:
        assert len(another) == 3
    view.close()


def test_a_snapshot_keeps_the_tables_of_its_store() -> None:
    store = DictMemoryStore(EventManager())
    fill(store)
    view = store.snapshot()
    del store
    gc.collect()
    assert view.to_bytes("doc/1") == b"one"
    view.close()


# -- many of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_snapshots_of_different_moments_closed_in_any_order(order: tuple[int, ...]) -> None:
    with DictMemoryStore(EventManager()) as store:
        views: dict[int, Snapshot] = {}
        copies: dict[int, dict[str, Any]] = {}
        for number in range(4):
            store.set("always", (b"%d" % number, {}))
            store.from_bytes(f"key {number}", b"")
            if number >= 2:
                store.delete(f"key {number - 2}")
            views[number], copies[number] = store.snapshot(), whole(store)
        store.multiset_data(["always", "key 1", "key 3"], [b"last"] * 3)
        store.delete("key 2")
        for closed in order:
            for number, view in views.items():
                assert whole(view) == copies[number], number
            views.pop(closed).close()
            store.set("always", (b"after %d" % closed, {}))
            assert store.info()["snapshots"] == len(views)
        assert_nothing_pinned(store)


def test_many_snapshots_at_random(store: DictMemoryStore) -> None:
    chance = random.Random(7)
    keys = [f"k{number}" for number in range(12)]
    open_views: list[tuple[Snapshot, dict[str, Any]]] = []
    for _ in range(1_500):
        match chance.randrange(5):
            case 0:
                open_views.append((store.snapshot(), whole(store)))
            case 1 if open_views:
                view, _ = open_views.pop(chance.randrange(len(open_views)))
                view.close()
            case 2:
                key = chance.choice(keys)
                if store.exists(key):
                    store.delete(key)
            case _:
                with store.transaction():
                    for key in chance.sample(keys, chance.randint(1, 4)):
                        store.set(key, (chance.randbytes(2), {"n": chance.randrange(3)}))
        if open_views:
            view, copy = chance.choice(open_views)
            assert whole(view) == copy
    for view, copy in open_views:
        assert whole(view) == copy
        view.close()
    assert_nothing_pinned(store)


def test_snapshots_of_one_moment_share_what_they_pin(store: DictMemoryStore) -> None:
    before = whole(store)
    views = [store.snapshot() for _ in range(5)]
    change_everything(store)
    facts = store.info()
    assert (facts["snapshots"], facts["pinned_entries"]) == (5, 3)
    for view in views[1:]:
        view.close()
        assert whole(views[0]) == before
    assert (store.info()["snapshots"], store.info()["pinned_entries"]) == (1, 3)
    views[0].close()
    assert_nothing_pinned(store)


# -- info() ------------------------------------------------------------------------------------------------


def test_info_tells_what_snapshots_pin(store: DictMemoryStore) -> None:
    def facts() -> tuple[int, int, int]:
        info = store.info()
        return info["snapshots"], info["pinned_entries"], info["pinned_bytes"]

    assert facts() == (0, 0, 0)
    first = store.snapshot()
    assert facts() == (1, 0, 0), "nothing has changed, so nothing is pinned"
    store.from_bytes("doc/1", b"1234567")
    assert facts() == (1, 1, 3)
    store.from_bytes("doc/1", b"")
    assert facts() == (1, 1, 3), "what came between is not needed"
    store.from_bytes("new", b"123456")
    assert facts() == (1, 1, 3), "that there was no such key costs no entry"
    second = store.snapshot()
    store.delete("new")
    store.delete("doc/1")
    assert facts() == (2, 3, 3 + 6 + 0)
    first.close()
    assert facts() == (1, 2, 6)
    second.close()
    assert facts() == (0, 0, 0)


def test_info_leaves_to_older_snapshots_what_they_need(store: DictMemoryStore) -> None:
    older = store.snapshot()
    store.from_bytes("new", b"")
    newer = store.snapshot()
    store.from_bytes("doc/1", b"")
    store.from_bytes("new", b"changed")
    assert store.info()["pinned_entries"] == 2
    newer.close()
    assert store.info()["pinned_entries"] == 1, "doc/1, of which the newer one has kept the old entry"
    assert older.to_bytes("doc/1") == b"one"
    assert not older.exists("new")
    older.close()
    assert_nothing_pinned(store)


def test_info_tells_the_age_of_the_oldest(store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("latchstore.engine.preimages.time.monotonic", lambda: now)
    first = store.snapshot()
    now = 103.0
    store.from_bytes("a", b"")
    second = store.snapshot()
    now = 110.0
    assert store.info()["oldest_snapshot"] == 10.0
    first.close()
    assert store.info()["oldest_snapshot"] == 7.0
    second.close()
    assert store.info()["oldest_snapshot"] == 0.0


def test_an_optimistic_transaction_is_counted_as_a_snapshot(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True):
        assert in_another_thread(store.info)["snapshots"] == 1
    assert_nothing_pinned(store)


# -- no lock -------------------------------------------------------------------------------------------------


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
