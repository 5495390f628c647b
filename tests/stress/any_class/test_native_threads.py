"""Schedules of native threads: which locks they use, and what is told of a failure."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from latchstore.stress import Test, operation
from latchstore.stress.testing import exploration

pytestmark = pytest.mark.timeout(300)

_LOCK = threading.Lock()
_RLOCK = threading.RLock()
_TOKENS: queue.SimpleQueue[None] = queue.SimpleQueue()
#: Made when they are first needed, so under a scheduler if that schedule is one.
_LOCKS: dict[str, threading.Lock] = {}


class Counter:
    """Sound; its lock is older than the object."""

    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> int:
        with self.lock():
            value = self.value
            self.value = value + 1
            return value + 1

    def lock(self) -> Any:
        return _LOCK


class CounterOfReentrant(Counter):
    def increment(self) -> int:
        with _RLOCK:
            return super().increment()

    def lock(self) -> Any:
        return _RLOCK


class CounterOfRegistered(Counter):
    def lock(self) -> Any:
        return _LOCKS.setdefault("counter", threading.Lock())


class CounterWithToken(Counter):
    """Who has the token may count."""

    def __init__(self) -> None:
        super().__init__()
        while not _TOKENS.empty():
            _TOKENS.get()
        _TOKENS.put(None)

    def increment(self) -> int:
        _TOKENS.get()
        try:
            return super().increment()
        finally:
            _TOKENS.put(None)


class CounterTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300

    @operation()
    def increment(self, counter: Any) -> int:
        value: int = counter.increment()
        return value


@pytest.mark.parametrize("kind", [Counter, CounterOfReentrant, CounterOfRegistered, CounterWithToken])
def test_locks_older_than_the_object_exclude_native_threads(
    kind: type[Counter], monkeypatch: pytest.MonkeyPatch
) -> None:
    class SoundTest(CounterTest):
        __test__ = False

        def make(self) -> Any:
            return kind()

    monkeypatch.setattr(exploration, "_NATIVE", 2)
    report = SoundTest.run()
    assert report.passed, str(report)
    assert 0 < report.native < report.schedules
    # Afterwards as well, as the code under test may have kept a lock of a schedule.
    lock = kind().lock()
    assert lock.acquire(timeout=10)
    acquired: list[bool] = []
    other = threading.Thread(target=lambda: acquired.append(lock.acquire(blocking=False)))
    other.start()
    other.join()
    assert acquired == [False]
    lock.release()
