"""An exception before any bytecode of any operation leaves the store as before it or as after it.

Every bytecode that the package executes in the calling thread is tried, one after the other, each with a new
store: KeyboardInterrupt, what PyThreadState_SetAsyncExc raises, and MemoryError come at some of them only,
and which these are depends on the version of Python. By default one of twenty is, of those of a cache one of
five hundred, and each of those of short operations; LATCHSTORE_STRIKE_EVERY=1 tries all, as does
``python -m tests.interrupts``, which writes a table.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent
from latchstore.contract.values import Entry
from latchstore.delivery.change_feed import ChangeBuffer, Commit, Interest
from latchstore.engine.locks import ReadWriteLock
from tests.interrupts import Striker, ThreadStriker
from tests.interrupts.exhaustion import KINDS, STRIDE, check, exhaust, outcomes_of, stride_of
from tests.interrupts.locks import wedged
from tests.interrupts.operations import OPERATIONS, TIMEOUT, subject_for


@pytest.fixture(scope="module")
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


# Struck between its opening and the next bytecode, a file is closed by being dropped, which Python warns of.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_before_any_bytecode(
    name: str, other: ThreadPoolExecutor, record_property: Callable[[str, object], None]
) -> None:
    answer = exhaust(name, other, stride_of(name))
    record_property("injected", answer.struck)
    assert answer.damage == []
    # On Python 3.13 four bytecodes of it are ours.
    assert answer.struck >= (3 if name == "disconnect" else 5)


def test_a_watch_reads_each_change_once_though_its_writer_is_struck() -> None:
    """Even if it reads between the writer's first attempt and the second."""
    number = struck = 0
    for options in ((10, False), (2, False), (1, True)):
        while True:
            number += 1
            buffer = ChangeBuffer(Interest("*", {}), *options)
            changes = [(f"k{each}", None, Entry()) for each in range(3)]
            expected = offered(options, changes)
            commit = Commit(1, changes, None)
            striker = Striker(number)
            with contextlib.suppress(KeyboardInterrupt), striker:
                buffer.offer(commit)
            read = taken_from(buffer)
            buffer.offer(commit)
            read += taken_from(buffer)
            if striker.place is None:
                number = 0
                break
            struck += 1
            assert read == expected, striker.place
    assert struck > 300


def offered(options: tuple[int, bool], changes: list[Any]) -> list[Any]:
    buffer = ChangeBuffer(Interest("*", {}), *options)
    buffer.offer(Commit(1, changes, None))
    return taken_from(buffer)


def taken_from(buffer: ChangeBuffer) -> list[Any]:
    found = []
    while (taken := buffer.take(0.0)) is not None:
        found.append(taken)
    return found


# -- the dispatcher's thread ----------------------------------------------------------------------


class Heard:
    """Two listeners that note what they hear."""

    def __init__(self, manager: EventManager) -> None:
        self.by: tuple[list[tuple[int, str]], list[tuple[int, str]]] = ([], [])
        for heard in self.by:
            manager.connect(StoreModificationEvent, functools.partial(self._hear, heard))

    @staticmethod
    def _hear(heard: list[tuple[int, str]], event: Any) -> None:
        heard.append((event.revision, event.key))


def test_an_exception_in_the_dispatchers_thread_loses_and_doubles_no_event(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever strikes it, each listener hears each event once, and another thread goes on."""
    caplog.set_level(logging.CRITICAL + 1)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    told = [(1, "a"), (2, "b"), (2, "c"), (2, "a"), (3, "d"), (4, "e")]
    stride, number, struck = max(1, STRIDE // 2), 1, 0
    while True:
        manager = EventManager()
        store = DictMemoryStore(manager)
        heard = Heard(manager)
        with ThreadStriker(number, "latchstore-events", KINDS[struck % len(KINDS)]) as striker:
            store.from_bytes("a", b"1")
            with store.transaction():
                store.from_bytes("b", b"2")
                store.from_bytes("c", b"2")
                store.delete("a")
            store.from_bytes("d", b"3")
            store.flush(TIMEOUT)
        store.from_bytes("e", b"4")
        store.flush(TIMEOUT)
        assert heard.by == (told, told), striker.place
        assert store.info()["pending_events"] == 0, striker.place
        store.close(TIMEOUT)
        assert not store._dispatcher.running, striker.place
        if striker.place is None:
            break
        struck += 1
        number += stride
    assert struck * stride > 1_000


# -- what really comes ----------------------------------------------------------------------------

#: How many exceptions another thread sets.
SET = int(os.environ.get("LATCHSTORE_SET_EXCEPTIONS", "1000"))


class Struck(BaseException):
    """Set by another thread."""


class Worker:
    """A thread that uses a store, and is struck by exceptions from outside, one at a time."""

    def __init__(self, store: DictMemoryStore) -> None:
        self._store = store
        self.caught = 0
        # Whether what strikes now is caught.
        self.ready = False
        self.over = False
        self.failures: list[BaseException] = []
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.over:
            try:
                self._go_on()
            except Struck:
                self.ready = False
                self.caught += 1
            except BaseException as error:
                self.failures.append(error)
                return

    def _go_on(self) -> None:
        # Not in `_run`: see test_guarded_loops.py.
        while not self.over:
            self.ready = True
            self._work()

    def _work(self) -> None:
        store = self._store
        store.set("one", (b"1", {"kind": "a"}))
        store.multiset(["two", "three"], [(b"2", {"kind": "a"}), (b"3", {"kind": "b"})])
        with store.transaction("worker"):
            store.update_metadata("two", {"kind": "c"})
            store.delete("three")
        with store.snapshot() as view:
            view.to_bytes("two")
        list(store.query(kind="a"))
        for attempt in store.attempts("worker"):
            with attempt as tx:
                tx.from_bytes("four", tx.to_bytes("one"))

    def strike(self) -> bool:
        """Raise `Struck` in it, and wait until that has come; tell whether it has."""
        ident = self.thread.ident
        assert ident is not None
        while not self.ready and not self.failures:
            time.sleep(0)
        before = self.caught
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Struck))
        deadline = time.monotonic() + 0.5
        while self.caught == before and not self.failures:
            time.sleep(0)
            if time.monotonic() > deadline:
                # A finalizer has dropped it, as Python does.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)
                return False
        return not self.failures


@pytest.mark.timeout(300)
def test_exceptions_that_another_thread_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread that works, and waits for another one that writes, too."""
    # What comes in a finalizer goes no further: Python tells of it and drops it.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    manager = EventManager()
    store = DictMemoryStore(manager, indexes=["kind"], lock_timeout=TIMEOUT)
    heard = Heard(manager)
    store.from_bytes("two", b"")
    changes = store.watch(max_buffer=10_000_000)
    worker = Worker(store)
    over = threading.Event()

    def write_too() -> None:
        while not over.is_set():
            with store.transaction("another thread"):
                store.from_bytes("five", b"5")

    other = threading.Thread(target=write_too)
    worker.thread.start()
    other.start()
    try:
        came = sum(worker.strike() for _ in range(SET))
    finally:
        over.set()
        worker.over = True
        other.join(TIMEOUT)
        worker.thread.join(TIMEOUT)
    assert worker.failures == []
    assert not worker.thread.is_alive()
    assert came > SET * 0.9
    store.from_bytes("after", b"")
    store.flush(TIMEOUT)
    store._table.check()
    assert store._latches.writer.claim is None
    assert store.engine.routes == {}
    gc.collect()  # a traceback may hold what was broken off
    info = store.info()
    assert (info["pending_events"], info["snapshots"], info["pinned_entries"]) == (0, 0, 0)
    # Each commit was told of, each change once.
    assert sorted({revision for revision, _ in heard.by[0]}) == list(range(1, info["revision"] + 1))
    assert len(heard.by[0]) == len(set(heard.by[0]))
    assert heard.by[0] == heard.by[1]
    watched: list[Any] = [changes.get(0) for _ in range(len(changes))]
    assert [(event.revision, event.key) for event in watched] == heard.by[0][1:]
    store.close(TIMEOUT)


@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of Unix")
def test_interrupts_by_signals() -> None:
    """KeyboardInterrupt in the main thread, by timers, from another thread and by its own hand."""
    answer = in_process("signals", os.environ.get("LATCHSTORE_SIGNALS", "600"))
    assert answer["interrupts"] > 500
    assert answer["wrong"] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("failures", [1, 2])
def test_memory_that_cannot_be_had(failures: int) -> None:
    """The n-th request for memory fails, and perhaps some after it, for every n."""
    pytest.importorskip("_testcapi", reason="needs the interpreter's own tests")
    answer = in_process("memory", str(failures), str(STRIDE))
    assert answer["wrong"] == []
    assert answer["failed"] * STRIDE > 1_000


def in_process(*words: str) -> Any:
    """Run tests/interrupts/process.py, and return what it says."""
    done = python_module("tests.interrupts.process", *words)
    if (
        done.returncode < 0
        and words[0] == "memory"
        and python_module("tests.interrupts.plain_memory").returncode < 0
    ):
        # What is written in Python cannot crash the interpreter; it does so without any of it as well.
        pytest.skip("this Python crashes when it gets no memory, in a program without a store, too")
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout)


def python_module(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a process of its own."""
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)


# -- no stack left --------------------------------------------------------------------------------


def with_frames_left(left: int, call: Callable[[], object]) -> None:
    """Call something where only so many more calls can be made."""

    def descend(frames: int) -> None:
        if frames > 0:
            descend(frames - 1)
        else:
            call()

    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    descend(sys.getrecursionlimit() - depth - left)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith(("wait", "close"))])
def test_a_stack_that_is_full(name: str, other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the recursion limit each call may fail, the first and the last that an operation makes."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)  # a generator that is dropped
    outcomes = outcomes_of(name)
    failed = 0
    # Of a cache there are many, and each takes its time.
    for left in range(1, 80, 3 if "cache:" in name else 1):
        subject = subject_for(name)
        try:
            with_frames_left(left, functools.partial(OPERATIONS[name], subject))
        except (RecursionError, RuntimeError, ValueError, AssertionError, sqlite3.Error):
            failed += 1
            check(name, subject, other, outcomes)
        else:
            subject.store.close(TIMEOUT)
    # Python 3.12 and newer count no calls of what is written in C, and `disconnect` makes few others.
    few = name == "disconnect" and sys.version_info >= (3, 12)
    assert failed > (1 if "cache:" in name else 2 if few else 3)


# -- locks of others ------------------------------------------------------------------------------


@pytest.mark.parametrize("lock_class", [rwlock.RWLockRead, rwlock.RWLockWrite, rwlock.RWLockFair])
def test_the_librarys_locks_are_accepted(lock_class: Callable[[], Any], other: ThreadPoolExecutor) -> None:
    store = DictMemoryStore(EventManager(), indexes=["kind"], lock_class=lock_class)
    store.multiset(["a", "b"], [(b"1", {"kind": "x"}), (b"2", {})])
    assert other.submit(lambda: list(store.query_keys(kind="x"))).result(TIMEOUT) == ["a"]
    with store.transaction(), store.snapshot() as view:
        store.delete("a")
        assert view.exists("a")
    store.close(TIMEOUT)


def test_exceptions_leave_the_librarys_locks_taken_and_ours_free() -> None:
    """The library says so itself, in its issue 17; ``python -m tests.interrupts.locks`` counts all."""
    assert wedged(ReadWriteLock).wedged == 0
    theirs = wedged(rwlock.RWLockFair)
    assert theirs.wedged > theirs.struck / 10
