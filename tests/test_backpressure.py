"""A full queue of events makes writers wait at the door: with no lock held, not for ever; listeners never.

The listeners of these tests hear one event for each permit that they are given, so a queue is as full as
a test wants it to be. A condition that tells when somebody waits on it stands in for the dispatcher's own.
"""

from __future__ import annotations

import copy
import functools
import inspect
import io
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pytest

from latchstore import (
    BackpressureError,
    DictMemoryStore,
    EventManager,
    FlushTimeoutError,
    StoreClosedError,
    StoreDeleteEvent,
    StoreModificationEvent,
    StoreProgressEvent,
    StoreSetEvent,
    StoreTransactionEndEvent,
)
from latchstore.delivery import calls, emission
from latchstore.delivery import dispatcher as dispatcher_module
from latchstore.delivery.waiting import Waiters
from latchstore.engine.inspection import dispatcher_of, table_of
from tests.schedules import in_another_thread

#: Seconds after which a wait has failed.
TIMEOUT = 20.0

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05


class Permitted:
    """A listener that hears one event for each permit."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._permits = threading.Semaphore(0)
        self._begun = 0
        self._begun_one = threading.Condition()

    def permit(self, events: int) -> None:
        self._permits.release(events)

    def listen(self, event: Any) -> None:
        with self._begun_one:
            self._begun += 1
            self._begun_one.notify_all()
        assert self._permits.acquire(timeout=TIMEOUT)
        self.heard.append(event.key)

    def wait_until_begun(self, events: int) -> None:
        """Wait until it has been called so many times, so that the dispatcher is done with all before."""
        with self._begun_one:
            assert self._begun_one.wait_for(lambda: self._begun >= events, TIMEOUT)


class Door(Waiters):
    """Where writers wait for room; tells when somebody does.

    Parameters
    ----------
    deaf : bool
        Whether all wake-ups are missed.
    """

    def __init__(self, deaf: bool = False) -> None:
        super().__init__()
        self.deaf = deaf
        self.waiting = threading.Semaphore(0)

    def wait(
        self, ready: Callable[[], object], timeout: float, yields: int = 0, look_again: float = 1.0
    ) -> bool:
        def look() -> object:
            found = ready()
            if not found:
                self.waiting.release()
            return found

        return super().wait(look, timeout, yields, look_again)

    def ring(self) -> None:
        if not self.deaf:
            super().ring()


class Crowd:
    """A store, the listener that holds up its queue, and threads for writers that will wait.

    Parameters
    ----------
    limit : int or None
        The store's `max_pending_events`.
    lock_timeout : float
        The store's.
    deaf : bool
        Whether all wake-ups are missed.
    """

    def __init__(self, limit: int | None = 1, lock_timeout: float = TIMEOUT, deaf: bool = False) -> None:
        self.manager = EventManager()
        self.store = DictMemoryStore(self.manager, max_pending_events=limit, lock_timeout=lock_timeout)
        self.listener = Permitted()
        self.manager.connect(StoreModificationEvent, self.listener.listen)
        self.door = dispatcher_of(self.store).room = Door(deaf)
        self._executor = ThreadPoolExecutor(8, thread_name_prefix="writer")
        self._written = 0

    def write(self, events: int) -> None:
        """Write so many keys, each a commit of its own; the first is being heard when this returns."""
        for number in range(self._written, self._written + events):
            self.store.from_bytes(f"k{number}", b"")
            # What is taken from the queue and not yet being heard would not be counted for a moment.
            self.listener.wait_until_begun(len(self.listener.heard) + 1)
        self._written += events

    def start(self, step: Callable[[], Any]) -> Future[Any]:
        """Run a step in a thread of its own; return when it waits at the door."""
        future = self._executor.submit(step)
        assert self.door.waiting.acquire(timeout=TIMEOUT)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.listener.permit(100_000)
        self._executor.shutdown()
        self.store.close(TIMEOUT)


@contextmanager
def changes_nothing(store: DictMemoryStore) -> Iterator[None]:
    """Check that a block leaves no trace in the store: no change, no event, no lock, no snapshot."""

    def facts() -> dict[str, Any]:
        entries = {key: (store.to_bytes(key), store.get_metadata(key)) for key in store.query_keys()}
        return {"info": store.info(), "entries": entries}

    before = in_another_thread(facts)
    yield
    assert in_another_thread(facts) == before
    assert table_of(store).latches.writer.claim is None


# -- how full is full ------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_as_many_events_as_the_limit_may_wait(limit: int) -> None:
    with Crowd(limit, lock_timeout=SHORT) as crowd:
        crowd.write(limit)
        assert crowd.store.stats()["events_pending"] == limit
        with changes_nothing(crowd.store), pytest.raises(BackpressureError):
            crowd.store.from_bytes("one too many", b"")
        assert not crowd.store.exists("one too many")


@pytest.mark.parametrize(("limit", "heard"), [(1, 1), (3, 1), (100, 7)])
def test_a_writer_goes_on_when_there_is_room(limit: int, heard: int) -> None:
    """A queue of 100 has room again at 93, or writers and listeners would take turns."""
    with Crowd(limit) as crowd:
        crowd.write(limit)
        writing = crowd.start(lambda: crowd.store.from_bytes("late", b""))
        for _ in range(heard - 1):
            crowd.listener.permit(1)
        crowd.listener.wait_until_begun(heard)
        assert dispatcher_of(crowd.store).crowded
        assert not writing.done()
        assert not crowd.store.exists("late")
        crowd.listener.permit(1)
        writing.result(TIMEOUT)
        assert crowd.store.exists("late")
        crowd.listener.permit(limit)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == [f"k{number}" for number in range(limit)] + ["late"]


def test_any_number_may_wait_without_a_limit() -> None:
    with Crowd(None, lock_timeout=SHORT) as crowd:
        crowd.write(1_000)
        assert crowd.store.stats()["events_pending"] == 1_000
        crowd.listener.permit(1_000)
        crowd.store.flush(TIMEOUT)
        assert len(crowd.listener.heard) == 1_000


def test_a_hundred_thousand_may_wait_by_default() -> None:
    assert inspect.signature(DictMemoryStore).parameters["max_pending_events"].default == 100_000


def test_each_key_of_a_commit_counts() -> None:
    with Crowd(3, lock_timeout=SHORT) as crowd:
        crowd.write(1)
        crowd.store.multiset_data(["a", "b"], [b"", b""])
        assert crowd.store.stats()["events_pending"] == 3
        with changes_nothing(crowd.store), pytest.raises(BackpressureError):
            crowd.store.delete("a")


def test_who_has_been_let_in_may_go_beyond_the_limit() -> None:
    with Crowd(3, lock_timeout=SHORT) as crowd:
        crowd.write(2)
        with crowd.store.transaction():
            for number in range(10):
                crowd.store.from_bytes(f"t{number}", b"")
        assert crowd.store.stats()["events_pending"] == 12
        with pytest.raises(BackpressureError):
            crowd.store.from_bytes("k", b"")


def test_nobody_waits_when_nobody_listens() -> None:
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=SHORT)
    for number in range(10):
        store.from_bytes(f"k{number}", b"")
        store.multiset_data(["a", "b"], [b"", b""])
        with store.transaction():
            store.delete("a")
    assert store.stats()["events_pending"] == 0
    assert not dispatcher_of(store).running


def test_nobody_waits_for_events_that_nobody_listens_to() -> None:
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=SHORT)
    listener = Permitted()
    store.event_manager.connect(StoreDeleteEvent, listener.listen)
    for number in range(10):
        store.from_bytes(f"k{number}", b"")
    store.delete("k0")
    with pytest.raises(BackpressureError):
        store.delete("k1")
    listener.permit(1)
    store.close(TIMEOUT)
    assert listener.heard == ["k0"]


def test_a_queue_may_fill_up_again_and_again() -> None:
    with Crowd(2, lock_timeout=0) as crowd:
        for _ in range(5):
            crowd.write(2)
            with pytest.raises(BackpressureError):
                crowd.store.from_bytes("k", b"")
            crowd.listener.permit(2)
            crowd.store.flush(TIMEOUT)
        assert crowd.store.stats()["events_delivered"] == 10


# -- at the door -----------------------------------------------------------------------------------


def in_a_transaction(store: DictMemoryStore, **options: Any) -> None:
    with store.transaction("a block", **options):
        store.from_bytes("k0", b"new")


#: Ways to change the key "k0", or to make two others.
WRITES: dict[str, Callable[[DictMemoryStore], object]] = {
    "from_bytes": lambda store: store.from_bytes("k0", b"new"),
    "set": lambda store: store.set("k0", (b"new", {"n": 1})),
    "set from a stream": lambda store: store.set("k0", (io.BytesIO(b"new"), {})),
    "set_metadata": lambda store: store.set_metadata("k0", {"n": 1}),
    "update_metadata": lambda store: store.update_metadata("k0", {"n": 1}),
    "delete": lambda store: store.delete("k0"),
    "multiset_data": lambda store: store.multiset_data(["a", "b"], [b"", b""]),
    "multiupdate_metadata": lambda store: store.multiupdate_metadata(["k0"], [{"n": 1}]),
    "transaction": in_a_transaction,
    "transaction, optimistic": lambda store: in_a_transaction(store, optimistic=True),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_write_waits_and_is_refused(write: str) -> None:
    with Crowd(1, lock_timeout=SHORT) as crowd:
        crowd.write(1)
        with changes_nothing(crowd.store), pytest.raises(BackpressureError):
            WRITES[write](crowd.store)
        crowd.listener.permit(1)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == ["k0"]
        # And it is as if it had not been tried: tried again, it succeeds.
        WRITES[write](crowd.store)
        crowd.listener.permit(2)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == ["k0", *(["a", "b"] if write == "multiset_data" else ["k0"])]


@pytest.mark.parametrize("write", WRITES)
def test_a_waiting_writer_holds_no_lock(write: str) -> None:
    """Others read, open snapshots and add indexes meanwhile; the last is the owner."""
    with Crowd(1) as crowd:
        crowd.write(1)
        store = crowd.store
        revision = store.info()["revision"]
        writing = crowd.start(lambda: WRITES[write](store))
        assert table_of(store).latches.writer.claim is None
        assert store.to_bytes("k0") == b""
        assert list(store.query_keys()) == ["k0"]
        assert len(store) == 1
        with store.snapshot() as view:
            assert view.to_bytes("k0") == b""
        store.add_index("n")
        assert store.info()["revision"] == revision
        assert not writing.done()
        crowd.listener.permit(10)
        writing.result(TIMEOUT)
        assert store.info()["revision"] == revision + 1


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_listener_may_open_a_transaction_while_a_writer_waits(optimistic: bool) -> None:
    with Crowd(1) as crowd:
        store = crowd.store
        in_the_block = threading.Event()

        def listener(event: StoreSetEvent) -> None:
            with store.transaction(optimistic=optimistic, timeout=0):
                store.from_bytes("from the listener", b"")
                in_the_block.set()

        crowd.manager.connect(StoreSetEvent, listener, {"key": "k0"}, priority=-1)
        crowd.write(1)
        writing = crowd.start(lambda: store.from_bytes("from the writer", b""))
        crowd.listener.permit(1)
        assert in_the_block.wait(TIMEOUT)
        crowd.listener.permit(10)
        writing.result(TIMEOUT)
        store.flush(TIMEOUT)
        assert store.stats()["listener_errors"] == 0
        assert crowd.listener.heard == ["k0", "from the listener", "from the writer"]


def test_what_listeners_write_never_waits() -> None:
    """One event leads to many, far beyond the limit, with no time to wait at all."""
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=0)
    heard: list[str] = []
    errors: list[BaseException] = []

    def listener(event: StoreSetEvent) -> None:
        heard.append(event.key)
        if event.key != "cause":
            return
        try:
            for number in range(10):
                store.from_bytes(f"{number} alone", b"")
                store.set(f"{number} by stream", (io.BytesIO(b"data"), {}))
                store.multiset_data([f"{number} first", f"{number} second"], [b"", b""])
                for optimistic in (False, True):
                    with store.transaction(optimistic=optimistic):
                        store.from_bytes(f"{number} in a block, {optimistic}", b"")
        except BaseException as error:
            errors.append(error)

    store.event_manager.connect(StoreSetEvent, listener)
    store.from_bytes("cause", b"")
    store.flush(TIMEOUT)
    store.flush(TIMEOUT)
    assert errors == []
    assert len(heard) == len(set(heard)) == 61
    store.close(TIMEOUT)


def test_a_transaction_that_was_let_in_does_not_wait_again() -> None:
    """Its own progress events fill the queue, and it goes on: it is the owner that others wait for."""
    with Crowd(1, lock_timeout=SHORT) as crowd:
        crowd.manager.connect(StoreProgressEvent, crowd.listener.listen)
        with crowd.store.transaction():
            for number in range(3):
                crowd.store.set(f"k{number}", (io.BytesIO(b"data"), {}))
                with crowd.store.transaction():
                    crowd.store.from_bytes(f"inner {number}", b"")
            assert crowd.store.stats()["events_pending"] >= 6
        assert len(crowd.store) == 6


def test_a_stream_is_not_begun_while_there_is_no_room() -> None:
    with Crowd(1, lock_timeout=SHORT) as crowd:
        crowd.manager.connect(StoreProgressEvent, crowd.listener.listen)
        crowd.write(1)
        stream = io.BytesIO(b"data")
        with changes_nothing(crowd.store), pytest.raises(BackpressureError, match=r"the stream of 'k'"):
            crowd.store.set("k", (stream, {}))
        assert stream.tell() == 0


def test_several_writers_wait_and_all_go_on() -> None:
    with Crowd(1) as crowd:
        crowd.write(1)
        names = [f"late {number}" for number in range(4)]
        writing = [crowd.start(functools.partial(crowd.store.from_bytes, name, b"")) for name in names]
        crowd.listener.permit(5)
        for each in writing:
            each.result(TIMEOUT)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard[0] == "k0"
        assert sorted(crowd.listener.heard[1:]) == names


def test_a_writer_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look by itself only after the test has failed."""
    monkeypatch.setattr(dispatcher_module, "LOOK_AGAIN", 10 * TIMEOUT)
    with Crowd(1, lock_timeout=10 * TIMEOUT) as crowd:
        crowd.write(1)
        writing = crowd.start(lambda: crowd.store.from_bytes("late", b""))
        crowd.listener.permit(2)
        writing.result(TIMEOUT)


def test_a_wake_up_that_is_missed_is_survived() -> None:
    """It looks by itself, long before its time is over."""
    with Crowd(1, lock_timeout=10 * TIMEOUT, deaf=True) as crowd:
        crowd.write(1)
        writing = crowd.start(lambda: crowd.store.from_bytes("late", b""))
        crowd.listener.permit(2)
        writing.result(TIMEOUT)
        crowd.store.flush(TIMEOUT)
        assert crowd.listener.heard == ["k0", "late"]


def test_a_door_that_was_left_shut_opens() -> None:
    """The mark of a full queue stands though all has been heard: the next writer takes it back."""
    store = DictMemoryStore(EventManager(), max_pending_events=1, lock_timeout=0)
    dispatcher_of(store).crowded = True
    store.from_bytes("k", b"")
    assert not dispatcher_of(store).crowded
    store.close(TIMEOUT)


def test_a_closed_store_is_told_at_once() -> None:
    with Crowd(1) as crowd:
        crowd.write(1)
        with pytest.raises(FlushTimeoutError):
            crowd.store.close(SHORT)
        with pytest.raises(StoreClosedError):
            crowd.store.from_bytes("k", b"")


# -- the error -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_the_error_says_who_holds_things_up_and_for_how_long(limit: int) -> None:
    with Crowd(limit, lock_timeout=SHORT) as crowd:
        crowd.write(limit)
        with pytest.raises(BackpressureError) as raised:
            in_a_transaction(crowd.store)
        pattern = (
            rf"transaction 'a block': no room for events in 0\.05 s \(max_pending_events={limit}\): "
            r"listener tests\.test_backpressure\.Permitted\.listen has had "
            rf"<StoreSetEvent key='k0' action='set' revision=1> for \d+\.\d{{3}} s, {limit} events pending"
        )
        assert re.fullmatch(pattern, str(raised.value)), str(raised.value)
        assert raised.value.pending == limit
        assert raised.value.listener == "tests.test_backpressure.Permitted.listen"
        assert isinstance(raised.value, TimeoutError)


class Clock:
    """Stands in for the module ``time`` in the dispatcher."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


def test_the_seconds_are_those_that_the_listener_has_had(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in (calls, dispatcher_module, emission):
        monkeypatch.setattr(module, "time", clock)
    with Crowd(1, lock_timeout=0) as crowd:
        crowd.write(1)
        clock.now += 12.5
        with pytest.raises(BackpressureError, match=r" has had <.*> for 12\.500 s, 1 events pending$"):
            crowd.store.delete("k0")
        crowd.listener.permit(1)
        crowd.store.flush(None)
        stats = crowd.store.stats()
        assert stats["slowest_listener"] == "tests.test_backpressure.Permitted.listen"
        assert stats["slowest_listener_seconds"] == 12.5
        monkeypatch.undo()


@pytest.mark.parametrize("write", [name for name in WRITES if "transaction" not in name])
def test_the_error_says_what_was_refused(write: str) -> None:
    with Crowd(1, lock_timeout=0) as crowd:
        crowd.write(1)
        with pytest.raises(BackpressureError) as raised:
            WRITES[write](crowd.store)
        purpose, found, _ = str(raised.value).partition(": no room for events in 0 s ")
        assert found
        assert purpose.startswith(write.split()[0]) or purpose == "reading the stream of 'k0'"


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_transaction_has_a_timeout_of_its_own(optimistic: bool) -> None:
    with Crowd(1, lock_timeout=1.0) as crowd:
        crowd.write(1)
        with (
            changes_nothing(crowd.store),
            pytest.raises(BackpressureError, match=r"^transaction 'a block': no room for events in 0\.05 s "),
        ):
            in_a_transaction(crowd.store, timeout=SHORT, optimistic=optimistic)


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_longer_timeout_of_a_transaction_counts_as_well(optimistic: bool) -> None:
    with Crowd(1, lock_timeout=0) as crowd:
        crowd.write(1)
        writing = crowd.start(lambda: in_a_transaction(crowd.store, timeout=TIMEOUT, optimistic=optimistic))
        crowd.listener.permit(2)
        writing.result(TIMEOUT)
        assert crowd.store.to_bytes("k0") == b"new"


ERRORS = [
    BackpressureError("k: no room", 7, "a listener"),
    BackpressureError("k: no room"),
    FlushTimeoutError("not heard", 3, "another"),
    FlushTimeoutError("not heard"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_copied_and_pickled(error: Any, again: Callable[[Any], Any]) -> None:
    other = again(error)
    assert other is not error
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert other.args == error.args
    assert (other.pending, other.listener) == (error.pending, error.listener)


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "max_pending_events must be at least 1, got 0"),
        (-1, ValueError, "max_pending_events must be at least 1, got -1"),
        (True, TypeError, "max_pending_events must be an int, got"),
        (1.0, TypeError, "max_pending_events must be an int, got"),
        ("3", TypeError, "max_pending_events must be an int, got"),
    ],
)
def test_bad_limits(limit: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        DictMemoryStore(EventManager(), max_pending_events=limit)


# -- optimistic transactions -----------------------------------------------------------------------


class TestOptimistic:
    """An optimistic block passes the door twice: at its beginning, and when it commits."""

    def test_it_waits_at_its_commit(self) -> None:
        with Crowd(1) as crowd:
            store = crowd.store

            def block() -> int | None:
                with store.transaction(optimistic=True) as transaction:
                    store.from_bytes("mine", b"")
                    in_another_thread(lambda: crowd.write(1))
                return transaction.revision

            writing = crowd.start(block)
            assert table_of(store).latches.writer.claim is None
            assert not store.exists("mine")
            assert store.info()["revision"] == 1
            crowd.listener.permit(2)
            assert writing.result(TIMEOUT) == 2
            assert store.exists("mine")

    @pytest.mark.parametrize("timeout", [None, SHORT])
    def test_a_refused_commit_is_rolled_back(self, timeout: float | None) -> None:
        with Crowd(1, lock_timeout=SHORT if timeout is None else TIMEOUT) as crowd:
            store = crowd.store
            told: list[str] = []
            states: list[str] = []
            crowd.manager.connect(StoreTransactionEndEvent, lambda event: states.append(event.state))
            transaction = store.transaction("a block", optimistic=True, timeout=timeout)

            def block() -> None:
                with transaction:
                    transaction.on_commit(lambda: told.append("commit"))
                    transaction.on_rollback(lambda: told.append("rollback"))
                    store.from_bytes("k0", b"refused")
                    store.from_bytes("k1", b"refused")
                    in_another_thread(lambda: crowd.write(1))

            message = r"^transaction 'a block': no room for events in 0\.05 s"
            with pytest.raises(BackpressureError, match=message):
                block()
            assert told == ["rollback"]
            assert transaction.revision is None
            assert store.to_bytes("k0") == b""
            assert list(store.query_keys()) == ["k0"]
            info = store.info()
            assert (info["revision"], info["snapshots"]) == (1, 0)
            assert table_of(store).latches.writer.claim is None
            crowd.listener.permit(10)
            store.flush(TIMEOUT)
            assert crowd.listener.heard == ["k0"]
            assert states == ["failed"]
            # This thread's calls go to the store again.
            store.from_bytes("k1", b"accepted")
            assert in_another_thread(lambda: store.to_bytes("k1")) == b"accepted"

    def test_a_refused_beginning_leaves_no_snapshot(self) -> None:
        with Crowd(1, lock_timeout=0) as crowd:
            crowd.write(1)
            with changes_nothing(crowd.store), pytest.raises(BackpressureError):
                in_a_transaction(crowd.store, optimistic=True)
            assert crowd.store.info()["snapshots"] == 0

    def test_attempts_do_not_try_again(self) -> None:
        """It is no conflict, and each try has waited as long as it may."""
        with Crowd(1, lock_timeout=0) as crowd:
            tries = 0

            def blocks() -> None:
                nonlocal tries
                for attempt in crowd.store.attempts(tries=5):
                    with attempt:
                        tries += 1
                        crowd.store.from_bytes("mine", b"")
                        in_another_thread(lambda: crowd.write(1))

            with pytest.raises(BackpressureError):
                blocks()
            assert tries == 1
            assert not crowd.store.exists("mine")
