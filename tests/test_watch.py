"""Watches give every change once and in order, hold up nobody, and never lose one silently."""

from __future__ import annotations

import gc
import itertools
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar, Self, TypeVar, TypeVarTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import (
    CompactedError,
    DictMemoryStore,
    EventManager,
    EventsLost,
    LockTimeoutError,
    StoreClosedError,
    StoreDeleteEvent,
    StoreSetEvent,
    StoreUpdateEvent,
    TransactionError,
    WaitTimeoutError,
    Watch,
    WatchClosedError,
)
from latchstore.contract.values import Entry, NestedEntry
from latchstore.contract.with_lock import WithLock
from latchstore.delivery.change_buffer import ChangeBuffer, Commit, Interest, Record, TryLatch
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.engine.inspection import feed_of

TIMEOUT = 30.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.02


def new_store(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), **options)


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with new_store(history=100) as store:
        yield store


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def read_all(watch: Watch) -> list[Any]:
    """Return what is there now, in short: revision and key, or the revisions that were lost."""
    short: list[Any] = []
    while True:
        try:
            change = watch.get(0)
        except (WaitTimeoutError, WatchClosedError):
            return short
        if isinstance(change, EventsLost):
            short.append(("lost", change.first_revision, change.last_revision))
        else:
            short.append((change.revision, change.key))


# -- what is given --------------------------------------------------------------------------------


def test_each_change_is_given_as_listeners_hear_it(store: DictMemoryStore) -> None:
    store.set("old", (b"0", {"n": 0}))
    with store.watch() as changes:
        store.set("a", (b"1", {"n": 1}))
        store.from_bytes("a", b"2")
        store.delete("old")
        created, updated, deleted = (changes.get(0) for _ in range(3))
    assert isinstance(created, StoreSetEvent)
    assert isinstance(updated, StoreUpdateEvent)
    assert isinstance(deleted, StoreDeleteEvent)
    assert [(each.revision, each.key, each.action) for each in (created, updated, deleted)] == [
        (2, "a", "set"),
        (3, "a", "update"),
        (4, "old", "delete"),
    ]
    value, previous = updated.value, updated.previous
    assert isinstance(updated, StoreUpdateEvent)
    assert value is not None
    assert previous is not None
    assert (value.bytes, previous.bytes) == (b"2", b"1")  # type: ignore[attr-defined]
    assert updated.metadata == {"n": 1}
    assert deleted.value is None
    assert deleted.metadata == {"n": 0}
    assert created.source is store
    assert created.transaction is None


def test_a_transaction_gives_its_net_effect_and_a_rollback_nothing(store: DictMemoryStore) -> None:
    with store.watch() as changes:
        with store.transaction("several") as tx:
            store.from_bytes("a", b"1")
            store.from_bytes("a", b"2")
            store.from_bytes("b", b"1")
            store.from_bytes("gone", b"")
            store.delete("gone")
            assert len(changes) == 0
        with store.transaction() as failed:
            store.from_bytes("never", b"")
            failed.doom()
        with pytest.raises(KeyError):
            store.delete("missing")
        given: list[Any] = [changes.get(0) for _ in range(2)]
        assert len(changes) == 0
    assert [(each.revision, each.key, each.action) for each in given] == [
        (tx.revision, "a", "set"),
        (tx.revision, "b", "set"),
    ]
    assert all(each.transaction.notes == "several" for each in given)


@pytest.mark.parametrize(
    ("glob", "keys"),
    [
        ("*", ["user/1", "user/2", "x*", "xy"]),
        ("user/*", ["user/1", "user/2"]),
        ("user/1", ["user/1"]),
        ("*[12]", ["user/1", "user/2"]),
        ("x[*]", ["x*"]),
        ("none", []),
        ("", []),
    ],
)
def test_glob(store: DictMemoryStore, glob: str, keys: list[str]) -> None:
    with store.watch(glob) as changes:
        for key in ("user/1", "user/2", "x*", "xy"):
            store.from_bytes(key, b"")
        assert [key for _, key in read_all(changes)] == keys


def test_a_filter_is_matched_before_or_after_the_change(store: DictMemoryStore) -> None:
    with store.watch(filter={"kind": "a"}) as changes:
        store.set("k", (b"", {"kind": "b"}))
        store.set("k", (b"", {"kind": "a"}))
        store.set("k", (b"", {"kind": "c"}))
        store.set("k", (b"", {"kind": "d"}))
        store.set("k", (b"", {"kind": "a"}))
        store.delete("k")
        store.set("other", (b"", {}))
        assert [revision for revision, _ in read_all(changes)] == [2, 3, 5, 6]


class Stubborn:
    """Equals only what it is told to, and asks which locks are held."""

    asked: list[bool]

    def __init__(self, store: DictMemoryStore, equal: bool) -> None:
        self.store = store
        self.equal = equal

    def __eq__(self, other: object) -> bool:
        # A store that held a lock would refuse, or wait for itself.
        self.store.from_bytes("asked", b"")
        return self.equal

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> Stubborn:
        return self


class Unequal:
    """Equals nothing, by an ``==`` of its own."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> Unequal:
        return self


def test_values_that_compare_in_their_own_way_do_so_on_the_readers_thread(store: DictMemoryStore) -> None:
    with (
        store.watch(filter={"kind": Stubborn(store, True)}) as yes,
        store.watch(filter={"kind": Stubborn(store, False)}) as no,
    ):
        store.set("k", (b"", {"kind": [1]}))
        assert not store.exists("asked")
        assert len(yes) == 1
        change = yes.get(0)
        assert isinstance(change, StoreSetEvent)
        assert change.key == "k"
        assert store.exists("asked")
        with pytest.raises(WaitTimeoutError):
            no.get(0)


def test_a_filter_is_isolated_from_the_caller(store: DictMemoryStore) -> None:
    wanted = {"tags": ["a"]}
    with store.watch(filter=wanted) as changes:
        wanted["tags"].append("b")
        store.set("k", (b"", {"tags": ["a"]}))
        assert read_all(changes) == [(1, "k")]


# -- waiting and ending ---------------------------------------------------------------------------


def test_get_waits_for_a_change(store: DictMemoryStore, pool: ThreadPoolExecutor) -> None:
    with store.watch() as changes:
        for timeout in (None, TIMEOUT):
            waiting = pool.submit(changes.get, timeout)
            store.from_bytes("k", b"")
            assert waiting.result(TIMEOUT).key == "k"  # type: ignore[union-attr]


def test_get_gives_up(store: DictMemoryStore) -> None:
    with store.watch("user/*") as changes:
        store.from_bytes("other", b"")
        for timeout in (0, SHORT):
            with pytest.raises(
                WaitTimeoutError, match=rf"no change in {timeout:g} s: <open watch of 'user/\*'"
            ):
                changes.get(timeout)


@pytest.mark.parametrize("end", ["watch", "store"])
def test_iterating_ends_when_it_is_closed_by_another_thread(
    store: DictMemoryStore, pool: ThreadPoolExecutor, end: str
) -> None:
    changes = store.watch()
    first = threading.Event()

    def iterate() -> list[str]:
        keys = []
        for change in changes:
            keys.append(change.key)  # type: ignore[union-attr]
            first.set()
        return keys

    reading = pool.submit(iterate)
    store.from_bytes("k", b"")
    assert first.wait(TIMEOUT)
    changes.close() if end == "watch" else store.close()
    assert reading.result(TIMEOUT) == ["k"]


def test_what_was_committed_before_the_store_was_closed_is_still_given(store: DictMemoryStore) -> None:
    changes = store.watch()
    store.from_bytes("a", b"")
    store.from_bytes("b", b"")
    store.close()
    assert [change.key for change in changes] == ["a", "b"]  # type: ignore[union-attr]
    with pytest.raises(WatchClosedError, match="the store was closed, and all changes have been read"):
        changes.get(0)
    with pytest.raises(StoreClosedError):
        store.watch()


@pytest.mark.parametrize("timeout", [0, TIMEOUT])
def test_what_is_committed_between_a_look_and_the_end_is_still_given(timeout: float) -> None:
    feed, buffer = ChangeFeed(0), new_buffer()
    changes = Watch(None, buffer, "*")
    feed.add(buffer, 0, 0)

    class Looking(TryLatch):
        """The commit comes, and the end, when a reader has found nothing."""

        def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
            buffer.latch = TryLatch()
            found = buffer.latch.during(function, *arguments)
            assert found is None
            feed.publish(commit_of(1))
            feed.end()
            return found

    buffer.latch = Looking()
    assert changes.get(timeout).key == "k0"  # type: ignore[union-attr]
    with pytest.raises(WatchClosedError, match="all changes have been read"):
        changes.get(timeout)
    assert feed.watches == 0


def test_a_closed_watch_refuses_and_is_forgotten(store: DictMemoryStore) -> None:
    changes = store.watch()
    store.from_bytes("a", b"")
    assert store.stats()["watches"] == 1
    changes.close()
    changes.close()
    assert changes.closed
    assert store.stats()["watches"] == 0
    assert list(changes) == []
    assert len(changes) == 0
    with pytest.raises(WatchClosedError, match=r"<closed watch of '\*' in .*is used after it was closed"):
        changes.get()
    with pytest.raises(WatchClosedError), changes:
        pass


def test_a_watch_that_nobody_has_any_more_is_forgotten_at_the_next_commit() -> None:
    store = new_store()
    changes = store.watch()
    (buffer,) = feed_of(store).buffers
    del changes
    gc.collect()
    assert buffer.closed
    store.from_bytes("a", b"")
    assert feed_of(store).buffers == ()
    assert not feed_of(store).active
    assert len(buffer) == 0


def test_readers_of_one_watch_share_its_changes(store: DictMemoryStore, pool: ThreadPoolExecutor) -> None:
    changes = store.watch()
    reading = [pool.submit(lambda: [change.revision for change in changes]) for _ in range(4)]
    for _ in range(500):
        store.from_bytes("k", b"")
    store.close()
    given = [each.result(TIMEOUT) for each in reading]
    assert all(revisions == sorted(revisions) for revisions in given)  # type: ignore[type-var]
    assert sorted(itertools.chain.from_iterable(given)) == list(range(1, 501))  # type: ignore[type-var]


# -- overflow -------------------------------------------------------------------------------------


def test_a_full_buffer_drops_the_oldest_and_says_so_once(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=3) as changes:
        for _ in range(10):
            store.from_bytes("k", b"")
        assert len(changes) == 3
        assert read_all(changes) == [("lost", 1, 7), (8, "k"), (9, "k"), (10, "k")]
        store.from_bytes("k", b"")
        assert read_all(changes) == [(11, "k")]
        assert store.stats()["events_dropped"] == 7


def test_what_is_lost_in_two_goes_is_told_as_one(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=2) as changes:
        for _ in range(4):
            store.from_bytes("k", b"")
        for _ in range(4):
            store.from_bytes("k", b"")
        assert read_all(changes) == [("lost", 1, 6), (7, "k"), (8, "k")]


def test_whole_commits_are_dropped(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=4) as changes:
        store.multiset_data([*"abc"], [b""] * 3)
        store.multiset_data([*"de"], [b""] * 2)
        assert read_all(changes) == [("lost", 1, 1), (2, "d"), (2, "e")]
        store.multiset_data([*"abc"], [b""] * 3)
        assert isinstance(changes.get(0), StoreUpdateEvent)
        store.multiset_data([*"abc"], [b""] * 3)
        assert read_all(changes) == [("lost", 3, 3), (4, "a"), (4, "b"), (4, "c")]


def test_a_commit_that_is_larger_than_the_buffer_is_lost_whole(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=2) as changes:
        store.from_bytes("x", b"")
        store.multiset_data([*"abc"], [b""] * 3)
        assert read_all(changes) == [("lost", 1, 2)]


def test_only_what_it_is_meant_to_have_fills_a_buffer(store: DictMemoryStore) -> None:
    with store.watch("wanted", max_buffer=1) as changes:
        store.from_bytes("wanted", b"")
        for _ in range(10):
            store.from_bytes("other", b"")
        assert read_all(changes) == [(1, "wanted")]


def test_coalescing_keeps_the_net_effect_of_each_key(store: DictMemoryStore) -> None:
    for key in ("changed", "deleted", "again"):
        store.from_bytes(key, b"old")
    with store.watch(max_buffer=2, on_overflow="coalesce") as changes:
        store.from_bytes("changed", b"1")
        store.from_bytes("new", b"1")
        store.from_bytes("changed", b"2")
        store.delete("deleted")
        store.delete("again")
        store.from_bytes("again", b"new")
        store.from_bytes("brief", b"")
        store.delete("brief")
        store.from_bytes("new", b"2")
        given: list[Any] = [changes.get(0) for _ in range(len(changes))]
        assert [(each.key, each.action, each.revision) for each in given] == [
            ("changed", "update", 6),
            ("deleted", "delete", 7),
            ("again", "update", 9),
            ("new", "set", 12),
        ]
        assert given[0].previous.bytes == b"old"
        assert given[0].value.bytes == b"2"
        assert given[3].previous is None
        # Read empty, it is a buffer like others again.
        store.from_bytes("a", b"1")
        store.from_bytes("a", b"2")
        assert [revision for revision, _ in read_all(changes)] == [13, 14]


# -- the past -------------------------------------------------------------------------------------


def test_since_begins_after_a_revision() -> None:
    store = new_store(history=3)
    for number in range(5):
        store.from_bytes(f"k{number}", b"")
    for since, revisions in ((2, [3, 4, 5]), (3, [4, 5]), (4, [5]), (5, [])):
        with store.watch(since=since) as changes:
            assert [revision for revision, _ in read_all(changes)] == revisions
    with pytest.raises(CompactedError, match="since=1: the history begins with revision 3") as caught:
        store.watch(since=1)
    assert (caught.value.since, caught.value.oldest_revision) == (1, 3)
    with pytest.raises(ValueError, match="since must not be above the last commit's revision, 5, got 6"):
        store.watch(since=6)
    assert store.stats()["watches"] == 0


def test_without_a_history_only_the_present_can_be_asked_for() -> None:
    store = new_store()
    with store.watch(since=0):
        pass
    store.from_bytes("k", b"")
    with store.watch(since=1) as changes:
        store.from_bytes("k", b"")
        assert read_all(changes) == [(2, "k")]
    with pytest.raises(CompactedError) as caught:
        store.watch(since=0)
    assert caught.value.oldest_revision == 3


def test_the_past_comes_before_the_present_and_is_filtered_too(store: DictMemoryStore) -> None:
    store.multiset_data(["user/1", "x", "user/2"], [b""] * 3)
    store.from_bytes("user/1", b"")
    with store.watch("user/*", since=0) as changes:
        store.from_bytes("user/3", b"")
        assert read_all(changes) == [(1, "user/1"), (1, "user/2"), (2, "user/1"), (3, "user/3")]


def test_a_commit_that_is_published_again_is_given_once() -> None:
    feed = ChangeFeed(history=2)
    early, late = new_buffer(), new_buffer()
    assert feed.add(early, 0, 0) == []
    for number in (1, 2, 3):
        feed.publish(commit_of(number))
        feed.publish(commit_of(number))
    # What the history has is read from there, and not given again when it is published again.
    assert [commit.revision for commit in feed.add(late, 3, 1)] == [2, 3]
    feed.publish(commit_of(3))
    feed.publish(commit_of(4))
    assert [record.revision for record in taken_from(early)] == [1, 2, 3, 4]
    assert [record.revision for record in taken_from(late)] == [4]
    with pytest.raises(CompactedError):
        feed.add(new_buffer(), 4, 1)


def test_watches_opened_while_others_write_have_every_commit_once(pool: ThreadPoolExecutor) -> None:
    store = new_store(history=100_000)
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait(TIMEOUT)
        for _ in range(500):
            store.from_bytes(f"k{number}", b"")

    writing = [pool.submit(write, number) for number in range(3)]
    barrier.wait(TIMEOUT)
    opened: list[tuple[int, Watch]] = []
    chance = random.Random(1)
    while not all(each.done() for each in writing):
        revision = store.info()["revision"]
        since = chance.choice([0, revision // 2, revision])
        opened.append((since, store.watch(since=since)))
        if len(opened) > 200:
            opened.pop(chance.randrange(200))[1].close()
    store.close()
    for since, changes in opened:
        assert [change.revision for change in changes] == list(range(since + 1, 1_501))


# -- never in the way -----------------------------------------------------------------------------


def test_a_watch_can_be_opened_beside_an_open_transaction(
    store: DictMemoryStore, pool: ThreadPoolExecutor
) -> None:
    with store.transaction():
        store.from_bytes("k", b"")
        changes = pool.submit(store.watch).result(TIMEOUT)
    assert read_all(changes) == [(1, "k")]


def test_a_slow_listener_does_not_hold_up_a_watch(store: DictMemoryStore) -> None:
    go_on = threading.Event()
    store.event_manager.connect(StoreSetEvent, lambda event: go_on.wait(TIMEOUT))
    with store.watch() as changes:
        store.from_bytes("a", b"")
        store.from_bytes("b", b"")
        assert read_all(changes) == [(1, "a"), (2, "b")]
    go_on.set()


def test_a_writer_does_not_wait_for_a_thread_that_is_reading(
    store: DictMemoryStore, pool: ThreadPoolExecutor
) -> None:
    """That may be in the middle of a signal handler or a finalizer, which may wait for the writer."""
    reading, go_on = threading.Event(), threading.Event()

    def read() -> None:
        reading.set()
        assert go_on.wait(TIMEOUT)

    changes = store.watch(max_buffer=2)
    held = pool.submit(feed_of(store).buffers[0].latch.during, read)
    assert reading.wait(TIMEOUT)
    writing = [pool.submit(store.from_bytes, "k", b"") for _ in range(5)]
    for each in writing:
        each.result(TIMEOUT)
    closed = store.watch()
    closed.close()
    go_on.set()
    held.result(TIMEOUT)
    assert read_all(changes) == [("lost", 1, 3), (4, "k"), (5, "k")]
    assert store.stats()["events_dropped"] == 3


def interrupt_reading(store: DictMemoryStore, handler: Callable[[], object]) -> None:
    """Call a function once in the middle of a reader's section, as a signal handler may come there."""
    handlers = [handler]

    class Interrupted(TryLatch):
        def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
            def interrupted() -> T:
                while handlers:
                    handlers.pop()()
                return function(*arguments)

            return super().during(interrupted)

    (buffer,) = feed_of(store).buffers
    buffer.latch = Interrupted()


@pytest.mark.parametrize(
    ("commits", "read"), [(1, [(1, "k"), (2, "k")]), (2, [("lost", 1, 1), (2, "k"), (3, "k")])]
)
def test_a_signal_handler_may_commit_in_the_middle_of_reading(
    store: DictMemoryStore, commits: int, read: list[Any]
) -> None:
    changes = store.watch(max_buffer=2)
    refused = []

    def handler() -> None:
        for _ in range(commits):
            store.from_bytes("k", b"")
        assert len(changes) == 1 + commits
        with pytest.raises(LockTimeoutError, match="this thread is in the middle of reading") as caught:
            changes.get(TIMEOUT)
        refused.append(caught)

    store.from_bytes("k", b"")
    interrupt_reading(store, handler)
    assert read_all(changes) == read
    assert refused
    store.from_bytes("k", b"")
    assert read_all(changes) == [(2 + commits, "k")]


def test_a_signal_handler_may_close_the_watch_that_is_being_read(store: DictMemoryStore) -> None:
    changes = store.watch()
    interrupt_reading(store, changes.close)
    with pytest.raises(WatchClosedError):
        changes.get(TIMEOUT)
    store.from_bytes("k", b"")
    assert feed_of(store).buffers == ()


def test_a_signal_handler_may_commit_while_a_writer_takes_the_section(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between its getting the lock and its noting so, a reader of the same thread has it as well."""
    lock = threading.RLock()
    calls: list[str] = []

    class Interrupted:
        """A lock that a signal handler comes right after, once."""

        release, __enter__, __exit__ = lock.release, lock.__enter__, lock.__exit__
        locked = None  # an RLock has it from Python 3.14 on

        def acquire(self, blocking: bool) -> bool:
            got = lock.acquire(blocking=blocking)
            if not blocking and not calls:
                latch.during(calls.append, "handler")
                latch.attempt(calls.append, "handler's commit")
            return got

    with monkeypatch.context() as patches:
        patches.setattr(threading, "RLock", Interrupted)
        latch = TryLatch()
    latch.attempt(calls.append, "writer")
    assert calls == ["handler", "handler's commit", "writer"]
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lock.acquire, blocking=False).result(TIMEOUT)


# -- struck ---------------------------------------------------------------------------------------


class Strike:
    """Raises KeyboardInterrupt at the n-th call of ours, or return from a call; a context manager."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __enter__(self) -> Self:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exception: object) -> bool:
        sys.setprofile(None)
        return exception[0] is KeyboardInterrupt

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call" or "latchstore" not in frame.f_code.co_filename:
            return
        if event == "return" and frame.f_code is WithLock.__enter__.__code__:
            return  # CPython raises nothing where a Python function returns, and 3.14 relies on it
        if event == "c_return" and getattr(argument, "__name__", "") == "__enter__":
            return  # nor at the beginning of a `with`, which 3.15 tells of and earlier ones do not
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            raise KeyboardInterrupt


def new_buffer(limit: int = 10, coalesce: bool = False) -> ChangeBuffer:
    return ChangeBuffer(Interest("*", {}), limit, coalesce)


def commit_of(revision: int, changes: int = 1) -> Commit:
    return Commit(revision, [(f"k{each}", None, Entry()) for each in range(changes)], None)


def is_free(buffer: ChangeBuffer) -> bool:
    """Tell whether another thread may enter the section of a buffer."""
    entered: list[str] = []
    other = threading.Thread(target=buffer.latch.attempt, args=(entered.append, "entered"))
    other.start()
    other.join(TIMEOUT)
    return entered == ["entered"]


def taken_from(buffer: ChangeBuffer) -> list[Any]:
    return list(iter(lambda: buffer.take(0), None))


@pytest.mark.parametrize("options", [(10, False), (4, False), (2, False), (1, True)])
@pytest.mark.parametrize("read", [False, True])
def test_a_writer_that_is_struck_loses_and_doubles_nothing(options: tuple[int, bool], read: bool) -> None:
    """The commit is published again, and its changes are read in between or not."""
    commits = [commit_of(1, 2), commit_of(2, 3)]
    feed, buffer = ChangeFeed(1), new_buffer(*options)
    feed.add(buffer, 0, 0)
    for commit in commits:
        feed.publish(commit)
    dropped, expected = buffer.dropped, taken_from(buffer)
    for number in itertools.count(1):
        garbage: deque[object] = deque()
        feed, buffer = ChangeFeed(1, garbage), new_buffer(*options)
        feed.add(buffer, 0, 0)
        feed.publish(commits[0])
        with Strike(number) as strike:
            feed.publish(commits[1])
        assert is_free(buffer)
        taken = taken_from(buffer) if read and len(buffer) == 5 else []
        feed.publish(commits[1])
        assert len(buffer) == len([each for each in expected[len(taken) :] if isinstance(each, Record)])
        assert taken + taken_from(buffer) == expected
        assert buffer.dropped == dropped
        assert feed.add(new_buffer(), 2, 1) == commits[1:]
        with pytest.raises(CompactedError):
            feed.add(new_buffer(), 2, 0)
        if strike.left > 0:
            break
    assert number > 10


@pytest.mark.parametrize("options", [(10, False), (2, False), (1, True)])
def test_a_reader_that_is_struck_misses_one_change_at_the_most(options: tuple[int, bool]) -> None:
    for number in itertools.count(1):
        buffer = new_buffer(*options)
        buffer.limit = 10
        for commit in (commit_of(1, 2), commit_of(2, 2)):
            buffer.offer(commit, deque())
        buffer.limit = options[0]  # so that the reader makes room
        expected = [(1, "k0"), (1, "k1"), (2, "k0"), (2, "k1")]
        if options[0] == 2:
            expected = [(1, ""), (2, "k0"), (2, "k1")]
        elif options[0] == 1:
            expected = [(2, "k0"), (2, "k1")]
        with Strike(number) as strike:
            taken = [buffer.take(0)]
        assert is_free(buffer)
        if strike.left <= 0:
            taken = []
        taken += taken_from(buffer)
        short = [(each[0], each.change[0] if isinstance(each, Record) else "") for each in taken if each]
        assert short in (expected, expected[1:])
        buffer.check()
        assert len(buffer) == 0
        assert buffer.dropped == 4 - len(expected) + (options[0] == 2)
        if strike.left > 0:
            break
    assert number > 10


# -- what is let go of ----------------------------------------------------------------------------


class Freed:
    """A metadata value that notes what was going on when it was freed."""

    going_on = "nothing"
    noted: ClassVar[list[str]] = []

    def __init__(self, buffer: ChangeBuffer | None = None) -> None:
        self._buffer = buffer

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __del__(self) -> None:
        Freed.noted.append(Freed.going_on)
        if self._buffer is not None:
            self._buffer.latch.during(int)  # refused in the middle of the section


def publish_freed(feed: ChangeFeed, revision: int, key: str, buffer: ChangeBuffer | None = None) -> None:
    entry = NestedEntry({"it": Freed(buffer)})
    commit = Commit(revision, [(key, None, entry)], Freed(buffer))
    del entry
    Freed.going_on = "publish"
    feed.publish(commit)
    Freed.going_on = "nothing"


@pytest.mark.parametrize("kind", ["history", "drop", "coalesce", "closed", "abandoned"])
def test_nothing_of_a_user_is_freed_while_a_commit_is_published(kind: str) -> None:
    garbage: deque[object] = deque()
    feed = ChangeFeed(1 if kind == "history" else 0, garbage)
    Freed.noted = []
    buffer = new_buffer(1, kind == "coalesce")
    reader = Watch(None, buffer, "*")
    if kind != "history":
        feed.add(buffer, 0, 0)
    publish_freed(feed, 1, "k")
    publish_freed(feed, 2, "k")
    if kind == "closed":
        # Its reader is in the middle of reading, so only the next commit can let go of it.
        buffer.latch.during(reader.close)
    del buffer
    if kind in ("closed", "abandoned"):
        del reader
    publish_freed(feed, 3, "k")
    # The third commit was offered to nobody if the watch was closed.
    assert Freed.noted == ["nothing"] * 2 * (kind in ("closed", "abandoned"))
    garbage.clear()
    # Of each commit, its change and its transaction, unless they can still be read.
    assert Freed.noted == ["nothing"] * (6 if kind in ("closed", "abandoned") else 4)


@pytest.mark.parametrize("coalesce", [False, True])
def test_nothing_of_a_user_is_freed_in_a_readers_section(
    coalesce: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", refused.append)
    feed, buffer = ChangeFeed(0), new_buffer(10, coalesce)
    feed.add(buffer, 0, 0)
    Freed.noted = []
    for revision in range(1, 6):
        publish_freed(feed, revision, "k", buffer)
    buffer.limit = 1
    assert buffer.take(0) is not None
    assert len(Freed.noted) >= 8
    buffer.close()
    assert len(Freed.noted) == 10
    assert refused == []


# -- wait_for -------------------------------------------------------------------------------------


def test_wait_for_returns_what_the_predicate_gives(store: DictMemoryStore, pool: ThreadPoolExecutor) -> None:
    assert store.wait_for(lambda: "at once", 0) == "at once"
    asked = threading.Event()

    def enough() -> int:
        asked.set()
        return len(store) if len(store) >= 2 else 0

    waiting = pool.submit(store.wait_for, enough)
    assert asked.wait(TIMEOUT)
    for number in range(50):
        store.from_bytes(f"k{number}", b"")
    assert waiting.result(TIMEOUT) >= 2


def test_wait_for_key(store: DictMemoryStore, pool: ThreadPoolExecutor) -> None:
    for key in ("plain", "a*", "[b]?"):
        waiting = pool.submit(store.wait_for_key, key, TIMEOUT)
        store.from_bytes("another", b"")
        store.set(key, (b"data", {"n": 1}))
        value = waiting.result(TIMEOUT)
        assert (value.data.read(), value.metadata) == (b"data", {"n": 1})
    assert store.wait_for_key("plain", 0).size == 4


def test_waiting_ends_with_the_time_or_with_the_store(
    store: DictMemoryStore, pool: ThreadPoolExecutor
) -> None:
    def never() -> bool:
        return False

    with pytest.raises(WaitTimeoutError, match=r"never has not come true in 0\.02 s"):
        store.wait_for(never, SHORT)
    with pytest.raises(WaitTimeoutError, match=r"key 'k' has not come true in 0\.02 s"):
        store.wait_for_key("k", SHORT)
    asked = threading.Event()

    def ask() -> bool:
        asked.set()
        return False

    waiting = pool.submit(store.wait_for, ask)
    assert asked.wait(TIMEOUT)
    store.close()
    with pytest.raises(WatchClosedError, match=r"the store was closed while .*ask was waited for"):
        waiting.result(TIMEOUT)
    assert store.stats()["watches"] == 0


@pytest.fixture
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clock stand, as tests do that freeze time."""
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)


@pytest.mark.usefixtures("frozen_clock")
def test_waiting_ends_though_the_clock_stands(store: DictMemoryStore) -> None:
    with store.watch() as changes, pytest.raises(WaitTimeoutError, match=r"no change in 0\.02 s"):
        changes.get(SHORT)
    with pytest.raises(WaitTimeoutError):
        store.wait_for(lambda: False, SHORT)
    with pytest.raises(WaitTimeoutError):
        store.wait_for_key("k", SHORT)


@pytest.mark.usefixtures("frozen_clock")
def test_waiting_ends_though_the_clock_stands_and_changes_come(
    store: DictMemoryStore, pool: ThreadPoolExecutor
) -> None:
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            store.set("k", (b"", {"kind": [1]}))

    unwanted = store.watch(filter={"kind": Unequal()}, max_buffer=1, on_overflow="coalesce")
    writing = pool.submit(write)
    try:
        for wait in (lambda: store.wait_for(lambda: False, SHORT), lambda: unwanted.get(SHORT)):
            assert isinstance(pool.submit(wait).exception(TIMEOUT), WaitTimeoutError)
    finally:
        over.set()
        unwanted.close()
    writing.result(TIMEOUT)


WAITS: dict[str, Callable[[DictMemoryStore, Watch], object]] = {
    "wait_for": lambda store, watch: store.wait_for(lambda: True),
    "wait_for_key": lambda store, watch: store.wait_for_key("k"),
    "flush": lambda store, watch: store.flush(),
    "close": lambda store, watch: store.close(),
    "add_index": lambda store, watch: store.add_index("kind"),
    "get": lambda store, watch: watch.get(),
    "get for some time": lambda store, watch: watch.get(TIMEOUT),
    "next": lambda store, watch: next(watch),
    "for": lambda store, watch: list(watch),
    "zip": lambda store, watch: list(zip(range(3), watch, strict=False)),
}


@pytest.mark.parametrize("optimistic", [False, True])
@pytest.mark.parametrize("wait", WAITS)
def test_waiting_is_refused_where_nothing_could_come_of_it(
    store: DictMemoryStore, wait: str, optimistic: bool
) -> None:
    watch = store.watch()
    with store.transaction(optimistic=optimistic):
        store.from_bytes("k", b"own")
        with pytest.raises(TransactionError, match=r"\w+\(\) cannot be called inside"):
            WAITS[wait](store, watch)
        with store.transaction("inner"), pytest.raises(TransactionError, match="cannot be called inside"):
            WAITS[wait](store, watch)
        with pytest.raises(WaitTimeoutError):
            watch.get(0)  # waits for nothing
    assert watch.get(0).key == "k"  # type: ignore[union-attr]


def test_a_watch_of_another_store_can_be_waited_for_in_a_transaction(store: DictMemoryStore) -> None:
    other = DictMemoryStore(EventManager())
    watch = other.watch()
    with store.transaction():
        other.from_bytes("k", b"")
        change = watch.get(TIMEOUT)
    assert change.source is other


def test_what_a_predicate_raises_passes_through(store: DictMemoryStore) -> None:
    with pytest.raises(ZeroDivisionError):
        store.wait_for(lambda: 1 // 0)
    assert store.stats()["watches"] == 0


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.watch(1), TypeError, "glob must be a str, got int 1"),
        (lambda s: s.watch(filter=[]), TypeError, "filter must be a mapping with str keys, got list"),
        (lambda s: s.watch(filter={1: 2}), TypeError, "filter must have str keys, got the key int 1"),
        (lambda s: s.watch(since="1"), TypeError, "since must be an int, got str '1'"),
        (lambda s: s.watch(since=-1), ValueError, "since must be at least 0, got -1"),
        (lambda s: s.watch(max_buffer=0), ValueError, "max_buffer must be at least 1, got 0"),
        (lambda s: s.watch(max_buffer=True), TypeError, "max_buffer must be an int, got bool True"),
        (
            lambda s: s.watch(on_overflow="x"),
            ValueError,
            "on_overflow must be 'drop' or 'coalesce', got str 'x'",
        ),
        (
            lambda s: s.watch().get("1"),
            TypeError,
            "timeout must be a number of seconds, a timedelta or None, got str '1'",
        ),
        (lambda s: s.wait_for(1), TypeError, "predicate must be callable, got int 1"),
        (lambda s: s.wait_for(print, -1), ValueError, "timeout must not be negative, got -1 seconds"),
        (lambda s: s.wait_for_key(1), TypeError, "key must be a str, got int 1"),
        (lambda s: new_store(history=-1), ValueError, "history must be at least 0, got -1"),
    ],
)
def test_bad_arguments(
    store: DictMemoryStore, call: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call(store)


# -- replay ---------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcd")),
        st.tuples(st.just("delete"), st.sampled_from("abcd")),
        st.tuples(st.just("many"), st.lists(st.sampled_from("abcd"), unique=True)),
        st.tuples(st.just("read"), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(steps=STEPS, max_buffer=st.integers(1, 4), on_overflow=st.sampled_from(["drop", "coalesce"]))
def test_what_a_watch_gives_leads_to_what_the_store_has(
    steps: list[tuple[str, Any]], max_buffer: int, on_overflow: str
) -> None:
    store = new_store()
    replayed: dict[str, bytes] = {}
    resynced = 0

    def read(changes: Watch) -> None:
        nonlocal resynced
        change: Any = changes.get(0)
        if isinstance(change, EventsLost):
            assert on_overflow == "drop"
            with store.snapshot() as view:
                assert view.revision >= change.last_revision
                replayed.clear()
                replayed.update({key: view.to_bytes(key) for key in view.query_keys()})
                resynced = view.revision
        elif change.revision > resynced:
            previous = None if change.previous is None else change.previous.bytes
            assert replayed.get(change.key) == previous
            if change.value is None:
                del replayed[change.key]
            else:
                replayed[change.key] = change.value.bytes

    with store.watch(max_buffer=max_buffer, on_overflow=on_overflow) as changes:
        for number, (step, what) in enumerate(steps):
            data = b"%d" % number
            if step == "set":
                store.from_bytes(what, data)
            elif step == "delete" and store.exists(what):
                store.delete(what)
            elif step == "many":
                store.multiset_data(what, [data] * len(what))
            elif step == "read":
                for _ in range(min(what, len(changes))):
                    read(changes)
        with suppress(WaitTimeoutError):
            while True:
                read(changes)
    assert replayed == {key: store.to_bytes(key) for key in store.query_keys()}
