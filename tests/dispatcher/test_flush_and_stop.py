"""A flush waits for what was queued before it, a stop for the thread; neither waits for itself."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    DispatcherThreadError,
    EventManager,
    FlushTimeoutError,
    LockTimeoutError,
    StoreSetEvent,
    TransactionError,
)
from latchstore.delivery.deliveries import DeliveryQueue, Mark
from latchstore.delivery.dispatcher import EventDispatcher
from tests.dispatcher.calls import SHORT, TIMEOUT, Blocking, Call, OneEvent, submit

# -- flush and stop -------------------------------------------------------------------------------


def test_a_flush_that_takes_too_long_says_what_is_under_way(dispatcher: EventDispatcher) -> None:
    slow = Blocking()
    dispatcher.submit(slow)
    dispatcher.submit(Call(lambda: None))
    dispatcher.ensure_running()
    assert slow.begun.wait(TIMEOUT)
    with pytest.raises(FlushTimeoutError) as raised:
        dispatcher.flush(SHORT)
    # Pending are the slow one and the call; the mark that the flush has set behind them is no event.
    assert re.fullmatch(
        r"events not delivered in 0\.05 s: <a slow one> has been running for \d+\.\d{3} s, 2 events pending",
        str(raised.value),
    )
    assert (raised.value.pending, raised.value.listener) == (2, None)
    assert isinstance(raised.value, TimeoutError)
    with pytest.raises(FlushTimeoutError, match=r"events not delivered in 0\.05 s: <a slow one>"):
        dispatcher.stop(SHORT)
    slow.let_go.set()
    dispatcher.flush(None)


def test_a_flush_waits_only_for_what_was_queued_before(dispatcher: EventDispatcher) -> None:
    first, second = Blocking(), Blocking()
    flushed = threading.Event()

    def flush() -> None:
        dispatcher.flush(TIMEOUT)
        flushed.set()

    dispatcher.submit(first)
    dispatcher.ensure_running()
    assert first.begun.wait(TIMEOUT)
    flushing = threading.Thread(target=flush, daemon=True)
    flushing.start()
    while not dispatcher.marks:
        time.sleep(0)
    dispatcher.submit(second)
    assert not flushed.is_set()
    first.let_go.set()
    assert flushed.wait(TIMEOUT)
    assert second.begun.wait(TIMEOUT)
    second.let_go.set()
    flushing.join(TIMEOUT)


@pytest.mark.parametrize("method", ["flush", "stop"])
def test_a_delivery_must_not_wait_for_itself(method: str) -> None:
    dispatcher = EventDispatcher()
    submit(dispatcher, lambda: None)
    dispatcher.flush(TIMEOUT)
    errors: list[BaseException] = []

    def wait_for_itself() -> None:
        try:
            getattr(dispatcher, method)(SHORT)
        except BaseException as error:
            errors.append(error)

    submit(dispatcher, wait_for_itself)
    dispatcher.flush(TIMEOUT)
    (error,) = errors
    assert isinstance(error, DispatcherThreadError)
    assert "would wait for itself" in str(error)
    dispatcher.stop(TIMEOUT)


def test_a_delivery_does_not_ask_whether_its_thread_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strike at that question makes Python 3.12 and older take the thread to have ended."""
    dispatcher = EventDispatcher()
    told: list[bool] = []
    asked: list[threading.Thread] = []

    def ask() -> None:
        with monkeypatch.context() as patches:
            patches.setattr(threading.Thread, "is_alive", asked.append)
            told.append(dispatcher.on_dispatcher_thread())

    submit(dispatcher, ask)
    dispatcher.flush(TIMEOUT)
    assert (told, asked) == ([True], [])
    dispatcher.stop(TIMEOUT)


def test_the_very_first_delivery_must_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread may be at work before ``Thread.start`` returns to whoever has started it."""
    dispatcher = EventDispatcher()
    delivered = threading.Event()
    errors: list[BaseException] = []

    start = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        start(thread)
        assert delivered.wait(TIMEOUT)

    def wait_for_itself() -> None:
        try:
            dispatcher.flush(SHORT)
        except BaseException as error:
            errors.append(error)
        finally:
            delivered.set()

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    submit(dispatcher, wait_for_itself)
    dispatcher.flush(TIMEOUT)
    dispatcher.stop(TIMEOUT)
    assert [type(error) for error in errors] == [DispatcherThreadError]


def test_who_waits_for_events_while_this_thread_starts_the_other_one_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a signal handler may, or a finalizer: nothing could be heard before it returns."""
    dispatcher = EventDispatcher(limit=1)
    heard: list[None] = []
    errors: list[BaseException] = []
    start = threading.Thread.start
    waits: list[Callable[[], object]] = [
        lambda: dispatcher.flush(None),
        lambda: dispatcher.stop(None),
        lambda: dispatcher.wait_for_room("set", None),
    ]

    def start_interrupted(thread: threading.Thread) -> None:
        while waits:
            try:
                waits.pop()()
            except BaseException as error:
                errors.append(error)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_interrupted)
    submit(dispatcher, lambda: heard.append(None))
    dispatcher.flush(TIMEOUT)
    assert [type(error) for error in errors] == [LockTimeoutError] * 3
    assert heard == [None]
    dispatcher.stop(TIMEOUT)


def test_a_stopped_dispatcher_has_no_thread_and_starts_again() -> None:
    dispatcher = EventDispatcher()
    heard: list[threading.Thread] = []
    for _ in range(3):
        submit(dispatcher, lambda: heard.append(threading.current_thread()))
        assert dispatcher.running
        dispatcher.stop(TIMEOUT)
        assert not dispatcher.running
        assert not heard[-1].is_alive()
    assert len(set(heard)) == 3
    dispatcher.stop(TIMEOUT)  # twice is harmless


def test_what_is_queued_while_the_thread_ends_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that is queued behind the order to stop is made by a new thread."""
    dispatcher = EventDispatcher()
    heard: list[threading.Thread] = []
    join = threading.Thread.join

    def join_and_write(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, timeout)
        dispatcher.submit(Call(lambda: heard.append(threading.current_thread())))

    submit(dispatcher, lambda: heard.append(threading.current_thread()))
    dispatcher.flush(TIMEOUT)
    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "join", join_and_write)
        dispatcher.stop(TIMEOUT)
    assert dispatcher.running
    dispatcher.flush(TIMEOUT)
    first, second = heard
    assert first is not second
    dispatcher.stop(TIMEOUT)


def test_two_threads_may_stop_it_at_once() -> None:
    for _ in range(20):
        dispatcher = EventDispatcher()
        submit(dispatcher, lambda: None)
        both = threading.Barrier(2)
        errors: list[BaseException] = []

        def stop(
            dispatcher: EventDispatcher = dispatcher,
            both: threading.Barrier = both,
            errors: list[BaseException] = errors,
        ) -> None:
            both.wait(TIMEOUT)
            try:
                dispatcher.stop(TIMEOUT)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=stop, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        assert errors == []
        dispatcher.stop(TIMEOUT)
        assert not dispatcher.running
        assert dispatcher.pending == 0


def test_a_stop_that_ran_out_of_time_leaves_a_dispatcher_that_can_start_again() -> None:
    class Blocked(OneEvent):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = threading.Event()

        def deliver(self, dispatcher: EventDispatcher) -> None:
            assert self.go_on.wait(20)

    class LateWriter(EventDispatcher):
        """Somebody writes between the flush and the end of the thread."""

        late: Blocked | None = Blocked()

        def flush(self, timeout: float | None, revision: int | None = None) -> None:
            super().flush(timeout, revision)
            if self.late is not None:
                self.submit(self.late)

    class Heard(OneEvent):
        def __init__(self) -> None:
            super().__init__()
            self.heard = threading.Event()

        def deliver(self, dispatcher: EventDispatcher) -> None:
            self.heard.set()

    dispatcher = LateWriter()
    dispatcher.submit(Heard())
    dispatcher.ensure_running()
    thread = dispatcher.thread
    late = dispatcher.late
    assert thread is not None
    assert late is not None
    with pytest.raises(FlushTimeoutError):
        dispatcher.stop(0.2)
    dispatcher.late = None
    late.go_on.set()
    thread.join(20)
    again = Heard()
    dispatcher.submit(again)
    dispatcher.ensure_running()
    assert again.heard.wait(20)
    dispatcher.stop(20)


# -- up to a revision -----------------------------------------------------------------------------


class Commit(Blocking):
    """A delivery of a commit, under way until it is let go."""

    def __init__(self, revision: int, count: int = 1) -> None:
        super().__init__()
        self.revision: int | None = revision
        self.count = count


def test_a_flush_up_to_a_revision_does_not_wait_for_later_ones(dispatcher: EventDispatcher) -> None:
    commits = [Commit(revision) for revision in (1, 2, 3)]
    for commit in commits:
        dispatcher.submit(commit)
    dispatcher.ensure_running()
    commits[0].let_go.set()
    assert commits[1].begun.wait(TIMEOUT)
    dispatcher.flush(0, 1)
    for revision in (2, 3):
        with pytest.raises(FlushTimeoutError):
            dispatcher.flush(SHORT, revision)
    commits[1].let_go.set()
    dispatcher.flush(TIMEOUT, 2)
    assert dispatcher.delivered_revision == 2
    with pytest.raises(FlushTimeoutError):
        dispatcher.flush(SHORT)
    commits[2].let_go.set()
    dispatcher.flush(TIMEOUT, 3)


def test_flushes_of_several_revisions_end_one_after_another(dispatcher: EventDispatcher) -> None:
    commits = [Commit(revision) for revision in (1, 2, 3)]
    for commit in commits:
        dispatcher.submit(commit)
    dispatcher.ensure_running()
    flushing = [
        threading.Thread(target=dispatcher.flush, args=(TIMEOUT, revision), daemon=True)
        for revision in (1, 2, 3)
    ]
    for thread in flushing:
        thread.start()
    for number, commit in enumerate(commits):
        assert all(thread.is_alive() for thread in flushing[number:])
        commit.let_go.set()
        flushing[number].join(TIMEOUT)
        assert not flushing[number].is_alive()
    dispatcher.flush(TIMEOUT)
    assert dispatcher.pending == 0


def test_a_revision_that_is_heard_while_the_flush_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has passed it before it could know that anybody waits; the flush asks again."""
    dispatcher = EventDispatcher()
    first, second = Commit(1), Commit(2)

    put_mark = DeliveryQueue.put_mark

    def put_late(queue: DeliveryQueue, mark: Mark) -> None:
        """Take the flag of the flush only when the first commit has been heard, and the second has not."""
        first.let_go.set()
        assert second.begun.wait(TIMEOUT)
        put_mark(queue, mark)

    dispatcher.submit(first)
    dispatcher.submit(second)
    dispatcher.ensure_running()
    with monkeypatch.context() as patches:
        patches.setattr(DeliveryQueue, "put_mark", put_late)
        dispatcher.flush(SHORT, 1)
    second.let_go.set()
    dispatcher.stop(TIMEOUT)


def test_a_revision_is_heard_though_its_delivery_fails(
    dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Commit):
        def deliver(self, dispatcher: EventDispatcher) -> None:
            raise SystemExit

    stuck = Commit(2)
    dispatcher.submit(Failing(1))
    dispatcher.submit(stuck)
    dispatcher.ensure_running()
    dispatcher.flush(TIMEOUT, 1)
    assert len(caplog.records) == 1
    stuck.let_go.set()


def test_what_is_pending_are_events_and_not_deliveries_or_flushes(dispatcher: EventDispatcher) -> None:
    first, second = Commit(1, 3), Commit(2, 4)
    dispatcher.submit(first)
    assert dispatcher.pending == 3
    dispatcher.submit(second)
    assert dispatcher.pending == 7
    dispatcher.ensure_running()
    assert first.begun.wait(TIMEOUT)
    assert dispatcher.pending == 7
    for revision in (None, 1, 2):
        with pytest.raises(FlushTimeoutError, match=r"7 events pending$") as raised:
            dispatcher.flush(SHORT, revision)
        assert raised.value.pending == 7
    first.let_go.set()
    assert second.begun.wait(TIMEOUT)
    assert dispatcher.pending == 4
    second.let_go.set()
    dispatcher.flush(TIMEOUT)
    dispatcher.stop(TIMEOUT)
    assert dispatcher.pending == 0


class TestStoreFlush:
    """The same by way of a store, which knows what was committed."""

    def test_a_transaction_can_be_waited_for(self) -> None:
        """The revision of a block that has changed several keys: all of them have been heard, and no more."""
        stuck, let_go = threading.Event(), threading.Event()
        heard: list[str] = []

        def listener(event: StoreSetEvent) -> None:
            if event.key == "stuck":
                stuck.set()
                assert let_go.wait(TIMEOUT)
            heard.append(event.key)

        store = DictMemoryStore(EventManager())
        store.event_manager.connect(StoreSetEvent, listener)
        with store.transaction() as transaction:
            store.multiset_data(["a", "b", "c"], [b"", b"", b""])
        store.from_bytes("stuck", b"")
        store.flush(TIMEOUT, transaction.revision)
        assert heard == ["a", "b", "c"]
        assert stuck.wait(TIMEOUT)
        with pytest.raises(FlushTimeoutError) as raised:
            store.close(SHORT)
        assert raised.value.pending == 1
        assert raised.value.listener is not None
        assert raised.value.listener.endswith("test_a_transaction_can_be_waited_for.<locals>.listener")
        assert raised.value.listener in str(raised.value)
        let_go.set()
        store.flush(TIMEOUT)
        assert heard == ["a", "b", "c", "stuck"]

    def test_revisions_that_nobody_heard(self) -> None:
        """Commits that had no listener have no events, so there is nothing to wait for."""
        store = DictMemoryStore(EventManager())
        for revision in (0, 1, 2):
            store.flush(0, revision)
            store.from_bytes("k", b"")
        store.event_manager.connect(StoreSetEvent, lambda event: None)
        store.from_bytes("k", b"")
        for revision in (0, 1, 2, 3, 4):
            store.flush(TIMEOUT, revision)
        with pytest.raises(ValueError, match=r"^revision must not be above the last commit's, 4, got 5$"):
            store.flush(TIMEOUT, 5)
        with store.transaction(), pytest.raises(TransactionError):
            store.flush(TIMEOUT, 1)
        store.close(TIMEOUT)
        store.flush(TIMEOUT, 4)

    @pytest.mark.parametrize(
        ("revision", "error"), [(-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)]
    )
    def test_bad_revisions(self, revision: Any, error: type[Exception]) -> None:
        store = DictMemoryStore(EventManager())
        store.from_bytes("k", b"")
        with pytest.raises(error, match=r"^revision must be "):
            store.flush(TIMEOUT, revision)
