"""Exceptions, and requests for memory that fail, in the thread that calls listeners.

No event is lost, and none comes twice.
"""

from __future__ import annotations

import ctypes
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent
from tests.interrupts.exhaustion import Count
from tests.interrupts.helper import Wrong, shown
from tests.interrupts.shortage import Attempt
from tests.interrupts.storms import BURSTS, Struck, spin, switching_often
from tests.interrupts.striker import set_exception
from tests.interrupts.subjects import TIMEOUT

#: More requests for memory than the thread makes for the events of `_write`.
REQUESTS = 400

#: Seconds that these events may take; if the listener of the last fails, nobody tells of their end.
LONG_ENOUGH = 0.5

#: How the name of the thread begins.
NAME = "latchstore-events"


def strike_dispatcher(strikes: int, deadline: float, chance: random.Random) -> Count:
    """Set exceptions in the dispatcher's thread of one store; those that are set are counted."""
    count = Count()
    manager = EventManager()
    store = DictMemoryStore(manager)
    # Written in C: a function of Python is struck when it has been called, which is the listener's affair.
    heard: tuple[list[Any], list[Any]] = ([], [])
    for each in heard:
        manager.connect(StoreModificationEvent, each.append)
    watch = store.watch(max_buffer=1_000_000)
    try:
        with switching_often():
            while count.struck < strikes and time.monotonic() < deadline:
                for _ in range(20):
                    _write(store)
                    count.struck += _strike(chance)
                store.flush(TIMEOUT)
                _compare(heard, [watch.get(0) for _ in range(len(watch))])
            if store.info()["pending_events"] != 0:
                raise Wrong("events are pending after a flush")
            store.close(TIMEOUT)
    except Exception as error:
        count.wrong.append(f"dispatcher: {shown(error)}")
    return count


@contextmanager
def delivering() -> Iterator[Attempt]:
    """Give what has requests for memory fail while the thread calls listeners; nobody else asks for any."""
    import _testcapi  # type: ignore[import-not-found]

    def attempt(number: int, failures: int) -> tuple[bool, list[str]]:
        manager = EventManager()
        store = DictMemoryStore(manager)
        # Full, so that it needs no memory for what is appended.
        heard: deque[Any] = deque([None] * 200, 100)
        over: SimpleQueue[object] = SimpleQueue()
        gate = threading.Lock()

        def begin(event: object) -> None:
            with gate:
                _testcapi.set_nomemory(number, number + failures)

        manager.connect(StoreModificationEvent, heard.append)
        manager.connect(StoreModificationEvent, begin, {"key": "begin"})
        manager.connect(StoreModificationEvent, over.put, {"key": "d"})
        watch = store.watch(max_buffer=1_000)
        with gate:
            store.from_bytes("begin", b"")
            _write(store)
        with suppress(Empty):
            over.get(timeout=LONG_ENOUGH)
        _testcapi.remove_mem_hooks()
        try:
            _write(store)
            store.flush(TIMEOUT)
            got = [event for event in heard if event is not None]
            _compare((got, list(got)), [watch.get(0) for _ in range(len(watch))])
            if store.info()["pending_events"] != 0:
                raise Wrong("events are pending after a flush")
            store.close(TIMEOUT)
        except Exception as error:
            return True, [f"dispatcher, request {number} and {failures - 1} more: {shown(error)}"]
        return number <= REQUESTS, []

    yield attempt


def _write(store: DictMemoryStore) -> None:
    store.from_bytes("a", b"1")
    with store.transaction():
        store.from_bytes("b", b"2")
        store.from_bytes("c", b"2")
        store.delete("a")
    store.from_bytes("d", b"3")


def _strike(chance: random.Random) -> int:
    struck = 0
    for _ in range(chance.choice(BURSTS)):
        spin(10 ** chance.uniform(-6, -4))
        for thread in threading.enumerate():
            if thread.name.startswith(NAME):
                struck += set_exception(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Struck))
    return struck


def _compare(heard: tuple[list[Any], list[Any]], events: list[Any]) -> None:
    told = [(event.revision, event.key) for event in events]
    for each in heard:
        got = [(event.revision, event.key) for event in each]
        each.clear()
        if got != told:
            first = next((pair for pair in zip(got, told, strict=False) if pair[0] != pair[1]), None)
            raise Wrong(f"a listener was called with {len(got)} events of {len(told)}, first other: {first}")
