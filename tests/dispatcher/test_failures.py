"""No thread can be started, or memory has run out: nothing is lost, and no thread is left behind."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from latchstore import DictMemoryStore, DispatcherThreadError, EventManager, FlushTimeoutError, StoreSetEvent
from latchstore.delivery.dispatcher import EventDispatcher
from tests.dispatcher.calls import SHORT, TIMEOUT, Call, submit
from tests.dispatcher.scripts import run_script
from tests.interrupts.exhaustion import STRIDE
from tests.interrupts.striker import Delivered, Striker


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
            "cannot start the thread that delivers events; the next write tries again"
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
        with pytest.raises(FlushTimeoutError, match=r"^events not delivered in 0 s: 1 events pending$"):
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


def test_a_start_that_is_struck_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the call that starts the thread is struck, the thread is known as one that has started."""
    report = sys.unraisablehook

    def report_others(unraisable: sys.UnraisableHookArgs) -> None:
        # What the striker set for this thread may meet the new one at its first bytecode: see below.
        if not isinstance(unraisable.exc_value, Delivered):
            report(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", report_others)
    before = set(threading.enumerate())
    for number in itertools.count(1, min(STRIDE, 3)):
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
                struck[0] = True  # needs no memory

        for n in range(1, 200, 20):
            store, heard, struck = DictMemoryStore(EventManager()), [], [False]
            store.event_manager.connect(StoreSetEvent, listen)
            try:
                store.multiset_data(list("bcdefg"), [b""] * 6)
            except MemoryError:
                pass  # this thread may want some as well
            over = False
            while not over:
                try:
                    time.sleep(0.02)
                    if struck[0]:  # else the thread of events is late
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
