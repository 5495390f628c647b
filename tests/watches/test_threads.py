"""Watches hold up no writer, listener or signal handler, and free nothing of the user's in a section."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Self

import pytest

from latchstore import (
    CompactedError,
    DictMemoryStore,
    LockTimeoutError,
    Watch,
    WatchClosedError,
)
from latchstore.contract.values import NestedEntry
from latchstore.delivery.change_buffer import ChangeBuffer, Commit, Record
from latchstore.delivery.change_feed import ChangeFeed
from latchstore.delivery.try_latch import TryLatch
from latchstore.engine.inspection import feed_of
from tests.watches.reading import TIMEOUT, Strike, T, Ts, commit_of, new_buffer, read_all, taken_from

# -- never in the way -----------------------------------------------------------------------------


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
        with pytest.raises(LockTimeoutError, match="uses this watch while its own thread reads") as caught:
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


def is_free(buffer: ChangeBuffer) -> bool:
    """Tell whether another thread may enter the section of a buffer."""
    entered: list[str] = []
    other = threading.Thread(target=buffer.latch.attempt, args=(entered.append, "entered"))
    other.start()
    other.join(TIMEOUT)
    return entered == ["entered"]


@pytest.mark.parametrize("options", [(10, False), (4, False), (2, False), (1, True)])
@pytest.mark.parametrize("read", [False, True])
def test_a_writer_that_is_struck_loses_and_doubles_nothing(options: tuple[int, bool], read: bool) -> None:
    """The commit is published again, and its changes are read in between or not."""
    commits = [commit_of(1, 2), commit_of(2, 3)]
    feed, buffer = ChangeFeed(1), new_buffer(*options)
    feed.add(buffer, 0)
    for commit in commits:
        feed.publish(commit)
    dropped, expected = buffer.dropped, taken_from(buffer)
    for number in itertools.count(1):
        garbage: deque[object] = deque()
        feed, buffer = ChangeFeed(1, garbage), new_buffer(*options)
        feed.add(buffer, 0)
        feed.publish(commits[0])
        with Strike(number) as strike:
            feed.publish(commits[1])
        assert is_free(buffer)
        taken = taken_from(buffer) if read and len(buffer) == 5 else []
        feed.publish(commits[1])
        assert len(buffer) == len([each for each in expected[len(taken) :] if isinstance(each, Record)])
        assert taken + taken_from(buffer) == expected
        assert buffer.dropped == dropped
        assert feed.past(1, 2) == commits[1:]
        with pytest.raises(CompactedError):
            feed.past(0, 2)
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
        feed.add(buffer, 0)
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
    feed.add(buffer, 0)
    Freed.noted = []
    for revision in range(1, 6):
        publish_freed(feed, revision, "k", buffer)
    buffer.limit = 1
    assert buffer.take(0) is not None
    assert len(Freed.noted) >= 8
    buffer.close()
    assert len(Freed.noted) == 10
    assert refused == []
