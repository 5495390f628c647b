"""The dispatcher delivers everything, in order, on one thread of its own, and ends when it is told to.

What happens at the end of the interpreter is shown by scripts that are run in a process of their own.
"""

from __future__ import annotations

import gc
import itertools
import logging
import re
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from latchstore import (
    DictMemoryStore,
    DispatcherThreadError,
    EventManager,
    FlushTimeoutError,
    LockTimeoutError,
    StoreSetEvent,
)
from latchstore.delivery.deliveries import DeliveryQueue, Mark
from latchstore.delivery.dispatcher import Delivery, EventDispatcher
from tests.interrupts.striker import Striker

TIMEOUT = 30.0

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05


class OneEvent(Delivery):
    """A delivery that counts as one event, of no commit."""


class Call(OneEvent):
    """A delivery that calls a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        self.function = function

    def deliver(self, dispatcher: EventDispatcher) -> None:
        self.function()

    def __repr__(self) -> str:
        return "<a call>"


class Blocking(OneEvent):
    """A delivery that is under way until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def deliver(self, dispatcher: EventDispatcher) -> None:
        self.begun.set()
        assert self.let_go.wait(TIMEOUT)

    def __repr__(self) -> str:
        return "<a slow one>"


@pytest.fixture
def dispatcher() -> Iterator[EventDispatcher]:
    dispatcher = EventDispatcher()
    yield dispatcher
    dispatcher.stop(TIMEOUT)


def submit(dispatcher: EventDispatcher, function: Callable[[], object]) -> None:
    dispatcher.submit(Call(function))
    dispatcher.ensure_running()


# -- delivery -------------------------------------------------------------------------------------


def test_deliveries_are_made_in_order_by_one_daemon_thread(dispatcher: EventDispatcher) -> None:
    heard: list[int] = []
    threads: list[threading.Thread] = []
    for number in range(100):
        submit(dispatcher, lambda number=number: heard.append(number))  # type: ignore[misc]
        submit(dispatcher, lambda: threads.append(threading.current_thread()))
    dispatcher.flush(TIMEOUT)
    assert heard == list(range(100))
    (thread,) = set(threads)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "latchstore-events"


def test_the_thread_is_named_as_told() -> None:
    dispatcher = EventDispatcher("by another name")
    names: list[str] = []
    submit(dispatcher, lambda: names.append(threading.current_thread().name))
    dispatcher.stop(TIMEOUT)
    assert names == ["by another name"]


def test_nothing_runs_before_it_is_needed() -> None:
    before = threading.active_count()
    dispatcher = EventDispatcher()
    dispatcher.submit(Call(lambda: None))
    assert not dispatcher.running
    assert dispatcher.pending == 1
    assert threading.active_count() == before
    dispatcher.stop(TIMEOUT)


def test_a_flush_of_nothing_starts_no_thread() -> None:
    dispatcher = EventDispatcher()
    dispatcher.flush(0)
    dispatcher.stop(0)
    assert not dispatcher.running


def test_a_flush_delivers_what_was_queued_and_never_started(dispatcher: EventDispatcher) -> None:
    heard: list[int] = []
    dispatcher.submit(Call(lambda: heard.append(1)))
    dispatcher.flush(TIMEOUT)
    assert heard == [1]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_delivery_raises_is_logged_and_the_next_is_made(
    dispatcher: EventDispatcher, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    def fail() -> None:
        raise error("on purpose")

    submit(dispatcher, lambda: heard.append(1))
    submit(dispatcher, fail)
    submit(dispatcher, lambda: heard.append(2))
    dispatcher.flush(TIMEOUT)
    assert heard == [1, 2]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.name == "latchstore"
    assert record.getMessage() == "the delivery of <a call> was broken off"
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def test_pending_counts_what_waits_and_what_is_under_way(dispatcher: EventDispatcher) -> None:
    slow = Blocking()
    assert dispatcher.pending == 0
    dispatcher.submit(slow)
    dispatcher.ensure_running()
    assert slow.begun.wait(TIMEOUT)
    assert dispatcher.pending == 1
    dispatcher.submit(Call(lambda: None))
    dispatcher.submit(Call(lambda: None))
    assert dispatcher.pending == 3
    slow.let_go.set()
    dispatcher.stop(TIMEOUT)
    assert dispatcher.pending == 0


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
        r"events not heard in 0\.05 s: <a slow one> under way for \d+\.\d{3} s, 2 events pending",
        str(raised.value),
    )
    assert (raised.value.pending, raised.value.listener) == (2, None)
    assert isinstance(raised.value, TimeoutError)
    with pytest.raises(FlushTimeoutError, match=r"events not heard in 0\.05 s: <a slow one> under way"):
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


# -- no thread, no memory --------------------------------------------------------------------------


class NoThreads:
    """The system gives no thread, until it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patches = monkeypatch
        monkeypatch.setattr(threading.Thread, "start", self._refuse)

    @staticmethod
    def _refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def give(self) -> None:
        self._patches.undo()


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> NoThreads:
    return NoThreads(monkeypatch)


class TestWithoutThreads:
    def test_a_write_is_made_and_its_event_waits_for_a_thread(
        self, no_threads: NoThreads, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[tuple[str, threading.Thread]] = []
        store = DictMemoryStore(EventManager())
        store.event_manager.connect(
            StoreSetEvent, lambda event: heard.append((event.key, threading.current_thread()))
        )
        for key in "ab":
            store.from_bytes(key, b"")
        assert [record.getMessage() for record in caplog.records] == [
            "no thread can be started for events; the next write tries again"
        ]
        assert heard == []
        assert store.stats()["events_pending"] == 2
        no_threads.give()
        store.from_bytes("c", b"")
        store.close(TIMEOUT)
        assert [key for key, _ in heard] == ["a", "b", "c"]
        assert threading.current_thread() not in [thread for _, thread in heard]

    @pytest.mark.parametrize("wait", ["flush", "stop"])
    def test_who_waits_for_events_delivers_them(
        self, dispatcher: EventDispatcher, no_threads: NoThreads, wait: str
    ) -> None:
        heard: list[threading.Thread] = []
        refused: list[BaseException] = []

        def listen() -> None:
            heard.append(threading.current_thread())
            try:
                dispatcher.flush(TIMEOUT)
            except DispatcherThreadError as error:
                refused.append(error)

        for _ in range(3):
            submit(dispatcher, listen)
        getattr(dispatcher, wait)(TIMEOUT)
        assert heard == [threading.current_thread()] * 3
        assert len(refused) == 3
        assert not dispatcher.running
        assert dispatcher.pending == 0

    @pytest.mark.usefixtures("no_threads")
    def test_who_waits_for_room_delivers_as_much_as_makes_some(self) -> None:
        heard: list[str] = []
        store = DictMemoryStore(EventManager(), max_pending_events=3, lock_timeout=SHORT)
        store.event_manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
        for number in range(10):
            store.from_bytes(f"k{number}", b"")
        assert store.stats()["events_pending"] <= 3
        store.close(TIMEOUT)
        assert heard == [f"k{number}" for number in range(10)]

    @pytest.mark.usefixtures("no_threads")
    def test_a_flush_that_delivers_ends_in_time(self, dispatcher: EventDispatcher) -> None:
        heard: list[int] = []
        submit(dispatcher, lambda: heard.append(1))
        with pytest.raises(FlushTimeoutError, match=r"^events not heard in 0 s: 1 events pending$"):
            dispatcher.flush(0)
        assert heard == []
        dispatcher.flush(TIMEOUT)
        assert heard == [1]

    def test_nobody_delivers_beside_another_thread(
        self, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even whom the start of the thread has told that there is none."""
        heard: list[int] = []
        begun, go_on = threading.Event(), threading.Event()
        start = threading.Thread.start

        def listen() -> None:
            heard.append(1)
            if len(heard) == 1:
                begun.set()
                assert go_on.wait(TIMEOUT)

        def start_and_fail(thread: threading.Thread) -> None:
            start(thread)
            assert begun.wait(TIMEOUT)
            raise MemoryError

        dispatcher.submit(Call(listen))
        dispatcher.submit(Call(lambda: heard.append(2)))
        monkeypatch.setattr(threading.Thread, "start", start_and_fail)
        with pytest.raises(FlushTimeoutError):
            dispatcher.flush(SHORT)
        assert heard == [1]
        assert dispatcher.thread not in (None, threading.current_thread())
        go_on.set()
        dispatcher.flush(TIMEOUT)
        assert heard == [1, 2]

    def test_timers_wait_for_a_thread(self, dispatcher: EventDispatcher, no_threads: NoThreads) -> None:
        called = threading.Event()
        dispatcher.call_later(0.0, called.set)
        no_threads.give()
        dispatcher.call_later(1e6, print).cancel()
        assert called.wait(TIMEOUT)


def fail_for_memory(*arguments: object, **options: object) -> None:
    raise MemoryError


def fail_to_go_on(patches: pytest.MonkeyPatch) -> None:
    """Have there be no memory for the pause that a thread makes after a MemoryError either."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=fail_for_memory)
    patches.setattr("latchstore.delivery.dispatcher.time", clock)


@pytest.fixture
def bereft(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventDispatcher]:
    """A dispatcher whose thread has died for want of memory, with two deliveries left."""
    dispatcher = EventDispatcher()
    go_on = threading.Event()

    def fail_once() -> None:
        if not go_on.is_set():
            assert go_on.wait(TIMEOUT)
            fail_for_memory()

    submit(dispatcher, fail_once)
    submit(dispatcher, lambda: None)
    thread = dispatcher.thread
    assert thread is not None
    with monkeypatch.context() as patches:
        fail_to_go_on(patches)
        patches.setattr(threading.Thread, "start", fail_for_memory)
        go_on.set()
        thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert not dispatcher.running
    assert dispatcher.pending == 2
    yield dispatcher
    dispatcher.stop(TIMEOUT)
    assert dispatcher.pending == 0


class TestADeadThread:
    def test_is_missed_by_the_next_write(self, bereft: EventDispatcher) -> None:
        heard = threading.Event()
        bereft.submit(Call(heard.set))
        bereft.start_if_needed()
        assert heard.wait(TIMEOUT)

    def test_is_missed_by_a_flush(self, bereft: EventDispatcher) -> None:
        bereft.flush(TIMEOUT)
        assert bereft.pending == 0
        assert bereft.running

    def test_is_missed_by_a_stop(self, bereft: EventDispatcher) -> None:
        bereft.stop(TIMEOUT)
        assert bereft.pending == 0
        assert not bereft.running

    def test_is_missed_by_a_flush_that_has_begun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dispatcher = EventDispatcher()
        tries: list[int] = []

        def fail_once() -> None:
            while not dispatcher.marks:
                time.sleep(0)
            tries.append(1)
            if len(tries) == 1:
                fail_to_go_on(monkeypatch)
                fail_for_memory()
            monkeypatch.undo()

        submit(dispatcher, fail_once)
        dispatcher.flush(TIMEOUT)
        assert len(tries) == 2
        dispatcher.stop(TIMEOUT)


def test_a_start_ends_though_the_new_thread_dies_before_it_has_begun(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = EventDispatcher()
    heard: list[int] = []
    with monkeypatch.context() as patches:
        patches.setattr(sys, "unraisablehook", lambda unraisable: None)
        patches.setattr(threading, "excepthook", lambda arguments: None)
        patches.setattr("latchstore.delivery.threads.START_TIMEOUT", SHORT)
        patches.setattr("latchstore.delivery.threads._StartedEvent.set", fail_for_memory)
        submit(dispatcher, lambda: heard.append(1))
        assert not dispatcher.running
    # A thread that was broken off by the test before may yet tell of that.
    assert [each.levelname for each in caplog.records].count("WARNING") == 1
    dispatcher.flush(TIMEOUT)
    assert heard == [1]
    dispatcher.stop(TIMEOUT)
    forget_stillborn_threads()


def forget_stillborn_threads() -> None:
    """Take away the threads that have died before they had begun: CPython counts them as being started."""
    limbo: dict[threading.Thread, threading.Thread] = threading._limbo  # type: ignore[attr-defined]
    for thread in list(limbo):
        if thread.name == "latchstore-events":
            del limbo[thread]


def test_a_start_that_is_struck_leaves_no_thread_behind() -> None:
    """Wherever the call that starts the thread is struck, the thread is known as one that has started."""
    before = set(threading.enumerate())
    for number in itertools.count(1):
        dispatcher = EventDispatcher()
        heard: list[int] = []
        with Striker(number, KeyboardInterrupt) as striker, suppress(KeyboardInterrupt):
            submit(dispatcher, partial(heard.append, 1))
        submit(dispatcher, partial(heard.append, 2))
        dispatcher.stop(TIMEOUT)
        assert heard[-1] == 2, striker.place
        for thread in set(threading.enumerate()) - before:
            # There is none if the exception, set for this thread, met the new one: until that has begun
            # CPython knows it by the identifier of the thread that has made it.
            if thread.ident is not None:
                thread.join(TIMEOUT)  # raises RuntimeError for one that seems not to have started
                assert not thread.is_alive(), striker.place
        if striker.place is None:
            break
    assert number > 20
    forget_stillborn_threads()


@pytest.mark.parametrize("width", [20, 1000])
def test_memory_that_runs_out_for_a_moment_ends_no_delivery(tmp_path: Path, width: int) -> None:
    """The listener of "b" makes so many allocations fail; what is written afterwards is heard, once."""
    pytest.importorskip("_testcapi")
    script = f"""
        import _testcapi, logging, threading, time
        logging.disable(logging.CRITICAL)
        threading.excepthook = sys.unraisablehook = lambda arguments: None

        def listen(event):
            heard.append(event.key)
            if event.key == "b":
                _testcapi.set_nomemory(n, n + {width})

        for n in range(1, 200, 20):
            store, heard = DictMemoryStore(EventManager()), []
            store.event_manager.connect(StoreSetEvent, listen)
            try:
                store.multiset_data(list("bcdefg"), [b""] * 6)
            except MemoryError:
                pass  # this thread may want some as well
            over = False
            while not over:
                try:
                    time.sleep(0.02)
                    _testcapi.remove_mem_hooks()
                    over = True
                except MemoryError:
                    pass
            store.from_bytes("h", b"")
            store.flush(10)
            store.from_bytes("i", b"")
            store.close(10)
            assert heard[0] == "b" and heard[-2:] == ["h", "i"], heard
            assert len(set(heard)) == len(heard) and heard == sorted(heard), heard
    """
    code, out, err, _ = run_script(script, tmp_path / "heard")
    assert (code, out) == (0, ""), err


# -- the store and its thread ----------------------------------------------------------------------


def events_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "latchstore-events"]


def test_a_store_without_listeners_has_no_thread() -> None:
    before = events_threads()
    store = DictMemoryStore(EventManager())
    store.from_bytes("k", b"")
    with store.transaction():
        store.delete("k")
    store.flush()
    assert events_threads() == before


def test_a_store_that_nobody_uses_is_freed_and_its_thread_ends() -> None:
    heard: list[str] = []
    manager = EventManager()
    manager.connect(StoreSetEvent, lambda event: heard.append(event.key))
    before = events_threads()
    store = DictMemoryStore(manager)
    store.from_bytes("k", b"")
    store.flush()
    (thread,) = [thread for thread in events_threads() if thread not in before]
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert heard == ["k"]


def test_a_store_with_events_on_the_way_lives_until_they_are_heard() -> None:
    heard: list[bytes] = []
    begun, let_go = threading.Event(), threading.Event()

    def listener(event: StoreSetEvent) -> None:
        begun.set()
        assert let_go.wait(TIMEOUT)
        heard.append(event.source.to_bytes(event.key))

    manager = EventManager()
    manager.connect(StoreSetEvent, listener)
    before = events_threads()
    store = DictMemoryStore(manager)
    store.from_bytes("a", b"first")
    store.from_bytes("b", b"second")
    assert begun.wait(TIMEOUT)
    (thread,) = [thread for thread in events_threads() if thread not in before]
    gone = weakref.ref(store)
    del store
    gc.collect()
    let_go.set()
    # In short waits: without the GIL an object that another thread lets go of is freed by the thread that
    # made it, when that runs.
    deadline = time.monotonic() + TIMEOUT
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(0.01)
    assert not thread.is_alive()
    assert heard == [b"first", b"second"]
    gc.collect()
    assert gone() is None


# -- the end of the interpreter -------------------------------------------------------------------

SCRIPT = """
import sys
from latchstore import DictMemoryStore, EventManager, StoreSetEvent
from latchstore.delivery import at_exit

path = sys.argv[1]

def listener(event):
    with open(path, "a", encoding="ascii") as file:
        file.write(event.key + "\\n")

def new_store():
    manager = EventManager()
    manager.connect(StoreSetEvent, listener)
    return DictMemoryStore(manager)

"""


def run_script(script: str, path: Path) -> tuple[int, str, str, list[str]]:
    """Run a script to its end; return its exit code, output, error output and what was heard."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", SCRIPT + textwrap.dedent(script), path],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    heard = path.read_text(encoding="ascii").split() if path.exists() else []
    return done.returncode, done.stdout, done.stderr, heard


KEYS = [f"k{number}" for number in range(500)]


def test_at_exit_everything_is_heard_without_a_flush(tmp_path: Path) -> None:
    script = """
        store = new_store()
        for number in range(500):
            store.from_bytes(f"k{number}", b"")
    """
    assert run_script(script, tmp_path / "heard") == (0, "", "", KEYS)


def test_at_exit_by_an_exception_everything_is_heard(tmp_path: Path) -> None:
    script = """
        store = new_store()
        store.multiset_data([f"k{number}" for number in range(500)], [b""] * 500)
        raise RuntimeError("on purpose")
    """
    code, out, err, heard = run_script(script, tmp_path / "heard")
    assert (code, out, heard) == (1, "", KEYS)
    assert err.splitlines()[-1] == "RuntimeError: on purpose"
    assert err.count("Traceback") == 1


def test_at_exit_by_sys_exit_everything_is_heard(tmp_path: Path) -> None:
    script = """
        store = new_store()
        with store.transaction():
            for number in range(500):
                store.from_bytes(f"k{number}", b"")
        sys.exit(3)
    """
    assert run_script(script, tmp_path / "heard") == (3, "", "", KEYS)


def test_at_exit_several_stores_are_heard(tmp_path: Path) -> None:
    script = """
        stores = [new_store() for _ in range(5)]
        for number in range(500):
            stores[number % 5].from_bytes(f"k{number}", b"")
    """
    code, out, err, heard = run_script(script, tmp_path / "heard")
    assert (code, out, err) == (0, "", "")
    assert sorted(heard) == sorted(KEYS)


def test_at_exit_a_listener_that_never_ends_is_given_up(tmp_path: Path) -> None:
    script = """
        import threading
        at_exit.EXIT_TIMEOUT = 0.05
        store = new_store()
        store.event_manager.connect(StoreSetEvent, lambda event: threading.Event().wait())
        store.from_bytes("k0", b"")
        store.from_bytes("k1", b"")
    """
    code, out, err, heard = run_script(script, tmp_path / "heard")
    assert (code, out, heard) == (0, "", ["k0"])
    assert re.fullmatch(
        r"at exit: events not heard in 0\.\d+ s: listener __main__\.<lambda> has had <StoreSetEvent .*> "
        r"for \d\.\d{3} s, 2 events pending\n",
        err,
    )


@pytest.mark.parametrize("flush", ["store.flush()", "pass"])
def test_at_exit_a_store_that_is_gone_is_not_waited_for(tmp_path: Path, flush: str) -> None:
    script = f"""
        def main():
            store = new_store()
            for number in range(500):
                store.from_bytes(f"k{{number}}", b"")
            {flush}
        main()
    """
    assert run_script(script, tmp_path / "heard") == (0, "", "", KEYS)


def test_a_closed_store_holds_up_nothing(tmp_path: Path) -> None:
    script = """
        with new_store() as store:
            for number in range(500):
                store.from_bytes(f"k{number}", b"")
    """
    assert run_script(script, tmp_path / "heard") == (0, "", "", KEYS)


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
    assert dispatcher.heard_revision == 2
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


# -- who is slow ----------------------------------------------------------------------------------


class Clock:
    """Stands in for the module ``time``."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now


def test_the_slowest_listener_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("latchstore.delivery.calls.time", clock)
    dispatcher = EventDispatcher(listener_name=str)
    for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 2.0), ("d", 3.0)):
        dispatcher.calling = (name, StoreSetEvent(key="k"), clock.now)  # type: ignore[assignment]
        assert dispatcher.describe().startswith(f"listener {name} has had <StoreSetEvent key='k'")
        clock.now += seconds
        assert dispatcher.returned(failed=name == "c") == clock.now
    assert dispatcher.slowest == ("b", 3.0)
    assert dispatcher.listener_errors == 1
    assert dispatcher.describe() == "0 events pending"


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
def test_errors_that_encore_keeps_to_itself_are_not_known(caplog: pytest.LogCaptureFixture) -> None:
    """It logs them; what it lets through is counted and logged here."""
    encore: Any = pytest.importorskip("encore.events.event_manager")
    manager = encore.EventManager()
    store = DictMemoryStore(manager)

    def fail(event: StoreSetEvent) -> None:
        raise {"a": ValueError, "b": SystemExit}[event.key]("on purpose")

    manager.connect(StoreSetEvent, fail)
    store.from_bytes("a", b"")
    store.flush(TIMEOUT)
    assert store.stats()["listener_errors"] == 0
    assert [record.name for record in caplog.records] == ["encore.events.event_manager"]
    store.from_bytes("b", b"")
    store.close(TIMEOUT)
    assert store.stats()["listener_errors"] == 1
    assert store.stats()["events_delivered"] == 2
    assert [record.name for record in caplog.records[1:]] == ["latchstore"]
    slowest = store.stats()["slowest_listener"]
    assert slowest == "encore.events.event_manager.EventManager.emit"
